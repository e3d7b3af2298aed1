"""eFuses on espefuse's own virtual chip, and on the stand-in ROM: nothing burns by mistake, and what burns is the plan."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from provisioning import flash, lock
from provisioning.errors import FlashFault, SetupFault, WrongBoard
from tests.provisioning import esp_image
from tests.provisioning.rom_loader import Device, PtyBoard, RomLoader

MAC = "24:0a:c4:a1:b2:c3"
PROVEN = lock.Proven("khi-cn-main-gate", MAC, believed=True)
FIRST = {
    "BLOCK2", "ABS_DONE_1", "JTAG_DISABLE", "CONSOLE_DEBUG_DISABLE", "DISABLE_DL_ENCRYPT", "DISABLE_DL_DECRYPT", "DISABLE_DL_CACHE",
}  # fmt: skip
ENCRYPTED_VFS = ("vfs", 1, 0x81, 0x200000, 0x200000, 1)


def run(module, *arguments):
    ran = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with two signing keys, private and public."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        key = rsa.generate_private_key(65537, 3072)
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / f"{name}.private.pem").write_bytes(private)
        (folder / f"{name}.pem").write_bytes(public)
    return folder


@functools.cache
def sign(folder, name, octets):
    (folder / "plain").write_bytes(octets)
    key = folder / f"{name}.private.pem"
    run("espsecure", "sign-data", "--version", "2", "--keyfile", key, "--output", folder / "signed", folder / "plain")
    return (folder / "signed").read_bytes()


@pytest.fixture(scope="module")
def signed_file(keys):
    path = keys / "signed-image.bin"
    path.write_bytes(esp_image.image(vfs=ENCRYPTED_VFS, sign=functools.partial(sign, keys, "ours")))
    return path


@pytest.fixture(scope="module")
def signed(signed_file, keys):
    return lock.signed_image(signed_file, keys / "ours.pem")


class Virtual:
    """espefuse's virtual ESP32 in a file: the eFuse controller's registers, the last word first."""

    def __init__(self, path, mac=MAC, revision=3):
        self.path = path
        self.reach = lock.Reach(virtual=path)
        octets = bytearray(0x120)
        address = bytes.fromhex(mac.replace(":", ""))
        words = {1: int.from_bytes(address[2:], "big"), 2: int.from_bytes(address[:2], "big")}
        if revision >= 3:
            words |= {3: 1 << 15, 5: 1 << 20}
        for word, value in words.items():
            octets[0x11C - 4 * word : 0x120 - 4 * word] = value.to_bytes(4, "big")
        path.write_bytes(octets)

    def burn(self, *command):
        run("espefuse", *self.reach.arguments, "--do-not-confirm", *command)

    def starts_and_encrypts_itself(self, folder):
        """What the bootloader of a signed image does at its first start."""
        (folder / "flash.key").write_bytes(os.urandom(32))
        self.burn(
            "burn-key",
            "flash_encryption",
            folder / "flash.key",
            "burn-efuse",
            "FLASH_CRYPT_CONFIG",
            15,
            "FLASH_CRYPT_CNT",
            1,
        )

    def values(self):
        return {name: fuse.value for name, fuse in lock.read(self.reach).fields.items()}


@pytest.fixture
def chip(tmp_path):
    return Virtual(tmp_path / "chip.bin")


def changed(before, after):
    return {name for name in after if before[name] != after[name]}


def test_the_virtual_chip_is_read(chip):
    fuses = lock.read(chip.reach)
    assert (fuses.mac, fuses.revision, fuses.encrypted) == (MAC, 3, False)
    assert fuses.fields["ABS_DONE_1"] == lock.Fuse("ABS_DONE_1", 0, open=True)


def test_the_whole_way_in_order(chip, signed, tmp_path):
    blank, start = chip.path.read_bytes(), chip.values()
    dry = lock.lock(chip.reach, PROVEN, signed)
    assert not dry.burned and dry.plan.stage == "first" and not dry.plan.refusals
    assert {burn.name for burn in dry.plan.burns} == FIRST
    assert all(burn.irreversible and burn.meaning and burn.now != burn.then for burn in dry.plan.burns)
    assert {burn.name for burn in dry.plan.by_itself} == {"BLOCK1", "FLASH_CRYPT_CONFIG", "FLASH_CRYPT_CNT"}
    assert any("never run on a real chip" in warning for warning in dry.warnings)
    assert chip.path.read_bytes() == blank, "a dry run burns nothing"

    done = lock.lock(chip.reach, PROVEN, signed, burn=True, typed=PROVEN.id)
    assert done.burned and done.read_back
    half, middle = chip.path.read_bytes(), chip.values()
    assert changed(start, middle) == FIRST | {"WR_DIS"}
    assert middle["BLOCK2"].to_bytes(32, "little") == signed.digest and middle["WR_DIS"] == 1 << 8

    waiting = lock.lock(chip.reach, PROVEN, signed, burn=True, typed=PROVEN.id)
    assert waiting.plan.stage == "wait" and not waiting.burned and chip.path.read_bytes() == half

    chip.starts_and_encrypts_itself(tmp_path)
    encrypted = chip.values()
    assert lock.lock(chip.reach, PROVEN, signed).plan.stage == "second"
    lock.lock(chip.reach, PROVEN, signed, burn=True, typed=PROVEN.id)
    end = chip.values()
    assert changed(encrypted, end) == {"FLASH_CRYPT_CNT", "UART_DOWNLOAD_DIS", "WR_DIS"}
    assert (end["FLASH_CRYPT_CNT"], end["UART_DOWNLOAD_DIS"]) == (0x7F, 1)
    fuses = lock.read(chip.reach)
    assert fuses.encrypted and not fuses.fields["FLASH_CRYPT_CNT"].open and not fuses.fields["RD_DIS"].open
    assert fuses.fields["BLOCK1"].value is None, "nobody reads the flash's key"
    assert fuses.fields["BLOCK2"].value, "but the chip reads the digest"

    assert lock.lock(chip.reach, PROVEN, signed).plan.stage == "done"


@pytest.mark.parametrize("typed", ["", "KHI-CN-MAIN-GATE"])
def test_without_the_boards_id_typed_exactly_nothing_burns(chip, signed, typed):
    before = chip.path.read_bytes()
    with pytest.raises(WrongBoard, match="Type its id exactly"):
        lock.lock(chip.reach, PROVEN, signed, burn=True, typed=typed)
    assert chip.path.read_bytes() == before


@pytest.mark.parametrize(
    ("proven", "words"),
    [
        (None, "has not proved who it is"),
        (lock.Proven("khi-cn-main-gate", MAC, believed=False), "has not proved who it is"),
        (lock.Proven("khi-cn-main-gate", "24:0a:c4:00:00:01", believed=True), "it is another board"),
    ],
)
def test_a_board_that_is_not_proven_is_not_burned(chip, signed, proven, words):
    before = chip.path.read_bytes()
    with pytest.raises(SetupFault, match=words):
        lock.lock(chip.reach, proven, signed, burn=True, typed="khi-cn-main-gate")
    assert chip.path.read_bytes() == before


def test_without_a_signed_image_nothing_burns(chip):
    before = chip.path.read_bytes()
    with pytest.raises(SetupFault, match="No signed image was given"):
        lock.lock(chip.reach, PROVEN, None, burn=True, typed=PROVEN.id)
    assert chip.path.read_bytes() == before


def test_old_silicon_is_refused_by_us_and_by_espefuse(tmp_path, signed, keys):
    old = Virtual(tmp_path / "old.bin", revision=0)
    with pytest.raises(SetupFault, match="secure boot v2 and a closed download need v3.0 or newer"):
        lock.lock(old.reach, PROVEN, signed, burn=True, typed=PROVEN.id)
    with pytest.raises(AssertionError, match="Expected: >= v3.0"):
        old.burn("burn-key-digest", keys / "ours.pem")


def fuses(**values):
    """A chip of which only these differ from new."""
    names = (
        "WR_DIS RD_DIS FLASH_CRYPT_CNT FLASH_CRYPT_CONFIG UART_DOWNLOAD_DIS CODING_SCHEME ABS_DONE_0 ABS_DONE_1 JTAG_DISABLE "
        "CONSOLE_DEBUG_DISABLE DISABLE_DL_ENCRYPT DISABLE_DL_DECRYPT DISABLE_DL_CACHE BLOCK1 BLOCK2"
    )
    fields = {name: lock.Fuse(name, values.get(name, 0), open=True) for name in names.split()}
    return lock.Fuses(MAC, values.get("revision", 3), fields)


DONE_FIRST = dict.fromkeys(FIRST - {"BLOCK2"}, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"FLASH_CRYPT_CNT": 1}, "encrypted, but secure boot is not on"),
        ({"FLASH_CRYPT_CNT": 3}, "encrypted once and is not now"),
        ({"ABS_DONE_0": 1}, "v1 is on already"),
        ({"CODING_SCHEME": 1}, "no room for its digest"),
        ({"BLOCK2": 12345}, "digest of another key"),
        ({"RD_DIS": 2}, "Reading of BLOCK2 is disabled"),
        ({"revision": 1}, "v3.0 or newer"),
    ],
)
def test_in_the_wrong_order_or_after_somebody_else_it_refuses(signed, values, words):
    assert any(words in reason for reason in lock.plan(fuses(**values), PROVEN, signed).refusals)


def test_a_download_that_can_no_more_be_closed_is_said(signed):
    chip = fuses(**DONE_FIRST, FLASH_CRYPT_CNT=1, BLOCK2=int.from_bytes(signed.digest, "little"))
    chip.fields["UART_DOWNLOAD_DIS"] = lock.Fuse("UART_DOWNLOAD_DIS", 0, open=False)
    planned = lock.plan(chip, PROVEN, signed)
    assert planned.stage == "second" and any("can't be closed any more" in reason for reason in planned.refusals)


def test_a_first_burn_that_was_cut_is_finished_and_not_repeated(signed):
    chip = fuses(BLOCK2=int.from_bytes(signed.digest, "little"), JTAG_DISABLE=1)
    planned = lock.plan(chip, PROVEN, signed)
    assert planned.stage == "first" and not planned.refusals
    assert {burn.name for burn in planned.burns} == FIRST - {"BLOCK2", "JTAG_DISABLE"}


def test_what_a_locked_board_would_not_start_is_refused(keys, tmp_path):
    ours = functools.partial(sign, keys, "ours")
    cases = [
        (esp_image.image(vfs=ENCRYPTED_VFS), "bootloader is not signed by ours.pem"),
        (esp_image.image(vfs=ENCRYPTED_VFS, sign=functools.partial(sign, keys, "other")), "bootloader is not signed"),
        (esp_image.image(sign=ours), "not marked as encrypted"),
        (
            esp_image.image(vfs=ENCRYPTED_VFS, sign=ours, text=b"raw REPL; CTRL-B to exit\r\n>"),
            "still has MicroPython's prompt",
        ),
    ]
    signed = esp_image.image(vfs=ENCRYPTED_VFS, sign=ours)
    unsigned_application = esp_image.image(vfs=ENCRYPTED_VFS)[0xF000:]
    cases.append((signed[:0xF000] + unsigned_application, "application is not signed"))
    for octets, words in cases:
        path = tmp_path / "image.bin"
        path.write_bytes(octets)
        with pytest.raises(FlashFault, match=words):
            lock.signed_image(path, keys / "ours.pem")


def test_a_private_key_is_not_taken(signed_file, keys):
    with pytest.raises(SetupFault, match="private signing key: it must not be at the bench"):
        lock.signed_image(signed_file, keys / "ours.private.pem")


def test_over_a_port_the_board_must_hold_the_signed_image(signed):
    rom = RomLoader(mac=MAC)
    with PtyBoard(Device(rom)) as board:
        reach = lock.Reach(port=board.port, before="no-reset")
        with pytest.raises(SetupFault, match="does not hold signed-image.bin now"):
            lock.lock(reach, PROVEN, signed, burn=True, typed=PROVEN.id)
        assert rom.efuse[0][6] == 0 and not any(rom.efuse[2])
        octets = signed.path.read_bytes()
        rom.flash[0x1000 : 0x1000 + len(octets)] = octets
        done = lock.lock(reach, PROVEN, signed, burn=True, typed=PROVEN.id)
        assert done.burned and done.read_back
        assert rom.efuse[0][6] == 0b11_1110_0100 and rom.efuse[0][0] == 1 << 8
        assert b"".join(word.to_bytes(4, "little") for word in rom.efuse[2]) == signed.digest
        assert flash.probe(board.port, before="no-reset", after="no-reset").secure_boot
        rom.efuse[0][0] |= 1 << 20 | 1 << 16 | 1 << 7
        assert lock.lock(reach, PROVEN, signed).plan.stage == "second"


def test_what_is_shown_can_be_written_as_json(signed):
    shown = json.dumps(dataclasses.asdict(lock.Outcome(lock.plan(fuses(), PROVEN, signed))))
    assert "ABS_DONE_1" in shown and "never run on a real chip" in shown
