"""What must survive a power cut: the boot counter, every open alarm, every event without headquarters' receipt.

One small file per record (flash.py), so any prefix of the writes leaves a valid state. The boot counter is durable
before anything is sent, and never used twice; message numbers start at 1 in each boot, so that (boot, seq) never
repeats without a write per message. How many restarts a record has seen is the difference of the boot counters.

Alarms are never dropped while headquarters lacks them. Events beyond MAX_EVENTS push out the oldest; how many is
counted in flash, and reported in an event of its own as soon as there is room again. Of the events only the oldest HEAD
have their numbers in memory: the flash is looked through for the next ones when these go.

Why small files and no log that is appended to: LittleFS keeps a small file in its directory's own log, where writing it is
one short append with a CRC, and a block is erased for about every fifth record; appending to a file copies its last
block, one erasure for each record (tests/firmware/run_wear.py counts both).
"""

import binascii
import os

from firmware import latch, wire

MAX_ALARMS = 200
MAX_EVENTS = 2000
HEAD = 64  # numbers in memory
_LEAST = 16  # fewer, and there are more in the flash: look for them. A window is not larger (window.py)

_COUNTERS = ("boot-a", "boot-b")
_DROPPED = "dropped"
_HAPPENED = 255  # of an event's record: when, by the clock of its own start, ms; never sent
_FIRST = 1 << 24  # a new count begins anywhere below, so that a state folder that was lost repeats no number
_FAR = 1 << 25  # above every count that a button reaches: where to go on when both counters are unreadable


def _record(message: dict) -> bytes:
    octets = wire.encode(message)
    return octets + binascii.crc32(octets).to_bytes(4, "big")


def _message(octets):
    """The message of a record; None if the record is missing or damaged."""
    if octets is None or len(octets) < 5 or binascii.crc32(octets[:-4]).to_bytes(4, "big") != octets[-4:]:
        return None
    try:
        message = wire.decode(octets[:-4])
    except wire.WireError:
        return None
    return message if isinstance(message, dict) else None


def _name(letter: str, boot: int, seq: int) -> str:
    return "%s-%d-%d" % (letter, boot, seq)


def _number(name: str):
    """(letter, boot, seq) of a record's file name; None for any other file."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] not in ("a", "e") or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return parts[0], int(parts[1]), int(parts[2])


class Outbox:
    """Opened once per start; opening it counts the start.

    alarms: the open alarms of earlier starts, as latch.Alarm. events: (boot, seq) of the oldest waiting events, oldest
    first. waiting: how many events wait in all.
    complain: called with one sentence about each record that is damaged; it is set aside, never sent half read.
    """

    def __init__(self, flash, complain, urandom=os.urandom) -> None:
        self._flash = flash
        self._urandom = urandom
        self._complain = complain
        least, alarms = 0, []
        for number in self._numbers():
            least = max(least, number[1])
            if number[0] == "a":
                alarms.append(number[1:])
        self.boot = self._count(least)
        self._seq = 0
        self.alarms = []
        self.events: list = []
        self.waiting = 0
        self._look()
        for boot, seq in sorted(alarms):
            alarm = self._load_alarm(boot, seq)
            if alarm is not None:
                self.alarms.append(alarm)
        dropped = _message(flash.read(_DROPPED)) or {}
        self.dropped = dropped.get(wire.DETAIL, 0)

    def _numbers(self):
        """(letter, boot, seq) of every record in the flash."""
        for name in self._flash.names():
            number = _number(name)
            if number:
                yield number

    def _look(self) -> None:
        """Finds the oldest HEAD events in the flash, and how many there are."""
        head, waiting = [], 0
        for letter, boot, seq in self._numbers():
            if letter != "e":
                continue
            waiting += 1
            if len(head) == HEAD and (boot, seq) > head[-1]:
                continue
            head.append((boot, seq))
            if len(head) >= 2 * HEAD:
                head.sort()
                del head[HEAD:]
        head.sort()
        del head[HEAD:]
        self.events, self.waiting = head, waiting

    def holds(self, number: tuple) -> bool:
        """Whether an event of this number may be waiting still."""
        if number in self.events:
            return True
        return self.waiting > len(self.events) and number > self.events[-1]

    def _count(self, least: int) -> int:
        """The number of this start, durable in both copies. `least`: the greatest number that a record carries."""
        read = [self._flash.read(name) for name in _COUNTERS]
        known = [message[wire.BOOT] for message in [_message(octets) for octets in read] if message]
        if read != [None, None] and not known:
            self._complain("both boot counters are unreadable; counting on from far above")
            known = [_FAR + int.from_bytes(self._urandom(3), "big")]
        if not known and not least:
            known = [int.from_bytes(self._urandom(3), "big") % _FIRST]
        boot = max(known + [least]) + 1  # noqa: RUF005 - MicroPython has no [*known, least]
        record = _record({wire.BOOT: boot})
        for name in _COUNTERS:
            self._flash.write(name, record)
        return boot

    def number(self) -> tuple[int, int]:
        """The next (boot, seq)."""
        self._seq += 1
        return self.boot, self._seq

    def _load(self, letter: str, boot: int, seq: int):
        name = _name(letter, boot, seq)
        message = _message(self._flash.read(name))
        if message is None or message.get(wire.BOOT) != boot or message.get(wire.SEQ) != seq:
            self._complain("the record %s is damaged" % name)
            self._flash.remove(name)
            return None
        return message

    def _load_alarm(self, boot: int, seq: int):
        message = self._load("a", boot, seq)
        if message is None:
            return None
        happened_ms = -message[wire.AGE]
        resumed = self.boot - boot
        return latch.Alarm(boot, seq, happened_ms, message[wire.CAUSE], message[wire.HOW], resumed, message[wire.STAGE])

    # ----------------------------------------------------------------------------------------------- alarms

    def keep_alarm(self, alarm, now_ms: int) -> None:
        """Writes an alarm as it is now, over what was written of it before."""
        record = alarm.message(now_ms)
        record[wire.STAGE] = alarm.stage
        self._flash.write(_name("a", alarm.boot, alarm.seq), _record(record))

    def remove_alarm(self, boot: int, seq: int) -> None:
        """A closed alarm, or one that headquarters has and whose room is needed."""
        self._flash.remove(_name("a", boot, seq))

    # ----------------------------------------------------------------------------------------------- events

    def add_event(self, now_ms: int, happened_ms: int, code: int, subject=None, detail=None) -> tuple[int, int]:
        """Numbers and keeps an event, for which the oldest may have to make room; its (boot, seq)."""
        while self.waiting >= MAX_EVENTS:
            self._drop_oldest()
        number = self.number()
        message = {
            wire.KIND: wire.EVENT,
            wire.BOOT: number[0],
            wire.SEQ: number[1],
            wire.AGE: max(0, now_ms - happened_ms),
            wire.CODE: code,
            _HAPPENED: happened_ms,
        }
        if subject is not None:
            message[wire.SUBJECT] = subject
        if detail is not None:
            message[wire.DETAIL] = detail
        self._flash.write(_name("e", number[0], number[1]), _record(message))
        if self.waiting == len(self.events) < HEAD:
            self.events.append(number)
        self.waiting += 1
        return number

    def _drop_oldest(self) -> tuple:
        # Counted before it is gone: a power cut in between reports one too many, never one too few.
        number = self.events[0]
        message = self._load("e", number[0], number[1]) or {}
        self.dropped += 1
        if message.get(wire.CODE) == wire.EVENTS_DROPPED:
            self.dropped += message[wire.DETAIL]  # a report that never got through: what it counted is reported again
        self._flash.write(_DROPPED, _record({wire.DETAIL: self.dropped}))
        self.remove_event(number)
        return number

    def remove_event(self, number: tuple) -> None:
        """An event that headquarters has."""
        self._flash.remove(_name("e", number[0], number[1]))
        self._gone(number)

    def _gone(self, number: tuple) -> None:
        if number in self.events:
            self.events.remove(number)
        self.waiting -= 1
        if len(self.events) < _LEAST and self.waiting > len(self.events):
            self._look()

    def report_dropped(self, now_ms: int) -> bool:
        """Turns the count of dropped events into an event, if there is something to report and room for it."""
        if not self.dropped or self.waiting >= MAX_EVENTS:
            return False
        self.add_event(now_ms, now_ms, wire.EVENTS_DROPPED, None, self.dropped)
        self.dropped = 0
        self._flash.remove(_DROPPED)
        return True

    def event(self, number: tuple, now_ms: int):
        """The event as it goes on the wire at `now_ms`; None, and it is given up, if its record is damaged."""
        message = self._load("e", number[0], number[1])
        if message is None:
            self._gone(number)
            return None
        happened_ms = message.pop(_HAPPENED, None)
        if number[0] != self.boot:
            message[wire.AGE] += now_ms
            message[wire.RESUMED] = self.boot - number[0]
        elif happened_ms is not None:
            message[wire.AGE] = max(0, now_ms - happened_ms)
        return message
