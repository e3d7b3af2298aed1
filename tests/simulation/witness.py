"""What somebody who watches buttons, and knows what headquarters has, says is not as promised.

Every check names its invariant in the text of the ViolationError that it raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from firmware import outbox, window, wire
from firmware.button import BEATS, PROVED_MS
from tests.simulation.engine import Engine, ViolationError

if TYPE_CHECKING:
    from tests.simulation.button import ButtonMachine

Number = tuple[str, int, int]

NEVER_MS = 1 << 60


class Records(Protocol):
    """What headquarters has committed."""

    def has(self, identity: Number) -> bool:
        """Whether a message is there."""

    def stage(self, identity: Number) -> int | None:
        """The newest stage that can be receipted for a message; None if it isn't there."""


class Witness:
    """Sees everything that buttons do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.latched: set[Number] = set()
        self.pressed: set[Number] = set()  # every alarm that ever left a button
        self.lasting: set[Number] = set()  # alarms and events, which are receipted after a commit only
        self.shown: dict[Number, int] = {}
        self.answered: dict[str, int] = {}  # by button: when headquarters last answered a heartbeat

    @property
    def known(self) -> Records:
        """What headquarters has."""
        raise NotImplementedError

    def broken(self, invariant: str, what: str) -> None:
        """Ends the schedule."""
        raise ViolationError(f"{invariant}: {what}")

    def booted(self, machine: ButtonMachine) -> None:
        """A button has read its flash."""
        for alarm in machine.button.latch.alarms:
            number = (machine.name, alarm.boot, alarm.seq)
            self.shown[number] = min(alarm.stage, self.shown.get(number, alarm.stage))
        self.engine.tell(machine.name, f"starts as boot {machine.button.outbox.boot}")

    def published(self, machine: ButtonMachine, lane: str, payload: bytes) -> None:
        """A button hands a message to its connection."""
        if lane in {"alarm", "event"}:
            message = wire.unseal(payload).message
            number = (machine.name, message[wire.BOOT], message[wire.SEQ])
            self.lasting.add(number)
            if lane == "alarm":
                self.pressed.add(number)
                self.engine.tell(machine.name, f"sends alarm {number[1:]}")
        elif lane == "heartbeat" and len(machine.beats) < 4:
            machine.beats.append(payload)

    def said(self, machine: ButtonMachine, what: str, about: tuple[Any, ...], more: dict[str, Any]) -> None:
        """A button tells its board something."""
        if what == "latched":
            number = (machine.name, about[0]["boot"], about[0]["seq"])
            if number in self.latched:
                self.broken("an identity is never used twice", f"{number} was latched before")
            self.latched.add(number)
            self.pressed.add(number)
            self.lasting.add(number)
            self.engine.tell(machine.name, f"has latched {number[1:]}")
        elif what == "alarm":
            number = (machine.name, about[0][0], about[0][1])
            self._shows(number, more["stage"])

    def _shows(self, number: Number, stage: int) -> None:
        self.engine.tell(number[0], f"shows stage {stage} of {number[1:]}")
        if stage <= self.shown.get(number, 0):
            self.broken("no stage goes back", f"{number} went from {self.shown[number]} to {stage}")
        self.shown[number] = stage
        if stage >= wire.AT_HQ:
            true = self.known.stage(number)
            if true is None:
                self.broken("a button shows at_hq only for what headquarters committed", f"{number} shows {stage}")
            elif stage > true:
                self.broken("no stage is skipped", f"{number} shows {stage}, headquarters is at {true}")

    def looked(self, machine: ButtonMachine) -> None:
        """After each message to a button: is the light true?"""
        if machine.button.supervised_for_ms():
            since_ms = self.engine.now - self.answered.get(machine.name, -NEVER_MS)
            if since_ms > PROVED_MS:
                self.broken("a light shows supervised only if headquarters answered within 90 s", f"{machine.name}")
        for alarm in machine.button.latch.alarms:
            if alarm.stage >= wire.AT_HQ and not self.known.has((machine.name, alarm.boot, alarm.seq)):
                self.broken(
                    "a button shows at_hq only for what headquarters committed",
                    f"{machine.name} {alarm.boot} {alarm.seq}",
                )

    def bounded(self, machine: ButtonMachine) -> None:
        """Whether a button's memory is bounded."""
        button = machine.button
        if (
            len(button.window._due) > window.SIZE
            or len(button.latch.alarms) > outbox.MAX_ALARMS
            or button.outbox.waiting > outbox.MAX_EVENTS
            or len(button._beats) > BEATS
            or len(machine.disk.files) > outbox.MAX_ALARMS + outbox.MAX_EVENTS + 5
        ):
            held = (
                f"{len(button.window._due)} messages in the window, {len(button.latch.alarms)} alarms, "
                f"{button.outbox.waiting} events, {len(button._beats)} heartbeats, {len(machine.disk.files)} files"
            )
            self.broken("memory is bounded", f"{machine.name} holds {held}")
