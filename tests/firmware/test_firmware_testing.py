"""A technician's test mode: three people want it, and in doubt a press is an alarm."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from firmware.command import FRESH_MS
from firmware import indicator, testing, wire
from firmware.testing import PATTERN_MS, PRESSES
from tests.firmware.test_button_conduct import KEY, PRESSED, REST
from tests.firmware.test_firmware_command import Ordered

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "for 900 s: 5 presses within 10 s, and their alarm closed, make further ones tests"


class Visit(Ordered):
    """A technician's visit: a button, its headquarters, and what was raised."""

    seq = 0

    def beat(self) -> tuple[int, int]:
        self.button.beat()
        message = self.sent("heartbeat")[-1]
        return message[wire.BOOT], message[wire.SEQ]

    def grant(self, for_s: object = 900, beat: tuple[int, int] | None = None) -> None:
        self.seq += 1
        self.order(self.seq, wire.TEST_MODE, detail=wire.encode({wire.TEST_FOR_S: for_s}), upon=beat or self.beat())

    def tap(self, apart_ms: int = 400) -> None:
        self.hold(PRESSED, 200)
        self.hold(REST, apart_ms)

    def pattern(self) -> None:
        for _ in range(PRESSES):
            self.tap()

    def causes(self) -> list[int]:
        return [alarm.cause for alarm in self.button.latch.alarms]

    def close_all(self) -> None:
        for alarm in list(self.button.latch.alarms):
            self.receipt((alarm.boot, alarm.seq), wire.CLOSED)

    def codes(self) -> list[int]:
        events = [self.button.outbox.event(number, self.now_ms) for number in list(self.button.outbox.events)]
        return [event[wire.CODE] for event in events if event[wire.CODE] >= wire.TESTING_BEGUN]

    def told(self) -> int | None:
        self.beat()
        found: int | None = self.sent("heartbeat")[-1].get(wire.TESTING)
        return found


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    return Visit(tmp_path / "state")


def test_granted_then_the_pattern_then_its_alarm_closed_presses_are_tests(visit: Visit) -> None:
    assert visit.told() is None
    visit.grant()
    assert visit.answers() == [(wire.COMMAND_DONE, {0: 1, 1: 1, 5: TEXT})]
    assert visit.told() == testing.GRANTED
    visit.pattern()
    assert visit.causes() == [wire.HOLD_UP], "the first press is an alarm, the others belong to it"
    assert visit.told() == testing.GRANTED
    assert visit.codes() == []
    visit.close_all()
    assert visit.codes() == [wire.TESTING_BEGUN]
    assert visit.told() == testing.ON
    assert visit.button.light() == indicator.TEST
    visit.tap()
    visit.tap()
    assert visit.causes() == [wire.TEST, wire.TEST]
    assert visit.sent("alarm")[-1][wire.CAUSE] == wire.TEST
    visit.now_ms += 900_000
    visit.button.tend()
    assert visit.codes() == [wire.TESTING_BEGUN, wire.TESTING_ENDED]
    visit.tap()
    assert visit.causes()[-1] == wire.HOLD_UP
    assert visit.told() is None


def test_without_a_grant_every_press_is_an_alarm_however_often(visit: Visit) -> None:
    for _ in range(4 * PRESSES):
        visit.tap(200)
    assert visit.causes() == [wire.HOLD_UP] * 4 * PRESSES
    visit.close_all()
    visit.tap()
    assert visit.causes() == [wire.HOLD_UP]


def test_with_a_grant_whoever_presses_in_need_has_raised_an_alarm_that_stays_until_it_is_closed(visit: Visit) -> None:
    visit.grant()
    for _ in range(6 * PRESSES):
        visit.tap(200)
        assert wire.TEST not in visit.causes()
        assert visit.button.latch.alarms[0].cause == wire.HOLD_UP
    first = visit.button.latch.alarms[0]
    assert visit.sent("alarm")[0][wire.SEQ] == first.seq
    assert visit.button.light() == "unconfirmed"


@pytest.mark.parametrize("presses", range(1, PRESSES))
def test_fewer_presses_or_slower_ones_are_no_pattern(visit: Visit, presses: int) -> None:
    visit.grant()
    for _ in range(presses):
        visit.tap()
    visit.close_all()
    visit.tap()
    assert visit.causes() == [wire.HOLD_UP], "its alarm was closed before the pattern was whole"
    visit.close_all()
    for _ in range(2 * PRESSES):
        visit.tap(PATTERN_MS // (PRESSES - 1))
    visit.close_all()
    visit.tap()
    assert visit.causes() == [wire.HOLD_UP]


def test_while_any_real_alarm_is_open_no_press_is_a_test(visit: Visit) -> None:
    before = visit.press()
    visit.grant()
    visit.tap()
    assert visit.causes() == [wire.HOLD_UP] * 2, "the first press of a pattern is an alarm of its own"
    for _ in range(PRESSES - 1):
        visit.tap()
    for alarm in list(visit.button.latch.alarms):
        if (alarm.boot, alarm.seq) != before:
            visit.receipt((alarm.boot, alarm.seq), wire.CLOSED)
    visit.tap()
    assert wire.TEST not in visit.causes()
    visit.close_all()
    visit.tap()
    assert visit.causes() == [wire.TEST]


def test_a_restart_ends_it(visit: Visit, tmp_path: Path) -> None:
    visit.grant()
    visit.pattern()
    visit.close_all()
    again = Visit(tmp_path / "state")
    again.tap()
    assert again.causes() == [wire.HOLD_UP]
    assert again.told() is None


def test_headquarters_ends_it_at_any_time(visit: Visit) -> None:
    visit.grant()
    visit.pattern()
    visit.close_all()
    visit.order(1, wire.TEST_OVER)
    assert visit.codes() == [wire.TESTING_BEGUN, wire.TESTING_ENDED]
    visit.tap()
    assert visit.causes() == [wire.HOLD_UP]


def test_a_grant_that_was_kept_back_counts_no_more_and_one_on_its_way_is_not_longer_for_that(visit: Visit) -> None:
    beat = visit.beat()
    visit.receipt(beat, wire.AT_HQ)
    visit.now_ms += FRESH_MS
    visit.grant(100, beat)
    assert visit.told() == testing.GRANTED
    visit.now_ms += 100_000 - FRESH_MS
    assert visit.told() is None, "it ends when headquarters believes that it does, or before"
    visit.now_ms += 1
    refused = visit.button.refused
    for wrong in (beat, (9, 9), (1, 999)):
        visit.grant(60, wrong)
    for for_s in (0, -1, testing.LONGEST_S + 1, "900", None):
        visit.grant(for_s)
    visit.order(99, wire.TEST_MODE)
    visit.order(99, wire.TEST_MODE, detail=b"rubbish")
    visit.order(99, wire.TEST_MODE, detail=wire.encode([900]))
    assert visit.told() is None
    assert visit.button.refused == refused + 11
    visit.seq = 99
    visit.grant(60)
    assert visit.told() == testing.GRANTED, "what was refused was not taken note of"


def test_nobody_but_headquarters_grants_it(visit: Visit) -> None:
    detail = wire.encode({wire.TEST_FOR_S: 900})
    visit.order(1, wire.TEST_MODE, detail=detail, key=bytes(32))
    visit.order(1, wire.TEST_MODE, detail=detail, kid="khi-cn", key=KEY)
    visit.order(1, wire.TEST_MODE, detail=detail, device="b2")
    assert visit.told() is None


def test_the_light_of_a_test_alarm_is_marked_and_that_of_any_other_never(visit: Visit) -> None:
    visit.tap()
    assert visit.button.steps("at_hq") == indicator.PATTERNS["at_hq"]
    visit.close_all()
    visit.grant()
    visit.pattern()
    visit.close_all()
    visit.tap()
    for signal in ("visible", "silent", "audible"):
        visit.button.settings.signal = signal
        for name in ("unconfirmed", "at_gateway", "at_hq", "acknowledged", "responding"):
            steps = visit.button.steps(name)
            assert steps[: len(indicator.TEST_MARK)] == indicator.TEST_MARK
            assert len(steps) == len(indicator.TEST_MARK) + len(indicator.steps(name, 0, signal))
            assert sum(ms for _, ms in steps) <= 5000
    visit.order(1, wire.TEST_OVER)
    visit.tap()
    assert visit.causes() == [wire.TEST, wire.HOLD_UP]
    assert visit.button.steps("unconfirmed")[:3] != indicator.TEST_MARK[:3]


def test_no_story_of_presses_hides_one_that_came_without_all_three() -> None:
    """Whatever is pressed, closed, granted and ended: a press is lost in a test only after grant, pattern and closing."""
    chance = random.Random(5)
    for _ in range(2000):
        mode, now_ms, open_since = testing.Testing(), 0, None
        granted_until = real_since_grant = closed_since = 0
        for _ in range(40):
            now_ms += chance.choice([100, 1000, 3000, 20_000])
            what = chance.random()
            if what < 0.1:
                mode.grant(now_ms + 60_000)
                granted_until, real_since_grant, closed_since = now_ms + 60_000, 0, 0
            elif what < 0.3:
                closed_since += open_since is not None
                open_since = None
            else:
                found = mode.press(now_ms, open_since is not None)
                if found == testing.TEST:
                    assert open_since is None
                    assert now_ms < granted_until
                    assert real_since_grant >= PRESSES
                    assert closed_since
                elif found == testing.JOINS:
                    assert open_since is not None
                else:
                    open_since = now_ms
                real_since_grant += found != testing.TEST
