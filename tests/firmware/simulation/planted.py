"""Bugs that the firmware's simulator must find: those of the whole system's that are the button's, and more of a session's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmware import mqtt, route, vigil
from firmware.outbox import Outbox
from tests.firmware.simulation import schedules
from tests.firmware.simulation.machine import session
from tests.simulation import planted, seals
from tests.simulation.planted import Planted

if TYPE_CHECKING:
    from tests.simulation.schedules import Result

WITHIN = 5_000  # schedules of its kind that a bug may survive

SHARED = (
    "torn write",
    "alarm not kept",
    "receipt of another alarm",
    "stage goes back",
    "resending stops too soon",
    "dropped after stage 1",
    "resending never",
    "counter reused",
    "window unbounded",
    "bare receipt believed",
)


def caught(bug: Planted, *, within: int = WITHIN) -> Result | None:
    """The first schedule that finds the bug; None: none did."""
    with bug.planted():
        for seed in range(within):
            result = schedules.run(seed, kind=bug.kind)
            if result.violation:
                return result
    return None


def _any_seal(_sealed_with: Any) -> Any:
    return lambda _self, _key: True


def _trusts(_verdict: Any) -> Any:
    return lambda _self, _now_ms, _urgent: None


def _waits(judge: Any) -> Any:
    def patient(self: Any, now_ms: int, late_ms: int) -> None:
        if self._vigil is not None:
            judge(self, now_ms, late_ms)

    return patient


def _forgets_rest(_keep_rest: Any) -> Any:
    return lambda _self, _octets, _sent: None


def _interrupts(write: Any) -> Any:
    def hasty(self: Any, octets: bytes, asks: bool) -> bool:
        self._rest = None
        done: bool = write(self, octets, asks)
        return done

    return hasty


def _keeps_octets(_clear: Any) -> Any:
    return lambda _self: None


def _stays(_ended: Any) -> Any:
    return lambda _self, _up_ms: None


def _loses_count(_drop: Any) -> Any:
    def drop(self: Outbox) -> tuple[int, int]:
        number: tuple[int, int] = self.events[0]
        self.remove_event(number)
        return number

    return drop


PLANTED = (
    *(next(bug for bug in planted.PLANTED if bug.name == name) for name in SHARED),
    Planted("any seal", "a receipt's MAC is not looked at", seals._Sealed, "sealed_with", _any_seal),
    Planted("trust without end", "a silent link is never distrusted", vigil.Vigil, "verdict", _trusts),
    Planted("opening without end", "nothing bounds a handshake", session.Session, "_judge", _waits),
    Planted("rest forgotten", "of a packet only what the socket took", session.Session, "_keep_rest", _forgets_rest),
    Planted("packet interrupted", "another packet in the middle of one", session.Session, "_write", _interrupts),
    Planted("octets kept", "half a packet of the last connection stays", mqtt.Inbox, "clear", _keeps_octets),
    Planted("one station only", "a dead station is tried for ever", route.Route, "ended", _stays),
    Planted("drops uncounted", "events make room and nobody is told", Outbox, "_drop_oldest", _loses_count, "long"),
)
