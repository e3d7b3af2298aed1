"""Events on their way to headquarters: a few at a time, sent again until each has its receipt.

Pure. The events themselves stay in flash; here are only the numbers of those that were sent and not receipted. The
window keeps a backlog of hundreds after an outage out of the way of the next press.
"""

SIZE = 8
RESEND_MS = 5000


class Window:
    """(boot, seq) of at most SIZE events in flight, with the time at which each is sent again."""

    def __init__(self) -> None:
        self._due = {}

    def connected(self) -> None:
        """A new connection: everything is sent anew."""
        self._due = {}

    def due(self, waiting: list, now_ms: int) -> list:
        """Which of the events in `waiting`, oldest first, to send now."""
        for number in list(self._due):
            if not waiting or number < waiting[0]:  # it had to make room for newer ones
                del self._due[number]
        late = [number for number in waiting[: 2 * SIZE] if number in self._due and self._due[number] <= now_ms]
        room = SIZE - len(self._due)
        if room > 0:
            late += [number for number in waiting[: 2 * SIZE] if number not in self._due][:room]
        return late

    def sent(self, number: tuple, now_ms: int) -> None:
        """The event was handed to a connection."""
        self._due[number] = now_ms + RESEND_MS

    def done(self, number: tuple) -> None:
        """The event has its receipt, or is given up."""
        self._due.pop(number, None)

    def wait_ms(self, now_ms: int):
        """Milliseconds until the next event is sent again; None when none is in flight."""
        return max(0, min(self._due.values()) - now_ms) if self._due else None
