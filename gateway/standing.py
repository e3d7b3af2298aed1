"""How a child stands: what supervision knows of its silence, and what its last heartbeat said of itself, in one word.

Pure. The same word is shown on the console, counted for coverage and told to the parents in the station's digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway.desk import Link
from gateway.vocabulary import LOOPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.supervision import Supervision, Watched

NAMED = {
    Link.LATE: wire.CHILD_LATE,
    Link.OFFLINE: wire.CHILD_OFFLINE,
    Link.FAULTY: wire.CHILD_FAULTY,
    Link.TAMPERED: wire.CHILD_TAMPERED,
}
"""How a digest names a child that is not well."""
BROKEN_LOOPS = {"cut", "shorted", "faulty"}
ROOM = 640  # bytes of a digest: with the rest of the heartbeat and its seal it must fit into an envelope


_UNWRITABLE = {
    False: "its flash can't be written: a press would not survive a power cut",
    True: "its journal can't be written: it passes alarms on but keeps nothing",
}


def standing(
    supervision: Supervision, watched: Watched | None, message: Mapping[int, Any] | None, now_ms: int
) -> tuple[Link, str]:
    """The state of a child, and why in a sentence ("" when it is online). message: its last verified heartbeat."""
    if watched is None or watched.last_ms is None:
        return Link.NEVER_SEEN, "it has not been heard since it was enrolled"
    silent_s = (now_ms - watched.last_ms) // 1000
    if watched.reported:
        through = f"; {watched.via} is silent too" if watched.via and supervision.is_late(watched.via, now_ms) else ""
        return Link.OFFLINE, f"no heartbeat for {silent_s} s{through}"
    if watched.uncertain:
        return Link.LATE, f"{watched.via} has more trouble than it can name, so this one may not be well"
    if supervision.is_late(watched.id, now_ms):
        if watched.gone_ms is not None:
            return Link.LATE, "its connection broke"
        told = watched.said in {wire.CHILD_LATE, wire.CHILD_OFFLINE}
        return Link.LATE, f"{watched.via} does not hear it" if told else f"no heartbeat for {silent_s} s"
    return _by_itself(watched, message or {})


def _by_itself(watched: Watched, message: Mapping[int, Any]) -> tuple[Link, str]:
    loop = LOOPS.get(message.get(wire.LOOP, -1))
    if message.get(wire.TAMPER):
        return Link.TAMPERED, "its enclosure is open"
    if message.get(wire.STORAGE):
        return Link.FAULTY, _UNWRITABLE[watched.station]
    if loop in BROKEN_LOOPS:
        return Link.FAULTY, f"its wire is {loop}"
    if watched.said == wire.CHILD_TAMPERED:
        return Link.TAMPERED, f"{watched.via} says that it was tampered with"
    if watched.said is not None:
        return Link.FAULTY, f"{watched.via} says that it is faulty"
    return Link.ONLINE, ""


def digest(states: Mapping[str, Link], turn: int) -> list[Any]:
    """DIGEST of a heartbeat: [how many more, [[child, state], …]] of the children that are not well.

    Where not all fit, each heartbeat (`turn`) begins with others, so that each is named before long. Who was never
    heard is not named: nobody believes it to be well.
    """
    named = [[child, NAMED[link]] for child, link in sorted(states.items()) if link in NAMED]
    if _fitting(named) < len(named):
        start = turn * _fitting(named) % len(named)
        named = named[start:] + named[:start]
    fitting = _fitting(named)
    return [len(named) - fitting, named[:fitting]]


def _fitting(named: list[list[Any]]) -> int:
    """How many of the first fit."""
    room = ROOM
    for number, (child, _) in enumerate(named[: wire.MAX_NAMED]):
        room -= len(child) + 4
        if room < 0:
            return number
    return min(len(named), wire.MAX_NAMED)
