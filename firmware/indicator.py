"""What the guard sees and hears. Pure: a state in, a pattern out.

One rule above all: the light never promises more than was proved. Steady green and everything after it is shown only
for alarms that headquarters' own sealed receipt has confirmed; with several open alarms the least advanced one counts.

The table of all lights and sounds, which the tests hold against this file: docs/firmware.md.

Red alone is for one thing: an alarm that has reached nobody for NOBODY_MS. The guard must use another way.
Three manners, by provisioning: "visible" says everything by light; "silent" changes the light so little that nobody
notices who does not know what to look for; "audible" is visible and counts receipts in short tones. While an alarm is open
the sounder is mute in the first two. It chirps once a minute in fault, unsupervised or under test in all of them, so that a guard who
does not look finds out.
"""

from firmware import settings, wire

OFF = "off"
GREEN = "green"
AMBER = "amber"
RED = "red"

REST = "rest"
UNSUPERVISED = "unsupervised"
FAULT = "fault"
UNCONFIRMED = "unconfirmed"
GATEWAY = "at_gateway"
HQ = "at_hq"
ACKNOWLEDGED = "acknowledged"
RESPONDING = "responding"
IDENTIFY = "identify"
TEST = "under_test"

NOBODY_MS = 10_000
NOBODY_EVERY_MS = 2_000
CHIRP_EVERY_MS = 60_000
LAMPS = (RED, AMBER, GREEN)  # the lamp test, after power came
LAMP_MS = 300

# (light, ms), in turn and over again; a single step is steady.
PATTERNS = {
    REST: ((GREEN, 80), (OFF, 2920)),
    UNSUPERVISED: ((AMBER, 500), (OFF, 1500)),
    FAULT: ((AMBER, 120), (OFF, 180), (AMBER, 120), (OFF, 1580)),
    UNCONFIRMED: ((AMBER, 250), (OFF, 250)),
    GATEWAY: ((GREEN, 125), (OFF, 125)),
    HQ: ((GREEN, 60_000),),
    ACKNOWLEDGED: ((GREEN, 1800), (OFF, 200)),
    RESPONDING: ((GREEN, 1400), (OFF, 200), (GREEN, 200), (OFF, 200)),
    IDENTIFY: ((AMBER, 250), (GREEN, 250)),
    TEST: ((AMBER, 900), (OFF, 150), (GREEN, 150), (OFF, 150), (GREEN, 150), (OFF, 150)),
}
TEST_MARK = ((AMBER, 70), (OFF, 130), (AMBER, 70), (OFF, 130), (AMBER, 70), (OFF, 330))
MARKED_MS = 3000  # a steady light behind the mark
_NOBODY = ((RED, 250), (OFF, 250))

# Silent: from outside it is the resting light, or none. The guard who looks counts the flashes: one more for each stage.
# Nobody has it: a short amber flash in the dark; never a green one.
SILENT_PATTERNS = {
    UNCONFIRMED: ((OFF, 3000),),
    GATEWAY: ((OFF, 3000),),
    HQ: ((GREEN, 80), (OFF, 220), (GREEN, 80), (OFF, 2620)),
    ACKNOWLEDGED: ((GREEN, 80), (OFF, 220), (GREEN, 80), (OFF, 220), (GREEN, 80), (OFF, 2320)),
    RESPONDING: ((GREEN, 80), (OFF, 220), (GREEN, 80), (OFF, 220), (GREEN, 80), (OFF, 220), (GREEN, 80), (OFF, 2020)),
}
_SILENT_NOBODY = ((AMBER, 40), (OFF, 2960))

# Sounds: (sounder on, ms), played once.
CHIRP = ((True, 40),)
CALL = ((True, 400),)  # every NOBODY_EVERY_MS while nobody has it
_TONE = ((True, 90), (False, 110))
SOUNDS = {UNCONFIRMED: _TONE, HQ: _TONE * 2, ACKNOWLEDGED: _TONE * 3, RESPONDING: _TONE * 4}
_STAGES = {
    wire.AT_GATEWAY: GATEWAY,
    wire.AT_HQ: HQ,
    wire.ACKNOWLEDGED: ACKNOWLEDGED,
    wire.RESPONDING: RESPONDING,
}


def state(least_stage, fault: bool, supervised: bool) -> str:
    """The name of the light for the least advanced open alarm's stage (None: no alarm is open)."""
    if least_stage is not None:
        return _STAGES.get(least_stage, UNCONFIRMED)
    if fault:
        return FAULT
    return REST if supervised else UNSUPERVISED


def steps(name: str, nobody_for_ms: int, signal: str = settings.VISIBLE) -> tuple:
    """The steps of the light `name`; nobody_for_ms: how long the oldest unreceipted alarm has been waiting."""
    silent = signal == settings.SILENT
    if name == UNCONFIRMED and nobody_for_ms >= NOBODY_MS:
        return _SILENT_NOBODY if silent else _NOBODY
    return SILENT_PATTERNS.get(name, PATTERNS[name]) if silent else PATTERNS[name]


def marked(steps: tuple) -> tuple:
    """The steps of a test alarm's light, in every manner: three short amber flashes before each round."""
    return TEST_MARK + tuple([(colour, min(ms, MARKED_MS)) for colour, ms in steps])


def sound(name: str, signal: str) -> tuple:
    """What is played once when the light becomes `name`."""
    return SOUNDS.get(name, ()) if signal == settings.AUDIBLE else ()


def calls(name: str, nobody_for_ms: int, signal: str) -> bool:
    """Whether the sounder calls, every NOBODY_EVERY_MS: an audible button's alarm has reached nobody."""
    return signal == settings.AUDIBLE and name == UNCONFIRMED and nobody_for_ms >= NOBODY_MS


def chirps(name: str) -> bool:
    """Whether the sounder chirps once every CHIRP_EVERY_MS."""
    return name in (FAULT, UNSUPERVISED, TEST)
