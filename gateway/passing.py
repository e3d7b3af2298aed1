"""Which heartbeats of children go up to a parent verbatim: those that say something new, and one a minute of the rest.

The station's own heartbeat says the rest (supervision's digest). A parent believes that digest no longer than it has
a child's own signature, so each child's newest heartbeat goes up at least once a minute, each at a moment of its own.
Headquarters answers it, and the child's next heartbeats name that answer: only with it does a signature prove anything.
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
    10_000  # headquarters answers each; while the child names no answer the next ones follow so soon, later doubled
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
    """What a parent was last sent of one child. number: of that heartbeat; None once the child names its answer."""

    message: Mapping[int, Any]
    at_ms: int
    due_ms: int
    number: tuple[int, int] | None
    unanswered: int  # in a row
    allowed: float
    proven: bool  # one went up that names an answer of these connections, and of the child's start


class Passing:
    """What one parent was sent, and what it should be sent. answers: whether it is the one that answers the children."""

    def __init__(self, *, answers: bool = True) -> None:
        self._answers = answers
        self._passed: dict[str, _Passed] = {}

    def connected(self) -> None:
        """A new connection to the parent: the next heartbeat of every child goes up at once."""
        self._passed.clear()

    def passes(self, child: str, message: Mapping[int, Any], now_ms: int, *, afresh: bool) -> bool:
        """Whether this heartbeat goes up; it counts as sent. afresh: the first of a connection, or after silence."""
        known = self._passed.get(child)
        unanswered, allowed, proven = 0, float(BURST), False
        wants = wire.WANTED in message
        cost = WANTS if wants else 1
        if known:
            names = self._answers and _names(message, known.number)
            was_unanswered = known.unanswered
            if names:
                known.number, known.unanswered = None, 0
                known.due_ms = known.at_ms + _pause_ms(child, known.message)
            allowed = min(BURST, known.allowed + (now_ms - known.at_ms) / REFILL_MS)
            proven = known.proven and not afresh and known.message[wire.BOOT] == message[wire.BOOT]
            says_something = afresh or now_ms >= known.due_ms or _differs(known.message, message)
            says_something |= names and (not proven or was_unanswered > 1)
            if allowed < cost or not (wants or says_something):
                return False
            unanswered, proven = known.unanswered, proven or names
        number = message[wire.BOOT], message[wire.SEQ]
        pause_ms = min(_pause_ms(child, message), UNANSWERED_MS << min(max(0, unanswered - 2), 8))
        self._passed[child] = _Passed(
            message, now_ms, now_ms + pause_ms, number, unanswered + 1, allowed - cost, proven
        )
        return True


def _names(message: Mapping[int, Any], number: tuple[int, int] | None) -> bool:
    """Whether a heartbeat names the answer to that (boot, seq), or to a later one."""
    return number is not None and message[wire.BOOT] == number[0] and message.get(wire.ANSWERED, -1) >= number[1]


def _pause_ms(child: str, message: Mapping[int, Any]) -> int:
    if message.get(wire.SHOWN) or message.get(wire.PENDING):
        return BUSY_MS
    return PASS_MS - zlib.crc32(f"{child} {message[wire.SEQ]}".encode()) % SPREAD_MS


def _differs(old: Mapping[int, Any], new: Mapping[int, Any]) -> bool:
    if any(old.get(field) != new.get(field) for field in MATTERS):
        return True
    step_mv: int = abs(old.get(wire.BATTERY, 0) - new.get(wire.BATTERY, 0))
    return step_mv >= BATTERY_STEP_MV
