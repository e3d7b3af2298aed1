"""What the guard sees and hears. Pure: a state in, a pattern out.

One rule above all: the light never promises more than was proved. Steady green and everything after it is shown only
for alarms that headquarters' own sealed receipt has confirmed; with several open alarms the least advanced one counts.

| state | light | means |
|---|---|---|
| rest | short green flash every 3 s | ready: headquarters' own answer is at most 90 s old, and the way to it worked within the last 25 s |
| unsupervised | amber, slow | a press would be kept, but headquarters does not answer |
| fault | amber double flash | a loop is cut, shorted, faulty or tampered with |
| unconfirmed | amber, blinking; red after 10 s without any receipt | pressed; nobody has confirmed it |
| at_gateway | green, quick blinking | the gateway has it, headquarters not yet |
| at_hq | green, steady | headquarters has it |
| acknowledged | green with a short gap every 2 s | an operator has it |
| responding | green with two short gaps every 2 s | a unit is on its way |
| identify | amber and green in turn, for 10 s | headquarters asks: which button is this? No alarm is open |

Red alone is for one thing: an alarm that has reached nobody for NOBODY_MS. The guard must use another way.
The sounder never sounds while an alarm is open: a hold-up alarm is silent. It chirps once a minute in fault or
unsupervised, so that a guard who does not look finds out.
"""

from firmware import wire

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

NOBODY_MS = 10_000
CHIRP_MS = 40
CHIRP_EVERY_MS = 60_000

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
}
_NOBODY = ((RED, 250), (OFF, 250))
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


def steps(name: str, nobody_for_ms: int) -> tuple:
    """The steps of the light `name`; nobody_for_ms: how long the oldest unreceipted alarm has been waiting."""
    if name == UNCONFIRMED and nobody_for_ms >= NOBODY_MS:
        return _NOBODY
    return PATTERNS[name]


def chirps(name: str) -> bool:
    """Whether the sounder chirps, CHIRP_MS long every CHIRP_EVERY_MS."""
    return name in (FAULT, UNSUPERVISED)
