"""When a press is a technician's test and not an alarm. In doubt it is an alarm. Pure: time comes in.

Three people must want it: headquarters grants it to one button for some minutes; somebody at the button then makes PRESSES
presses within PATTERN_MS, of which the first is an alarm like any other and the rest belong to it; and an operator closes that
alarm. Only then, and until the grant ends, are presses tests. While any real alarm is open every press is real, so whoever
presses in need, however often, has raised an alarm that somebody at headquarters must look at. A restart ends it.
"""

PRESSES = 5
PATTERN_MS = 10_000
LONGEST_S = 3600

ALARM = 0
JOINS = 1  # a press of the pattern: it belongs to the alarm that the first one raised
TEST = 2

OFF = 0
GRANTED = 1
ON = 2


class Testing:
    """The state of one button, from OFF on."""

    def __init__(self) -> None:
        self._until_ms = 0
        self._is_on = False
        self._presses: list = []  # of the pattern, ms

    def grant(self, until_ms: int) -> None:
        """Headquarters grants it until then."""
        self._until_ms = until_ms
        self._is_on = False
        self._presses = []

    def end(self) -> None:
        """It is over."""
        self.grant(0)

    def state(self, now_ms: int) -> int:
        """OFF, GRANTED or ON."""
        if now_ms >= self._until_ms:
            return OFF
        return ON if self._is_on else GRANTED

    def press(self, now_ms: int, is_open: bool) -> int:
        """What a press is: ALARM, JOINS or TEST. is_open: whether an alarm that is no test is open."""
        state = self.state(now_ms)
        if state == OFF:
            return ALARM
        if state == ON:
            return ALARM if is_open else TEST
        self._presses = [at_ms for at_ms in self._presses if now_ms - at_ms < PATTERN_MS] if is_open else []
        self._presses.append(now_ms)
        self._is_on = len(self._presses) >= PRESSES
        return ALARM if len(self._presses) == 1 else JOINS
