"""Which heartbeats of children go up to a parent verbatim: those that say something new, and one a minute of the rest.

The station's own heartbeat says the rest (supervision's digest). A parent believes that digest no longer than it has
a child's own signature, so each child's newest heartbeat goes up at least once a minute, each at a moment of its own.
Pure: monotonic milliseconds come in as arguments. One object for each parent; all parents get the same.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmware import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

PASS_MS = 50_000  # the longest pause; with the 5 s to the next heartbeat, less than a minute
SPREAD_MS = 15_000  # by so much a pause may be shorter, so that children which came together drift apart
BUSY_MS = 10_000  # while an alarm is on the button's light or something is unsent: lost receipts are repeated at these
UNANSWERED_MS = (
    10_000  # headquarters answers each; one without an answer is followed by the next so soon, later doubled
)
BATTERY_STEP_MV = 100
MATTERS = (
    wire.BOOT, wire.LOOP, wire.TAMPER, wire.STORAGE, wire.SUPPLY, wire.PENDING, wire.SHOWN, wire.REFUSED, wire.FIRMWARE,
    wire.PATH, wire.SPARE, wire.TESTING,
)  # fmt: skip
WANTS = 0.05  # of such a time: what a heartbeat counts that asks for pieces of an update, and needs no other reason
BURST, REFILL_MS = 6, 10_000  # a child whose state flutters is passed on six times at once, then every 10 s


@dataclass(slots=True)
class _Passed:
    """What a parent was last sent of one child. number: of that heartbeat; None once it is answered."""

    message: Mapping[int, Any]
    at_ms: int
    due_ms: int
    number: tuple[int, int] | None
    unanswered: int  # in a row
    allowed: float


class Passing:
    """What one parent was sent, and what it should be sent."""

    def __init__(self) -> None:
        self._passed: dict[str, _Passed] = {}

    def connected(self) -> None:
        """A new connection to the parent: the next heartbeat of every child goes up at once."""
        self._passed.clear()

    def answered(self, child: str, number: tuple[int, int]) -> None:
        """The parent's own answer to a child's heartbeat of that (boot, seq) came through."""
        known = self._passed.get(child)
        if known and known.number == number:
            known.number, known.unanswered = None, 0
            known.due_ms = known.at_ms + _pause_ms(child, known.message)

    def passes(self, child: str, message: Mapping[int, Any], now_ms: int, *, afresh: bool) -> bool:
        """Whether this heartbeat goes up; it counts as sent. afresh: the first of a connection, or after silence."""
        known = self._passed.get(child)
        unanswered, allowed = 0, float(BURST)
        wants = wire.WANTED in message
        cost = WANTS if wants else 1
        if known:
            allowed = min(BURST, known.allowed + (now_ms - known.at_ms) / REFILL_MS)
            says_something = afresh or now_ms >= known.due_ms or _differs(known.message, message)
            if allowed < cost or not (wants or says_something):
                return False
            unanswered = known.unanswered
        number = message[wire.BOOT], message[wire.SEQ]
        pause_ms = min(_pause_ms(child, message), UNANSWERED_MS << min(unanswered, 8))
        self._passed[child] = _Passed(message, now_ms, now_ms + pause_ms, number, unanswered + 1, allowed - cost)
        return True


def _pause_ms(child: str, message: Mapping[int, Any]) -> int:
    if message.get(wire.SHOWN) or message.get(wire.PENDING):
        return BUSY_MS
    return PASS_MS - zlib.crc32(f"{child} {message[wire.SEQ]}".encode()) % SPREAD_MS


def _differs(old: Mapping[int, Any], new: Mapping[int, Any]) -> bool:
    if any(old.get(field) != new.get(field) for field in MATTERS):
        return True
    step_mv: int = abs(old.get(wire.BATTERY, 0) - new.get(wire.BATTERY, 0))
    return step_mv >= BATTERY_STEP_MV
