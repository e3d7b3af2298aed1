"""A board to work on."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The board's root, which is where the test works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
