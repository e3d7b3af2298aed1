"""The roll that every task signs: the watchdog is fed only while nobody is missing.

A task that ends, ends the button by itself. One that hangs - it waits for what never comes, or never gives way - would
not be noticed: so each one says at every round when it will be back at the latest. Pure, but for the clock it is given.
"""

GRACE_MS = 5000  # whoever is late: a TLS handshake's arithmetic takes up to 1.2 s, a flash that tidies up as long


class Roll:
    """Who must be back by when; times are those of `clock`."""

    def __init__(self, clock) -> None:
        self._clock = clock
        self._due = {}

    def sign(self, name: str, within_ms: int) -> None:
        """`name` has made progress, and will be back within `within_ms`."""
        self._due[name] = self._clock.ms() + within_ms + GRACE_MS

    def leave(self, name: str) -> None:
        """`name` has done what it was there for."""
        self._due.pop(name, None)

    def missing(self):
        """The name of a task that is not back in time; None while there is none."""
        now_ms = self._clock.ms()
        for name in self._due:
            if now_ms > self._due[name]:
                return name
        return None
