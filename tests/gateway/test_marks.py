"""A parent whose journal was put back to an earlier state is found out, and since when what was delivered is owed again."""

from __future__ import annotations

from random import Random

import pytest

from firmware import wire
from gateway.marks import KNOWN, LACKED, SLACK_MS, STARTED_ANEW, Due, Marks, read

RUN, LATER_RUN = b"run1", b"run2"
DAY_MS = 86_400_000


def mark(position: int, run: bytes = RUN) -> list[object]:
    return [position, position.to_bytes(8, "big") + run]


def lived(times_ms: list[int]) -> Marks:
    """At each of these times the parent held as many entries."""
    marks = Marks()
    for at_ms in times_ms:
        marks.told(mark(at_ms), at_ms)
    return marks


def since(marks: Marks, held: int, run: bytes) -> tuple[Due | None, int]:
    """What a parent that holds `held` entries, in that run, makes of the station's questions; and how many there were."""
    for asked in range(1, 1000):
        question = marks.asked
        if question is None:
            return None, asked
        known = question[0] <= held
        says = LACKED if not known else KNOWN if question[1].endswith(run) else STARTED_ANEW
        due = marks.answered(question, says)
        if due is not None or not marks.searching:
            return due, asked
    pytest.fail("it asks for ever")


def test_a_parent_that_holds_what_it_held_is_owed_nothing() -> None:
    marks = lived([5_000, 10_000, 15_000])
    assert since(marks, 15_000, RUN) == (None, 1)
    assert marks.asked == mark(15_000)


def test_a_parent_that_started_anew_gets_what_it_got_after_its_newest_mark_again() -> None:
    due, asked = since(lived([5_000, 100_000]), 100_000, LATER_RUN)
    assert (due, asked) == (Due(100_000 - SLACK_MS, lacking=False), 1)


def test_a_parent_that_lacks_entries_gets_all_since_the_newest_mark_that_it_knows_again() -> None:
    marks = lived([5_000, 100_000, 200_000, 300_000])
    due, asked = since(marks, 150_000, LATER_RUN)
    assert (due, asked) == (Due(100_000 - SLACK_MS, lacking=True), 3)
    assert marks.told(mark(151_000, LATER_RUN), 310_000)
    assert since(marks, 151_000, LATER_RUN) == (None, 1)


def test_a_parent_that_knows_no_mark_gets_everything_again() -> None:
    marks = lived([5_000, 100_000])
    assert since(marks, 0, LATER_RUN)[0] == Due(0, lacking=True)
    assert marks.asked is None
    assert not marks.searching


def test_what_the_parent_holds_by_now_is_no_mark_while_an_older_one_is_looked_for() -> None:
    marks = lived([5_000, 100_000])
    assert marks.answered(mark(100_000), LACKED) is None
    assert not marks.told(mark(3, LATER_RUN), 110_000)
    assert marks.asked == mark(5_000)


def test_an_answer_that_comes_twice_or_late_says_nothing() -> None:
    marks = lived([5_000, 100_000])
    marks.answered(mark(100_000), LACKED)
    assert marks.answered(mark(100_000), LACKED) is None
    assert marks.asked == mark(5_000)


def test_marks_that_lie_in_the_future_are_forgotten_when_the_clock_is_set_back() -> None:
    marks = lived([5_000, 100_000, 900_000])
    marks.told(mark(7), 200_000)
    assert since(marks, 6, LATER_RUN)[0] == Due(
        0, lacking=True
    )  # 7, then 100,000 and 5,000 are asked for; none of 900,000


def test_a_restart_keeps_them() -> None:
    marks = lived([5_000, 100_000])
    again = Marks(marks.text)
    assert again.asked == marks.asked
    assert since(again, 50_000, LATER_RUN)[0] == Due(5_000 - SLACK_MS, lacking=True)


def test_a_year_of_marks_is_few_and_none_is_much_too_old() -> None:
    """Whatever age the backup has, at most a third more than its age is delivered again."""
    marks, now_ms, chance = Marks(), 1_700_000_000_000, Random(1)
    began_ms = now_ms
    while now_ms < began_ms + 365 * DAY_MS:
        now_ms += 5_000 if chance.random() < 0.5 or now_ms > began_ms + 364 * DAY_MS else chance.randrange(40 * 60_000)
        marks.told(mark(now_ms - began_ms), now_ms)
    assert len(marks.text) < 8_000
    for age_ms in (20_000, 3_600_000, DAY_MS, 30 * DAY_MS, 200 * DAY_MS):
        due, _ = since(Marks(marks.text), now_ms - age_ms - began_ms, LATER_RUN)
        assert due is not None
        assert age_ms <= now_ms - due.since_ms <= age_ms * 4 / 3 + SLACK_MS + 40 * 60_000, age_ms


@pytest.mark.parametrize(
    "value",
    [None, 7, [], [1], [1, b"short"], ["1", bytes(12)], [-1, bytes(12)], [True, bytes(12)], [1 << 63, bytes(12)], [1, bytes(12), 1]],
)  # fmt: skip
def test_a_mark_of_another_form_is_none(value: object) -> None:
    assert read({wire.MARK: value}, wire.MARK) is None
    assert read({wire.MARK: [1, bytes(12)]}, wire.MARK) == [1, bytes(12)]
