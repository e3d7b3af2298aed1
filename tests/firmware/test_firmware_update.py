"""An update of the firmware: only a signed, newer, whole one is ever started, and only one that reaches headquarters stays."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware import VERSION, ecdsa, health, p256, release, slots, update, wire
from firmware.command import Commands
from firmware.flash import Flash
from firmware.update import Update
from provisioning.release import signed
from gateway import keys
from tests.firmware.releases import FILES, POINT, small
from tests.firmware.test_button_conduct import KEY as MESSAGE_KEY
from tests.firmware.test_button_conduct import PRESSED, REST, Desk
from tests.firmware.test_firmware_command import block
from tests.firmware.test_firmware_outbox import CuttingDisk, CuttingFile, PowerCut
from tests.parts import PROJECT, micropython

if TYPE_CHECKING:
    from gateway.releases import Release


def verified(point: bytes, digest: bytes, signature: bytes) -> bool:
    return bool(list(ecdsa.verifying(point, digest, signature))[-1])


def raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@settings(max_examples=25)
@given(st.integers(1, p256.N - 1) | st.sampled_from([1, 2, p256.N - 1, p256.N - 2]), st.binary(max_size=20))
def test_a_signature_of_cryptography_is_good_and_any_other_bit_is_not(number: int, message: bytes) -> None:
    key = ec.derive_private_key(number, ec.SECP256R1())
    point, digest, signature = keys.point(key.public_key()), hashlib.sha256(message).digest(), raw(key, message)
    assert verified(point, digest, signature)
    spoiled = bytearray(signature)
    spoiled[number % 64] ^= 1 << number % 8
    assert not verified(point, digest, bytes(spoiled))
    assert not verified(point, hashlib.sha256(message + b"x").digest(), signature)
    assert not verified(POINT, digest, signature)


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(31) + b"\1" + bytes(32), bytes(63), b""])
def test_a_signature_out_of_range_is_refused(signature: bytes) -> None:
    assert not verified(POINT, bytes(32), signature)
    assert not verified(b"\4" + bytes(64), bytes(32), b"\1" * 64)


class Disk(CuttingDisk):
    """The power-cut disk, whose files can also stay open."""

    def open(self, path: str, mode: str) -> Any:
        file = super().open(path, mode)
        if mode != "rb":
            file.__class__ = OpenFile
        return file


class OpenFile(CuttingFile):
    def close(self) -> None:
        self.file.close()


class Updated(Desk):
    """The conduct tests' button with updates: one start of it, on a disk whose power goes after some steps."""

    def __init__(self, folder: Path, steps: int = 10**9, *, here: str = "", key: bytes | None = POINT) -> None:
        super().__init__(folder / "state", board="virtual", release_key=key, signal="visible")
        self.folder = folder
        self.restarts = 0
        self.events: list[dict[int, Any]] = []
        disk = Disk(steps)
        flash = Flash(str(folder / "state"), disk, disk.open)
        self.record = slots.Slots(flash)
        self.button.commands = Commands(
            self.button.settings, MESSAGE_KEY, self.flash, self.button, None, block, restart=self.restart
        )
        here = "" if not here else str(folder / here)
        self.button.update = self.update = Update(
            self.button.settings, self.record, self.button, self.restart, here, disk, disk.open
        )
        self.update.resume()
        self.connect()

    def restart(self) -> None:
        self.restarts += 1

    def order(self, of: Release, seq: int = 1, **other: Any) -> None:
        self.send(wire.UPDATE, seq, other.get("detail", of.offer))

    def send(self, code: int, seq: int, detail: Any) -> None:
        if not self.button._beats:
            self.button.beat()
        message = {0: wire.COMMAND, 1: 1, 2: seq, 7: code, 11: "b1", 9: detail, 54: list(self.button._beats[-1][0])}
        self.button.received("tocsin/1/b1/command", wire.seal(message, "hq", MESSAGE_KEY))

    def wanted(self) -> list[Any] | None:
        self.button.beat()
        beat = next(what[1] for what in reversed(self.story) if what[0] == "heartbeat")
        wanted: list[Any] | None = beat.get(wire.WANTED)
        return wanted

    def serve(self, octets: bytes, size: int = wire.PIECE_BYTES, until: int = 10**9) -> None:
        """Headquarters: answers what is wanted until nothing is, or so far."""
        for _ in range(1500):
            while self.update.work():
                pass
            wanted = self.wanted()
            if wanted is None:
                break
            for n in range(wire.PIECES):
                at = wanted[1] + n * size
                if at >= until:
                    return
                self.send(wire.PIECE, 0, [wanted[0], at, octets[at : at + size]])
        self.now_ms += 1000
        self.update.step()

    def answers(self) -> list[tuple[int, str]]:
        events = [self.button.outbox.event(number, self.now_ms) for number in list(self.button.outbox.events)]
        codes = (wire.COMMAND_DONE, wire.COMMAND_FAILED)
        return [(event[wire.CODE], event[wire.DETAIL][5]) for event in events if event[wire.CODE] in codes]


@pytest.fixture(autouse=True)
def _no_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a heartbeat costs on the chip and nowhere else; here it would take minutes."""
    monkeypatch.setattr(health, "heap_free", lambda: 0)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Updated:
    monkeypatch.chdir(tmp_path)
    return Updated(tmp_path)


def lies(folder: Path, slot: str) -> dict[str, bytes]:
    """The files of a slot."""
    root = folder / slot
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_whole_release_is_armed_and_started_on_trial(desk: Updated, tmp_path: Path) -> None:
    new = small()
    desk.order(new)
    desk.serve(new.octets)
    assert lies(tmp_path, "slot-a") == FILES
    assert desk.restarts == 1
    assert (desk.record.confirmed, desk.record.trial, desk.record.tries) == ("", "slot-a", 0)
    assert desk.answers() == []


@pytest.mark.parametrize("size", [1, 7, 100, 768])
def test_pieces_of_any_size_that_come_twice_or_too_early_make_the_same_release(
    desk: Updated, tmp_path: Path, size: int
) -> None:
    new = small()
    desk.order(new)
    desk.send(wire.PIECE, 0, [new.digest[:8], 50, b"early"])
    desk.send(wire.PIECE, 0, [bytes(8), 0, b"of another release"])
    desk.serve(new.octets, size, 60)
    desk.send(wire.PIECE, 0, [new.digest[:8], 0, new.octets[:5]])
    desk.serve(new.octets, size)
    assert lies(tmp_path, "slot-a") == FILES
    assert desk.record.trial == "slot-a"


def spoiled(octets: bytes, at: int) -> bytes:
    return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]


OTHER = ec.generate_private_key(ec.SECP256R1())
NEW = small()
REFUSED = {
    "bad signature": (NEW.offer, spoiled(NEW.octets, 3), "not the one that was offered"),
    "signed by another key": (None, signed("0.2.0", ["virtual"], FILES, OTHER, 0), "not signed with the key of releases"),
    "wrong hash": (NEW.offer, spoiled(NEW.octets, NEW.head + 310), "is not the file that was signed"),
    "wrong board": (None, small(boards=("esp32_devkitc",)).octets, "it is not for a board virtual"),
    "other MicroPython": (None, small(mpy=6).octets, "another MicroPython"),
    "same": (None, small(VERSION).octets, "runs already"),
    "older": (None, small("0.0.9").octets, "0.0.9 is not newer than"),
    "too long": (release.offer("0.2.0", 2000, 500_000, bytes(32)), b"", "the release is too long"),
    "no release": (b"\xf6", b"", "it names no release"),
    "other version than offered": (
        release.offer("0.3.0", NEW.head, len(NEW.octets), NEW.digest), NEW.octets, "not what was offered",
    ),
}  # fmt: skip


def offered(octets: bytes) -> bytes:
    head = wire.end_of(octets, release.SIGNATURE)
    version = release.Manifest(octets[release.SIGNATURE : head]).version
    return release.offer(version, head, len(octets), hashlib.sha256(octets[:head]).digest())


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_right_is_refused_with_the_reason_and_changes_nothing(desk: Updated, case: str) -> None:
    offer, octets, why = REFUSED[case]
    desk.order(NEW, detail=offer or offered(octets))
    desk.serve(octets)
    ((code, text),) = desk.answers()
    assert why in text
    assert code == (wire.COMMAND_DONE if case == "same" else wire.COMMAND_FAILED)
    assert (desk.record.trial, desk.restarts) == (None, 0)
    desk.order(NEW, 2)  # and the next one is taken all the same
    desk.serve(NEW.octets)
    assert desk.record.trial == "slot-a"


def test_a_button_without_a_key_of_releases_believes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Updated(tmp_path, key=None)
    desk.order(NEW)
    ((code, text),) = desk.answers()
    assert code == wire.COMMAND_FAILED
    assert "release_key" in text


def test_a_truncated_release_never_starts_and_is_given_up(desk: Updated, tmp_path: Path) -> None:
    desk.order(NEW)
    desk.serve(NEW.octets[:-1])
    assert desk.record.trial is None
    desk.now_ms += update.GIVE_UP_MS
    desk.update.step()
    assert "no piece of it came" in desk.answers()[0][1]
    assert set(lies(tmp_path, "slot-a")) < {*FILES, "new"}


@pytest.mark.parametrize("where", ["Download.__init__", "Download.take", "Download.judge", "Download.look"])
def test_without_memory_for_it_the_update_is_given_up_and_the_button_goes_on(
    desk: Updated, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError("memory allocation failed, allocating 456 bytes")

    with monkeypatch.context() as patched:
        patched.setattr(f"firmware.download.{where}", no_memory)
        desk.order(NEW)
        desk.serve(NEW.octets)
    ((code, text),) = desk.answers()
    assert (code, "memory allocation failed" in text) == (wire.COMMAND_FAILED, True)
    assert (desk.record.trial, desk.restarts) == (None, 0)
    desk.order(NEW, 2)
    desk.serve(NEW.octets)
    assert desk.record.trial == "slot-a"


def test_an_older_version_than_ever_ran_is_refused_even_by_the_installed_firmware(desk: Updated) -> None:
    desk.record.newest = "0.3.0"
    desk.order(NEW)
    assert "0.2.0 is not newer than 0.3.0" in desk.answers()[0][1]


def test_an_alarm_interrupts_the_download_and_the_start(desk: Updated) -> None:
    desk.order(NEW)
    desk.serve(NEW.octets, 50, NEW.head + 200)
    assert desk.wanted() is not None
    desk.story.clear()
    desk.hold(PRESSED, 200)
    assert [what[0] for what in desk.story if what[0] in ("alarm", "event", "heartbeat")][0] == "alarm"
    alarm = next(what[1] for what in desk.story if what[0] == "alarm")
    assert desk.wanted() is None
    at = desk.update._download.at
    desk.send(wire.PIECE, 0, [NEW.digest[:8], at, NEW.octets[at : at + 100]])
    assert desk.update._download.at == at
    desk.hold(REST, 200)
    desk.receipt((alarm[1], alarm[2]), wire.AT_HQ)
    assert desk.wanted() is None  # it is open still
    desk.receipt((alarm[1], alarm[2]), wire.CLOSED)
    assert desk.wanted() == [NEW.digest[:8], at]
    desk.serve(NEW.octets)
    assert desk.restarts == 1
    desk.hold(PRESSED, 200)
    desk.update.step()
    assert desk.restarts == 1  # whole, but a press came before the start on trial


def on(folder: Path) -> tuple[str, str | None]:
    record = slots.Slots(Flash(str(folder / "state")))
    return record.confirmed, record.trial


def test_power_cut_at_every_step_of_download_and_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after each operation and each octet written: it stays on the old one until all is there, and gets there."""
    steps, arrived = 0, False
    while not arrived:
        folder = tmp_path / str(steps)
        folder.mkdir()
        monkeypatch.chdir(folder)
        try:
            desk = Updated(folder, steps)
            desk.order(NEW)
            desk.serve(NEW.octets)
            arrived = True
        except PowerCut:
            pass
        confirmed, trial = on(folder)
        assert confirmed == ""
        assert trial is None or lies(folder, "slot-a") == FILES, f"cut after {steps} steps"
        if steps % 7 == 0 and trial is None:  # and once more, with power
            desk = Updated(folder)
            desk.order(NEW)
            desk.serve(NEW.octets)
            assert lies(folder, "slot-a") == FILES
            assert on(folder) == ("", "slot-a")
        steps += 1
    assert steps > sum(map(len, FILES.values()))


def test_a_second_start_asks_only_for_what_is_missing(desk: Updated, tmp_path: Path) -> None:
    desk.order(NEW)
    desk.serve(NEW.octets, 50, NEW.head + 350)
    at = desk.wanted()
    assert at is not None
    assert at[1] > NEW.head + 300
    again = Updated(tmp_path)
    again.order(NEW)
    again.serve(NEW.octets, 50, NEW.head)
    while again.update.work():
        pass
    wanted = again.wanted()
    assert wanted is not None
    assert wanted[1] == NEW.head + 300


def test_trial_is_kept_by_the_receipt_for_its_own_event_and_by_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = Updated(tmp_path)
    first.order(NEW)
    first.serve(NEW.octets)
    record = slots.Slots(Flash("state"))
    assert record.choose() == "slot-a"
    desk = Updated(tmp_path)
    desk.update._here = "slot-a"
    desk.record.__init__(Flash("state"))
    assert desk.update.on_trial
    desk.order(NEW)  # repeated by headquarters
    started = [number for number in desk.button.outbox.events]
    desk.now_ms = update.SETTLED_MS
    desk.update.step()
    (proof,) = [number for number in desk.button.outbox.events if number not in started]
    event = desk.button.outbox.event(proof, desk.now_ms)
    assert (event[wire.CODE], event[wire.DETAIL]) == (wire.UPDATE_TRIAL, VERSION)
    beat = next(what[1] for what in reversed(desk.story) if what[0] == "heartbeat")
    desk.receipt((beat[1], beat[2]), wire.AT_HQ)
    desk.receipt(proof, wire.AT_GATEWAY)
    assert on(tmp_path) == ("", "slot-a")
    desk.receipt(proof, wire.AT_HQ)
    assert on(tmp_path) == ("slot-a", None)
    assert desk.answers() == [(wire.COMMAND_DONE, f"{VERSION} runs and is kept")]


def test_without_a_receipt_the_trial_ends_and_the_old_firmware_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = slots.Slots(Flash("state"))
    record.arm((1, 1))
    assert record.choose() == "slot-a"
    desk = Updated(tmp_path)
    desk.update._here = "slot-a"
    desk.now_ms = update.TRIAL_MS
    with pytest.raises(slots.Back):
        desk.update.step()
    assert slots.Slots(Flash("state")).choose() == ""
    old = Updated(tmp_path)
    assert old.answers() == [(wire.COMMAND_FAILED, f"back to {VERSION}: no receipt of headquarters within 300 s")]
    assert Updated(tmp_path).record.order is None


def test_a_trial_has_three_starts_and_none_while_an_alarm_is_open(tmp_path: Path) -> None:
    flash = Flash(str(tmp_path))
    slots.Slots(flash).arm((1, 1))
    flash.write("a-1-2", b"")
    assert slots.Slots(flash).choose() == ""
    flash.remove("a-1-2")
    assert [slots.Slots(flash).choose() for _ in range(5)] == ["slot-a"] * 3 + [""] * 2
    assert "3 times" in slots.Slots(flash).why
    slots.Slots(flash).arm((1, 2))
    assert slots.Slots(flash).choose() == "slot-a"
    flash.write("a-1-3", b"")
    assert slots.Slots(flash).choose() == ""
    assert "an alarm was open" in slots.Slots(flash).why


def test_a_damaged_record_starts_the_installed_firmware(tmp_path: Path) -> None:
    flash = Flash(str(tmp_path))
    record = slots.Slots(flash)
    record.arm((1, 1))
    record.confirm("0.2.0")
    octets = (tmp_path / "slots").read_bytes()
    assert slots.Slots(flash).choose() == "slot-a"
    for at in range(len(octets)):
        (tmp_path / "slots").write_bytes(spoiled(octets, at))
        assert slots.Slots(flash).choose() == ""
    for length in range(len(octets)):
        (tmp_path / "slots").write_bytes(octets[:length])
        assert slots.Slots(flash).choose() == ""


def test_every_cut_of_a_real_littlefs_leaves_a_firmware_that_is_whole() -> None:
    done = subprocess.run(
        [micropython(), "-X", "heapsize=64m", str(PROJECT / "tests" / "firmware" / "run_update_littlefs.py")],
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    word, _, cuts = done.stdout.partition(" ")
    assert word == "passed", done.stdout + done.stderr
    assert int(cuts) > 20
