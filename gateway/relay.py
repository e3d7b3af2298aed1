"""What a parent still has to receipt, and when to send it (again). Pure: the uplink does what this says.

Alarms have their own lane and go first, at once, whatever else waits. Events go through a window that follows the link:
what they make an alarm wait for, anywhere on its way, is the queue that they build up themselves. What has no room in
memory waits in the journal. Times: monotonic milliseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

ALARM_RETRY_MS = (1_000, 2_000, 4_000, 5_000)  # then every 5 s
EVENT_RETRY_MS = (5_000, 10_000, 20_000, 60_000, 300_000)  # a parent's broker without its station keeps each copy
ALARM_WINDOW = 256  # alarms
IN_MEMORY = 1_000  # letters of a lane
BATCH_OCTETS = 4_000  # of events in one message: what the parent does at one go before it looks at the next message
LEAST_OCTETS, MOST_OCTETS = BATCH_OCTETS, 64 * BATCH_OCTETS  # the window's bounds
REST_MS = 10  # at most, between a receipt and the next events: an alarm finds the stations idle about half of the time
QUEUE_MS = 5  # how long a queue the events may build up; more on a long way


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


@dataclass(slots=True)
class Window:
    """How many octets of events may be without a receipt: as RFC 6817 (LEDBAT), by the delay that they cause.

    The least time from sending to receipt is the way itself; what is above it is the queue. Up to QUEUE_MS, or half the
    way, the window grows, by half of itself a round at first; beyond, it is halved, once a round.
    """

    octets: int = LEAST_OCTETS
    rests_until_ms: int = -1
    _least_ms: int | None = None
    _ceiling: int = MOST_OCTETS  # where it was last halved: from there on it grows slowly
    _halved_ms: int = -1

    def receipted(self, sent_ms: int, now_ms: int, octets: int) -> None:
        """A receipt came at `now_ms` for so many octets that were sent at `sent_ms`."""
        took_ms = now_ms - sent_ms
        self.rests_until_ms = now_ms + min(took_ms, REST_MS)
        self._least_ms = took_ms if self._least_ms is None else min(took_ms, self._least_ms)
        if took_ms - self._least_ms <= max(QUEUE_MS, self._least_ms // 2):
            more = octets // 2 if self.octets < self._ceiling else octets * LEAST_OCTETS // (4 * self.octets)
            self.octets = min(MOST_OCTETS, self.octets + more)
        elif sent_ms > self._halved_ms:
            self._halved_ms = now_ms
            self.octets = self._ceiling = max(LEAST_OCTETS, self.octets // 2)


@dataclass
class Lane:
    """Letters of one kind: those that wait, and those that are on their way."""

    retries: tuple[int, ...]
    waiting: OrderedDict[Identity, Letter] = field(default_factory=OrderedDict)
    flying: OrderedDict[Identity, Letter] = field(default_factory=OrderedDict)
    octets: int = 0  # on their way
    more: bool = False  # the journal may hold letters that are not in memory
    _retry_ms: int | None = None  # nothing on its way is due again before

    def __len__(self) -> int:
        """Letters in memory."""
        return len(self.waiting) + len(self.flying)

    def __contains__(self, identity: object) -> bool:
        """Whether a letter is in memory."""
        return identity in self.waiting or identity in self.flying

    def put(self, letter: Letter) -> None:
        """Takes a letter to be sent; one of the same identity is replaced."""
        self.take(letter.identity)
        self.waiting[letter.identity] = letter

    def take(self, identity: Identity) -> Letter | None:
        """Removes a letter."""
        letter = self.flying.pop(identity, None)
        if letter is not None:
            self.octets -= len(letter.envelope)
            return letter
        return self.waiting.pop(identity, None)

    def land(self) -> None:
        """Whatever is on its way may be lost: all of it waits again, first."""
        for letter in self.flying.values():
            letter.sent_ms = None
        self.flying.update(self.waiting)
        self.waiting, self.flying, self.octets, self._retry_ms = self.flying, OrderedDict(), 0, None

    def due(self, now_ms: int, letters: int, octets: int) -> list[Letter]:
        """What to send at `now_ms`, while no more than so many letters and octets are on their way; it counts as sent."""
        found = self._again(now_ms)
        while self.waiting and len(self.flying) < letters and self.octets < octets:
            _, letter = self.waiting.popitem(last=False)
            self.flying[letter.identity] = letter
            self.octets += len(letter.envelope)
            found.append(letter)
        for letter in found:
            letter.sent_ms = now_ms
            letter.tries += 1
            self._retry_ms = min(self._retry_at(letter), self._retry_ms or self._retry_at(letter))
        return found

    def next_ms(self) -> int | None:
        """When something on its way may be due again."""
        return self._retry_ms if self.flying else None

    def _again(self, now_ms: int) -> list[Letter]:
        if self._retry_ms is None or now_ms < self._retry_ms:
            return []
        found = [letter for letter in self.flying.values() if self._retry_at(letter) <= now_ms]
        others = [self._retry_at(letter) for letter in self.flying.values() if self._retry_at(letter) > now_ms]
        self._retry_ms = min(others, default=None)
        return found

    def _retry_at(self, letter: Letter) -> int:
        return (letter.sent_ms or 0) + self.retries[min(max(1, letter.tries), len(self.retries)) - 1]


@dataclass
class Outgoing:
    """Everything that one parent has not receipted yet, as far as it is in memory."""

    alarms: Lane = field(default_factory=lambda: Lane(ALARM_RETRY_MS))
    events: Lane = field(default_factory=lambda: Lane(EVENT_RETRY_MS))
    window: Window = field(default_factory=Window)

    def offer(self, letter: Letter) -> bool:
        """Takes a letter, to be sent at once. One of the same identity is replaced: its age is newer.

        False: there is no room, and it is read from the journal later; offer it again if it was not committed yet.
        """
        lane = self.alarms if letter.alarm else self.events
        # A new alarm passes those that the journal still holds, a new event doesn't.
        if letter.identity in lane or ((letter.alarm or not lane.more) and len(lane) < IN_MEMORY):
            lane.put(letter)
            return True
        lane.more = True
        return False

    def receipted(self, identity: Identity, now_ms: int | None = None) -> bool:
        """The parent has it. False: nothing was outstanding. now_ms: when the receipt came, for the window."""
        if self.alarms.take(identity) is not None:
            return True
        letter = self.events.take(identity)
        if letter is not None and letter.sent_ms is not None and letter.tries == 1 and now_ms is not None:
            self.window.receipted(letter.sent_ms, now_ms, len(letter.envelope))
        return letter is not None

    def reconnected(self) -> None:
        """Whatever was in flight may be lost: all is due now. The window begins small again: it may be another way."""
        self.alarms.land()
        self.events.land()
        self.window = Window()

    def due(self, now_ms: int) -> list[Letter]:
        """Letters to send at `now_ms`, alarms first; they count as sent."""
        octets = self.window.octets if now_ms >= self.window.rests_until_ms else 0
        return [*self.alarms_due(now_ms), *self.events.due(now_ms, IN_MEMORY, octets)]

    def alarms_due(self, now_ms: int) -> list[Letter]:
        """The alarms of `due` alone."""
        return self.alarms.due(now_ms, ALARM_WINDOW, 1 << 62)

    def next_ms(self, now_ms: int) -> int | None:
        """When something in flight is due again, or what was just offered, if nothing else happens."""
        fresh = []
        if self.alarms.waiting and len(self.alarms.flying) < ALARM_WINDOW:
            fresh.append(now_ms)
        if self.events.waiting and self.events.octets < self.window.octets:
            fresh.append(self.window.rests_until_ms)
        times = [at for at in (self.alarms.next_ms(), self.events.next_ms()) if at is not None]
        return max(now_ms, min(fresh + times)) if fresh or times else None

    def wants_more(self, *, alarms: bool = False) -> bool:
        """Whether the journal should be read for further events, or alarms."""
        lane = self.alarms if alarms else self.events
        return lane.more and len(lane) < IN_MEMORY // 2

    def reading(self, *, alarms: bool) -> None:
        """The journal is about to be read: what is committed from now on is offered."""
        (self.alarms if alarms else self.events).more = False

    def read(self, letters: Iterable[Letter], *, alarms: bool, more: bool) -> None:
        """Takes what was read from the journal. more: there may be further letters."""
        lane = self.alarms if alarms else self.events
        for letter in letters:
            if letter.identity not in lane:
                lane.put(letter)
        lane.more |= more
