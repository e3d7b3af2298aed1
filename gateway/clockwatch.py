"""Notices when somebody sets the clock, or it jumps. Pure.

Nothing here depends on the time of day: deadlines are monotonic, and the journal's order is that of its positions. But
times that people read do, so they should know.
"""

from __future__ import annotations

JUMP_MS = 2_000  # between two looks; a clock that is only slewed drifts by less than 1 ms a second


class ClockWatch:
    """Compares the time of day with the monotonic clock. Look every few seconds at least."""

    def __init__(self) -> None:
        self._ahead_ms: int | None = None

    def look(self, utc_ms: int, monotonic_ms: int) -> int | None:
        """By how much the time of day jumped since the last look, if it did; less than 0: back."""
        before, self._ahead_ms = self._ahead_ms, utc_ms - monotonic_ms
        jumped = 0 if before is None else self._ahead_ms - before
        return jumped if abs(jumped) > JUMP_MS else None
