"""Refusals: each is counted, few are events, whatever one certificate may bring."""

from __future__ import annotations

from gateway.refusals import BURST, KEPT, QUIET_MS, REFILL_MS, Refusals


def told(refusals: Refusals, who: str, at_ms: int) -> int | None:
    return refusals.note(who, "the MAC is wrong", 1_700_000_000_000, at_ms=at_ms)


def test_the_same_refusal_is_an_event_once_a_minute_and_counted_each_time() -> None:
    refusals = Refusals()
    assert [told(refusals, "b1", at_ms) for at_ms in (0, 1, QUIET_MS - 1, QUIET_MS)] == [1, None, None, 4]
    assert refusals.total == 4


def test_a_child_that_names_ever_other_senders_makes_few_events_and_silences_nobody_else() -> None:
    refusals = Refusals()
    events = [told(refusals, f"x{number} through gw-1", number) for number in range(10 * KEPT)]
    assert sum(one is not None for one in events) == BURST
    assert told(refusals, "x through gw-2", 10 * KEPT) == 1
    assert told(refusals, "y through gw-1", 10 * KEPT + REFILL_MS) == 1
    assert told(refusals, "z through gw-1", 10 * KEPT + REFILL_MS) is None
    assert refusals.total == 10 * KEPT + 3
    assert len(refusals.newest()) == KEPT


def test_what_is_only_counted_is_no_event_and_delays_none() -> None:
    refusals = Refusals()
    assert refusals.note("b1", "the MAC is wrong", 5) is None
    assert told(refusals, "b1", 0) == 2
