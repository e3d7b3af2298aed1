"""Memory does not grow: a short run of `make endure`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.firmware import endure

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


def test_heartbeats_cost_no_memory(tmp_path: Path) -> None:
    result = endure.heartbeats(10_000, tmp_path / "button")
    print(result)
    assert (result["events"], result["alarms"]) == (20, 2)
    assert result["grown"] <= endure.MOST_GROWN
    assert result["files"] == 2  # the boot counters
    assert max(result["longest"]) < 200


def test_reconnects_cost_no_memory(tmp_path: Path) -> None:
    result = endure.reconnects(50, tmp_path)
    print(result)
    assert result["grown"] <= endure.MOST_GROWN
    assert result["grown_process_kb"] <= endure.MOST_GROWN_PROCESS_KB
