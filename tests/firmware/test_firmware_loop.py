"""What the loops mean: every pair of bands, every threshold, and time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firmware import loop

TYPICAL = {loop.SHORT: 0, loop.LOW: 340, loop.HIGH: 610, loop.OPEN: 1000}
REST = (340, 610)
PRESSED = (610, 340)
N, A, B, AB = loop.NEITHER, loop.A, loop.B, loop.BOTH

# (A, B) -> (contacts that say pressed, line of A, line of B)
TABLE = {
    ("SHORT", "SHORT"): (N, "shorted", "shorted"),
    ("SHORT", "LOW"): (B, "shorted", "fine"),
    ("SHORT", "HIGH"): (N, "shorted", "fine"),
    ("SHORT", "OPEN"): (N, "shorted", "cut"),
    ("LOW", "SHORT"): (N, "fine", "shorted"),
    ("LOW", "LOW"): (B, "faulty", "fine"),
    ("LOW", "HIGH"): (N, "fine", "fine"),
    ("LOW", "OPEN"): (N, "fine", "cut"),
    ("HIGH", "SHORT"): (A, "fine", "shorted"),
    ("HIGH", "LOW"): (AB, "fine", "fine"),
    ("HIGH", "HIGH"): (A, "fine", "faulty"),
    ("HIGH", "OPEN"): (A, "fine", "cut"),
    ("OPEN", "SHORT"): (N, "cut", "shorted"),
    ("OPEN", "LOW"): (B, "cut", "fine"),
    ("OPEN", "HIGH"): (N, "cut", "fine"),
    ("OPEN", "OPEN"): (N, "cut", "cut"),
}


class Bench:
    """Loops that are fed a contact's story sample by sample."""

    def __init__(self) -> None:
        self.loops = loop.Loops()
        self.now_ms = 1000
        self.changes: list[tuple[str, object, int]] = []

    def hold(self, reading: tuple[int, int], ms: int, tamper: int = 340) -> Bench:
        """Holds two readings for `ms`, sampled every 10 ms."""
        for _ in range(ms // 10):
            self.changes += self.loops.sample(self.now_ms, *reading, tamper)
            self.now_ms += 10
        return self

    def presses(self) -> list[object]:
        """The contacts of each press."""
        return [about for what, about, _ in self.changes if what == "pressed"]

    def lines(self) -> list[tuple[object, int]]:
        """The loops whose line changed, and when that began."""
        return [(about, since) for what, about, since in self.changes if what == "line"]


def test_table_is_complete() -> None:
    assert len(TABLE) == 16


@pytest.mark.parametrize(("bands", "meaning"), TABLE.items())
def test_every_pair_of_bands(bands: tuple[str, str], meaning: tuple[int, str, str]) -> None:
    a, b = (getattr(loop, name) for name in bands)
    assert loop.classify(a, b) == meaning
    bench = Bench().hold(REST, 200).hold((TYPICAL[a], TYPICAL[b]), 2000)
    assert bench.presses() == ([meaning[0]] if meaning[0] else [])
    assert (bench.loops.line("A"), bench.loops.line("B")) == meaning[1:]


@pytest.mark.parametrize(
    ("permille", "band"),
    [
        *((0, "SHORT"), (201, "SHORT"), (202, "LOW"), (475, "LOW"), (476, "HIGH"), (753, "HIGH"), (754, "OPEN")),
        *((1000, "OPEN"), (1200, "OPEN"), (-3, "SHORT")),
    ],
)
def test_thresholds(permille: int, band: str) -> None:
    assert loop.band(permille) == getattr(loop, band)


@pytest.mark.parametrize(
    ("permille", "line"),
    [(0, "shorted"), (161, "shorted"), (162, "fine"), (340, "fine"), (622, "fine"), (623, "cut"), (1000, "cut")],
)
def test_tamper_thresholds(permille: int, line: str) -> None:
    assert loop.tamper_line(permille) == line


@pytest.mark.parametrize("state", [state for state in itertools.product(TYPICAL.values(), repeat=2) if state != REST])
@given(glitch_ms=st.integers(0, 40), phase_ms=st.integers(0, 9))
@example(glitch_ms=40, phase_ms=0)
def test_a_glitch_of_40_ms_is_nothing(state: tuple[int, int], glitch_ms: int, phase_ms: int) -> None:
    loops = loop.Loops()
    for at_ms in range(phase_ms, 3000, 10):
        a, b = state if 1000 <= at_ms <= 1000 + glitch_ms else REST
        assert loops.sample(at_ms, a, b, 340) == ()


@given(
    press_ms=st.integers(100, 400),
    phase_ms=st.integers(0, 9),
    state=st.sampled_from([PRESSED, (610, 610), (340, 340), (610, 1000), (1000, 340), (610, 0), (0, 340)]),
    late=st.lists(st.integers(0, 9), min_size=300, max_size=300),
)
def test_a_press_of_100_ms_is_always_seen(
    press_ms: int, phase_ms: int, state: tuple[int, int], late: list[int]
) -> None:
    """Also when every sample comes up to 9 ms late, and whatever state the other loop is in."""
    loops = loop.Loops()
    pressed = [
        change
        for i in range(300)
        for at_ms in [phase_ms + 10 * i + late[i]]
        for change in loops.sample(at_ms, *(state if 1000 <= at_ms < 1000 + press_ms else REST), 340)
        if change[0] == "pressed"
    ]
    assert len(pressed) == 1
    assert 1000 <= pressed[0][2] < 1020, "the age counts from the first sample that said pressed"


@given(st.lists(st.tuples(st.sampled_from([REST, PRESSED]), st.integers(1, 4)), min_size=2, max_size=40))
def test_bounce_shorter_than_a_press_never_alarms(story: list[tuple[tuple[int, int], int]]) -> None:
    bench = Bench().hold(REST, 200)
    for reading, samples in story:
        bench.hold(reading, 10 * samples)
        bench.hold(REST, 10)
    assert bench.presses() == []


def test_two_glitches_around_a_pause_in_sampling_are_no_press() -> None:
    bench = Bench().hold(REST, 100).hold(PRESSED, 10)
    bench.now_ms += 500
    assert bench.hold(PRESSED, 10).hold(REST, 200).presses() == []


def test_a_press_is_seen_across_a_pause_in_sampling() -> None:
    bench = Bench().hold(REST, 100).hold(PRESSED, 10)
    bench.now_ms += 60
    assert bench.hold(PRESSED, 30).presses() == [AB]


def test_a_held_press_is_one_press_and_a_second_one_needs_rest_between() -> None:
    bench = Bench().hold(PRESSED, 60_000)
    assert bench.presses() == [AB]
    bench.hold(REST, 90).hold(PRESSED, 200)
    assert bench.presses() == [AB], "too short to have come back to rest"
    assert bench.hold(REST, 150).hold(PRESSED, 100).presses() == [AB, AB]


def test_contacts_that_move_one_after_the_other_are_both_meant() -> None:
    assert Bench().hold(REST, 100).hold((610, 610), 30).hold(PRESSED, 100).presses() == [AB]


def test_a_slow_button_is_not_faulty_but_a_stuck_contact_is() -> None:
    slow = Bench().hold(REST, 100).hold((610, 610), 800).hold(PRESSED, 500)
    assert slow.lines() == []
    stuck = Bench().hold(REST, 100).hold((610, 610), 1200)
    assert stuck.lines() == [("B", 1100)]
    assert stuck.loops.worst() == loop.FAULTY
    assert stuck.hold(REST, 400).loops.worst() == loop.FINE


def test_a_cut_is_seen_within_400_ms_and_its_end_too() -> None:
    bench = Bench().hold(REST, 1000).hold((1000, 610), 400)
    assert bench.lines() == [("A", 2000)]
    assert bench.loops.worst() == loop.CUT
    assert bench.hold(REST, 400).lines() == [("A", 2000), ("A", 2400)]
    assert bench.loops.worst() == loop.FINE


def test_a_press_during_a_cut_is_an_alarm_of_the_other_contact() -> None:
    assert Bench().hold((1000, 610), 1000).hold((1000, 340), 100).presses() == [B]


@pytest.mark.parametrize(("tamper", "line"), [(1000, "cut"), (0, "shorted")])
def test_tamper_is_seen_within_400_ms(tamper: int, line: str) -> None:
    bench = Bench().hold(REST, 100).hold(REST, 400, tamper)
    assert bench.changes == [("tamper", line, 1100)]
    assert bench.loops.tampered
    assert not bench.hold(REST, 400).loops.tampered
