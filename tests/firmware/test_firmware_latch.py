"""Life of an alarm and of events on the button, and what the guard is shown of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import health, indicator, loop, window, wire
from firmware.latch import Alarm, Latch


def pressed(*seqs: int) -> Latch:
    """A latch with these alarms of boot 3, each pressed at 1000 ms × seq."""
    return Latch([Alarm(3, seq, 1000 * seq, wire.HOLD_UP, wire.BOTH_CONTACTS) for seq in seqs])


def test_an_alarm_is_sent_again_after_1_2_4_5_5_seconds() -> None:
    latch, sent, now_ms = pressed(1), list[int](), 1000
    while len(sent) < 7:
        for alarm in latch.due(now_ms):
            latch.sent(alarm, now_ms)
            sent.append(now_ms)
        wait_ms = latch.wait_ms(now_ms)
        assert wait_ms is not None
        now_ms += wait_ms
    pauses = [after - before for before, after in itertools.pairwise(sent)]
    assert pauses == [1000, 2000, 4000, 5000, 5000, 5000]


def test_the_gateways_receipt_does_not_end_sending_and_headquarters_does() -> None:
    latch = pressed(1)
    latch.receipt(3, 1, wire.AT_GATEWAY)
    assert latch.due(5000) == latch.alarms
    latch.receipt(3, 1, wire.AT_HQ)
    assert (latch.due(5000), latch.wait_ms(5000)) == ([], None)
    assert latch.alarms, "it stays on the light"


def test_a_new_connection_makes_everything_due_at_once() -> None:
    latch = pressed(1, 2)
    for alarm in latch.alarms:
        latch.sent(alarm, 0)
    assert latch.due(500) == []
    latch.connected()
    assert latch.due(500) == latch.alarms


def test_age_is_brought_up_to_date_and_never_negative() -> None:
    alarm = Alarm(3, 1, 1000, wire.HOLD_UP, wire.CONTACT_A)
    assert alarm.message(1012) == {0: 1, 1: 3, 2: 1, 3: 12, 5: 1, 6: 1}
    assert alarm.message(999)[wire.AGE] == 0
    assert Alarm(2, 9, -700, wire.HOLD_UP, 0, 1).message(50) == {0: 1, 1: 2, 2: 9, 3: 750, 4: 1, 5: 1, 6: 0}


@given(st.lists(st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(0, 5)), max_size=40))
def test_stages_only_grow_and_only_by_a_receipt_for_this_alarm(receipts: list[tuple[int, int, int]]) -> None:
    latch = pressed(1, 2, 3)
    best = {(3, 1): 0, (3, 2): 0, (3, 3): 0}
    for boot, seq, stage in receipts:
        moved = latch.receipt(boot, seq, stage)
        known = best.get((boot, seq))
        assert (moved is not None) == (known is not None and known < stage)
        if moved is not None:
            best[boot, seq] = stage
        elif known is not None:
            assert best[boot, seq] >= stage
        if best.get((boot, seq)) == wire.CLOSED:
            del best[boot, seq]
    assert {(alarm.boot, alarm.seq): alarm.stage for alarm in latch.alarms} == best
    assert latch.least() == (min(best.values()) if best else None)


def test_the_light_shows_the_least_advanced_alarm() -> None:
    latch = pressed(1, 2)
    latch.receipt(3, 1, wire.RESPONDING)
    assert indicator.state(latch.least(), fault=False, supervised=True) == indicator.UNCONFIRMED
    latch.receipt(3, 2, wire.AT_GATEWAY)
    assert indicator.state(latch.least(), fault=False, supervised=True) == indicator.GATEWAY
    latch.receipt(3, 2, wire.CLOSED)
    assert indicator.state(latch.least(), fault=False, supervised=True) == indicator.RESPONDING
    latch.receipt(3, 1, wire.CLOSED)
    assert indicator.state(latch.least(), fault=False, supervised=True) == indicator.REST


@pytest.mark.parametrize(
    ("stage", "fault", "supervised", "light"),
    [
        (None, False, True, "rest"),
        (None, False, False, "unsupervised"),
        (None, True, True, "fault"),
        (None, True, False, "fault"),
        (0, True, False, "unconfirmed"),
        (1, False, True, "at_gateway"),
        (2, True, False, "at_hq"),
        (3, False, True, "acknowledged"),
        (4, False, True, "responding"),
    ],
)
def test_each_light(stage: int | None, fault: bool, supervised: bool, light: str) -> None:  # noqa: FBT001 - a table
    assert indicator.state(stage, fault, supervised) == light


def test_steady_green_is_shown_for_headquarters_receipt_alone() -> None:
    steady = [name for name, steps in indicator.PATTERNS.items() if {colour for colour, _ in steps} == {"green"}]
    assert steady == ["at_hq"]
    assert len(set(indicator.PATTERNS.values())) == len(indicator.PATTERNS), "two lights look the same"


def test_red_is_for_an_alarm_that_nobody_has() -> None:
    assert all(colour != "red" for steps in indicator.PATTERNS.values() for colour, _ in steps)
    assert {colour for colour, _ in indicator.steps("unconfirmed", 9_999)} == {"amber", "off"}
    assert {colour for colour, _ in indicator.steps("unconfirmed", 10_000)} == {"red", "off"}
    assert indicator.steps("at_gateway", 10_000) == indicator.PATTERNS["at_gateway"]


def test_a_hold_up_alarm_is_silent() -> None:
    assert [name for name in indicator.PATTERNS if indicator.chirps(name)] == ["unsupervised", "fault", "under_test"]


def test_events_go_eight_at_a_time_and_again_after_5_seconds() -> None:
    lane = window.Window()
    waiting = [(1, seq) for seq in range(1, 21)]
    for number in lane.due(waiting, 0):
        lane.sent(number, 0)
    assert lane.due(waiting, 0) == []
    assert lane.wait_ms(2000) == 3000
    assert lane.due(waiting, 5000) == waiting[:8]
    lane.done((1, 3))
    waiting.remove((1, 3))
    assert lane.due(waiting, 0) == [(1, 9)]
    lane.connected()
    assert lane.due(waiting, 0) == [number for number in waiting if number[1] < 10]


def test_an_event_that_had_to_make_room_gives_its_place_in_the_window_away() -> None:
    lane = window.Window()
    waiting = [(1, seq) for seq in range(1, 21)]
    for number in lane.due(waiting, 0):
        lane.sent(number, 0)
    del waiting[:8]  # dropped from the flash, whether what they made room for could be written or not
    assert lane.due(waiting, 0) == waiting[:8]
    lane.due([], 0)
    assert lane.wait_ms(0) is None


def test_heartbeat_of_a_button_with_many_alarms_fits_and_shows_each_in_turn() -> None:
    alarms = [Alarm(2**32 - 1, 2**32 - 1 - n, 0, 1, 0) for n in range(40)]
    seen = set()
    for turn in range(3):
        shown = health.shown(alarms, turn)
        seen |= {seq for _, seq, _ in shown}
        message = health.heartbeat(
            (2**32 - 1, 2**32 - 1), loop.Loops(), uptime_ms=2**40, battery_mv=4050, mains=True, rssi=-90, path=2, spare=2, testing=2, reset=1, heap=2**31, heap_least=2**31,
            firmware="0.1.0-" + "x" * 20, pending=700, shown=shown, delay_ms=2**30, reconnects=2**30, refused=2**40,
            storage_failed=True,
        )  # fmt: skip
        assert len(wire.seal(message, "b" * 64, bytes(32))) <= wire.MAX_ENVELOPE
    assert len(seen) == 40


def test_a_heartbeat_states_a_broken_line_before_a_press() -> None:
    loops = loop.Loops()
    for now_ms in range(0, 1000, 10):
        loops.sample(now_ms, 1000, 340, 340)
    assert loops.pressed
    assert health.loop_state(loops) == wire.LOOP_IS_CUT
