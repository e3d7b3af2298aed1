"""Which path carries the session, and whether the other one could: the cable first, Wi-Fi beside it.

What decides is pure: times and observations come in, a choice goes out. Both interfaces are up all the time; a connection
takes the one whose address it is bound to (lwIP routes by source first: LWIP_HOOK_IP4_ROUTE_SRC of the ESP-IDF), so nothing
is switched off to change. A path is judged by what a station answers over it, never by its driver, which calls a cable
connected for up to two minutes after it was pulled (micropython#19123).

A path over which nothing answers is left at once; one where something answers wrongly, after STRIKES tries. The spare one is looked at
all the time: does a station accept a connection over it? Headquarters is told before it is needed.
"""

import asyncio

from firmware import wire

CABLE = 0  # the preferred one
RADIO = 1
NAMES = ("the cable", "Wi-Fi")

LOOK_MS = 10_000  # between two looks at the path that does not carry
MISSES = 3  # looks without an answer, one after the other: the path is dead
UNWATCHED_MS = 25_000  # without a look: what was seen before says nothing
STRIKES = 4  # tries that a station, or what poses as one, ended: the other path may lead to the right one
CALM_MS = 30_000  # the cable must have answered every look for so long; twice as long each time that it disappoints
LONGEST_CALM_MS = 3_600_000
WELL_MS = 600_000  # a cable that carried for so long is well again
LASTED_MS = 5_000  # what ended a session that was up for so long had nothing to do with the tries before
STEP_MS = 250

UNKNOWN = 0
READY = 1
DEAD = 2


class Path:
    """What is known of one path. expected: it ought to be there, and its absence is told."""

    def __init__(self, expected: bool) -> None:
        self.expected = expected
        self.address = None  # its own, in digits; None: it has none
        self.why = "it has no address"  # none
        self.state = UNKNOWN
        self.strikes = 0
        self.looked_ms: int | None = None
        self.answers_since_ms: int | None = None  # since when every look had its answer
        self.misses = 0

    def is_unwatched(self, now_ms: int) -> bool:
        """Whether nobody has looked for so long that what was seen before says nothing."""
        return self.looked_ms is None or now_ms - self.looked_ms > UNWATCHED_MS


class Paths:
    """The cable and Wi-Fi. `at`: the one that carries, or is tried next."""

    def __init__(self) -> None:
        self.at = CABLE
        self.paths = [Path(True), Path(False)]
        self.urgent = False  # an alarm is unconfirmed: what works is not left
        self.forced: int | None = None  # the path that must carry, while a network must prove itself
        self.news = []  # (event, path, sentence) to tell headquarters
        self._carried: int | None = None  # the path that the last session took
        self._why = ""  # why the path before was left
        self._calm_ms = CALM_MS
        self._home_ms: int | None = None  # since when the cable carries again
        self._left_well = False  # the cable was left though nothing was wrong with it

    @property
    def spare(self) -> int:
        """The path that does not carry."""
        return CABLE if self.at == RADIO else RADIO

    def address(self):
        """The address to bind the next connection to; None: none."""
        return self.paths[self.at].address

    def seen(self, path: int, address, why: str) -> None:
        """What an interface says of itself: its address, or why it has none."""
        self.paths[path].address = address
        self.paths[path].why = why

    def expect(self, path: int, expected: bool) -> None:
        """Whether a path ought to be there."""
        if not expected:
            self.paths[path].state, self.paths[path].misses = UNKNOWN, 0
        self.paths[path].expected = expected

    # ------------------------------------------------------------------------------------------ the session

    def choose(self, now_ms: int) -> int:
        """The path of the next connection."""
        if self.forced is not None and self.paths[self.forced].address:
            if self.at == CABLE != self.forced:
                self._left_well = True
            self.at = self.forced
            return self.at
        here, other = self.paths[self.at], self.paths[self.spare]
        if other.address and (not here.address or here.strikes >= STRIKES):
            self._leave(now_ms)
        return self.at

    def _leave(self, now_ms: int) -> None:
        left = self.paths[self.at]
        if not left.address:
            self._why = left.why
        if self.at == CABLE:
            was_well = self._home_ms is None or now_ms - self._home_ms >= WELL_MS
            self._calm_ms = CALM_MS if was_well else min(2 * self._calm_ms, LONGEST_CALM_MS)
            self._left_well = False
        left.state, left.misses = DEAD, MISSES  # the event that tells of the change says this, too
        left.strikes = 0
        left.answers_since_ms = None
        left.looked_ms = now_ms
        self.at = self.spare
        self.paths[self.at].strikes = 0

    def came_up(self, now_ms: int) -> None:
        """The session is up."""
        if self.at == CABLE and self._carried == RADIO:
            self._home_ms = now_ms
        if self._carried is not None and self._carried != self.at:
            self.news.append((wire.PATH_CHANGED, self.at, self._why))
        self._carried = self.at
        self.paths[self.at].state = READY
        self.paths[self.at].misses = 0

    def ended(self, up_ms: int, answered: bool, hold: bool, why: str) -> None:
        """A try or session is over, and nobody here wanted that; it had been up for `up_ms` (0: never).

        answered: something at the other end said so; nothing did if not. hold: stay on this path for one more try, so that
        in the end every address is tried over both.
        """
        here = self.paths[self.at]
        if up_ms >= LASTED_MS:
            here.strikes = 0
        here.strikes = 0 if hold else here.strikes + (1 if answered else STRIKES)
        self._why = why

    def change(self, now_ms: int):
        """The path to change to now, in good order; None: stay."""
        if self.forced is not None:
            return self.forced if self.at != self.forced and self.paths[self.forced].address else None
        cable = self.paths[CABLE]
        if self.at == CABLE or self.urgent or not cable.address:
            return None
        since_ms = cable.answers_since_ms
        is_calm = since_ms is not None and now_ms - since_ms >= self._calm_ms and not cable.is_unwatched(now_ms)
        return CABLE if is_calm or self._left_well else None

    def changed(self, path: int) -> None:
        """The session was ended in order to take this path."""
        if path != CABLE:
            self._why = "a new network is tried"
        else:
            self._why = "the trial is over" if self._left_well else "it answers again"
        self._left_well = path != CABLE
        self.at = path
        self.paths[path].strikes = 0

    # -------------------------------------------------------------------------------------------- the spare

    def look(self, now_ms: int):
        """The path to look at now; None: none."""
        spare = self.paths[self.spare]
        if self.urgent or not spare.expected:
            return None
        due = spare.looked_ms is None or now_ms - spare.looked_ms >= LOOK_MS
        return self.spare if due else None

    def looked(self, path: int, now_ms: int, answers: bool) -> None:
        """What a look found; without an address there is nothing to look with, and it found nothing."""
        one = self.paths[path]
        was_unwatched = one.is_unwatched(now_ms)
        one.looked_ms = now_ms
        if path == self.at:
            return
        if answers:
            one.misses = 0
            if one.answers_since_ms is None or was_unwatched:
                one.answers_since_ms = now_ms
            if one.state == DEAD:
                self.news.append((wire.SPARE_BACK, path, ""))
            one.state = READY
            return
        one.answers_since_ms = None
        one.misses = min(one.misses + 1, MISSES)
        if one.misses == MISSES and one.state != DEAD:
            one.state = DEAD
            self.news.append((wire.SPARE_LOST, path, "no station answers over it" if one.address else one.why))

    def answered_for_ms(self, path: int, now_ms: int):
        """How long every look at a path had its answer; None: the last had none."""
        since_ms = self.paths[path].answers_since_ms
        return None if since_ms is None else now_ms - since_ms

    def told(self) -> tuple:
        """PATH and SPARE of a heartbeat: which path carries, and how the other one is; None: not known yet."""
        spare = self.paths[self.spare]
        if not spare.expected:
            return self.at + 1, wire.NO_SPARE
        return self.at + 1, (None, wire.SPARE_READY, wire.SPARE_DEAD)[spare.state]


# ---------------------------------------------------------------------------------------------- the edge


def address_of(interface):
    """The address of a network.LAN or network.WLAN, in digits; None while it has none."""
    try:
        address = interface.ifconfig()[0]
    except (OSError, ValueError):
        return None
    return None if address == "0.0.0.0" else address  # noqa: S104 - no address is meant


async def run(paths: Paths, lan, radio, chooser, button, roll) -> None:
    """Looks at the interfaces and tells headquarters the news, for ever."""
    while True:
        roll.sign("paths", STEP_MS)
        paths.urgent = bool(button.latch.unconfirmed())
        paths.seen(CABLE, address_of(lan), "it has no address")
        if radio:
            paths.expect(RADIO, bool(chooser.known.networks))
            paths.seen(RADIO, radio.address(), radio.status())
            paths.forced = RADIO if chooser.on_trial and radio.address() else None
        while paths.news:
            event, path, why = paths.news.pop(0)
            button.add_event(button.clock.ms(), event, NAMES[path], why or None)
            button.board.tell("path", NAMES[path], event=event, why=why)
        await asyncio.sleep_ms(STEP_MS)
