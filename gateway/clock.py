"""The one place that a station's decisions get their time from, so that a simulated clock can stand in for it."""

from __future__ import annotations

import time


def utc_ms() -> int:
    """UTC in milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1_000_000


class Clock:
    """The machine's clocks."""

    def utc_ms(self) -> int:
        """UTC in milliseconds."""
        return utc_ms()

    def monotonic_ms(self) -> int:
        """Milliseconds of a clock that nobody sets."""
        return monotonic_ms()
