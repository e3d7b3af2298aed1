"""What the button does, step by step, without a connection: order of sending and keeping, supervision, limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from firmware import button as button_module
from firmware import health, outbox, settings, wire
from firmware.button import Button
from firmware.flash import Flash
from firmware.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))
LANES = {"alarm": (1, False), "event": (1, False), "heartbeat": (0, False), "presence": (1, True)}
REST = (340, 610, 340)
PRESSED = (610, 340, 340)


class ToldFlash(Flash):
    """A flash that says what was kept, and can be full."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        super().__init__(str(folder))
        self.desk = desk

    def write(self, name: str, octets: bytes) -> None:
        if self.desk.full:
            raise OSError(28, "no space")
        super().write(name, octets)
        self.desk.story.append(("kept", name))


class Desk:
    """A button whose board, session and clock are the test's; `story` says what happened in which order."""

    SAMPLE_MS = 10
    reset_cause = 1
    version = "0.1.0"

    def __init__(self, folder: Path, **told: Any) -> None:
        self.story: list[tuple[Any, ...]] = []
        self.now_ms = 0
        self.reading = REST
        self.up = False
        self.urgent = False
        self.reconnects = 0
        self.refused = 0
        self.full = False
        self.takes = 10**9
        self.flash = ToldFlash(self, folder)
        clock = SimpleNamespace(ms=lambda: self.now_ms, advance=lambda: self.now_ms)
        settled = {"id": "b1", "hq": "hq", "contacts": settings.BOTH, "alarms_per_minute": 6000, **told}
        self.button = Button(
            SimpleNamespace(**settled), KEY, Outbox(self.flash, self.complain, bytes), self, clock, lambda: None
        )
        self.button.session = self
        self.story.clear()

    def complain(self, sentence: str) -> None:
        pytest.fail(sentence)

    # the board
    def readings(self) -> tuple[int, int, int]:
        return self.reading

    def battery_mv(self) -> int:
        return 4050

    def mains(self) -> bool:
        return True

    def rssi(self) -> None:
        return

    def tell(self, name: str, value: object, **_: object) -> None:
        self.story.append((name, value))

    # the session
    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> bool:  # noqa: FBT001, FBT002
        assert topic.startswith("tocsin/1/b1/")
        message = wire.unseal(payload).message
        lane = topic.rpartition("/")[2]
        assert (qos, retain) == LANES[lane]
        self.takes -= 1
        if not self.up or self.takes < 0:
            return False
        self.story.append((lane, message))
        return True

    # the test
    def connect(self) -> None:
        self.button.will()
        self.up = True
        self.button.connected()

    def hold(self, reading: tuple[int, int, int], ms: int) -> None:
        self.reading = reading
        for _ in range(ms // 10):
            self.now_ms += 10
            if self.button.sample():
                self.button.moved()

    def press(self) -> tuple[int, int]:
        self.hold(PRESSED, 200)
        self.hold(REST, 200)
        alarm = self.button.latch.alarms[-1]
        return alarm.boot, alarm.seq

    def receipt(self, number: tuple[int, int], stage: int) -> None:
        message = {0: 4, 1: number[0], 2: number[1], 10: stage, 11: "b1"}
        sealed = wire.seal(message, "hq", KEY) if stage > 1 else wire.encode(message)
        self.button.received("tocsin/1/b1/receipt", sealed)

    def lanes(self) -> list[str]:
        return [what[0] for what in self.story]

    def sent(self, lane: str) -> list[dict[int, Any]]:
        return [what[1] for what in self.story if what[0] == lane]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state")


def test_an_alarm_is_on_its_way_first_and_in_flash_before_anything_else(desk: Desk) -> None:
    desk.connect()
    desk.story.clear()
    desk.press()
    assert desk.lanes()[:3] == ["alarm", "kept", "latched"]
    assert desk.story[1] == ("kept", "a-1-3")
    assert desk.urgent
    desk.receipt((1, 3), wire.AT_GATEWAY)
    assert desk.urgent
    desk.receipt((1, 3), wire.AT_HQ)
    assert not desk.urgent


def test_on_a_new_connection_alarms_go_before_everything_else(desk: Desk) -> None:
    for _ in range(3):
        desk.button.add_event(0, wire.LOOP_CUT, "A")
    desk.press()
    desk.press()
    desk.story.clear()
    desk.connect()
    assert desk.lanes() == ["alarm", "alarm", "presence", "heartbeat", "event", "event", "event", "link"]
    presence, beat = desk.sent("presence")[0], desk.sent("heartbeat")[0]
    assert presence[wire.STATE] == 1
    assert beat[wire.PENDING] == 5
    assert beat[wire.SEQ] > presence[wire.SEQ]


def test_the_will_has_the_number_of_the_presence_that_follows(desk: Desk) -> None:
    topic, payload = desk.button.will()
    will = wire.unseal(payload).message
    assert (topic, will[wire.STATE]) == ("tocsin/1/b1/presence", 0)
    desk.up = True
    desk.button.connected()
    here = desk.sent("presence")[0]
    assert {**here, wire.STATE: 0} == will


def beat(desk: Desk) -> tuple[int, int]:
    """Sends a heartbeat: its number."""
    desk.button.beat()
    message = desk.sent("heartbeat")[-1]
    return message[wire.BOOT], message[wire.SEQ]


def test_headquarters_own_answer_is_enough_for_25_seconds_and_counts_once(desk: Desk) -> None:
    desk.connect()
    message = desk.sent("heartbeat")[-1]
    number = message[wire.BOOT], message[wire.SEQ]
    assert desk.button.light() == "unsupervised"
    desk.receipt(number, wire.AT_GATEWAY)
    assert desk.button.light() == "unsupervised", "a gateway's word alone is not enough"
    desk.receipt(number, wire.AT_HQ)
    desk.now_ms += 24_999
    assert desk.button.light() == "rest"
    desk.now_ms += 1
    assert desk.button.light() == "unsupervised"
    desk.receipt(number, wire.AT_HQ)
    assert desk.button.light() == "unsupervised", "an old answer, repeated, proves nothing"


def test_with_the_gateways_word_headquarters_answer_lasts_90_seconds_and_no_longer(desk: Desk) -> None:
    desk.connect()
    desk.receipt(beat(desk), wire.AT_HQ)
    for _ in range(17):
        desk.now_ms += 5_000
        desk.receipt(beat(desk), wire.AT_GATEWAY)
        assert desk.button.light() == "rest"
    desk.now_ms += 5_000
    desk.receipt(beat(desk), wire.AT_GATEWAY)
    assert desk.button.light() == "unsupervised", "so long can a stolen gateway pretend"


def test_a_gateway_that_says_no_more_turns_the_light_dark_within_15_seconds_of_the_last_heartbeat_it_took(
    desk: Desk,
) -> None:
    desk.connect()
    desk.receipt(beat(desk), wire.AT_HQ)
    desk.now_ms += 30_000
    assert desk.button.light() == "unsupervised"
    number = beat(desk)
    desk.now_ms += 14_000
    desk.receipt(number, wire.AT_GATEWAY)
    assert desk.button.light() == "rest"
    desk.now_ms += 1_000
    assert desk.button.light() == "unsupervised", "what counts is when the heartbeat was sent"


def test_an_answer_to_a_heartbeat_of_long_ago_proves_nothing(desk: Desk) -> None:
    desk.connect()
    old = desk.sent("heartbeat")[-1]
    for _ in range(button_module.BEATS):
        desk.button.beat()
    desk.receipt((old[wire.BOOT], old[wire.SEQ]), wire.AT_HQ)
    assert desk.button.light() == "unsupervised"
    newer, newest = desk.sent("heartbeat")[-2:]
    desk.receipt((newest[wire.BOOT], newest[wire.SEQ]), wire.AT_HQ)
    assert desk.button.light() == "rest"
    desk.now_ms += 20_000
    desk.receipt((newer[wire.BOOT], newer[wire.SEQ]), wire.AT_HQ)
    desk.now_ms += 5000
    assert desk.button.light() == "unsupervised"


def test_a_full_flash_does_not_stop_an_alarm(desk: Desk) -> None:
    desk.connect()
    desk.full = True
    number = desk.press()
    assert [(alarm[wire.BOOT], alarm[wire.SEQ]) for alarm in desk.sent("alarm")] == [number]
    assert "error" in desk.lanes()
    assert desk.button.light() == "unconfirmed"


def test_alarms_that_headquarters_has_make_room_and_others_never_go(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_ALARMS", 3)
    numbers = [desk.press() for _ in range(3)]
    desk.receipt(numbers[1], wire.AT_HQ)
    numbers.append(desk.press())
    kept = [(alarm.boot, alarm.seq) for alarm in desk.button.latch.alarms]
    assert kept == [numbers[0], numbers[2], numbers[3]]
    assert sorted(name for name in desk.flash.names() if name.startswith("a-")) == [f"a-1-{seq}" for _, seq in kept]
    desk.press()
    assert [(alarm.boot, alarm.seq) for alarm in desk.button.latch.alarms] == kept
    assert desk.button.light() == "unconfirmed"
    assert "error" in desk.lanes()


def test_a_thousand_dropped_events_are_reported_as_one_number(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_EVENTS", 20)
    for _ in range(60):
        desk.button.add_event(0, wire.LOOP_CUT, "A")
    desk.connect()
    while desk.button.outbox.events:
        for number in list(desk.button.outbox.events)[:8]:
            desk.receipt(number, wire.AT_HQ)
        desk.button.send_due()
    reports = [event for event in desk.sent("event") if event[wire.CODE] == wire.EVENTS_DROPPED]
    assert [report[wire.DETAIL] for report in reports] == [40]


def test_a_press_after_a_long_backlog_is_sent_at_once(desk: Desk) -> None:
    for _ in range(300):
        desk.button.add_event(0, wire.LOOP_CUT, "A")
    desk.connect()
    assert len(desk.sent("event")) == 8
    desk.story.clear()
    desk.press()
    assert desk.lanes()[0] == "alarm"


def test_a_connection_that_takes_no_more_for_now_gets_the_rest_soon(desk: Desk) -> None:
    for _ in range(3):
        desk.button.add_event(0, wire.LOOP_CUT, "A")
    desk.press()
    desk.press()
    desk.story.clear()
    desk.takes = 1
    desk.connect()
    assert desk.lanes() == ["alarm", "link"]
    assert desk.button.wait_ms() == button_module.HELD_MS
    desk.takes = 3
    desk.button.send_due()
    assert desk.lanes() == ["alarm", "link", "alarm", "presence", "event"]
    assert desk.button.wait_ms() == button_module.HELD_MS
    desk.takes = 10**9
    desk.button.send_due()
    assert desk.lanes()[5:] == ["event", "event"]
    assert desk.button.wait_ms() == 1000


def test_messages_for_others_and_commands_are_left_alone(desk: Desk) -> None:
    desk.button.received("tocsin/1/b1/command", b"rubbish")
    assert (desk.button.refused, desk.story) == (0, [])


def test_a_button_that_is_still_pressed_after_a_restart_raises_the_same_alarm_again(desk: Desk, tmp_path: Path) -> None:
    desk.hold(PRESSED, 500)
    number = desk.button.latch.alarms[0].boot, desk.button.latch.alarms[0].seq
    again = Desk(tmp_path / "state")
    again.hold(PRESSED, 200)
    again.connect()
    assert [(alarm[wire.BOOT], alarm[wire.SEQ]) for alarm in again.sent("alarm")] == [number]
    still = [event for event in again.sent("event") if event[wire.CODE] == wire.STILL_PRESSED]
    assert [event[wire.DETAIL] for event in still] == [list(number)]
    again.hold(REST, 200)
    assert again.press() != number, "released and pressed again is another press"


@pytest.mark.parametrize("closed", [False, True])
def test_a_press_after_a_restart_is_a_new_alarm(desk: Desk, tmp_path: Path, *, closed: bool) -> None:
    old = desk.press()
    if closed:
        desk.receipt(old, wire.CLOSED)
    again = Desk(tmp_path / "state")
    if not closed:
        again.hold(REST, 10)  # one reading at rest: it was released
    again.hold(PRESSED, 200)
    newest = again.button.latch.alarms[-1]
    assert newest.boot == again.button.outbox.boot != old[0]


def test_a_test_alarm_is_never_what_a_press_after_a_restart_joins(desk: Desk, tmp_path: Path) -> None:
    desk.button.tests_until_ms = 10_000
    desk.hold(PRESSED, 500)
    again = Desk(tmp_path / "state")
    again.hold(PRESSED, 200)
    assert [alarm.cause for alarm in again.button.latch.alarms] == [wire.TEST, wire.HOLD_UP]


def test_a_chattering_contact_is_an_event_and_no_flood(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "state", alarms_per_minute=12)
    desk.connect()
    for _ in range(400):
        desk.hold(PRESSED, 100)
        desk.hold(REST, 120)
    raised = {(alarm[wire.BOOT], alarm[wire.SEQ]) for alarm in desk.sent("alarm")}
    assert len(raised) == len(desk.button.latch.alarms)
    assert 12 <= len(raised) <= 12 + 400 * 220 // 5000 + 1
    chatter = [number for number in desk.button.outbox.events if desk.button.outbox.event(number, desk.now_ms)[7] == 14]
    assert len(chatter) == 1
    for alarm in list(desk.button.latch.alarms):
        desk.receipt((alarm.boot, alarm.seq), wire.CLOSED)
    desk.hold(PRESSED, 100)
    assert len(desk.button.latch.alarms) == 1, "with no open alarm to join, a press is an alarm whatever was before"
    desk.hold(REST, 200)
    desk.now_ms += 120_000
    for _ in range(2):
        desk.press()
    assert len(desk.button.latch.alarms) == 3


def test_a_button_that_stays_pressed_is_an_event_once(desk: Desk) -> None:
    desk.hold(PRESSED, 200)
    for _ in range(300):
        desk.now_ms += 5_000
        desk.button.tend()
    codes = [desk.button.outbox.event(number, desk.now_ms)[wire.CODE] for number in desk.button.outbox.events]
    assert codes.count(wire.CONTACT_STUCK) == 1
    desk.hold(REST, 200)
    desk.now_ms += 700_000
    desk.button.tend()
    codes = [desk.button.outbox.event(number, desk.now_ms)[wire.CODE] for number in desk.button.outbox.events]
    assert codes.count(wire.CONTACT_STUCK) == 1


@pytest.mark.parametrize(("contacts", "a", "b"), [("normally_closed", 610, 1000), ("normally_open", 0, 340)])
def test_a_button_with_one_contact_works_by_that_alone(tmp_path: Path, contacts: str, a: int, b: int) -> None:
    desk = Desk(tmp_path / "state", contacts=contacts)
    rest = (340, 1000, 340) if contacts == settings.NORMALLY_CLOSED else (0, 610, 340)
    desk.hold(rest, 3000)
    assert not desk.button.outbox.events, "a loop that is not there is not in trouble"
    desk.hold((a, b, 340), 3000)
    assert [alarm.how for alarm in desk.button.latch.alarms] == [wire.BOTH_CONTACTS]
    assert not desk.button.outbox.events
    desk.hold((1000, 1000, 340) if contacts == settings.NORMALLY_CLOSED else (1000, 1000, 340), 1000)
    assert desk.button.light() == "unconfirmed"
    assert [desk.button.outbox.event(number, 0)[wire.CODE] for number in desk.button.outbox.events] == [wire.LOOP_CUT]


def test_a_heartbeat_tells_the_worst_that_was_not_told_yet(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter((50_000, 9_000, 40_000, 41_000, 42_000))
    monkeypatch.setattr(health, "heap_free", lambda: next(free))
    desk.connect()
    desk.story.clear()
    desk.hold(REST, 20)
    desk.now_ms += 700
    desk.hold(REST, 20)
    desk.button.weigh()  # in the middle of a handshake
    desk.takes = 0
    desk.button.beat()
    desk.takes = 10
    for _ in range(2):
        desk.button.beat()
    told = [(beat[wire.HEAP], beat[wire.HEAP_LEAST], beat[wire.DELAY] // 100) for beat in desk.sent("heartbeat")]
    assert told == [(41_000, 9_000, 7), (42_000, 9_000, 0)]
    assert all(beat[wire.RESET] and beat[wire.BOOT] and wire.RECONNECTS in beat for beat in desk.sent("heartbeat"))


def test_a_backlog_of_alarms_is_sent_a_few_at_a_time_and_without_a_pause(desk: Desk) -> None:
    pressed = [desk.press() for _ in range(3 * button_module.BURST)]
    desk.story.clear()
    desk.connect()
    turns = [sum(entry[0] == "alarm" for entry in desk.story)]
    while desk.button.wait_ms() == 0:
        desk.story.clear()
        desk.button.send_due()
        turns.append(sum(entry[0] == "alarm" for entry in desk.story))
    assert turns[0] <= 2 * button_module.BURST
    assert max(turns[1:]) <= button_module.BURST
    assert sum(turns) == len(pressed)
    assert any(entry[0] == "presence" for entry in desk.story), "the presence comes right after them"
