"""The whole button: from the contact to the light, over real TLS and a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from provisioning.pki import Authority
from firmware import wire
from tests.firmware.bench import DEADLINE_S, PRESSED, Bench, Button, Peer, Post
from tests.parts import PROJECT, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(Authority.create(), tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def peer(bench: Bench) -> Iterator[Peer]:
    with bench.broker(), connected(bench) as peer:
        yield peer


def connected(bench: Bench) -> Peer:
    """Headquarters on the bench's broker, which may still be starting."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return Peer(bench.port, bench.authority.issue("hq"), bench.folder / "hq")
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextlib.contextmanager
def at_rest(bench: Bench, peer: Peer, device: str) -> Iterator[tuple[Button, Post]]:
    """A button that is connected and supervised."""
    post = bench.post(peer, device)
    with bench.button(device) as button:
        button.until_light("unsupervised")
        beat = post.until("heartbeat")
        post.receipt((beat[wire.BOOT], beat[wire.SEQ]), wire.AT_HQ)
        button.until_light("rest")
        yield button, post


def test_a_press_goes_through_every_light(bench: Bench, peer: Peer) -> None:
    with at_rest(bench, peer, "b-lights") as (button, post):
        number = button.press()
        button.until_light("unconfirmed")
        alarm = post.until("alarm")
        assert (alarm[wire.BOOT], alarm[wire.SEQ]) == number
        assert (alarm[wire.CAUSE], alarm[wire.HOW]) == (wire.HOLD_UP, wire.BOTH_CONTACTS)
        assert 40 <= alarm[wire.AGE] < 1000
        assert wire.RESUMED not in alarm
        names = ("at_gateway", "at_hq", "acknowledged", "responding")
        for stage, name in enumerate(names, wire.AT_GATEWAY):
            post.receipt(number, stage)
            button.until("alarm", list(number), stage=stage)
            button.until_light(name)
        shown = post.until("heartbeat", lambda beat: bool(beat[wire.SHOWN]))
        assert shown[wire.SHOWN] == [[*number, wire.RESPONDING]]
        post.receipt(number, wire.CLOSED)
        button.until("alarm", list(number), stage=wire.CLOSED)
        button.until("light")


def test_presence_says_here_and_the_will_says_gone_with_the_same_number(bench: Bench, peer: Peer) -> None:
    with at_rest(bench, peer, "b-presence") as (button, post):
        button.cut_power()
        gone = post.until("presence", lambda presence: presence[wire.STATE] == 0)
    with bench.button("b-presence"):
        here = post.until("presence", lambda presence: presence[wire.STATE] == 1)
    assert (here[wire.BOOT], here[wire.SEQ]) > (gone[wire.BOOT], gone[wire.SEQ])


def test_receipts_that_prove_nothing_change_no_light(bench: Bench, peer: Peer) -> None:
    with at_rest(bench, peer, "b-forged") as (button, post):
        number = button.press()
        button.until_light("unconfirmed")
        wrong_key = bytes(32)
        post.receipt(number, wire.AT_HQ, key=wrong_key)
        button.until("refused", "the receipt's MAC is wrong")
        post.receipt(number, wire.AT_HQ, kid="khi-cn")
        button.until("refused", "the receipt is from khi-cn, not from headquarters")
        post.receipt(number, wire.AT_HQ, kid=post.device)
        button.until("refused", "the receipt is from b-forged, not from headquarters")
        post.receipt(number, wire.AT_HQ, device="b-other")
        button.until("refused", "the receipt is for b-other")
        for stage in (wire.AT_HQ, wire.ACKNOWLEDGED, wire.CLOSED):
            post.receipt(number, stage, bare=True)
            button.until("refused", f"a receipt of this form cannot say stage {stage}")
        post.receipt(number, wire.AT_GATEWAY, bare=False)
        button.until("refused")
        peer.publish(post.device, b"\xd1\x84 rubbish")
        button.until("refused")
        peer.publish(post.device, b"")
        button.until("refused")
        peer.publish(post.device, wire.seal({0: 7, 1: number[0], 2: number[1], 12: 1}, "hq", post.key))
        button.until("refused", "this is not a receipt")
        assert not any("light" in line and line["light"] != "unconfirmed" for line in button.lines[-12:])
        post.receipt(number, wire.AT_HQ)
        button.until_light("at_hq")
        post.receipt(number, wire.AT_GATEWAY)
        beat = post.until("heartbeat", lambda beat: beat[wire.REFUSED] == 11)
        assert beat[wire.SHOWN] == [[*number, wire.AT_HQ]], "stages only grow"


def test_an_old_alarms_receipt_does_not_turn_a_newer_ones_light(bench: Bench, peer: Peer) -> None:
    with at_rest(bench, peer, "b-two") as (button, post):
        first = button.press()
        post.receipt(first, wire.AT_HQ)
        button.until_light("at_hq")
        second = button.press()
        button.until_light("unconfirmed")
        for stage in (wire.AT_HQ, wire.ACKNOWLEDGED, wire.RESPONDING):
            post.receipt(first, stage)
        button.until("alarm", list(first), stage=wire.RESPONDING)
        assert not any("light" in line for line in button.drain())
        post.receipt(second, wire.AT_HQ)
        button.until_light("at_hq")
        post.receipt(second, wire.CLOSED)
        button.until_light("responding")


def test_an_alarm_is_sent_again_until_headquarters_has_it(bench: Bench, peer: Peer) -> None:
    with at_rest(bench, peer, "b-again") as (button, post):
        number = button.press()
        ages = [post.until("alarm")[wire.AGE] for _ in range(2)]
        post.receipt(number, wire.AT_GATEWAY)
        ages.append(post.until("alarm")[wire.AGE])
        assert 900 <= ages[1] - ages[0] <= 1900
        assert 1900 <= ages[2] - ages[1] <= 2900
        post.receipt(number, wire.AT_HQ)
        button.until_light("at_hq")
        pending = post.until("heartbeat", lambda beat: beat[wire.SHOWN] == [[*number, wire.AT_HQ]])
        assert pending[wire.PENDING] <= 1, "at most the event of its start is still waiting"


def test_alarm_survives_power_cut_before_first_connection(bench: Bench, peer: Peer) -> None:
    post = bench.post(peer, "b-dark")
    settings = bench.folder / "b-dark" / "settings.json"
    right = settings.read_text(encoding="utf-8")
    told = json.loads(right)
    told["brokers"] = [["127.0.0.1", 1, "khi-cn"]]
    settings.write_text(json.dumps(told), encoding="utf-8")
    with bench.button("b-dark") as button:
        number = button.press()
        button.until_light("unconfirmed")
        button.cut_power()
    settings.write_text(right, encoding="utf-8")
    with bench.button("b-dark") as button:
        assert button.until("started")["started"]["boot"] == number[0] + 1
        button.until_light("unconfirmed")
        alarm = post.until("alarm")
        assert (alarm[wire.BOOT], alarm[wire.SEQ], alarm[wire.RESUMED]) == (*number, 1)
        post.receipt(number, wire.AT_HQ)
        button.until_light("at_hq")
        button.cut_power()
    with bench.button("b-dark") as button:
        button.until_light("at_hq")
        post.until("heartbeat", lambda beat: beat[wire.SHOWN] == [[*number, wire.AT_HQ]])
        post.receipt(number, wire.CLOSED)
        button.until("alarm", list(number), stage=wire.CLOSED)
        button.cut_power()
    assert not list((bench.folder / "b-dark" / "state").glob("a-*"))


def test_presses_while_the_broker_is_down_are_all_there_when_it_comes_back(tmp_path: Path) -> None:
    bench = Bench(Authority.create(), tmp_path)
    with bench.broker(), connected(bench) as peer, at_rest(bench, peer, "b-down") as (button, post):
        kept = button.press(), post.until("alarm")[wire.SEQ]
        bench.stop_broker()
        button.until("link", "down")
        later = [button.press() for _ in range(2)]
        with bench.broker(), connected(bench) as back:
            post.peer = back
            alarms = [post.until("alarm", lambda alarm, seq=seq: alarm[wire.SEQ] == seq) for _, seq in later]
            assert alarms[0][wire.AGE] > alarms[1][wire.AGE] > 0
            for number in (kept[0], *later):
                post.receipt(number, wire.AT_HQ)
            button.until_light("at_hq")


def test_faults_are_shown_and_become_events_until_headquarters_has_them(bench: Bench, peer: Peer) -> None:
    with at_rest(bench, peer, "b-fault") as (button, post):
        started = post.until("event")
        assert started[wire.CODE] == wire.STARTED
        button.set(loop_a=1000, tamper=1000)
        button.until("loop", {"A": "cut"})
        button.until_light("fault")
        cut = post.until("event", lambda event: event[wire.CODE] == wire.LOOP_CUT)
        assert cut[wire.SUBJECT] == "A"
        tampered = post.until("event", lambda event: event[wire.CODE] == wire.TAMPERED)
        beat = post.until("heartbeat", lambda beat: beat[wire.LOOP] == wire.LOOP_IS_CUT)
        assert beat[wire.TAMPER] == 1
        assert beat[wire.PENDING] == 3
        button.set(loop_b=340)
        button.until("latched")
        alarm = post.until("alarm")
        assert alarm[wire.HOW] == wire.CONTACT_B
        for event in (started, cut, tampered):
            post.receipt((event[wire.BOOT], event[wire.SEQ]), wire.AT_HQ)
        button.set(loop_a=340, loop_b=610, tamper=340)
        post.until("event", lambda event: event[wire.CODE] == wire.LOOP_RESTORED)
        post.until("event", lambda event: event[wire.CODE] == wire.TAMPER_RESTORED)


def test_a_button_that_nobody_reads_and_nobody_speaks_to_goes_on(bench: Bench, peer: Peer) -> None:
    """Its output fills up and is left unread, its input ends: the press before is delivered, and heartbeats go on."""
    post = bench.post(peer, "b-alone")
    with running(bench.command(), **bench.place("b-alone"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"not for a button\n" * 2000)
        process.stdin.write(json.dumps(PRESSED).encode() + b"\n")
        process.stdin.close()
        post.until("alarm")
        post.until("heartbeat")
        unread = os.read(process.stdout.fileno(), 1 << 20)
        assert len(unread) > 30_000
        line: dict[str, object] = {}
        while "unsaid" not in line:
            line = json.loads(process.stdout.readline())
        assert isinstance(line["unsaid"], int)
        assert line["unsaid"] > 500


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "settings.json is missing: enrol this button first."),
        ("id: b1", "settings.json is not JSON."),
        ("[]", "settings.json must hold one object with id, board, brokers, hq and hq_message_key."),
        ("{}", "settings.json has no id."),
        ('{"id":"A"}', "settings.json has no board."),
    ],
)
def test_bad_settings_end_in_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "settings.json").write_text(text, encoding="utf-8")
    env = {"MICROPYPATH": f"{PROJECT}:.frozen"}
    done = subprocess.run(Bench.command(), cwd=tmp_path, env=env, capture_output=True, timeout=10, check=False)
    assert done.returncode == 78
    assert json.loads(done.stdout)["error"] == sentence


def test_a_bad_identity_ends_in_one_sentence_and_a_crash_leaves_its_trace(bench: Bench, peer: Peer) -> None:
    bench.post(peer, "b-broken")
    folder = bench.folder / "b-broken"
    (folder / "identity" / "key.der").unlink()
    with bench.button("b-broken") as button:
        button.until("error", "identity/key.der is missing: enrol this button first.")
        assert button.process.wait(DEADLINE_S) == 78
    (folder / "identity" / "key.der").write_bytes(b"nonsense")
    with bench.button("b-broken") as button:
        button.until("error", "identity or hq_message_key: the private key is not a P-256 key in DER")
        assert button.process.wait(DEADLINE_S) == 78
    post = bench.post(peer, "b-broken")
    (folder / "state" / "boot-a").unlink(missing_ok=True)
    (folder / "state" / "boot-a").mkdir()
    for _ in range(60):
        with bench.button("b-broken") as button:
            button.until("error")
            assert button.process.wait(DEADLINE_S) == 70
    errors = json.loads((folder / "state" / "errors").read_bytes())
    assert len(errors) == 20
    assert all("EISDIR" in text for _, _, text in errors)
    (folder / "state" / "boot-a").rmdir()
    with bench.button("b-broken") as button:
        boot = button.until("started")["started"]["boot"]
    (folder / "state" / "errors").write_text(json.dumps([[boot, 5000, "Traceback\nKeyError: 'x'\n"]]))
    with bench.button("b-broken") as button:
        button.until("link", "up")
        message = post.until("event")
        while message[wire.CODE] != wire.FAULTED:
            message = post.until("event")
    assert message[wire.DETAIL] == "after 5 s: KeyError: 'x'"


def test_every_lamp_and_the_sounder_are_tried_once_after_power_came(bench: Bench, peer: Peer) -> None:
    bench.post(peer, "b-lamps")
    with bench.button("b-lamps") as button:
        for colour in ("red", "amber", "green", "off"):
            button.until("led", colour)
        button.until("sounder", True)
        button.until("sounder", False)


@pytest.mark.parametrize(("signal", "tones"), [("audible", 2), ("visible", 0), ("silent", 0)])
def test_only_an_audible_button_counts_headquarters_receipt_in_tones(
    bench: Bench, peer: Peer, signal: str, tones: int
) -> None:
    device = f"b-{signal}"
    post = bench.post(peer, device)
    path = bench.folder / device / "settings.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "signal": signal}))
    with bench.button(device) as button:
        button.until_light("unsupervised")
        number = button.press()
        post.until("alarm")
        button.until("loop", {"pressed": False})
        post.receipt(number, wire.AT_HQ)
        button.until_light("at_hq")
        heard = 0
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                line = button._came.get(timeout=0.1)
                heard += line is not None and line.get("sounder") is True
        assert heard == tones
