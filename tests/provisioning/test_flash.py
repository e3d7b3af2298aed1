"""Unmodified esptool against the stand-in ROM: what is written is what was pinned, and every fault says what to do."""

import hashlib
import os
import threading
import time

import pytest

from provisioning import flash, images
from provisioning.errors import BoardLost, BoardNotFound, FlashFault, PortFault, WrongBoard
from tests.provisioning import esp_image
from tests.provisioning.rom_loader import Device, Fault, PtyBoard, Rfc2217Board, RomLoader

PTY = {"before": "no-reset", "after": "no-reset"}


@pytest.fixture(scope="module")
def octets():
    return esp_image.image(size=200_000)


@pytest.fixture
def image(tmp_path, octets):
    path = tmp_path / "firmware.bin"
    path.write_bytes(octets)
    return images.Image(
        images.Pin("ESP32_GENERIC", "1.25.0", "ESP32", hashlib.sha256(octets).hexdigest(), len(octets)), path
    )


def held(**of_the_chip):
    """A board on a pty whose BOOT button is held."""
    return PtyBoard(Device(RomLoader(**of_the_chip)))


def children():
    """Programs of the chip's maker that this process started and that are still there."""
    me = str(os.getpid())
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                with open(f"/proc/{entry}/cmdline") as file:
                    is_esptool = "esptool" in file.read()
            except OSError:
                continue
            if fields[1] == me and fields[0] != "Z" and is_esptool:
                found.append(entry)
    return found


def test_the_chip_says_what_it_is():
    with held(mac="24:0a:c4:a1:b2:c3") as board:
        chip = flash.probe(board.port, **PTY)
    assert (chip.family, chip.name, chip.revision) == ("ESP32", "ESP32-D0WDQ6-V3", "3.0")
    assert (chip.mac, chip.flash_mb) == ("24:0a:c4:a1:b2:c3", 4)
    assert (chip.encrypted, chip.secure_boot) == (False, False)


def test_a_locked_chip_and_an_old_one_say_so(image):
    rom = RomLoader(revision=1)
    rom.efuse[0][0] |= 1 << 20
    rom.efuse[0][6] |= 1 << 5
    with PtyBoard(Device(rom)) as board:
        chip = flash.probe(board.port, **PTY)
    assert chip.revision == "1.0" and chip.encrypted and chip.secure_boot
    with pytest.raises(WrongBoard, match="is locked"):
        flash.check(chip, image)


def test_a_locked_chip_is_not_written(image):
    rom = RomLoader()
    rom.efuse[0][0] |= 1 << 20
    rom.efuse[0][6] |= 1 << 5 | 1 << 7
    with PtyBoard(Device(rom)) as board, pytest.raises(WrongBoard, match="board is locked"):
        flash.write(board.port, image, **PTY)
    assert set(rom.flash) == {0xFF}


@pytest.mark.parametrize(
    ("chip", "words"),
    [
        (flash.Chip("ESP32-S3", "ESP32-S3", "0.2", "m", 8), "is an ESP32-S3"),
        (flash.Chip("ESP32", "ESP32", "3.0", "m", 4, encrypted=True), "is locked"),
        (flash.Chip("ESP32", "ESP32", "3.0", "m", 0), "too little"),
    ],
)
def test_a_board_that_does_not_fit_is_refused_before_anything_is_sent(chip, words, image):
    with pytest.raises(WrongBoard, match=words):
        flash.check(chip, image)
    flash.check(flash.Chip("ESP32", "ESP32", "3.0", "m", None), image)


@pytest.mark.parametrize("family", ["ESP32-S2", "ESP32-S3", "ESP8266"])
def test_another_chip_is_named_and_never_written(family, image):
    with held(chip=family) as board:
        with pytest.raises(WrongBoard, match=f"this is an {family}; the firmware is for an ESP32"):
            flash.write(board.port, image, **PTY)
        assert set(board.device.rom.flash) == {0xFF}
        assert flash.probe(board.port, **PTY).family == family


def test_what_is_written_is_the_image_and_nothing_else(image, octets):
    seen = []
    with held() as board:
        flash.write(board.port, image, lambda done, of: seen.append((done, of)), **PTY)
        held_now = board.device.rom.flash
        assert held_now[0x1000 : 0x1000 + len(octets)] == octets
        assert set(held_now[:0x1000]) == set(held_now[0x1000 + len(octets) :]) == {0xFF}
        flash.verify(board.port, image, before="no-reset")
    assert seen[0] == (0, len(octets)) and seen[-1] == (len(octets), len(octets))
    assert len(seen) > 5 and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done < len(octets) for done, _ in seen[:-1]), "all is done only when the chip has proved it"


def test_verify_finds_one_wrong_bit(image):
    with held() as board:
        flash.write(board.port, image, **PTY)
        board.device.rom.flash[0x9000] ^= 1
        with pytest.raises(FlashFault, match="MD5 differs"):
            flash.verify(board.port, image, before="no-reset")


def test_erase_leaves_nothing(image):
    with held() as board:
        flash.write(board.port, image, **PTY)
        flash.erase(board.port, before="no-reset")
        assert set(board.device.rom.flash) == {0xFF}


def test_erasing_first_takes_what_was_there_away(image, octets):
    with held() as board:
        board.device.rom.flash[0x300000:0x300010] = b"an old identity!"
        flash.write(board.port, image, erase_all=True, **PTY)
        assert set(board.device.rom.flash[0x300000:0x300010]) == {0xFF}
        assert board.device.rom.flash[0x1000 : 0x1000 + len(octets)] == octets


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault(bad_md5=True), FlashFault, "MD5 differs.*put the board aside"),
        (Fault(write_error_block=3), FlashFault, r"could not write its flash \(Flash write error, 0108\)"),
        (Fault(silent=True), BoardLost, "Hold BOOT while plugging in"),
    ],
    ids=["bad MD5", "write error", "silence"],
)
def test_every_fault_says_what_to_do(fault, kind, words, image):
    seen = []
    with held(fault=fault) as board, pytest.raises(kind, match=words) as told:
        flash.write(board.port, image, lambda done, of: seen.append(done), **PTY)
    assert board.port in str(told.value)
    assert max(seen) < image.pin.size
    assert not children()


def test_after_an_unplugged_write_the_same_command_starts_over(image, octets):
    words = "unplugged.*Plug it in again and run the same command"
    with held(fault=Fault(unplug_after=90_000)) as board, pytest.raises(BoardLost, match=words):
        flash.write(board.port, image, **PTY)
    assert not children()
    rom = board.device.rom
    rom.fault = Fault()
    rom.restart()
    with PtyBoard(Device(rom)) as again:
        flash.write(again.port, image, **PTY)
    assert rom.flash[0x1000 : 0x1000 + len(octets)] == octets


def test_a_chip_that_stalls_is_given_up_at_the_deadline_and_no_child_stays(image):
    with held(fault=Fault(stall_after=60_000)) as board:
        began = time.monotonic()
        with pytest.raises(BoardLost, match="stopped answering"):
            flash.write(board.port, image, timeout_s=2, **PTY)
        assert time.monotonic() - began < 4
    assert not children()


def test_a_cancelled_write_ends_its_child(image):
    cancelled = threading.Event()
    with held(fault=Fault(stall_after=60_000)) as board, pytest.raises(BoardLost, match="stopped as asked"):
        flash.write(board.port, image, lambda done, of: done and cancelled.set(), cancelled=cancelled, **PTY)
    assert not children()


def test_an_exception_in_the_progress_ends_the_child(image):
    def interrupted(done, of):
        if done:
            raise KeyboardInterrupt

    with held() as board, pytest.raises(KeyboardInterrupt):
        flash.write(board.port, image, interrupted, **PTY)
    assert not children()


def test_a_file_that_changed_since_it_was_checked_is_not_sent(image, octets):
    image.path.write_bytes(octets[:-1] + b"\0")
    with held() as board:
        with pytest.raises(FlashFault, match="changed since it was checked"):
            flash.write(board.port, image, **PTY)
        assert board.device.rom.received == 0


def test_an_image_for_newer_silicon_is_refused_by_name(tmp_path):
    octets = esp_image.image(oldest=300)
    path = tmp_path / "new.bin"
    path.write_bytes(octets)
    pin = images.Pin("NEW", "1.25.0", "ESP32", hashlib.sha256(octets).hexdigest(), len(octets))
    with held(revision=1) as board:
        with pytest.raises(WrongBoard, match="requires chip revision v3.0 or higher"):
            flash.write(board.port, images.Image(pin, path), **PTY)
        assert set(board.device.rom.flash) == {0xFF}


def test_a_port_that_is_not_there_or_taken_or_no_port(image, tmp_path):
    with pytest.raises(BoardNotFound, match="is not there"):
        flash.write("/dev/ttyUSB97", image, **PTY)
    with pytest.raises(BoardNotFound, match="not a serial port"):
        flash.write("/dev/null", image, **PTY)
    import fcntl

    with held() as board:
        fcntl.flock(board.far_end, fcntl.LOCK_EX)
        with pytest.raises(PortFault, match="is held by"):
            flash.write(board.port, image, **PTY)


def test_no_permission_names_the_group():
    said = """A fatal error occurred: Could not open /dev/ttyUSB0, the port is busy or doesn't exist.
([Errno 13] could not open port /dev/ttyUSB0: [Errno 13] Permission denied: '/dev/ttyUSB0')
"""
    told = flash.fault(said, "/dev/ttyUSB0")
    assert isinstance(told, PortFault) and "dialout" in str(told)


def test_what_esptool_says_and_nobody_foresaw_is_passed_on():
    told = flash.fault("Blah\n\nA fatal error occurred: The moon is full.\n", "/dev/ttyUSB0")
    assert isinstance(told, FlashFault) and str(told) == "/dev/ttyUSB0: esptool failed: The moon is full."


def test_configuration_that_lies_about_does_not_reach_esptool(image, octets, tmp_path, monkeypatch):
    (tmp_path / "esptool.cfg").write_text("[esptool]\nconnect_attempts = 1\ntimeout = 0.000001\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPTOOL_CFGFILE", str(tmp_path / "esptool.cfg"))
    monkeypatch.setenv("ESPTOOL_PORT", "/dev/ttyUSB96")
    with held() as board:
        flash.write(board.port, image, **PTY)
        assert board.device.rom.flash[0x1000 : 0x1000 + len(octets)] == octets


def test_the_lines_of_a_real_port_put_the_chip_into_download_mode_and_start_it_after():
    """Behind RFC 2217, with the reset circuit; pyserial's client asks for each setting again, so it is slow."""
    with Rfc2217Board(Device(RomLoader())) as board:
        said = flash._esptool(["--port", board.port, "--no-stub", "--chip", "esp32", "read-mac"], board.port, 60)
        assert "24:0a:c4:a1:b2:c3" in said
        deadline = time.monotonic() + 5
        while board.device.resets != ["download", "normal"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert board.device.resets == ["download", "normal"]
