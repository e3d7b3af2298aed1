"""Which firmware starts: the one that provisioning installed, or an update in one of two folders of the flash.

An update lies in the slot that is not in use, and is started on trial: a few starts, each counted in flash before it
begins, until headquarters has answered it. Whatever it does instead (fail, hang, lose power too often, never reach
headquarters), the next start is that of the firmware before. The record of it is one small file that is replaced as a
whole; damaged or missing, the installed firmware runs. This module is the loader, so the installed one's copy of it is
never updated: what it keeps in the record must stay readable for ever.
"""

import binascii
import json
import sys

from firmware.flash import Flash

INSTALLED = ""
SLOTS = ("slot-a", "slot-b")
TRIES = 3  # starts on trial: a power cut or two are no fault of the update
TRIAL_WATCHDOG_MS = 60_000  # for an update that hangs before it has started a watchdog of its own
RESTART = 70  # EX_SOFTWARE: as a process, "start me again"
LONGEST_WHY = 150  # letters

_RECORD = "slots"


def running() -> str:
    """The slot that this very module was loaded from; INSTALLED if from none."""
    place = __file__.split("/")
    return place[0] if place[0] in SLOTS else INSTALLED


class Back(Exception):  # noqa: N818
    """A trial is over, by the firmware's own judgement: no fault."""


class Slots:
    """The record in the flash.

    confirmed: the slot that starts when nothing is on trial. trial: the one that does meanwhile, or None. tries: how
    often it has been started. newest: the greatest version that was ever confirmed. order: (boot, seq) of the command
    that brought the one on trial, or that was on trial last, until it is answered. why: why that trial ended without
    success; empty while it lasts.
    """

    def __init__(self, flash) -> None:
        self._flash = flash
        self.confirmed, self.trial, self.tries = INSTALLED, None, 0
        self.newest, self.order, self.why = "", None, ""
        octets = flash.read(_RECORD) or b""
        if binascii.crc32(octets[4:]).to_bytes(4, "big") != octets[:4]:
            return
        try:
            confirmed, trial, tries, newest, order, why = json.loads(octets[4:])
        except ValueError:
            return
        self.confirmed, self.trial, self.tries = confirmed, trial, tries
        self.newest, self.order, self.why = newest, tuple(order) if order else None, why

    def _keep(self) -> None:
        record = [self.confirmed, self.trial, self.tries, self.newest, self.order, self.why]
        octets = json.dumps(record).encode()
        self._flash.write(_RECORD, binascii.crc32(octets).to_bytes(4, "big") + octets)

    @property
    def spare(self) -> str:
        """The slot that an update may be written to; one that is on trial there no longer is, once it is cleared."""
        return SLOTS[1] if self.confirmed == SLOTS[0] else SLOTS[0]

    def arm(self, order: tuple) -> None:
        """The spare slot is whole: it is started on trial from the next start on. Raises OSError."""
        self.trial, self.tries, self.order, self.why = self.spare, 0, order, ""
        self._keep()

    def disarm(self) -> None:
        """Nothing is on trial any more, and nobody is told why. Raises OSError."""
        if self.trial is not None:
            self.trial = self.order = None
            self._keep()

    def confirm(self, version: str) -> None:
        """The one on trial has proved itself. Raises OSError."""
        self.confirmed, self.newest = self.trial, version
        self.trial, self.tries = None, 0
        self._keep()

    def fail(self, why: str) -> None:
        """The trial is over: the firmware before it starts from now on. Raises OSError."""
        self.trial, self.why = None, why[:LONGEST_WHY]
        self._keep()

    def told(self) -> None:
        """Headquarters will know how the trial ended: the answer is kept. Raises OSError."""
        self.order, self.why = None, ""
        self._keep()

    def abandon(self, why: str) -> None:
        """The confirmed slot does not start: the installed firmware from now on. Raises OSError."""
        self.confirmed, self.why = INSTALLED, why[:LONGEST_WHY]
        self._keep()

    def choose(self) -> str:
        """What to start now. A start on trial is counted first; where that can't be kept there is none."""
        if self.trial is None:
            return self.confirmed
        alarm = any([name.startswith("a-") for name in self._flash.names()])
        try:
            if self.tries and alarm:
                self.fail("an alarm was open when it started again")
            elif self.tries >= TRIES:
                self.fail("it started %d times and headquarters never answered it" % self.tries)
            elif not alarm:  # else the trial waits: an alarm is for the firmware that is known to work
                self.tries += 1
                self._keep()
                return self.trial
        except OSError:
            pass
        return self.confirmed


def _forget() -> None:
    for name in list(sys.modules):
        if name == "firmware" or name.startswith("firmware."):
            del sys.modules[name]


def _app(slot: str):
    """The firmware in a slot."""
    _forget()
    sys.path.insert(0, slot)
    return __import__("firmware.app", None, None, ["main"])


def _installed():
    """The installed firmware, also after one in a slot did not start."""
    for slot in SLOTS:
        if slot in sys.path:
            sys.path.remove(slot)
            _forget()
    return __import__("firmware.app", None, None, ["main"])


def _guard() -> None:
    """A watchdog, on boards that have one: nothing before the firmware's own could end a start that hangs."""
    try:
        from machine import WDT
    except ImportError:
        return
    WDT(timeout=TRIAL_WATCHDOG_MS)


def _restart() -> None:
    try:
        from machine import reset
    except ImportError:
        sys.exit(RESTART)
    reset()


def start() -> None:
    """Runs the firmware whose turn it is; returns only where a technician wants the prompt."""
    try:
        slots = Slots(Flash("state"))
        slot = slots.choose()
    except OSError:  # the installed firmware says what is wrong with the flash
        slot = INSTALLED
    if slot == INSTALLED:
        _installed().main()
        return
    try:
        if slot == slots.trial:
            _guard()
        _app(slot).main()
    except Exception as problem:  # noqa: BLE001 - whatever an update does, a button must run
        why = "it does not start: %s: %s" % (type(problem).__name__, problem)
        try:
            if slot == slots.trial:
                slots.fail(why)
            else:
                slots.abandon(why)
        except OSError:
            _installed().main()
            return
        _restart()


def crashed(flash, problem) -> None:
    """An error ended this start: if it was one on trial, the trial is over. Raises OSError."""
    slots = Slots(flash)
    if slots.trial is not None and slots.trial == running():
        slots.fail("it failed: %s: %s" % (type(problem).__name__, problem))
