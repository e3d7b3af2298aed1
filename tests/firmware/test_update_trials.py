"""Updates on real MicroPython and a real broker: the new firmware really runs, and one that is no good is taken back."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from firmware import VERSION, slots, wire
from provisioning.pki import Authority
from tests.firmware.bench import Bench, Button, Peer, Post
from tests.firmware.releases import POINT, real
from tests.firmware.test_button_end_to_end import connected
from tests.parts import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.releases import Release

LIMIT_S = 90
HANGS_S = 5  # without the first word: here the test is the watchdog


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(Authority.create(), tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def peer(bench: Bench) -> Iterator[Peer]:
    with bench.broker(), connected(bench) as peer:
        yield peer


class Wall:
    """A button on its wall, started again whenever it ends, and headquarters at its other end."""

    def __init__(self, bench: Bench, peer: Peer, device: str) -> None:
        self.bench = bench
        self.device = device
        self.post: Post = bench.post(peer, device)
        path = bench.folder / device / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "release_key": POINT.hex()}))
        self.seen: list[dict[int, Any]] = []
        self.versions: list[str] = []
        self.starts = 0
        self.asked = 0  # how far it has got
        self._stack = contextlib.ExitStack()
        self._started = 0.0
        self._spoke = False

    def __enter__(self) -> Wall:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._stack.close()
        command, place = self.bench.command(), self.bench.place(self.device)
        process = running(command, **place, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.button = Button(self._stack.enter_context(process))
        self.starts += 1
        self._started, self._spoke = time.monotonic(), False

    def look_after(self) -> None:
        """What a supervisor and a watchdog do."""
        self._spoke = bool(self.button.drain()) or self._spoke
        if not self._spoke and time.monotonic() - self._started > HANGS_S:
            self.button.cut_power()
        if self.button.process.poll() is not None:
            assert self.button.process.returncode in (slots.RESTART, -9)
            self._start()

    def command(self, code: int, seq: int, detail: Any, upon: tuple[int, int]) -> None:
        message = {0: wire.COMMAND, 1: 1, 2: seq, 7: code, 11: self.device, 9: detail, 54: list(upon)}
        self.post.peer.command(self.device, wire.seal(message, "hq", self.post.key))

    def until(self, code: int, new: Release, seq: int, half: bool = False) -> dict[int, Any]:
        """Orders the update and plays headquarters until an event with this code comes, or half of it is there."""
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            self.look_after()
            try:
                topic, payload = self.post.peer.came.get(timeout=0.1)
            except queue.Empty:
                continue
            if topic.split("/")[2] != self.device or topic.endswith(("/receipt", "/command")):
                continue
            envelope = wire.unseal(payload)
            message = envelope.message
            if not envelope.sealed_with(self.post.key):
                continue  # headquarters believes nothing of it
            self.seen.append(message)
            number = message[wire.BOOT], message[wire.SEQ]
            if message[wire.KIND] == wire.HEARTBEAT:
                self.versions.append(message[wire.FIRMWARE])
                self.post.receipt(number, wire.AT_HQ)
                if wire.WANTED in message:
                    self.asked = message[wire.WANTED][1]
                    if half and self.asked > len(new.octets) // 2:
                        return message
                    for n in range(wire.PIECES):
                        at = self.asked + n * wire.PIECE_BYTES
                        piece = new.octets[at : at + wire.PIECE_BYTES]
                        self.command(wire.PIECE, 0, [new.digest[:8], at, piece], number)
                else:
                    self.command(wire.UPDATE, seq, new.offer, number)
            elif message[wire.KIND] in (wire.EVENT, wire.ALARM):
                self.post.receipt(number, wire.AT_HQ)
                if message[wire.KIND] == wire.EVENT and message[wire.CODE] == code:
                    return message
        raise AssertionError(f"no event {code}; {self.starts} starts, {self.seen[-5:]}")


def test_the_new_firmware_runs_and_is_kept_and_an_alarm_in_between_goes_first(
    bench: Bench, peer: Peer, tmp_path: Path
) -> None:
    new = real(tmp_path, "0.3.0")
    with Wall(bench, peer, "b-good") as wall:
        wall.until(0, new, 1, half=True)
        wall.button.cut_power()
        wall.until(0, new, 1, half=True)
        at = wall.asked
        number = wall.button.press()
        alarm = wall.post.until("alarm")
        assert (alarm[wire.BOOT], alarm[wire.SEQ]) == number
        assert alarm[wire.AGE] < 1000
        assert wire.WANTED not in wall.post.until("heartbeat")
        wall.post.receipt(number, wire.CLOSED)
        done = wall.until(wire.COMMAND_DONE, new, 1)
        assert at > len(new.octets) // 2
        assert done[wire.DETAIL][wire.ANSWER_TEXT] == "0.3.0 runs and is kept"
        assert [event[wire.DETAIL] for event in wall.seen if event.get(wire.CODE) == wire.UPDATE_TRIAL] == ["0.3.0"]
        assert wall.versions[-1] == "0.3.0"
        wall.button.cut_power()
        wall.versions.clear()
        refused = wall.until(wire.COMMAND_FAILED, real(tmp_path, "0.2.9"), 2)
        assert set(wall.versions) == {"0.3.0"}
        assert "0.2.9 is not newer than 0.3.0" in refused[wire.DETAIL][wire.ANSWER_TEXT]


SPOILED = {
    "crashes when it is loaded": (
        [("app", "BEAT_MS = 5000\n", "BEAT_MS = 5000\nraise ValueError('spoiled')\n")],
        "it does not start: ValueError: spoiled",
    ),
    "crashes when it runs": (
        [("app", "        board.feed()\n", "        raise OSError('spoiled')\n")],
        "it failed: OSError: spoiled",
    ),
    "hangs": (
        [("app", "BEAT_MS = 5000\n", "BEAT_MS = 5000\nwhile True:\n    pass\n")],
        "it started 3 times and headquarters never answered it",
    ),
    "cannot reach headquarters": (
        [
            ("update", "TRIAL_MS = 300_000", "TRIAL_MS = 5_000"),
            ("button", "wire.seal(message, self.settings.id, self._key)", "wire.seal(message, self.settings.id, b'x')"),
        ],
        "no receipt of headquarters within 5 s",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_firmware_that_is_no_good_is_taken_back_and_headquarters_hears_why(
    bench: Bench, peer: Peer, tmp_path: Path, case: str
) -> None:
    changes, why = SPOILED[case]
    with Wall(bench, peer, "b-" + case.rsplit(maxsplit=1)[-1]) as wall:
        failed = wall.until(wire.COMMAND_FAILED, real(tmp_path, "0.2.0", *changes), 1)
        assert failed[wire.DETAIL][wire.ANSWER_TEXT] == f"back to {VERSION}: {why}"
        assert set(wall.versions) == {VERSION}
