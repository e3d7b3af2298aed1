"""A button obeys headquarters and nobody else, each command once, whatever is forged, repeated or cut short."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from firmware import configuration, indicator, wire
from firmware.command import FRESH_MS, IDENTIFY_MS, Commands, packed, unpacked
from firmware.wifi import Known
from gateway.commands import concealed
from tests.firmware.test_button_conduct import KEY, Desk

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = ("Consulate", "a secret password")
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=8, max_size=15)


def block(key: bytes) -> Any:
    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update


class Ordered(Desk):
    """The conduct tests' button, with commands; `radio` False: a board without."""

    def __init__(self, folder: Path, *, radio: bool = True, signal: str = "visible") -> None:
        super().__init__(folder, signal=signal)
        self.restarts = 0
        self.known = Known(self.flash, [], pytest.fail)
        wifi = SimpleNamespace(known=self.known) if radio else None
        self.button.commands = Commands(
            self.button.settings, KEY, self.flash, self.button, wifi, block, restart=self.restart
        )
        self.connect()
        self.story.clear()

    def restart(self) -> None:
        self.restarts += 1

    def tell(self, name: str, value: object, **more: object) -> None:
        super().tell(name, (value, more) if more else value)

    def order(self, seq: int, code: int = wire.IDENTIFY, boot: int = 1, **other: Any) -> None:
        message = {0: wire.COMMAND, 1: boot, 2: seq, 7: code, 11: other.get("device", "b1")}
        message[54] = list(other.get("upon") or self.newest_beat())
        if "detail" in other:
            message[9] = other["detail"]
        message[0] = other.get("kind", wire.COMMAND)
        if message[0] == wire.RECEIPT:
            message[10] = 2
        octets = wire.seal(message, other.get("kid", "hq"), other.get("key", KEY))
        self.button.received("tocsin/1/b1/command", octets)

    def newest_beat(self) -> tuple[int, int]:
        """Its (boot, seq), not older than headquarters' would be."""
        button = self.button
        kept = [*([button._answered_beat] if button._answered_beat else []), *button._beats]
        if not kept or self.now_ms - kept[-1][1] > 60_000:
            button.beat()
            kept = button._beats
        number: tuple[int, int] = kept[-1][0]
        return number

    def change(self, seq: int, network: tuple[str, str] = NETWORK) -> None:
        self.order(seq, wire.WIFI, detail=concealed(network, KEY, (1, seq)))

    def taken(self) -> int:
        return sum(what[0] == "command" for what in self.story)

    def answers(self) -> list[tuple[int, Any]]:
        """(event code, detail) of each answer that is kept."""
        events = [self.button.outbox.event(number, self.now_ms) for number in list(self.button.outbox.events)]
        return [
            (event[wire.CODE], event[wire.DETAIL])
            for event in events
            if event[wire.CODE] in (wire.COMMAND_DONE, wire.COMMAND_FAILED)
        ]

    def receipt_everything(self) -> None:
        for number in list(self.button.outbox.events):
            self.receipt(number, wire.AT_HQ)


@pytest.fixture
def desk(tmp_path: Path) -> Ordered:
    return Ordered(tmp_path / "state")


def test_identify_blinks_for_ten_seconds_and_is_answered(desk: Ordered) -> None:
    desk.order(5)
    assert desk.button.light() == indicator.IDENTIFY
    assert desk.answers() == [(wire.COMMAND_DONE, {0: 1, 1: 5, 5: "its lamp blinks amber and green for 10 s"})]
    desk.now_ms += IDENTIFY_MS - 1
    assert desk.button.light() == indicator.IDENTIFY
    desk.now_ms += 1
    assert desk.button.light() != indicator.IDENTIFY


def test_an_alarm_has_the_light_before_and_after(desk: Ordered) -> None:
    desk.press()
    desk.order(5)
    assert desk.button.light() == "unconfirmed"
    assert desk.answers()[0][0] == wire.COMMAND_FAILED
    alarm = desk.button.latch.alarms[0]
    desk.receipt((alarm.boot, alarm.seq), wire.CLOSED)
    desk.order(6)
    assert desk.button.light() == indicator.IDENTIFY
    desk.press()
    assert desk.button.light() == "unconfirmed"


def test_headquarters_repeats_until_it_has_the_answer_and_nothing_happens_twice(desk: Ordered) -> None:
    for _ in range(3):
        desk.order(5)
    assert (desk.taken(), len(desk.answers()), desk.button.refused) == (1, 1, 0)
    desk.receipt_everything()
    desk.order(5)
    assert (desk.taken(), desk.button.refused) == (1, 1), "headquarters has the answer: who repeats it now?"


def test_a_command_that_was_kept_back_counts_no_more(desk: Ordered) -> None:
    beat = desk.newest_beat()
    for _ in range(FRESH_MS // 5_000 - 1):
        desk.now_ms += 5_000
        desk.button.beat()
    desk.now_ms += 5_000
    desk.order(5, upon=beat)
    assert (desk.taken(), desk.button.refused) == (1, 0), "as late as can be"
    desk.now_ms += 1
    desk.order(5, upon=beat)
    assert desk.button.refused == 0, "a repeat of what it has is no lie"
    desk.order(6, upon=beat)
    desk.order(7, upon=(beat[0], beat[1] + 99))
    desk.order(8, upon=(beat[0] + 1, 1))
    desk.order(9, upon=(0, 0))
    assert (desk.taken(), desk.button.refused) == (1, 4)
    desk.order(6)
    assert desk.taken() == 2, "what was refused was not taken note of"


def test_a_command_upon_a_heartbeat_of_before_a_restart_is_left_alone(desk: Ordered, tmp_path: Path) -> None:
    beat = desk.newest_beat()
    again = Ordered(tmp_path / "state")
    again.order(5, upon=beat)
    assert (again.taken(), again.button.refused) == (0, 0), "it was under way; headquarters sends it again"
    again.order(5)
    assert again.taken() == 1


def test_an_old_command_is_refused_also_after_a_power_cut(desk: Ordered, tmp_path: Path) -> None:
    desk.order(5)
    desk.order(7)
    desk.order(6)
    desk.order(9, boot=0)
    assert (desk.taken(), desk.button.refused) == (2, 2)
    again = Ordered(tmp_path / "state")
    for seq in (5, 6):
        again.order(seq)
    assert (again.taken(), again.button.refused) == (0, 2)
    again.order(7)
    assert (again.taken(), again.button.refused) == (0, 2), "its answer is still on the way"
    again.receipt_everything()
    again.order(7)
    assert (again.taken(), again.button.refused) == (0, 3)
    again.order(1, boot=2)
    assert again.taken() == 1


def test_a_command_that_a_power_cut_kept_from_being_answered_is_done_when_it_is_repeated(
    desk: Ordered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cut:
        cut.setattr(desk.button, "identify", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            desk.order(5)
    again = Ordered(tmp_path / "state")
    again.order(5)
    assert again.answers() == [(wire.COMMAND_DONE, {0: 1, 1: 5, 5: "its lamp blinks amber and green for 10 s"})]


def test_commands_of_different_codes_do_not_age_each_other(desk: Ordered) -> None:
    desk.order(9)
    desk.change(5)
    assert (desk.taken(), desk.button.refused) == (2, 0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"key": bytes(32)}, "the command's MAC is wrong"),
        ({"kid": "khi-cn"}, "the command is from khi-cn, not from headquarters"),
        ({"kid": "b1"}, "the command is from b1, not from headquarters"),
        ({"device": "b2"}, "the command is for b2"),
        ({"kind": wire.RECEIPT}, "this is not a command"),
    ],
)
def test_forged_commands_change_nothing_and_are_counted(desk: Ordered, wrong: dict[str, Any], sentence: str) -> None:
    desk.order(5, **wrong)
    assert desk.story == [("refused", sentence)]
    assert desk.button.refused == 1
    assert not [name for name in desk.flash.names() if name.startswith("command")]
    desk.order(5)
    assert desk.taken() == 1, "the number was not used up"


@pytest.mark.parametrize(
    "octets", [b"", b"rubbish", b"\xd1\x84", bytes(1025), wire.encode({0: 5, 1: 9, 2: 1, 7: 1, 11: "b1"})]
)
def test_rubbish_is_refused(desk: Ordered, octets: bytes) -> None:
    desk.button.received("tocsin/1/b1/command", octets)
    assert (desk.button.refused, desk.taken()) == (1, 0)


def test_an_unknown_command_is_answered(desk: Ordered) -> None:
    desk.order(5, 77)
    assert desk.answers() == [(wire.COMMAND_FAILED, {0: 1, 1: 5, 5: "this firmware does not know the command 77"})]


def test_what_cannot_be_remembered_is_not_done_until_it_can(desk: Ordered) -> None:
    desk.full = True
    desk.order(5)
    assert desk.button.light() != indicator.IDENTIFY
    desk.full = False
    desk.order(5)
    assert desk.button.light() == indicator.IDENTIFY


def test_a_damaged_number_is_said_and_the_next_command_counts(desk: Ordered) -> None:
    for octets in (b"", b"\xff", wire.encode(3), wire.encode({1: 2})):
        desk.flash.write("command-1", octets)
        desk.order(5)
        assert any(what[0] == "error" and "command-1 is damaged" in what[1] for what in desk.story)
        desk.story.clear()


# ------------------------------------------------------------------------------------------------ networks


def test_a_new_network_goes_on_trial_and_nobody_says_its_password(desk: Ordered) -> None:
    desk.change(5)
    assert desk.known.trial is not None
    assert (desk.known.trial.network, desk.known.trial.number, desk.known.trial.tried) == (NETWORK, (1, 5), False)
    assert not desk.answers(), "it is answered when it worked, or failed"
    assert NETWORK[1] not in repr(desk.story)
    desk.change(5)
    assert (desk.taken(), desk.button.refused) == (1, 0)


def test_a_trial_goes_on_after_a_power_cut(desk: Ordered, tmp_path: Path) -> None:
    desk.change(5)
    again = Ordered(tmp_path / "state")
    assert again.known.trial is not None
    again.known.failed()
    again.change(5)
    assert again.known.trial is not None
    assert again.known.trial.tried, "it does not begin anew"


def test_the_answer_can_change_from_failed_to_done(desk: Ordered) -> None:
    desk.change(5)
    desk.button.commands.answer(False, (1, 5), wire.WIFI, "wrong password")
    desk.button.commands.answer(True, (1, 5), wire.WIFI, "it is on Consulate")
    assert [code for code, _ in desk.answers()] == [wire.COMMAND_FAILED, wire.COMMAND_DONE]
    desk.change(5)
    assert desk.taken() == 1


def test_without_a_radio_it_fails_in_words(tmp_path: Path) -> None:
    desk = Ordered(tmp_path / "state", radio=False)
    desk.change(5)
    assert desk.answers()[0][1][5] == "this board has no radio: its network is the cable"


@pytest.mark.parametrize(
    "detail",
    [None, 7, "Consulate", b"", bytes(112), concealed(NETWORK, bytes(32), (1, 5)), concealed(NETWORK, KEY, (1, 4))],
)
def test_a_network_that_cannot_be_read_fails_in_words(desk: Ordered, detail: Any) -> None:
    desk.order(5, wire.WIFI, detail=detail)
    code, told = desk.answers()[0]
    assert code == wire.COMMAND_FAILED
    assert told[5].startswith("the network can't be used: ")
    assert desk.known.trial is None


@given(WORDS, WORDS)
def test_whatever_is_packed_is_unpacked(name: str, password: str) -> None:
    if len(name.encode()) <= 32:
        assert unpacked(packed((name, password))) == (name, password)
        assert len(packed((name, password))) == 112


def cut_power(desk: Ordered, folder: Path) -> Ordered:
    """The same flash in a new start, a boot later."""
    assert desk is not None
    again = Ordered(folder / "state")
    again.button.commands.resume()
    return again


def test_a_test_command_raises_a_test_alarm_and_is_answered_by_headquarters_receipt_for_it(desk: Ordered) -> None:
    desk.order(5, wire.TEST_ALARM)
    (alarm,) = desk.sent("alarm")
    assert alarm[wire.CAUSE] == wire.TEST
    number = alarm[wire.BOOT], alarm[wire.SEQ]
    assert desk.answers() == []
    desk.receipt(number, wire.AT_GATEWAY)
    desk.order(5, wire.TEST_ALARM)
    assert desk.answers() == [], "the gateway is not headquarters"
    desk.now_ms += 85
    desk.receipt(number, wire.AT_HQ)
    text = "headquarters' receipt for the test alarm was here after 85 ms"
    assert desk.answers() == [(wire.COMMAND_DONE, {0: 1, 1: 5, 5: text})]
    assert len(desk.button.latch.alarms) == 1


def test_nothing_is_tested_while_a_real_alarm_is_open(desk: Ordered) -> None:
    desk.press()
    desk.order(5, wire.TEST_ALARM)
    assert [alarm.cause for alarm in desk.button.latch.alarms] == [wire.HOLD_UP]
    assert desk.answers()[0][0] == wire.COMMAND_FAILED


def test_a_test_that_a_power_cut_interrupts_raises_no_second_alarm(desk: Ordered, tmp_path: Path) -> None:
    desk.order(5, wire.TEST_ALARM)
    again = cut_power(desk, tmp_path)
    (alarm,) = again.button.latch.alarms
    again.order(5, wire.TEST_ALARM)
    assert again.button.latch.alarms == [alarm]
    again.receipt((alarm.boot, alarm.seq), wire.AT_HQ)
    assert [code for code, _ in again.answers()] == [wire.COMMAND_DONE]


def test_a_restart_is_answered_by_the_next_start_and_happens_once(desk: Ordered, tmp_path: Path) -> None:
    desk.order(5, wire.REBOOT)
    desk.order(5, wire.REBOOT)
    assert desk.restarts == 1
    assert desk.answers() == []
    again = cut_power(desk, tmp_path)
    assert [code for code, _ in again.answers()] == [wire.COMMAND_DONE]
    assert "it started again: start" in again.answers()[0][1][5]
    again.order(5, wire.REBOOT)
    third = cut_power(again, tmp_path)
    third.order(5, wire.REBOOT)
    assert again.restarts == third.restarts == 0
    assert len(third.answers()) == 1


def test_an_open_alarm_or_a_finger_on_the_button_forbids_a_restart(desk: Ordered) -> None:
    number = desk.press()
    desk.order(5, wire.REBOOT)
    desk.receipt(number, wire.CLOSED)
    desk.order(6, wire.REBOOT)
    assert desk.restarts == 1
    desk.press()
    assert not desk.button.commands.may_restart()
    desk.button.commands.kept_from_restart()
    assert [code for code, _ in desk.answers()] == [wire.COMMAND_FAILED, wire.COMMAND_FAILED]
    assert "an alarm came first" in desk.answers()[1][1][5]


def test_settings_change_as_a_whole_and_outlast_a_power_cut(desk: Ordered, tmp_path: Path) -> None:
    told = desk.button.settings
    assert told.signal == "visible"
    desk.order(5, wire.CONFIGURE, detail=configuration.packed({"signal": "silent", "alarms_per_minute": 30}))
    assert (told.signal, told.alarms_per_minute) == ("silent", 30)
    assert desk.answers() == [
        (wire.COMMAND_DONE, {0: 1, 1: 5, 5: "it has signal silent, alarms_per_minute 30 from now on"})
    ]
    again = cut_power(desk, tmp_path)
    assert (again.button.settings.signal, again.button.settings.alarms_per_minute) == ("silent", 30)
    again.order(6, wire.CONFIGURE, detail=configuration.packed({"signal": "audible"}))
    third = cut_power(again, tmp_path)
    assert (third.button.settings.signal, third.button.settings.alarms_per_minute) == ("audible", 30)


@pytest.mark.parametrize(
    "detail",
    [
        None,
        b"",
        b"rubbish",
        wire.encode({}),
        wire.encode({1: "loud"}),
        wire.encode({1: "silent", 2: 1}),
        wire.encode({1: "silent", 9: 1}),
        wire.encode([1, "silent"]),
        wire.encode({1: 7}),
    ],
)
def test_a_change_with_any_mistake_changes_nothing(desk: Ordered, detail: bytes | None) -> None:
    desk.order(5, wire.CONFIGURE, **({} if detail is None else {"detail": detail}))
    assert (desk.button.settings.signal, desk.button.settings.alarms_per_minute) == ("visible", 6000)
    assert desk.answers()[0][0] == wire.COMMAND_FAILED
    assert desk.answers()[0][1][5].startswith("nothing was changed")


def test_what_a_technician_set_since_has_the_last_word(desk: Ordered, tmp_path: Path) -> None:
    desk.order(5, wire.CONFIGURE, detail=configuration.packed({"signal": "silent"}))
    again = Ordered(tmp_path / "state", signal="audible")
    assert again.button.settings.signal == "audible"


def test_a_restart_whose_answer_could_not_be_kept_is_answered_and_not_done_again(desk: Ordered, tmp_path: Path) -> None:
    desk.order(5, wire.REBOOT)
    again = Ordered(tmp_path / "state")  # it could not answer at its start, so headquarters repeats the command
    again.order(5, wire.REBOOT)
    assert again.restarts == 0
    assert [code for code, _ in again.answers()] == [wire.COMMAND_DONE]
    again.order(6, wire.REBOOT)
    assert again.restarts == 1
