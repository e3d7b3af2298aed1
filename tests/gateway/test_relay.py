"""Alarms overtake everything; what is not receipted is sent again, what is receipted is not; memory has an end."""

import sys
import tracemalloc

from gateway.relay import (
    ALARM_RETRY_MS,
    ALARM_WINDOW,
    IN_MEMORY,
    LEAST_OCTETS,
    MOST_OCTETS,
    QUEUE_MS,
    Identity,
    Letter,
    Outgoing,
    Window,
)

EVENT = bytes(200)


def letter(seq: int, *, alarm: bool = False, envelope: bytes = EVENT) -> Letter:
    return Letter(Identity("b1", 1, seq), alarm, envelope, [], 0)


def numbers(letters: list[Letter]) -> list[int]:
    return [one.identity.seq for one in letters]


def test_an_alarm_goes_before_a_backlog_of_ten_thousand_events() -> None:
    outgoing = Outgoing()
    for seq in range(10_000):
        outgoing.offer(letter(seq))
    outgoing.offer(letter(99_999, alarm=True))
    sent = outgoing.due(0)
    assert sent[0].identity.seq == 99_999
    assert len(sent) == 1 + LEAST_OCTETS // len(EVENT)
    assert len(outgoing.events) == IN_MEMORY
    assert outgoing.events.more


def test_what_is_not_receipted_is_sent_again_at_growing_times() -> None:
    outgoing = Outgoing()
    outgoing.offer(letter(1, alarm=True))
    times = [at for at in range(0, 30_000, 100) if outgoing.due(at)]
    assert times[:5] == [0, 1_000, 3_000, 7_000, 12_000]
    assert times[-1] - times[-2] == ALARM_RETRY_MS[-1]


def test_a_receipt_ends_it_and_a_new_connection_begins_it_anew() -> None:
    outgoing = Outgoing()
    for seq in (1, 2):
        outgoing.offer(letter(seq, alarm=True))
    assert len(outgoing.due(0)) == 2
    assert outgoing.receipted(Identity("b1", 1, 1))
    assert not outgoing.receipted(Identity("b1", 1, 1))
    assert outgoing.due(10) == []
    outgoing.offer(letter(3, alarm=True))
    outgoing.reconnected()
    assert numbers(outgoing.due(20)) == [2, 3]


def test_a_newer_sending_of_the_same_message_replaces_the_older_and_goes_at_once() -> None:
    outgoing = Outgoing()
    outgoing.offer(letter(1, alarm=True, envelope=b"old"))
    outgoing.due(0)
    outgoing.offer(letter(1, alarm=True, envelope=b"new"))
    assert [one.envelope for one in outgoing.due(1)] == [b"new"]


def test_the_next_event_follows_when_one_is_receipted() -> None:
    outgoing = Outgoing()
    count = LEAST_OCTETS // len(EVENT)
    for seq in range(count + 1):
        outgoing.offer(letter(seq))
    outgoing.due(0)
    assert outgoing.due(1) == []
    outgoing.receipted(Identity("b1", 1, 0))
    assert numbers(outgoing.due(2)) == [count]


def test_when_to_look_again() -> None:
    outgoing = Outgoing()
    assert outgoing.next_ms(5) is None
    outgoing.offer(letter(1, alarm=True))
    assert outgoing.next_ms(5) == 5
    outgoing.due(5)
    assert outgoing.next_ms(6) == 5 + ALARM_RETRY_MS[0]


def test_memory_has_an_end_for_alarms_too_and_what_did_not_fit_is_read_from_the_journal_once() -> None:
    outgoing = Outgoing()
    outgoing.due(0)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    taken = sum(outgoing.offer(letter(seq, alarm=True)) for seq in range(100_000))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken == len(outgoing.alarms) == IN_MEMORY
    assert grown < IN_MEMORY * (sys.getsizeof(EVENT) + 1_000)

    arrived: list[int] = []
    read_up_to = now = 0
    while len(arrived) < 100_000:
        now += 1
        for one in outgoing.due(now):
            arrived.append(one.identity.seq)
            outgoing.receipted(one.identity, now)
        if outgoing.wants_more(alarms=True):
            outgoing.reading(alarms=True)
            page = range(max(IN_MEMORY, read_up_to), min(100_000, max(IN_MEMORY, read_up_to) + 200))
            outgoing.read([letter(seq, alarm=True) for seq in page], alarms=True, more=len(page) == 200)
            read_up_to = page.stop
        assert len(outgoing.alarms) <= IN_MEMORY
        assert now < 100_000
    assert arrived == sorted(set(arrived))


def test_a_new_alarm_passes_those_that_are_still_in_the_journal() -> None:
    outgoing = Outgoing()
    outgoing.alarms.more = True
    outgoing.read([letter(seq, alarm=True) for seq in range(100)], alarms=True, more=True)
    assert outgoing.offer(letter(500, alarm=True))
    assert 500 in numbers(outgoing.due(0))


def test_alarms_in_flight_are_bounded() -> None:
    outgoing = Outgoing()
    for seq in range(IN_MEMORY):
        outgoing.offer(letter(seq, alarm=True))
    assert len(outgoing.due(0)) == ALARM_WINDOW


class Way:
    """A link of `rate` octets a millisecond and `far_ms` there and back, with one queue, driven through an Outgoing."""

    def __init__(self, rate: float, far_ms: int) -> None:
        self.outgoing = Outgoing()
        self.rate, self.far_ms = rate, far_ms
        self.free_ms = 0.0
        self.arriving: list[tuple[float, Letter]] = []
        self.longest_ms = 0.0

    def run(self, from_ms: int, to_ms: int) -> int:
        """How many octets arrive meanwhile; there is always more to send."""
        done = 0
        for now in range(from_ms, to_ms):
            while self.arriving and self.arriving[0][0] <= now:
                _, one = self.arriving.pop(0)
                self.outgoing.receipted(one.identity, now)
                done += len(one.envelope)
            while len(self.outgoing.events) < IN_MEMORY:
                Way.seq += 1
                self.outgoing.offer(letter(Way.seq))
            for one in self.outgoing.due(now):
                self.free_ms = max(self.free_ms, now) + len(one.envelope) / self.rate
                self.arriving.append((self.free_ms + self.far_ms, one))
            self.longest_ms = max(self.longest_ms, self.free_ms - now)
        return done

    seq = 0


def test_the_queue_that_events_build_up_stays_short_on_a_slow_link_and_a_fast_far_one_is_filled() -> None:
    slow = Way(rate=8, far_ms=100)  # 64 kbit/s
    slow.run(0, 5_000)
    slow.longest_ms = 0
    moved = slow.run(5_000, 30_000)
    assert slow.longest_ms <= LEAST_OCTETS / 8 + 30, "an alarm would wait longer behind events"
    assert moved > 0.25 * 8 * 25_000
    fast = Way(rate=2_000, far_ms=40)
    fast.run(0, 2_000)
    assert fast.run(2_000, 10_000) > 400 * 8_000, "400 kB a second are more events than a station takes"


def test_the_window_follows_the_delay_that_it_causes() -> None:
    window = Window()
    for at in range(0, 2_000, 10):
        window.receipted(at, at + 5, LEAST_OCTETS)
    assert window.octets == MOST_OCTETS
    window.receipted(3_000, 3_005 + QUEUE_MS + 1, 1_000)
    half = window.octets
    assert half == MOST_OCTETS // 2
    window.receipted(3_001, 3_005 + QUEUE_MS + 2, 1_000)
    assert window.octets == half, "halved once for what was sent before it was halved"
    for at in range(4_000, 5_000, 10):
        window.receipted(at, at + 500, 1_000)
    assert window.octets >= LEAST_OCTETS
