"""Silence is an event: once, in time, and told with what it explains."""

from gateway.supervision import Supervision, Verdict

DEADLINE = 14_000


def watched(*children: str, via: str | None = None) -> Supervision:
    supervision = Supervision(DEADLINE)
    for child in children:
        supervision.heard(child, 1, 1, 0, 0, via)
    return supervision


def test_a_child_is_reported_once_after_its_deadline_and_never_before() -> None:
    supervision = watched("b1")
    assert supervision.due(DEADLINE) == []
    (silence,) = supervision.due(DEADLINE + 1)
    assert silence.child == "b1"
    assert supervision.due(DEADLINE * 10) == []


def test_a_child_that_was_reported_is_told_to_be_back_once() -> None:
    supervision = watched("b1")
    supervision.due(DEADLINE + 1)
    assert supervision.heard("b1", 1, 2, 20_000, 20_000) is Verdict.FRESH
    assert supervision.back("b1")
    assert not supervision.back("b1")


def test_an_old_heartbeat_is_no_sign_of_life() -> None:
    supervision = watched("b1")
    supervision.heard("b1", 1, 5, 5_000, 5_000)
    assert supervision.heard("b1", 1, 5, 5_000, 9_000) is Verdict.REPEATED
    assert supervision.heard("b1", 1, 4, 4_000, 9_000) is Verdict.REPEATED
    assert [silence.child for silence in supervision.due(5_001 + DEADLINE)] == ["b1"]


def test_heartbeats_that_were_stored_and_played_later_are_no_sign_of_life() -> None:
    supervision = watched("b1")
    for beat in range(1, 100):
        late = 30_000
        assert supervision.heard("b1", 1, 1 + beat, beat * 5_000, beat * 5_000 + late) is Verdict.HELD_UP
    assert supervision.due(DEADLINE + 1)


def test_a_clock_that_drifts_by_50_ppm_for_a_year_is_believed() -> None:
    supervision = watched("b1")
    day = 86_400_000
    for n in range(1, 365):
        assert supervision.heard("b1", 1, 1 + n, int(n * day * (1 - 5e-5)), n * day) is Verdict.FRESH


def test_a_will_is_an_event_within_seconds_unless_the_child_comes_back() -> None:
    supervision = watched("b1", "b2")
    for child in ("b1", "b2"):
        supervision.here(child, 1, 2)
        supervision.gone(child, 1, 2, 1_000)
    supervision.here("b2", 1, 9)
    assert [silence.child for silence in supervision.due(5_100)] == ["b1"]


def test_the_will_of_an_earlier_session_says_nothing() -> None:
    supervision = watched("b1")
    supervision.here("b1", 2, 7)
    supervision.gone("b1", 2, 3, 1_000)
    assert supervision.due(10_000) == []


def test_those_behind_a_silent_station_are_told_with_it_whatever_the_phase_of_their_heartbeats() -> None:
    for phase in range(-4_900, 5_000, 100):
        supervision = Supervision(DEADLINE)
        supervision.heard("gw", 1, 1, 0, 10_000)
        supervision.children["gw"].station = True
        supervision.heard("b1", 1, 1, 0, 10_000 + phase, "gw")
        found = [silence for at in range(10_000, 40_000, 500) for silence in supervision.due(at)]
        assert [(silence.child, silence.behind) for silence in found] == [("gw", ("b1",))], phase


def test_a_silent_button_behind_a_living_station_is_told_by_itself() -> None:
    supervision = Supervision(DEADLINE)
    supervision.heard("b1", 1, 1, 0, 0, "gw")
    for at in range(0, 20_000, 5_000):
        supervision.heard("gw", 1, 1 + at, at, at)
    assert [silence.child for silence in supervision.due(DEADLINE + 500)] == ["b1"]


def test_a_child_that_was_enrolled_and_never_heard_is_reported_once_after_a_minute() -> None:
    supervision = Supervision(DEADLINE)
    supervision.expect("b1", station=False, now_ms=0)
    assert supervision.due(60_000) == []
    assert [silence.child for silence in supervision.due(60_001)] == ["b1"]
    assert supervision.due(10 * 60_000) == []
    assert supervision.heard("b1", 1, 1, 0, 700_000) is Verdict.FRESH
    assert supervision.back("b1")
