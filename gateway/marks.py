"""Whether a parent's journal still holds what it held before: else what was delivered to it must be delivered again.

A parent whose disk was put back to an earlier state (a backup, a snapshot, a standby that lacked the last seconds)
lacks alarms that it receipted, while gateways take them for delivered and lights are green. So each answer to a
station's heartbeat carries a mark: position and chain of the parent's newest entry, and in which run it was told. The
station keeps a few of them, and each heartbeat asks whether the parent still knows the newest. If it does not, the
station asks for older ones until the parent knows one; whatever was delivered since then is owed again. So is what was
delivered since the newest mark if the parent knows that, but has started anew. Pure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from firmware import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

LACKED, KNOWN, STARTED_ANEW = range(3)  # what a parent says of a mark
CHAIN_BYTES, RUN_BYTES = 8, 4  # of a mark: enough to tell two journals, and two runs, apart
SPARSE = 4  # marks lie apart by no more than this part of their age
SLACK_MS = 60_000  # before a mark: a receipt and an answer may overtake one another


class Mark(NamedTuple):
    """What a parent's journal held. at_ms: when its answer came, UTC of this station; sign: chain and run."""

    at_ms: int
    position: int
    sign: bytes

    @property
    def told(self) -> list[Any]:
        """As a heartbeat asks, and an answer tells."""
        return [self.position, self.sign]


class Due(NamedTuple):
    """What was delivered since then, UTC of this station, is owed again. lacking: because the parent lacks some of it."""

    since_ms: int
    lacking: bool


def read(message: Mapping[int, Any], field: int) -> list[Any] | None:
    """MARK or KNOWN of a message, if it is there and has its form."""
    value = message.get(field)
    if not isinstance(value, list) or len(value) != {wire.MARK: 2, wire.KNOWN: 3}[field]:
        return None
    position, sign = value[:2]
    whole = isinstance(sign, bytes) and len(sign) == CHAIN_BYTES + RUN_BYTES
    return value if whole and type(position) is int and 0 <= position < 1 << 63 else None


class Marks:
    """Of one parent, oldest first. kept: as `text` gave it."""

    def __init__(self, kept: str | None = None) -> None:
        rows = json.loads(kept) if kept else []
        self._marks = [Mark(at_ms, position, bytes.fromhex(sign)) for at_ms, position, sign in rows]
        self.searching = False  # the parent lacks something, and since when is not known: ask again at once

    @property
    def text(self) -> str:
        """To be kept over a restart."""
        return json.dumps([[mark.at_ms, mark.position, mark.sign.hex()] for mark in self._marks])

    @property
    def asked(self) -> list[Any] | None:
        """MARK of the next heartbeat."""
        return self._marks[-1].told if self._marks else None

    def told(self, mark: list[Any], now_ms: int) -> bool:
        """The parent's newest entry, as its answer says at `now_ms`, UTC. Whether it is worth keeping.

        While an older mark is looked for, what the parent holds by now is no mark: it would hide what it lacks.
        """
        if self.searching or self.asked == mark:
            return False
        before = [one for one in self._marks if one.at_ms < now_ms]  # later ones: the clock was set back
        self._marks = [*_thinned(before, now_ms), Mark(now_ms, *mark)]
        return True

    def answered(self, mark: list[Any], says: int) -> Due | None:
        """The answer to the question for `mark`: whether anything is owed again."""
        place = next((number for number, one in enumerate(self._marks) if one.told == mark), None)
        if place is None:
            return None
        if says != LACKED:
            searched, self.searching = self.searching, False
            anew = searched or says == STARTED_ANEW
            return Due(self._marks[place].at_ms - SLACK_MS, searched) if anew else None
        del self._marks[place:]
        self.searching = bool(self._marks)
        return None if self._marks else Due(0, lacking=True)


def _thinned(marks: list[Mark], now_ms: int) -> list[Mark]:
    """The oldest, and of the others as many as leave no greater gap than a part of the age."""
    kept: list[Mark] = []
    for mark, after_ms in zip(marks, [*(one.at_ms for one in marks), now_ms][1:], strict=True):
        if not kept or after_ms - kept[-1].at_ms >= (now_ms - kept[-1].at_ms) // SPARSE:
            kept.append(mark)
    return kept
