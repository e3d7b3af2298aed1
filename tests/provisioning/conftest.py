"""A board on a cable, for every test that needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.provisioning.virtual_board import VirtualBoard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[VirtualBoard]:
    """A bare board with MicroPython, plugged in and booting."""
    with VirtualBoard(tmp_path / "chip", boot_s=0.05) as board:
        yield board
