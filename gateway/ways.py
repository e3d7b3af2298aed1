"""Which of a parent's addresses to try next. Pure. Times: monotonic milliseconds.

Without a connection they are tried in turn, the preferred one first. With one to an address that is not the preferred
one, those before it are tried now and then, beside the connection that stands.
"""

from __future__ import annotations

PAUSE_MS = (1_000, 2_000, 3_000)  # after each round in which no address answered
LOST_MS = 500  # between the loss of a connection and the next try
MOST_TIMES = 8  # how much rarer a preferred address is tried that keeps failing
SETTLED_MS = 60_000  # a connection that stood for so long did not fail at once


class Ways:
    """The addresses of one parent, by number, 0 preferred. again_ms: how often those before the present one are tried."""

    def __init__(self, count: int, again_ms: int) -> None:
        self.on: int | None = None  # the address that is connected
        self._count = count
        self._again_ms = again_ms
        self._times = 1
        self._next = 0
        self._at_ms = 0  # when to try it
        self._rounds = 0
        self._since_ms = 0

    def choose(self, now_ms: int) -> int | None:
        """The address to try now; None: nothing is to be tried."""
        return self._next if self.on != 0 and now_ms >= self._at_ms else None

    def wait_ms(self, now_ms: int) -> int | None:
        """How long until `choose` names one; None: not while the connection stands."""
        return None if self.on == 0 else max(0, self._at_ms - now_ms)

    def failed(self, way: int, now_ms: int) -> None:
        """An address did not answer."""
        self._next = way + 1
        if self.on is None:
            if self._next >= self._count:
                self._next = 0
                self._at_ms = now_ms + PAUSE_MS[min(self._rounds, len(PAUSE_MS) - 1)]
                self._rounds += 1
        elif self._next >= self.on:
            self._times = min(2 * self._times, MOST_TIMES)
            self._rest(now_ms)

    def stands(self, way: int, now_ms: int) -> None:
        """An address is connected."""
        self.on, self._rounds, self._since_ms = way, 0, now_ms
        self._rest(now_ms)

    def lost(self, now_ms: int) -> None:
        """The connection is gone."""
        brief = now_ms - self._since_ms < SETTLED_MS
        self._times = min(2 * self._times, MOST_TIMES) if brief and self.on == 0 else 1
        self.on, self._next, self._at_ms = None, 0, now_ms + LOST_MS

    def _rest(self, now_ms: int) -> None:
        self._next, self._at_ms = 0, now_ms + self._times * self._again_ms
