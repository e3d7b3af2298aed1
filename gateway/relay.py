"""What a parent still has to receipt, and when to send it (again). Pure: the uplink does what this says.

Alarms have their own lane and go first, at once, whatever else waits. Events go through a window, so that a backlog
after an outage neither floods the link nor the memory. Times: monotonic milliseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

ALARM_RETRY_MS = (1_000, 2_000, 4_000, 5_000)  # then every 5 s
EVENT_RETRY_MS = (5_000, 10_000, 20_000, 60_000, 300_000)  # a parent's broker without its station keeps each copy
ALARM_WINDOW = 256
EVENT_WINDOW = 64
IN_MEMORY = 1_000  # events; what is beyond stays in the journal until there is room


class Identity(NamedTuple):
    """Names a message for ever."""

    source: str
    boot: int
    seq: int


@dataclass(slots=True)
class Letter:
    """A child's (or an own) envelope on its way to a parent."""

    identity: Identity
    alarm: bool
    envelope: bytes
    hops: list[list[object]]
    happened_at_ms: int
    sent_ms: int | None = None
    tries: int = 0


@dataclass
class Outgoing:
    """Everything that one parent has not receipted yet, as far as it is in memory."""

    alarms: OrderedDict[Identity, Letter] = field(default_factory=OrderedDict)
    events: OrderedDict[Identity, Letter] = field(default_factory=OrderedDict)
    more: bool = False  # the journal holds events that are not in memory

    def offer(self, letter: Letter) -> None:
        """Takes a letter, to be sent at once. One of the same identity is replaced: its age is newer."""
        if letter.alarm:
            self.alarms[letter.identity] = letter
        elif letter.identity in self.events or (not self.more and len(self.events) < IN_MEMORY):
            self.events[letter.identity] = letter
        else:
            self.more = True

    def receipted(self, identity: Identity) -> bool:
        """The parent has it. False: nothing was outstanding."""
        return self.alarms.pop(identity, None) is not None or self.events.pop(identity, None) is not None

    def reconnected(self) -> None:
        """Whatever was in flight may be lost: all is due now."""
        for lane in (self.alarms, self.events):
            for letter in lane.values():
                letter.sent_ms = None

    def due(self, now_ms: int) -> list[Letter]:
        """Letters to send at `now_ms`, alarms first; they count as sent."""
        return [
            *self._due(self.alarms, ALARM_RETRY_MS, ALARM_WINDOW, now_ms),
            *self._due(self.events, EVENT_RETRY_MS, EVENT_WINDOW, now_ms),
        ]

    def next_ms(self, now_ms: int) -> int | None:
        """When something in flight is due again, if nothing else happens."""
        times = [
            _retry_at(letter, retries)
            for lane, retries, window in (
                (self.alarms, ALARM_RETRY_MS, ALARM_WINDOW),
                (self.events, EVENT_RETRY_MS, EVENT_WINDOW),
            )
            for letter, _ in zip(lane.values(), range(window), strict=False)
        ]
        return max(now_ms, min(times)) if times else None

    def wants_more(self) -> bool:
        """Whether the journal should be read for further events."""
        return self.more and len(self.events) < IN_MEMORY // 2

    @staticmethod
    def _due(lane: OrderedDict[Identity, Letter], retries: tuple[int, ...], window: int, now_ms: int) -> list[Letter]:
        found = []
        for letter, _ in zip(lane.values(), range(window), strict=False):
            if _retry_at(letter, retries) <= now_ms:
                letter.sent_ms = now_ms
                letter.tries += 1
                found.append(letter)
        return found


def _retry_at(letter: Letter, retries: tuple[int, ...]) -> int:
    if letter.sent_ms is None:
        return 0
    return letter.sent_ms + retries[min(letter.tries, len(retries)) - 1]
