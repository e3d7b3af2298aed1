"""What a reading of the button loop means: rest, pressed, cut, shorted, faulty. And of the tamper loop.

Two loops run to the button: A over a normally closed contact (rest LOW, pressed HIGH), B over a normally open one (rest
HIGH, pressed LOW). A press is believed from either, so that one broken wire never costs an alarm; a wire that is not
in order is said so, on the loop that it belongs to. Pure: readings and their times come in, changes go out.

A reading is the ratio of loop voltage to rail voltage in per mille. Where the thresholds lie and how much guard they
keep in the worst case: hardware/loop.yaml, held against this file by tests/hardware.
"""

SHORT_LOW = 202
LOW_HIGH = 476
HIGH_OPEN = 753
TAMPER_SHORT = 162
TAMPER_OPEN = 622

# Bands of one loop.
SHORT = 0
LOW = 1
HIGH = 2
OPEN = 3

# A loop's line.
FINE = "fine"
CUT = "cut"
SHORTED = "shorted"
FAULTY = "faulty"  # the other contact says pressed and this one does not

# Which contacts say pressed.
NEITHER = 0
A = 1
B = 2
BOTH = 3

# How long a new state must last without a break before it is believed, ms. Samples come every 10 ms, so a press of
# 100 ms is seen on at least nine of them and a glitch of 40 ms spans at most 40 ms. EN 50131-3 asks for changes of
# 400 ms and more.
PRESS_MS = 45
RELEASE_MS = 100
LINE_MS = 300
FAULTY_MS = 1000  # the two contacts of a button that is pressed slowly do not move together
SAMPLES = 3  # at least so many readings, so that two glitches around a pause in sampling do not make a press


def band(permille: int) -> int:
    """SHORT, LOW, HIGH or OPEN."""
    if permille < SHORT_LOW:
        return SHORT
    if permille < LOW_HIGH:
        return LOW
    if permille <= HIGH_OPEN:
        return HIGH
    return OPEN


def classify(a: int, b: int) -> tuple:
    """(which contacts say pressed, line of A, line of B) for the bands of the two loops at one moment."""
    a_pressed = a == HIGH
    b_pressed = b == LOW
    pressed = (A if a_pressed else NEITHER) | (B if b_pressed else NEITHER)
    return pressed, _line(a, b_pressed and not a_pressed), _line(b, a_pressed and not b_pressed)


def _line(reading: int, disagrees: bool) -> str:
    if reading == OPEN:
        return CUT
    if reading == SHORT:
        return SHORTED
    return FAULTY if disagrees else FINE


def tamper_line(permille: int) -> str:
    """FINE, CUT or SHORTED: the tamper loop runs over the cover's switch and the cable's shield."""
    if permille < TAMPER_SHORT:
        return SHORTED
    return CUT if permille > TAMPER_OPEN else FINE


class Steady:
    """A value that changes only once a new one was seen without a break for long enough."""

    def __init__(self, value) -> None:
        self.value = value
        self.since = 0  # when the newest value was first seen, ms
        self._new = value
        self._seen = 0

    def see(self, value, now_ms: int, hold_ms: int) -> bool:
        """Takes in what was read at `now_ms`; whether the steady value changed by it."""
        if value == self.value:
            self._new = value
            return False
        if value != self._new:
            self._new = value
            self.since = now_ms
            self._seen = 0
        self._seen += 1
        if self._seen < SAMPLES or now_ms - self.since < hold_ms:
            return False
        self.value = value
        return True


_NOTHING = ()


class Loops:
    """The three loops over time, one sample after another.

    absent: "A" or "B", the loop of a contact that this button does not have: what it reads means nothing.
    """

    def __init__(self, absent=None) -> None:
        self._absent = absent
        self.began_ms: int | None = None  # when the first sample was taken
        self.contacts = NEITHER  # that said pressed when the press was believed
        self._pressed = Steady(False)
        self._said = NEITHER
        self._lines = {"A": Steady(FINE), "B": Steady(FINE)}
        self._tamper = Steady(FINE)

    @property
    def pressed(self) -> bool:
        """Whether the button is pressed, or was and has not come back to rest yet."""
        return self._pressed.value

    @property
    def since(self) -> int:
        """When the contacts' newest reading was first seen, ms."""
        return self._pressed.since

    @property
    def tampered(self) -> bool:
        """Whether the tamper loop is cut or shorted."""
        return self.tamper() != FINE

    def tamper(self) -> str:
        """FINE, CUT or SHORTED: the tamper loop."""
        return self._tamper.value

    def line(self, loop: str) -> str:
        """The line of loop "A" or "B"."""
        return self._lines[loop].value

    def worst(self) -> str:
        """The worse of the two lines."""
        for line in (CUT, SHORTED, FAULTY):
            if line in (self.line("A"), self.line("B")):
                return line
        return FINE

    def sample(self, now_ms: int, a: int, b: int, tamper: int) -> tuple:
        """Takes in three readings in per mille; the changes that they complete.

        A change is (what, about, since): ("pressed", contacts, ms of the first reading that said so),
        ("released", 0, ms), ("line", "A" or "B", ms), ("tamper", line, ms).
        """
        if self.began_ms is None:
            self.began_ms = now_ms
        band_a = LOW if self._absent == "A" else band(a)  # at rest, for ever
        band_b = HIGH if self._absent == "B" else band(b)
        contacts, line_a, line_b = classify(band_a, band_b)
        if self._absent == "A":
            line_a = FINE
        elif self._absent == "B":
            line_b = FINE
        changes = _NOTHING  # type: tuple
        if self._press(contacts, now_ms):
            changes += (("pressed" if self.pressed else "released", self.contacts, self._pressed.since),)
        for loop, line in (("A", line_a), ("B", line_b)):
            steady = self._lines[loop]
            hold = FAULTY_MS if line == FAULTY else LINE_MS
            if steady.see(line, now_ms, hold):
                changes += (("line", loop, steady.since),)
        if self._tamper.see(tamper_line(tamper), now_ms, LINE_MS):
            changes += (("tamper", self._tamper.value, self._tamper.since),)
        return changes

    def _press(self, contacts: int, now_ms: int) -> bool:
        says = contacts != NEITHER
        if says and not self.pressed:
            # One contact moves a few milliseconds before the other: both count that spoke during the same movement.
            self._said |= contacts
        elif not says:
            self._said = NEITHER
        changed = self._pressed.see(says, now_ms, PRESS_MS if says else RELEASE_MS)
        if changed:
            self.contacts = self._said
        return changed
