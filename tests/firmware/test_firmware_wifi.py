"""Which network a button is on: years of outages in a moment, then a real button that changes its network."""

from __future__ import annotations

import contextlib
import json
import random
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from firmware import settings, wifi, wire
from firmware.flash import Flash
from firmware.settings import SettingsFault
from firmware.wifi import JOINED, JOINING, RENEW, Known, Sight, Wifi
from provisioning.pki import Authority
from tests.firmware.bench import DEADLINE_S, Bench, Button, Peer, Post
from tests.parts import PROJECT, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD = ("Consulate", "old password")
NEW = ("Consulate", "new password")
OTHER = ("Annexe", "")
STEP_MS = 250
ANSWER_MS = 9000


class Life:
    """A chooser in a simulated place: which networks join, over which of them headquarters answers, and how fast."""

    def __init__(self, folder: Path, told: list[tuple[str, str]], *, wired: bool = False) -> None:
        self.flash = Flash(str(folder))
        self.told = told
        self.wired = wired
        self.now_ms = 0
        self.reaches: set[object] = set()  # what joins and leads to headquarters; None: the cable
        self.joins: set[object] = set()  # what joins, and leads nowhere
        self.why = "no network of this name is in reach"
        self.broker_only = False
        self.quiet = True
        self.urgent = False
        self.answers: list[tuple[bool, tuple[int, int], str]] = []
        self.acts: list[tuple[Any, ...]] = []
        self.start()

    def start(self) -> None:
        self.known = Known(self.flash, self.told, pytest.fail)
        self.wifi = Wifi(self.known, self.wired, lambda *answer: self.answers.append(answer))
        self.on: object = "nothing"
        self.changed_ms = self.now_ms
        self.up_ms: int | None = None
        self.proved_ms: int | None = None

    def radio(self) -> str:
        if self.on not in self.reaches | self.joins:
            return JOINING if self.now_ms - self.changed_ms < 1000 else self.why
        return JOINED if self.now_ms - self.changed_ms >= 1000 else JOINING

    def step(self) -> None:
        self.now_ms += STEP_MS
        there = self.on in self.reaches and (self.on is None or self.radio() == JOINED)
        carried = not self.wired or self.wifi.on is None or self.wifi.on_trial or None not in self.reaches
        if self.wired and not carried:  # the cable carries; the radio's network is looked at beside it
            self.up_ms = (self.up_ms or self.now_ms) if there else None
            self.proved_ms = self.now_ms if there else None
        elif not there:
            self.up_ms = self.proved_ms = None
        elif self.up_ms is None:
            self.up_ms = self.now_ms
        elif not self.broker_only and self.now_ms - (self.proved_ms or self.up_ms) >= ANSWER_MS:
            self.proved_ms = self.now_ms
        well = self.is_well if carried else True
        sight = Sight(
            self.now_ms, self.radio(), self.up_ms, self.proved_ms, self.quiet, self.urgent, carried=carried, well=well
        )
        action = self.wifi.step(sight)
        if action is None:
            return
        self.acts.append(action)
        self.up_ms = self.proved_ms = None
        if action[0] != RENEW:
            self.on = None if action[0] == "leave" else (action[1], action[2])
            self.changed_ms = self.now_ms

    def live(self, s: float) -> None:
        for _ in range(int(s * 1000 / STEP_MS)):
            self.step()

    def until(self, condition: Any, within_s: float) -> float:
        """How long it took, s."""
        began = self.now_ms
        while not condition():
            assert self.now_ms - began < within_s * 1000, (self.on, self.answers, self.acts[-5:])
            self.step()
        return (self.now_ms - began) / 1000

    @property
    def is_well(self) -> bool:
        return self.proved_ms is not None

    def kept(self) -> str:
        return repr(Known(self.flash, self.told, pytest.fail).networks)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    made = Life(tmp_path / "state", [OLD])
    made.reaches = {OLD}
    made.until(lambda: made.is_well, 15)
    return made


def test_without_networks_nothing_is_done(tmp_path: Path) -> None:
    for wired in (False, True):
        life = Life(tmp_path / str(wired), [], wired=wired)
        life.live(3600)
        assert life.acts == [("leave",)]


def test_the_networks_are_tried_newest_first_until_headquarters_answers(tmp_path: Path) -> None:
    life = Life(tmp_path / "state", [NEW, OTHER, ("Guest", "let me in please")])
    life.joins, life.reaches = {NEW}, {OTHER}
    life.until(lambda: life.is_well, 60)
    assert [act[1] for act in life.acts if act[0] == "join"] == ["Consulate", "Annexe"]
    life.live(3600)
    assert life.on == OTHER
    assert len(life.acts) <= 3


def test_a_new_password_that_works_takes_the_old_ones_place(life: Life) -> None:
    life.reaches = {OLD, NEW}
    life.known.put_on_trial(NEW, (4, 7))
    assert "old password" in life.kept()
    life.until(lambda: life.answers, 30)
    assert life.answers == [(True, (4, 7), "it is on Consulate, and headquarters answers over it")]
    assert life.known.networks == [NEW]
    assert "old password" not in life.kept()
    life.live(3600)
    assert life.on == NEW
    assert len(life.answers) == 1


def test_both_are_kept_until_headquarters_answers_over_the_new_one(life: Life) -> None:
    life.reaches = {OLD, NEW}
    life.known.put_on_trial(NEW, (4, 7))
    life.until(lambda: life.on == NEW, 5)
    while life.proved_ms is None:
        assert life.known.networks == [OLD]
        assert life.known.trial is not None
        assert not life.answers
        life.step()
    assert life.answers


@pytest.mark.parametrize(
    ("joins", "why", "within_s"),
    [(False, "wrong password", 5), (False, JOINING, 22), (True, "headquarters did not answer over it within 45 s", 47)],
)
def test_one_that_fails_leads_back_within_a_bounded_time(life: Life, joins: bool, why: str, within_s: float) -> None:
    life.why = why
    life.joins = {NEW} if joins else set()
    life.known.put_on_trial(NEW, (4, 7))
    life.until(lambda: life.on == NEW, 5)
    life.until(lambda: life.on == OLD, within_s)
    done, number, text = life.answers[0]
    assert (done, number) == (False, (4, 7))
    assert ("was not joined within 20 s" if why == JOINING else why) in text
    assert "password" not in text.replace("wrong password", "")
    life.until(lambda: life.is_well, 15)
    life.live(3600)
    assert life.on == OLD, "it is not tried over and over"
    assert len(life.answers) == 1


def test_a_password_that_is_not_valid_yet_is_used_as_soon_as_the_old_one_is_not(life: Life) -> None:
    life.why = "wrong password"
    life.known.put_on_trial(NEW, (4, 7))
    life.until(lambda: life.answers, 30)
    life.until(lambda: life.is_well, 30)
    life.reaches = {NEW}
    life.until(lambda: len(life.answers) == 2, 45)
    assert life.answers[1][:2] == (True, (4, 7))
    assert life.known.networks == [NEW]


def test_the_trial_waits_for_headquarters_and_for_the_end_of_an_alarm(life: Life) -> None:
    life.reaches = {OLD, NEW}
    life.quiet = False
    life.known.put_on_trial(NEW, (4, 7))
    life.live(600)
    assert life.on == OLD
    life.broker_only = True
    life.live(wifi.FRESH_MS // 1000 + 5)
    life.quiet = True
    life.live(600)
    assert not life.answers
    assert life.known.networks == [OLD]
    life.broker_only = False
    life.until(lambda: life.answers, 45)


def test_a_press_during_the_trial_goes_back_to_what_works_and_the_trial_comes_again(life: Life) -> None:
    life.known.put_on_trial(NEW, (4, 7))
    life.why = JOINING
    life.until(lambda: life.on == NEW, 5)
    life.live(2)
    life.urgent, life.quiet = True, False
    life.until(lambda: life.on == OLD, 0.6)
    assert not life.answers
    life.until(lambda: life.is_well, 15)
    life.urgent = False
    life.live(300)
    assert life.on == OLD
    life.quiet, life.reaches = True, {OLD, NEW}
    life.until(lambda: life.answers, 45)
    assert life.answers[0][0]


def test_a_power_cut_at_any_step_of_the_trial_loses_neither_network(tmp_path: Path) -> None:
    for cut in range(0, 70, 3):
        life = Life(tmp_path / str(cut), [OLD])
        life.reaches = {OLD, NEW}
        life.until(lambda life=life: life.is_well, 15)
        life.known.put_on_trial(NEW, (4, 7))
        for _ in range(cut):
            life.step()
        life.start()
        life.until(lambda life=life: life.answers, 60)
        assert life.known.networks == [NEW]
        life.start()
        life.until(lambda life=life: life.is_well, 15)
        assert life.on == NEW


def test_a_newer_network_takes_the_place_of_the_one_on_trial(life: Life) -> None:
    life.why = JOINING
    life.known.put_on_trial(NEW, (4, 7))
    life.until(lambda: life.on == NEW, 5)
    life.reaches = {OLD, OTHER}
    life.known.put_on_trial(OTHER, (4, 9))
    life.until(lambda: life.answers, 60)
    assert life.answers == [(True, (4, 9), "it is on Annexe, and headquarters answers over it")]
    assert life.known.networks == [OTHER, OLD], "one of another name stays as a second way"


def test_the_network_that_it_is_on_needs_no_trial(life: Life) -> None:
    life.known.put_on_trial(OLD, (4, 7))
    life.until(lambda: life.answers, 1)
    assert life.answers[0][0]
    assert life.on == OLD


def test_a_session_that_came_another_way_proves_nothing(tmp_path: Path) -> None:
    life = Life(tmp_path / "state", [OLD])
    life.step()
    life.reaches = {OLD}
    while life.radio() != JOINED:
        life.now_ms += STEP_MS
        life.wifi.step(Sight(life.now_ms, life.radio(), life.now_ms - 100, life.now_ms, True, False))
    assert life.wifi.step(Sight(life.now_ms + 1, JOINED, life.now_ms - 100, life.now_ms, True, False)) in (
        (RENEW,),
        None,
    )


def test_beside_a_cable_the_radio_is_joined_all_the_time_and_another_network_taken_when_nothing_answers(
    tmp_path: Path,
) -> None:
    life = Life(tmp_path / "state", [OLD, OTHER], wired=True)
    life.reaches, life.joins = {None, OLD}, {OTHER}
    life.live(86_400)
    assert life.acts == [("join", *OLD)]
    life.reaches, life.joins = {None, OTHER}, {OLD}
    life.until(lambda: life.on == OTHER, 45)
    life.reaches = {OTHER}
    life.live(3600)
    assert life.on == OTHER


@pytest.mark.parametrize("told", [[], [OLD]])
def test_a_network_is_tried_with_the_session_off_the_cable_and_stays_as_the_spare_path(
    tmp_path: Path, told: list[tuple[str, str]]
) -> None:
    life = Life(tmp_path / "state", told, wired=True)
    life.reaches = {None, NEW, *told}
    life.until(lambda: life.is_well, 15)
    life.known.put_on_trial(NEW, (4, 7))
    life.until(lambda: life.wifi.on_trial, 1)
    while not life.answers:
        assert life.wifi.on_trial, "the session goes over the network until headquarters has answered over it"
        assert life.now_ms < 60_000
        life.step()
    assert life.answers[0][0]
    life.step()
    assert not life.wifi.on_trial
    assert life.on == NEW
    assert life.known.networks == [NEW]


def test_beside_a_cable_an_answer_over_the_cable_proves_no_network(tmp_path: Path) -> None:
    life = Life(tmp_path / "state", [OLD], wired=True)
    life.reaches, life.joins = {None, OLD}, {NEW}
    life.until(lambda: life.is_well, 15)
    life.known.put_on_trial(NEW, (4, 7))
    life.until(lambda: life.answers, 60)
    assert life.answers == [
        (
            False,
            (4, 7),
            "Consulate: headquarters did not answer over it within 45 s; it is back on the cable and keeps both",
        )
    ]
    assert life.known.networks == [OLD]


def test_while_headquarters_is_away_the_way_to_the_gateway_is_not_left_with_an_alarm(tmp_path: Path) -> None:
    life = Life(tmp_path / "state", [OLD, OTHER])
    life.reaches = {OLD, OTHER}
    life.broker_only = life.urgent = True
    life.quiet = False
    life.live(3600)
    assert life.acts[0] == ("join", *OLD)
    assert {act[0] for act in life.acts[1:]} <= {RENEW}


def test_a_technicians_new_settings_come_first_again(tmp_path: Path) -> None:
    flash = Flash(str(tmp_path / "state"))
    known = Known(flash, [OLD], pytest.fail)
    known.put_on_trial(OTHER, (1, 1))
    known.worked()
    assert Known(flash, [OLD], pytest.fail).networks == [OTHER, OLD]
    assert Known(flash, [NEW], pytest.fail).networks == [NEW, OTHER]


def test_a_damaged_record_is_said_and_the_settings_are_used(tmp_path: Path) -> None:
    flash = Flash(str(tmp_path / "state"))
    for octets in (b"", b"rubbish", wire.encode([]), wire.encode({0: 1}), wire.encode({0: [], 2: [1]})):
        flash.write("wifi", octets)
        said: list[str] = []
        assert Known(flash, [OLD], said.append).networks == [OLD]
        assert len(said) == 1


def test_whatever_happens_it_ends_up_where_headquarters_answers(tmp_path: Path) -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    chance = random.Random(seed)
    networks = [OLD, NEW, OTHER, ("Guest", "let me in please")]
    for turn in range(40):
        wired = chance.random() < 0.3
        told = [OLD, OTHER] if chance.random() < 0.7 else [OLD]
        life = Life(tmp_path / str(turn), told, wired=wired)
        number = 0
        for _ in range(30):
            life.reaches = {network for network in [*networks, None] if chance.random() < 0.4}
            life.joins = {network for network in networks if chance.random() < 0.2}
            life.why = chance.choice(["wrong password", JOINING, "its signal was lost"])
            life.quiet = chance.random() < 0.8
            life.urgent = not life.quiet and chance.random() < 0.5
            if chance.random() < 0.3:
                number += 1
                life.known.put_on_trial(chance.choice(networks), (1, number))
            if chance.random() < 0.1:
                life.start()
            life.live(chance.uniform(1, 90))
        life.reaches, life.joins = {*life.known.networks, None}, set()
        life.until(lambda life=life: life.is_well, 400)
        assert {number for _, number, _ in life.answers} <= {(1, n) for n in range(1, number + 1)}


# ------------------------------------------------------------------------------------------- settings


def settings_with(networks: object) -> settings.Settings:
    told = {"id": "b1", "board": "virtual", "brokers": [["127.0.0.1", 1, "x"]], "hq": "hq", "hq_message_key": "04" * 65}
    return settings.Settings(told | {"wifi": networks})


def test_settings_take_up_to_four_networks() -> None:
    assert settings_with([list(OLD), list(OTHER)]).wifi == [OLD, OTHER]
    assert settings_with([]).wifi == []


@pytest.mark.parametrize(
    ("networks", "sentence"),
    [
        ("Consulate", "wifi must be a list of at most 4"),
        ([["a", "password"]] * 5, "wifi must be a list of at most 4"),
        (["Consulate"], r"a network must be [name, password]"),
        ([["", "secret-password"]], "a network's name must be 1 to 32 bytes"),
        ([["س" * 17, "secret-password"]], "a network's name must be 1 to 32 bytes"),
        ([["a", "secret"]], "a network's password must be 8 to 63 bytes of text, or empty"),
        ([["a", None]], "a network's password must be 8 to 63 bytes of text, or empty"),
        ([["a", "secret-password"], ["a", "secret-passphrase"]], "wifi names the same network twice"),
    ],
)
def test_what_is_wrong_with_a_network_is_said_without_its_password(networks: object, sentence: str) -> None:
    with pytest.raises(SettingsFault, match=re.escape(sentence)) as fault:
        settings_with(networks)
    assert "secret" not in str(fault.value)


# ------------------------------------------------------------------------------------- a real button

AIR = PROJECT / "tests" / "firmware" / "air"


class Site:
    """A button with a radio on the bench, its headquarters, and what is on the air."""

    def __init__(self, bench: Bench, peer: Peer, device: str) -> None:
        self.bench = bench
        self.post: Post = bench.post(peer, device)
        self.folder = bench.folder / device
        path = self.folder / "settings.json"
        told = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(told | {"wifi": [list(OLD)]}), encoding="utf-8")
        self.seq = 0

    def air(self, *networks: tuple[str, str]) -> None:
        part = self.folder / "air.part"
        part.write_text(json.dumps({name: {"password": word, "rssi": -61} for name, word in networks}))
        part.replace(self.folder / "air.json")

    @contextlib.contextmanager
    def button(self) -> Iterator[Button]:
        place = self.bench.place(self.post.device)
        place["env"] = {"MICROPYPATH": f"{AIR}:{PROJECT}:.frozen"}
        (self.folder / "main.py").write_bytes((PROJECT / "firmware" / "main.py").read_bytes())  # as on a board's flash
        command = [*self.bench.command()[:-1], "main.py"]
        with running(command, **place, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self.seen = 0  # lines of this start that were looked at
            yield Button(process)

    def answer_beats(self, button: Button, name: str, value: object = None, timeout_s: float = 60) -> dict[str, Any]:
        """Plays headquarters, which answers every heartbeat, until the button says `name`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                topic, payload = self.post.peer.came.get(timeout=0.1)
                message = wire.unseal(payload).message
                if message[wire.KIND] in (wire.HEARTBEAT, wire.EVENT) and topic.split("/")[2] == self.post.device:
                    self.post.receipt((message[wire.BOOT], message[wire.SEQ]), wire.AT_HQ)
                    if message[wire.KIND] == wire.HEARTBEAT:
                        self.beat = [message[wire.BOOT], message[wire.SEQ]]
            button.drain()
            while self.seen < len(button.lines):
                line = button.lines[self.seen]
                self.seen += 1
                if name in line and (value is None or line[name] == value):
                    return line
        raise AssertionError((name, value, [line for line in button.lines if "led" not in line][-12:]))

    def change(self, button: Button, network: tuple[str, str]) -> list[int]:
        """Gives the command, again and again as headquarters does; its number."""
        from gateway.commands import concealed

        self.seq += 1
        number = (1, self.seq)
        detail = concealed(network, self.post.key, number)
        message = {0: wire.COMMAND, 1: 1, 2: self.seq, 7: wire.WIFI, 9: detail, 11: self.post.device}
        for _ in range(10):
            message[54] = self.beat or [0, 0]
            payload = wire.seal(message, "hq", self.post.key)
            self.post.peer._client.publish(f"tocsin/1/{self.post.device}/command", payload, 1)
            with contextlib.suppress(AssertionError):
                self.answer_beats(button, "command", "wifi", 2)
                return list(number)
        raise AssertionError(button.lines[-8:])


@pytest.fixture(scope="module")
def site_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Peer]]:
    bench = Bench(Authority.create(), tmp_path_factory.mktemp("wifi"))
    with bench.broker():
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                peer = Peer(bench.port, bench.authority.issue("hq"), bench.folder / "hq")
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        with peer:
            yield bench, peer


def test_a_real_button_changes_its_network_over_the_air(site_bench: tuple[Bench, Peer]) -> None:
    site = Site(*site_bench, "b-air")
    site.air(OLD, OTHER)
    with site.button() as button:
        assert site.answer_beats(button, "wifi", {"ssid": "Consulate", "state": "joined", "rssi": -61})
        beat = site.post.until("heartbeat")
        assert beat[wire.RSSI] == -61
        number = site.change(button, OTHER)
        answer = site.answer_beats(button, "answer")
        assert answer["done"], answer
        assert answer["number"] == number
        assert Known(Flash(str(site.folder / "state")), [OLD], pytest.fail).networks == [OTHER, OLD]


def test_a_real_button_with_a_wrong_password_is_back_and_changes_when_the_time_comes(
    site_bench: tuple[Bench, Peer],
) -> None:
    site = Site(*site_bench, "b-wrong")
    site.air(OLD)
    with site.button() as button:
        site.answer_beats(button, "light", "rest")
        site.change(button, NEW)
        answer = site.answer_beats(button, "answer")
        assert not answer["done"]
        assert "Consulate: wrong password; it is back on the old network and keeps both" in answer["answer"]
        site.change(button, ("Nowhere", "whatever it is"))
        answer = site.answer_beats(button, "answer")
        assert "Nowhere: no network of this name is in reach" in answer["answer"]
        number = site.change(button, NEW)
        assert "wrong password" in site.answer_beats(button, "answer")["answer"]
        button.cut_power()
    site.air(NEW)
    with site.button() as button:
        answer = site.answer_beats(button, "answer")
        assert answer["done"], answer
        assert answer["number"] == number
        octets = (site.folder / "state" / "wifi").read_bytes()
        assert NEW[1].encode() in octets
        assert OLD[1].encode() not in octets
        said = json.dumps(button.lines)
        assert NEW[1] not in said, "the password is never said"


def test_constants_leave_headquarters_time_to_answer() -> None:
    assert wifi.TRIAL_MS > wifi.JOIN_MS + 2 * ANSWER_MS
