"""Silence is an event: once, in time, and told with what it explains."""

from __future__ import annotations

import random

import pytest

from firmware import wire
from firmware.vigil import PING_MS, TRUST_MS
from gateway.supervision import (
    AFTER_MS,
    GATHER_MS,
    GONE_GRACE_MS,
    LAST_CALL_MS,
    MANY,
    NO_BROKER,
    RETURN_MS,
    ROUGH_DEADLINE_MS,
    ROUGH_LAG_MS,
    SIGNED_MS,
    Return,
    Silence,
    Supervision,
    Verdict,
)

OPEN_MS = 4_000  # of firmware/session.py: opening a connection
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
    assert supervision.back("b1", 20_000)
    assert not supervision.back("b1", 20_000)
    assert supervision.returns(20_000) == [Return("b1")]
    assert supervision.returns(20_500) == []


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
    assert supervision.due(1_000 + GONE_GRACE_MS) == []
    supervision.heard("b2", 1, 10, 8_000, 8_000)
    assert [silence.child for silence in supervision.due(1_001 + GONE_GRACE_MS)] == ["b1"]


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
    assert supervision.due(DEADLINE + GATHER_MS) == []
    assert [silence.child for silence in supervision.due(DEADLINE + GATHER_MS + 1_000)] == ["b1"]


def test_a_child_that_was_enrolled_and_never_heard_is_reported_once_after_a_minute() -> None:
    supervision = Supervision(DEADLINE)
    supervision.expect("b1", station=False, now_ms=0)
    assert supervision.due(60_000) == []
    assert [silence.child for silence in supervision.due(60_001)] == ["b1"]
    assert supervision.due(10 * 60_000) == []
    assert supervision.heard("b1", 1, 1, 0, 700_000) is Verdict.FRESH
    assert supervision.back("b1", 700_000)


# -------------------------------------------------------------------------------------------- behind a station


class Site:
    """Headquarters' supervision of one gateway and the buttons behind it; each button's heartbeat was heard once."""

    def __init__(self, *buttons: str) -> None:
        self.supervision = Supervision(DEADLINE)
        self.supervision.expect("gw", station=True, now_ms=0)
        self.seq = 1
        self.digest(0)
        for button in buttons:
            self.sign(button, 0)

    def digest(self, now_ms: int, named: dict[str, int] | None = None, unnamed: int = 0) -> None:
        self.seq += 1
        self.supervision.heard("gw", 1, self.seq, now_ms, now_ms)
        self.supervision.back("gw", now_ms)
        self.supervision.digested("gw", named or {}, unnamed=unnamed, now_ms=now_ms)

    def sign(self, button: str, now_ms: int) -> None:
        self.seq += 1
        assert self.supervision.heard(button, 1, self.seq, now_ms, now_ms, "gw") is Verdict.FRESH
        self.supervision.back(button, now_ms)

    def run(self, from_ms: int, to_ms: int, named: dict[str, int] | None = None, unnamed: int = 0) -> list[Silence]:
        """Digests every 5 s and a look twice a second."""
        found = []
        for now_ms in range(from_ms, to_ms, 500):
            if now_ms % 5_000 == 0:
                self.digest(now_ms, named, unnamed)
            found += self.supervision.due(now_ms)
        return found


def test_a_button_behind_a_station_lives_by_the_digest_and_its_signature_once_a_minute() -> None:
    site = Site("b1", "b2")
    for minute in range(10):
        assert site.run(minute * 60_000, minute * 60_000 + 60_000) == []
        for button in ("b1", "b2"):
            site.sign(button, minute * 60_000 + 59_999)


def test_a_gateway_that_pretends_is_found_out_after_75_s() -> None:
    site = Site("b1")
    assert site.run(500, SIGNED_MS + 500) == []
    (silence,) = site.run(SIGNED_MS + 500, SIGNED_MS + 1_500)
    assert silence.child == "b1"
    assert "its gateway says that it lives, but it has not signed a heartbeat for 75 s" in silence.why
    site.digest(100_000)
    assert site.supervision.children["b1"].reported, "the gateway's word ends no silence"


@pytest.mark.parametrize("state", [wire.CHILD_LATE, wire.CHILD_OFFLINE])
def test_a_button_that_the_digest_calls_silent_is_reported_if_the_gateway_does_not(state: int) -> None:
    site = Site("b1", "b2")
    assert site.run(500, DEADLINE + GATHER_MS, {"b1": state}) == [], "the gateway has the first word"
    assert site.supervision.is_late("b1", DEADLINE)
    assert [silence.child for silence in site.run(DEADLINE + GATHER_MS, 20_000, {"b1": state})] == ["b1"]


def test_a_faulty_button_is_alive_and_known_to_be_faulty() -> None:
    site = Site("b1")
    assert site.run(500, 60_000, {"b1": wire.CHILD_FAULTY}) == []
    assert site.supervision.children["b1"].said == wire.CHILD_FAULTY
    assert not site.supervision.is_late("b1", 60_000)


def test_with_more_exceptions_than_room_the_unnamed_are_not_believed_to_be_well() -> None:
    site = Site("b1", "b2")
    assert site.run(500, 20_000, {"b1": wire.CHILD_FAULTY}, unnamed=1) == []
    assert site.supervision.children["b2"].uncertain
    assert site.supervision.is_late("b2", 20_000)
    assert not site.supervision.is_late("b1", 20_000)
    site.sign("b2", 20_000)
    assert not site.supervision.is_late("b2", 20_000), "its own signature says enough"
    site.run(20_500, 30_000)
    assert not site.supervision.is_late("b2", 30_000), "a digest with room for all believes the unnamed again"


def test_a_station_that_dies_takes_its_buttons_with_it_whether_they_signed_lately_or_not() -> None:
    for signed_ms in range(0, 50_000, 1_700):
        site = Site("b1", "b2", "b3")
        site.run(500, signed_ms + 1)
        site.sign("b2", signed_ms)
        site.run(signed_ms + 500 - signed_ms % 500, 50_500)
        found = [silence for at in range(50_500, 90_000, 500) for silence in site.supervision.due(at)]
        assert [(one.child, one.behind) for one in found] == [("gw", ("b1", "b2", "b3"))], signed_ms


def test_a_station_and_those_behind_it_return_in_one_event() -> None:
    site = Site("b1", "b2", "b3")
    assert len([silence for at in range(500, 20_000, 500) for silence in site.supervision.due(at)]) == 1
    site.digest(30_000)
    assert site.supervision.returns(30_500) == []
    for number, button in enumerate(("b1", "b2", "b3")):
        site.sign(button, 31_000 + number * 1_000)
    assert site.supervision.returns(33_000) == [Return("gw", ("b1", "b2", "b3"))]


def test_a_station_that_was_only_heard_through_what_it_brought_is_expected_from_then_on() -> None:
    supervision = Supervision(DEADLINE)
    supervision.expect("gw", station=True, now_ms=0)
    supervision.heard("b1", 1, 1, 0, 1_000, "gw")
    found = [silence for at in range(1_000, 40_000, 500) for silence in supervision.due(at)]
    assert [(silence.child, silence.behind) for silence in found] == [("gw", ("b1",))]


# ------------------------------------------------------------------------------------------- many at once


def lost_at(supervision: Supervision, last_ms: dict[str, int], rssi: dict[str, list[int]] | None = None) -> None:
    """Each child was heard every 5 s up to its last time."""
    for child, at_ms in last_ms.items():
        signals = (rssi or {}).get(child, [])
        for beat in range(6):
            now_ms = at_ms - (5 - beat) * 5_000
            signal = signals[beat] if signals else None
            supervision.heard(child, 1, beat + 1, 100_000 + now_ms, now_ms, rssi=signal)


def look(supervision: Supervision, from_ms: int, to_ms: int, *, broker_up: bool = True) -> list[tuple[int, Silence]]:
    return [(at, silence) for at in range(from_ms, to_ms, 500) for silence in supervision.due(at, broker_up=broker_up)]


@pytest.mark.parametrize("seed", range(20))
def test_many_lost_at_once_are_one_event_in_time_whatever_the_phase_of_their_heartbeats(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.choice([3, 4, 5, 50])
    supervision = Supervision(DEADLINE)
    lost_at(supervision, {f"b{n:02}": 100_000 - chance.randrange(5_000) for n in range(count)})
    ((at_ms, silence),) = look(supervision, 100_000, 160_000)
    assert at_ms <= 100_000 + DEADLINE + 500
    assert sorted((silence.child, *silence.others)) == [f"b{n:02}" for n in range(count)]
    assert "all at once" in silence.why


def test_five_of_fifty_are_one_event_and_four_are_four() -> None:
    for many in (MANY, MANY - 1):
        supervision = Supervision(DEADLINE)
        lost_at(supervision, {f"b{n:02}": 100_000 if n < many else 130_000 for n in range(50)})
        found = [silence for _, silence in look(supervision, 100_000, 130_000)]
        assert len(found) == (1 if many == MANY else many)


def test_one_that_is_lost_while_others_flutter_is_not_kept_waiting() -> None:
    supervision = Supervision(DEADLINE)
    names = [f"b{n}" for n in range(8)]
    lost_at(supervision, dict.fromkeys(names, 100_000))
    found: list[tuple[int, Silence]] = []
    for at_ms in range(100_500, 160_000, 500):
        for n, name in enumerate(names[1:]):
            if at_ms % 12_000 == n * 500:  # late again and again, never silent
                supervision.heard(name, 2, at_ms, at_ms, at_ms)
        found += [(at_ms, silence) for silence in supervision.due(at_ms)]
    ((at_ms, silence),) = found
    assert (silence.child, silence.others) == ("b0", ())
    assert at_ms <= 100_000 + DEADLINE + GATHER_MS + 500 <= 119_000


def test_those_who_were_lost_together_return_together_and_stragglers_later() -> None:
    supervision = Supervision(DEADLINE)
    names = [f"b{n}" for n in range(6)]
    lost_at(supervision, dict.fromkeys(names, 100_000))
    look(supervision, 100_000, 120_000)
    for n, name in enumerate(names[:5]):
        supervision.heard(name, 2, 1, 0, 130_000 + n * 500)
        assert supervision.back(name, 130_000 + n * 500)
    assert supervision.returns(130_000 + RETURN_MS - 500) == []
    assert supervision.returns(130_000 + RETURN_MS) == [Return("b0", ("b1", "b2", "b3", "b4"))]
    supervision.heard("b5", 2, 1, 0, 200_000)
    assert supervision.back("b5", 200_000)
    assert supervision.returns(200_000) == [Return("b5")]


CALM, FADING = [-60] * 6, [-60, -61, -64, -70, -75, -80]


@pytest.mark.parametrize(
    ("broker_up", "signals", "cable_stays", "suspected"),
    [
        (False, CALM, False, NO_BROKER),
        (True, FADING, True, "jamming is suspected"),
        (True, FADING, False, "jamming is suspected"),
        (True, CALM, True, "those on Wi-Fi alone"),
        (True, CALM, False, "the power or the network switch"),
    ],
)
def test_what_is_suspected_of_a_loss_of_many(
    broker_up: bool, signals: list[int], cable_stays: bool, suspected: str
) -> None:
    supervision = Supervision(DEADLINE)
    names = [f"b{n}" for n in range(5)]
    lost_at(supervision, dict.fromkeys(names, 100_000), dict.fromkeys(names, signals))
    if cable_stays:
        lost_at(supervision, {"cable": 115_000})
    ((_, silence),) = look(supervision, 100_000, 116_000, broker_up=broker_up)
    assert suspected in silence.why


def test_what_a_station_below_told_of_many_is_not_told_again() -> None:
    names = [f"b{n:02}" for n in range(60)]
    site = Site(*names)
    dead = dict.fromkeys(names[:32], wire.CHILD_OFFLINE)
    site.run(500, 8_000, dead, unnamed=28)
    site.supervision.reported_silent(names[:40], "gw", all_silent=True, now_ms=14_000)
    assert site.run(14_000, 60_000, dead, unnamed=28) == []


def test_a_station_tells_nothing_about_others_than_its_own() -> None:
    site = Site("b1")
    site.supervision.expect("gw2", station=True, now_ms=0)
    site.supervision.digested("gw2", {"b1": wire.CHILD_OFFLINE}, unnamed=0, now_ms=1_000)
    site.supervision.reported_silent(["b1"], "gw2", all_silent=True, now_ms=1_000)
    assert not site.supervision.children["b1"].reported
    assert not site.supervision.is_late("b1", 1_000)


# ------------------------------------------------------------------------------------ maintenance, standing still


def test_silence_under_maintenance_is_no_event_until_its_end_and_then_it_is() -> None:
    supervision = watched("b1")
    supervision.maintained = {"b1": 60_000}
    assert look(supervision, 0, 60_000) == []
    assert [silence.child for _, silence in look(supervision, 60_000, 61_000)] == ["b1"]


def test_a_station_under_maintenance_spares_those_behind_it() -> None:
    site = Site("b1", "b2", "b3")
    site.supervision.maintained = {"gw": 60_000}
    assert look(site.supervision, 500, 60_000) == []
    ((_, silence),) = look(site.supervision, 60_000, 70_000)
    assert (silence.child, silence.behind) == ("gw", ("b1", "b2", "b3"))


def test_after_a_maintenance_the_station_below_speaks_first() -> None:
    site = Site("b1")
    site.supervision.maintained = {"b1": 60_000}
    dead = {"b1": wire.CHILD_OFFLINE}
    assert site.run(500, 60_000 + AFTER_MS, dead) == []
    assert [silence.child for silence in site.run(60_000 + AFTER_MS, 70_000, dead)] == ["b1"]


def test_a_station_that_stood_still_itself_blames_nobody() -> None:
    supervision = watched("b1", "b2", "b3")
    supervision.heard("b1", 1, 2, 1_000, 1_000)
    supervision.excuse(60_000, 61_000)
    assert supervision.due(62_000) == []
    assert supervision.heard("b1", 1, 3, 6_000, 66_000) is Verdict.FRESH
    assert {silence.child for _, silence in look(supervision, 62_000, 90_000)} == {"b1", "b2", "b3"}


def test_a_child_that_was_heard_while_the_station_stood_still_is_not_taken_to_be_heard_later() -> None:
    supervision = watched("b1")
    supervision.heard("b1", 1, 2, 60_000, 60_500)
    supervision.excuse(60_000, 61_000)
    assert [silence.child for _, silence in look(supervision, 61_000, 61_000 + 19_500)] == ["b1"]


# ---------------------------------------------------------------------------------------------- a bad link


def over_a_bad_link(chance: random.Random, beats: int) -> list[tuple[int, int]]:
    """(arrival, sending) of one child's heartbeats over a TCP connection that loses three packets in ten.

    TCP repeats a packet after 0.2, 0.6, 1.4, 3.0 s …, and what is sent later waits behind it. A stall that the firmware
    would not put up with ends with a new connection, opened in time, and a heartbeat on it; those under way are lost.
    """
    notice_ms = PING_MS + TRUST_MS
    found: list[tuple[int, int]] = []
    free_ms = 0
    for beat in range(beats):
        sent_ms = 5_000 * beat
        delay_ms, pause_ms = 5, 200
        if beat < 2:  # as long as a link has shown nothing of its losses, a long stall is taken for silence
            delay_ms += 200 * beat
        while beat > 1 and chance.random() < 0.3:
            delay_ms += pause_ms
            pause_ms *= 2
        if sent_ms < free_ms and found[-1][0] == found[-1][1]:
            continue  # the connection was dead when it was sent
        at_ms = max(free_ms, sent_ms + delay_ms)
        if at_ms - sent_ms > notice_ms:
            at_ms = sent_ms = sent_ms + notice_ms + chance.randrange(200, OPEN_MS)
        found.append((at_ms, sent_ms))
        free_ms = at_ms
    return found


@pytest.mark.parametrize("behind", [False, True], ids=["own children", "gateways and those behind"])
def test_100_000_heartbeats_over_links_that_lose_30_percent_are_no_event_and_a_real_silence_is(behind: bool) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    supervision = Supervision(DEADLINE)
    children = [f"c{n:02}" for n in range(20)]
    for child in children:
        supervision.expect(child, station=behind, now_ms=0)
    arrivals = sorted(
        (at_ms + phase_ms, child, seq, sent_ms + phase_ms)
        for child in children
        for phase_ms in [chance.randrange(5_000)]
        for seq, (at_ms, sent_ms) in enumerate(over_a_bad_link(chance, 100_000 // len(children)))
    )
    looked_ms, slow = 0, 0
    for at_ms, child, seq, sent_ms in arrivals:
        while looked_ms < at_ms:
            assert supervision.due(looked_ms) == [], f"at {looked_ms} ms, seed {seed}"
            looked_ms += 500
        assert supervision.heard(child, 1, 1 + 10 * seq, sent_ms, at_ms) is Verdict.FRESH
        slow += at_ms - sent_ms > 1_000
        if behind:
            supervision.digested(child, {}, unnamed=0, now_ms=at_ms)
            if seq % 10 == 0:
                supervision.heard(f"b{child}", 1, 1 + seq, at_ms, at_ms, child)
    assert slow > 500, "the link was too good to show anything"
    assert supervision.returns(looked_ms) == []
    dead_ms = looked_ms
    found = look(supervision, dead_ms, dead_ms + 30_000)
    told = {child for _, one in found for child in (one.child, *one.others, *one.behind)}
    assert told == {*children, *(f"b{child}" for child in children if behind)}
    assert all(at_ms - dead_ms <= LAST_CALL_MS + 500 for at_ms, _ in found)


@pytest.mark.parametrize(("station", "patience_ms"), [(False, ROUGH_DEADLINE_MS), (True, DEADLINE)])
def test_a_button_shares_the_network_that_another_one_shows_to_be_rough_and_a_gateway_does_not(
    station: bool, patience_ms: int
) -> None:
    supervision = Supervision(DEADLINE)
    for child in ("c1", "c2"):
        supervision.expect(child, station=station, now_ms=0)
        supervision.heard(child, 1, 1, 0, 0)
        supervision.heard(child, 1, 2, 5_000, 5_000)
    supervision.heard("c1", 1, 3, 10_000, 10_000 + ROUGH_LAG_MS + 1)
    at_ms = next(at_ms for at_ms, silence in look(supervision, 10_500, 40_000) if silence.child == "c2")
    assert patience_ms < at_ms - 5_000 <= patience_ms + 500


def test_a_rough_link_gets_a_little_more_time_and_a_will_over_it_says_nothing() -> None:
    supervision = watched("b1")
    supervision.here("b1", 1, 1)
    supervision.heard("b1", 1, 2, 5_000, 5_000 + ROUGH_LAG_MS + 1)
    supervision.gone("b1", 1, 3, 5_200)
    ((at_ms, _),) = look(supervision, 5_500, 40_000)
    assert ROUGH_DEADLINE_MS < at_ms - 5_151 <= ROUGH_DEADLINE_MS + 500
