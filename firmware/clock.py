"""Milliseconds since start that never wrap: MicroPython's tick counter does, after 12 days on a 32-bit chip."""

import time

_REBASE_MS = 3_600_000


class Clock:
    """Monotonic milliseconds since it was made, read by tasks and by the sampling timer alike."""

    def __init__(self) -> None:
        # One tuple, replaced as a whole: the sampling timer may interrupt a reader anywhere.
        self._base = (0, time.ticks_ms())

    def ms(self) -> int:
        """Now."""
        ms, ticks = self._base
        return ms + time.ticks_diff(time.ticks_ms(), ticks)

    def advance(self) -> int:
        """Now; called by the sampling timer alone, which so keeps the clock from wrapping."""
        ms, ticks = self._base
        now = time.ticks_ms()
        elapsed = time.ticks_diff(now, ticks)
        if elapsed > _REBASE_MS:
            self._base = (ms + elapsed, now)
        return ms + elapsed
