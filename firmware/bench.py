"""What the technician's tool asks of the next start, and of that one alone: a mark in the memory of the chip's clock.

That memory outlives machine.reset() and nothing else: a board that lost power does what it always does.
"""

HOLD = b"tocsin-hold"  # do not run: the tool wants the REPL, and once the firmware runs its watchdog can't be stopped
BENCH = b"tocsin-bench"  # every press is a test alarm
BENCH_MS = 300_000  # so long; then a press is a press again, whatever became of the technician


def take_mark() -> bytes:
    """HOLD, BENCH, or nothing; and from now on it is gone."""
    try:
        from machine import RTC

        memory = RTC().memory
    except (ImportError, AttributeError):
        return b""
    mark = bytes(memory())
    if mark not in (HOLD, BENCH):
        return b""
    memory(b"")
    return mark
