"""How long a silent link is trusted, and how long to wait before the next try. Pure: time is an argument.

A half-open link swallows everything and never fails by itself, so silence is judged: something that the broker must
answer is always on its way soon enough, and an answer that is late ends the link. At rest that takes at most
PING_MS + TRUST_MS (8 s); while an alarm is unconfirmed, URGENT_TRUST_MS (2 s) from the alarm's own sending.
"""

RESOLVE_MS = 1500  # for the address of a name
PING_MS = 3000  # after this long without a word from the broker, ask for one
AGAIN_MS = 1000  # and ask again: each packet that gets through makes TCP repeat at once what was lost before it
TRUST_MS = 5000  # an answer may take this long: over a link that loses much, it is repeated until then
URGENT_PING_MS = 1000
URGENT_TRUST_MS = 2000

FIRST_MS = 250
LONGEST_MS = 4000
URGENT_LONGEST_MS = 500
LASTED_MS = 5000  # a session that was up for this long shows that the broker is well


class Vigil:
    """Judges one link. Times are monotonic milliseconds."""

    def __init__(self, now_ms: int) -> None:
        self._heard_ms = now_ms
        self._said_ms = now_ms
        self._asked_ms: int | None = None  # when the oldest question without an answer was sent
        self._stuck_ms: int | None = None  # since when a packet has been waiting for the socket

    def heard(self, now_ms: int) -> None:
        """Anything came from the broker: the link lives."""
        self._heard_ms = now_ms
        self._asked_ms = None

    def said(self, now_ms: int, asks: bool) -> None:
        """A packet was sent; `asks`: one that the broker must answer."""
        self._said_ms = now_ms
        if asks and self._asked_ms is None:
            self._asked_ms = now_ms

    def stuck(self, now_ms) -> None:
        """The socket takes no more since `now_ms`; None: it does again."""
        self._stuck_ms = now_ms

    def excuse(self, late_ms: int) -> None:
        """We did not listen for `late_ms` (a handshake, a flash write): this time does not count against the link."""
        self._heard_ms += late_ms
        self._said_ms += late_ms
        if self._asked_ms is not None:
            self._asked_ms += late_ms
        if self._stuck_ms is not None:
            self._stuck_ms += late_ms

    def wants_ping(self, now_ms: int, urgent: bool) -> bool:
        """Whether to ask the broker for a sign of life now."""
        if self._stuck_ms is not None:
            return False
        if self._asked_ms is not None:
            return now_ms - self._said_ms >= AGAIN_MS
        # Said, too: the broker keeps its own watch over us (keepalive).
        return now_ms - min(self._heard_ms, self._said_ms) >= (URGENT_PING_MS if urgent else PING_MS)

    def verdict(self, now_ms: int, urgent: bool):
        """Why the link is no longer trusted, in a sentence; None while it is."""
        trust_ms = URGENT_TRUST_MS if urgent else TRUST_MS
        if self._asked_ms is not None and now_ms - self._asked_ms >= trust_ms:
            return "the broker has not answered for %d ms" % (now_ms - self._asked_ms)
        if self._stuck_ms is not None and now_ms - self._stuck_ms >= trust_ms:
            return "the connection has taken nothing for %d ms" % (now_ms - self._stuck_ms)
        return None


class Backoff:
    """The pause before the next try: none, then FIRST_MS, doubled each time up to LONGEST_MS, less a random part."""

    def __init__(self) -> None:
        self._tries = 0

    def ended(self, up_ms: int) -> None:
        """A try ended; it had been up for `up_ms` (0: never)."""
        self._tries = 0 if up_ms >= LASTED_MS else self._tries + 1

    def pause_ms(self, urgent: bool, chance: int) -> int:
        """How long to wait before the next try; chance: a random number from 0 to 255."""
        if not self._tries:
            return 0
        longest_ms = URGENT_LONGEST_MS if urgent else LONGEST_MS
        # From a half to the whole: a hundred buttons must not come back in step after the broker's restart.
        return min(FIRST_MS << min(self._tries - 1, 8), longest_ms) * (256 + chance) // 512
