"""Which of a button's stations to try next, and when to look whether the preferred one is back. Pure: time comes in.

The first address is the preferred one. A try that fails, or a session that ends, leads to the next address: the old path
may be the one that swallows everything. A session that lasted elsewhere leads back to the first. While another one
serves, the preferred one is looked at now and then, rarer after each time that it disappointed.
"""

LOOK_MS = 60_000  # first look after so long on another address; then twice as long each time
LONGEST_LOOK_MS = 3_600_000
LASTED_MS = 5000  # a session that was up for this long shows that its station is well


class Route:
    """Addresses 0 to `count` - 1. `at`: the one to try now, or that serves."""

    def __init__(self, count: int) -> None:
        self.at = 0
        self._count = count
        self._look_ms = LOOK_MS
        self._homeward = False

    def ended(self, up_ms: int) -> None:
        """The try or session at `at` is over; it had been up for `up_ms` (0: never)."""
        lasted = up_ms >= LASTED_MS
        if self._homeward:
            self._homeward = False
            self.at = 0
            return
        if self.at == 0 and lasted:
            self._look_ms = LOOK_MS
        self.at = 0 if self.at and lasted else (self.at + 1) % self._count

    def wants_look(self, up_ms: int, urgent: bool) -> bool:
        """Whether to look at the preferred station, the session at `at` being up for `up_ms`."""
        return bool(self.at) and not urgent and up_ms >= self._look_ms

    def looked(self, is_back: bool) -> None:
        """What the look found. If it is back the present session is to be ended, and the preferred one tried."""
        self._look_ms = min(2 * self._look_ms, LONGEST_LOOK_MS)
        self._homeward = is_back


def is_address(text: str) -> bool:
    """Whether `text` is an address in digits, which needs no name server."""
    return ":" in text or all([part.isdigit() for part in text.split(".")])
