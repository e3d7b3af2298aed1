"""`make bench-firmware` in short: our client beside one from a registry, or one that loses presses all the same."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from provisioning.pki import Authority
from tests.firmware.clients import __main__ as command
from tests.firmware.clients.measure import OURS, Figures, Outage, Plan, Stand

if TYPE_CHECKING:
    from pathlib import Path

SHORT = Plan(calm=10, presses=20, before=5, down_s=0.5, frozen_s=3.0, patience_s=15.0)


@pytest.mark.timeout(120)
def test_our_client_loses_nothing_and_is_back_in_time(tmp_path: Path) -> None:
    figures = Stand(Authority.create(), tmp_path, OURS, SHORT).figures()
    print(json.dumps(figures.told()))
    assert figures.tls
    for outage in (figures.killed, figures.frozen):
        assert (outage.acknowledged, outage.lost) == (SHORT.presses, 0)
        assert outage.again_s is not None
        assert outage.again_s < 10
    assert figures.dead_link_s is not None
    assert figures.dead_link_s < 5


def test_the_table_has_every_figure_and_an_aim_can_be_missed() -> None:
    good = Outage(acknowledged=100, again_s=0.2, lost=0, copies=2, gap_ms=9)
    bad = Outage(acknowledged=40, again_s=None, lost=60, copies=0, gap_ms=13_000)
    ours = Figures(True, {"p50": 1.0, "p99": 3.0}, 30.0, good, good, 2.3, 9, 500)
    other = Figures(True, {"p50": 41.0, "p99": 44.0}, 11.0, bad, bad, None, 20_000, 200)
    shown = command.table({OURS: ours, "other": other}, {"absent": "no registry has it"})
    assert "| lost | 0 | 60 |" in shown
    assert "| press on a dead link → PUBACK, s | 2.3 | never |" in shown
    assert "Left out: absent: no registry has it." in shown
    assert all(command.aims(ours, [other]).values())
    heavy = dataclasses.replace(other, heap_kb=70.0)
    assert not any(command.aims(heavy, [ours]).values())
