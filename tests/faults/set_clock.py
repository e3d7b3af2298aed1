"""Runs a station whose time of day is ahead by what a file says, in seconds: its clock can be set while it runs.

python -m tests.faults.set_clock FILE station --config …
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

LOOK_S = 0.05

file = Path(sys.argv.pop(1))
_time, _time_ns, _monotonic = time.time, time.time_ns, time.monotonic
_looked_s, _ahead_s = 0.0, 0


def ahead_s() -> int:
    """By how much now."""
    global _looked_s, _ahead_s  # noqa: PLW0603
    if _monotonic() - _looked_s > LOOK_S:
        _looked_s, _ahead_s = _monotonic(), int(file.read_text() or 0)
    return _ahead_s


time.time = lambda: _time() + ahead_s()
time.time_ns = lambda: _time_ns() + ahead_s() * 1_000_000_000

from gateway.cli import app  # noqa: E402

app()
