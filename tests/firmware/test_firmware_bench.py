"""What the technician's tool asks of a start: hold, or test alarms; and how the firmware ends at the prompt on hardware.

The chip is played by a `machine` module of a few lines: a clock whose memory is a file, and a reset that says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from firmware import bench as bench_module
from firmware import outbox, wire
from firmware.outbox import Outbox
from provisioning.pki import Authority
from tests.firmware.bench import DEADLINE_S, PRESSED, REST, Bench, Button, Peer
from tests.firmware.test_button_conduct import Desk
from tests.firmware.test_button_end_to_end import connected
from tests.parts import PROJECT, micropython, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MACHINE = """
import sys


class RTC:
    def memory(self, octets=None):
        if octets is not None:
            with open("rtc", "wb") as file:
                file.write(octets)
            return None
        try:
            with open("rtc", "rb") as file:
                return file.read()
        except OSError:
            return b""


def reset():
    print('{"chip": "reset"}')
    sys.exit(3)
"""
PROMPT = 'from firmware import app; app.main(); print(\'{"chip": "prompt"}\')'


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "chip").mkdir()
    (folder / "chip" / "machine.py").write_text(MACHINE, encoding="utf-8")
    return Bench(Authority.create(), folder)


@pytest.fixture(scope="module")
def peer(bench: Bench) -> Iterator[Peer]:
    with bench.broker(), connected(bench) as peer:
        yield peer


class Chip(Button):
    """A start on the chip that is played; what is no JSON line is kept as it is."""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for octets in self.process.stdout:
            try:
                self._came.put(json.loads(octets))
            except ValueError:
                self._came.put({"text": octets.decode()})
        self._came.put(None)


@contextlib.contextmanager
def powered(bench: Bench, device: str, mark: bytes | None = None) -> Iterator[Chip]:
    """A start of the button's own main on the chip; after it there is a prompt."""
    place = bench.place(device)
    place["env"] = {"MICROPYPATH": f"{bench.folder / 'chip'}:{PROJECT}:.frozen"}
    if mark is not None:
        (place["cwd"] / "rtc").write_bytes(mark)
    command = [micropython(), "-X", "heapsize=2m", "-c", PROMPT]
    with running(command, **place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        yield Chip(process)


def test_a_held_start_goes_to_the_prompt_and_the_next_one_runs(bench: Bench, peer: Peer) -> None:
    bench.post(peer, "b-held")
    with powered(bench, "b-held", b"tocsin-hold") as chip:
        chip.until("held", True)
        chip.until("chip", "prompt")
    assert [name for line in chip.lines for name in line if name != "at"] == ["held", "chip"], "no board, no watchdog"
    assert not (bench.folder / "b-held" / "state").exists()
    assert (bench.folder / "b-held" / "rtc").read_bytes() == b""
    with powered(bench, "b-held") as chip:
        assert chip.until("started")["started"]["bench"] is False
    with powered(bench, "b-held", b"somebody else's") as chip:
        assert chip.until("started")["started"]["bench"] is False
    assert (bench.folder / "b-held" / "rtc").read_bytes() == b"somebody else's"


def test_on_the_bench_a_press_is_a_test_all_the_way_and_only_in_that_start(bench: Bench, peer: Peer) -> None:
    post = bench.post(peer, "b-bench")
    for mark, cause in ((b"tocsin-bench", wire.TEST), (None, wire.HOLD_UP)):
        with powered(bench, "b-bench", mark) as chip:
            started = chip.until("started")["started"]
            assert started["bench"] is (cause == wire.TEST)
            assert (bench.folder / "b-bench" / "rtc").read_bytes() == b""
            chip.until("loop", {"A": "fine", "B": "fine", "pressed": False})
            chip.until("tamper", "fine")
            beat = post.until("heartbeat", lambda beat, boot=started["boot"]: beat[wire.BOOT] == boot)
            post.receipt((beat[wire.BOOT], beat[wire.SEQ]), wire.AT_HQ)
            chip.until("supervised", True)
            chip.until_light("rest")
            chip.set(**PRESSED)
            latched = chip.until("latched")["latched"]
            chip.set(**REST)
            assert latched["test"] is (cause == wire.TEST)
            number = (latched["boot"], latched["seq"])
            alarm = post.until("alarm", lambda alarm, boot=number[0]: alarm[wire.BOOT] == boot)
            assert (alarm[wire.CAUSE], alarm[wire.SEQ]) == (cause, number[1])
            for stage, light in ((wire.AT_HQ, "at_hq"), (wire.CLOSED, "rest")):
                post.receipt(number, stage)
                chip.until_light(light)


def test_a_test_alarm_that_the_power_cut_is_still_a_test(bench: Bench, peer: Peer) -> None:
    post = bench.post(peer, "b-cut")
    with powered(bench, "b-cut", b"tocsin-bench") as chip:
        chip.until("link", "up")
        chip.set(**PRESSED)
        number = chip.until("latched")["latched"]
        chip.cut_power()
    with powered(bench, "b-cut"):
        alarm = post.until("alarm", lambda alarm: wire.RESUMED in alarm)
    assert (alarm[wire.BOOT], alarm[wire.SEQ], alarm[wire.CAUSE]) == (number["boot"], number["seq"], wire.TEST)


def test_a_forgotten_bench_ends_by_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "state")
    desk.button.tests_until_ms = bench_module.BENCH_MS
    desk.press()
    desk.now_ms = bench_module.BENCH_MS - 1000
    desk.press()
    desk.now_ms = bench_module.BENCH_MS
    desk.press()
    assert [alarm.cause for alarm in desk.button.latch.alarms] == [wire.TEST, wire.TEST, wire.HOLD_UP]
    resting = Desk(tmp_path / "other")
    resting.press()
    assert resting.button.latch.alarms[0].cause == wire.HOLD_UP


def test_a_flash_full_of_tests_has_room_for_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_ALARMS", 3)
    desk = Desk(tmp_path / "state")
    desk.button.tests_until_ms = 10_000
    for _ in range(4):
        desk.press()
    desk.now_ms = 10_000
    causes = []
    for _ in range(4):
        desk.press()
        causes.append([alarm.cause for alarm in desk.button.latch.alarms])
    test, real = wire.TEST, wire.HOLD_UP
    assert causes == [[test, test, real], [test, real, real], [real, real, real], [real, real, real]]
    kept = Outbox(desk.flash, pytest.fail).alarms
    assert [(alarm.boot, alarm.seq) for alarm in kept] == [(a.boot, a.seq) for a in desk.button.latch.alarms]


def test_wrong_settings_end_at_the_prompt_with_a_sentence(bench: Bench, peer: Peer) -> None:
    folder = bench.folder / "b-wrong"
    folder.mkdir()
    cases: list[tuple[str, bytes | None, str]] = [
        ("settings.json", None, "settings.json is missing: enrol this button first."),
        ("settings.json", b"id = 1", "settings.json is not JSON."),
        ("identity/key.der", None, "identity/key.der is missing: enrol this button first."),
        ("identity/cert.der", None, "identity/cert.der is missing: enrol this button first."),
        ("identity/key.der", b"x", "identity or hq_message_key: the private key is not a P-256 key in DER"),
    ]
    for name, content, sentence in cases:
        bench.post(peer, "b-wrong")
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        with powered(bench, "b-wrong") as chip:
            chip.until("error", sentence)
            chip.until("chip", "prompt")
            assert chip.process.wait(DEADLINE_S) == 0
        with bench.button("b-wrong") as button:  # a process says it with its status
            button.until("error", sentence)
            assert button.process.wait(DEADLINE_S) == 78


def test_a_fault_resets_the_chip(bench: Bench, peer: Peer) -> None:
    bench.post(peer, "b-fault")
    (bench.folder / "b-fault" / "state").write_text("not a folder", encoding="utf-8")
    with powered(bench, "b-fault") as chip:
        chip.until("error")
        chip.until("chip", "reset")
        assert chip.process.wait(DEADLINE_S) == 3


@pytest.mark.parametrize("after", ["started", "loop", "link"])
def test_ctrl_c_ends_at_the_prompt_and_in_no_restart(bench: Bench, peer: Peer, after: str) -> None:
    bench.post(peer, "b-stopped")
    with powered(bench, "b-stopped") as chip:
        chip.until(after)
        time.sleep(0.1)
        os.kill(chip.process.pid, signal.SIGINT)
        chip.until("stopped", "Ctrl-C")
        chip.until("chip", "prompt")
        assert chip.process.wait(DEADLINE_S) == 0
    said: list[dict[str, Any]] = chip.lines
    assert not [line for line in said if line.get("chip") == "reset" or "error" in line]


def test_without_a_chip_there_is_no_mark() -> None:
    assert bench_module.take_mark() == b""
    done = subprocess.run(
        [micropython(), "-c", "from firmware import bench; print(bench.take_mark())"],
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "b''\n"
