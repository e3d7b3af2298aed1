"""Alarms overtake everything; what is not receipted is sent again, what is receipted is not."""

from gateway.relay import ALARM_RETRY_MS, EVENT_WINDOW, IN_MEMORY, Identity, Letter, Outgoing


def letter(seq: int, *, alarm: bool = False, envelope: bytes = b"") -> Letter:
    return Letter(Identity("b1", 1, seq), alarm, envelope, [], 0)


def test_an_alarm_goes_before_a_backlog_of_ten_thousand_events() -> None:
    outgoing = Outgoing()
    for seq in range(10_000):
        outgoing.offer(letter(seq))
    outgoing.offer(letter(99_999, alarm=True))
    sent = outgoing.due(0)
    assert sent[0].identity.seq == 99_999
    assert len(sent) == 1 + EVENT_WINDOW
    assert len(outgoing.events) == IN_MEMORY
    assert outgoing.more


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
    outgoing.reconnected()
    assert [one.identity.seq for one in outgoing.due(20)] == [2]


def test_a_newer_sending_of_the_same_message_replaces_the_older_and_goes_at_once() -> None:
    outgoing = Outgoing()
    outgoing.offer(letter(1, alarm=True, envelope=b"old"))
    outgoing.due(0)
    outgoing.offer(letter(1, alarm=True, envelope=b"new"))
    assert [one.envelope for one in outgoing.due(1)] == [b"new"]


def test_the_next_event_follows_when_one_is_receipted() -> None:
    outgoing = Outgoing()
    for seq in range(EVENT_WINDOW + 1):
        outgoing.offer(letter(seq))
    outgoing.due(0)
    assert outgoing.due(1) == []
    outgoing.receipted(Identity("b1", 1, 0))
    assert [one.identity.seq for one in outgoing.due(2)] == [EVENT_WINDOW]


def test_when_to_look_again() -> None:
    outgoing = Outgoing()
    assert outgoing.next_ms(5) is None
    outgoing.offer(letter(1, alarm=True))
    assert outgoing.next_ms(5) == 5
    outgoing.due(5)
    assert outgoing.next_ms(6) == 5 + ALARM_RETRY_MS[0]
