"""No image goes to a board unless a person vouched for it, and none is vouched for that an ESP32 would not start."""

import hashlib
import subprocess
import sys

import pytest

from provisioning import images
from provisioning.errors import FlashFault, SetupFault
from tests.provisioning import esp_image


@pytest.fixture
def bench(tmp_path):
    """A folder with an image, an empty list of pins and an empty cache."""
    (tmp_path / "pins.toml").write_text(images.PINS.read_text())
    (tmp_path / "firmware.bin").write_bytes(esp_image.image())
    return tmp_path


def pinned(bench, file="firmware.bin", name="ESP32_GENERIC"):
    octets = (bench / file).read_bytes()
    return images.pin(bench / file, hashlib.sha256(octets).hexdigest(), name, pinned=bench / "pins.toml")


def find(bench, given="firmware.bin", name=None):
    return images.find(bench / given if given else None, name, pinned=bench / "pins.toml", cache=bench / "cache")


def test_the_projects_own_list_can_be_read():
    assert all(pin.chip == "ESP32" and pin.offset == 0x1000 for pin in images.pins())


def test_esptool_agrees_that_the_tests_image_is_whole(bench):
    octets = (bench / "firmware.bin").read_bytes()
    for name, at in (("boot.bin", 0), ("app.bin", 0xF000)):
        (bench / name).write_bytes(octets[at:])
        said = subprocess.run(
            [sys.executable, "-m", "esptool", "image-info", str(bench / name)],
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        assert "(valid)" in said and "Chip ID: 0 (ESP32)" in said, said


def test_an_image_is_understood(bench):
    anatomy = images.examine((bench / "firmware.bin").read_bytes())
    vfs = anatomy.partition("vfs")
    assert (anatomy.version, anatomy.table, vfs.offset, vfs.size) == ("1.25.0", 0x8000, 0x200000, 0x200000)
    assert anatomy.bootloader.chip == "ESP32" and anatomy.application.offset == 0x10000


def test_an_image_that_nobody_pinned_is_refused_with_the_way_to_pin_it(bench):
    with pytest.raises(FlashFault) as refusal:
        find(bench)
    words = str(refusal.value)
    sha256 = hashlib.sha256((bench / "firmware.bin").read_bytes()).hexdigest()
    assert f"tocsin provision pin {bench / 'firmware.bin'} --sha256" in words and "MicroPython 1.25.0" in words
    stanza = words[words.index("\n[[image]]") :]
    assert sha256 in stanza
    with (bench / "pins.toml").open("a") as file:
        file.write(stanza)
    assert find(bench).pin.sha256 == sha256


def test_a_pin_needs_the_hash_that_a_person_read_elsewhere(bench):
    with pytest.raises(FlashFault, match="not the one given"):
        images.pin(bench / "firmware.bin", "0" * 64, pinned=bench / "pins.toml")
    assert images.pins(bench / "pins.toml") == []


def test_a_pinned_image_is_found_by_file_by_folder_and_then_without_being_given(bench):
    pin = pinned(bench)
    assert find(bench).pin == find(bench, ".").pin == pin
    kept = find(bench, None)
    assert kept.path.parent == bench / "cache" and kept.path.read_bytes() == (bench / "firmware.bin").read_bytes()


def test_pinning_twice_changes_nothing(bench):
    pinned(bench)
    before = (bench / "pins.toml").read_text()
    pinned(bench)
    assert (bench / "pins.toml").read_text() == before


def test_of_a_folder_the_newest_pinned_image_is_taken(bench):
    (bench / "newer.bin").write_bytes(esp_image.image(version="v1.26.1"))
    (bench / "newest-but-unpinned.bin").write_bytes(esp_image.image(version="v1.99.0"))
    pinned(bench)
    pinned(bench, "newer.bin")
    assert find(bench, ".").pin.micropython == "1.26.1"


def test_only_the_image_of_the_board_asked_for(bench):
    (bench / "olimex.bin").write_bytes(esp_image.image(seed=2))
    pinned(bench)
    pinned(bench, "olimex.bin", "OLIMEX_ESP32_POE")
    assert find(bench, ".", "OLIMEX_ESP32_POE").path.name == "olimex.bin"


def test_nothing_given_and_nothing_kept_says_what_to_give(bench):
    with pytest.raises(SetupFault, match="--image FILE"):
        find(bench, None)
    with pytest.raises(SetupFault, match="does not exist"):
        find(bench, "nothing.bin")


def test_a_changed_file_in_the_cache_is_not_used(bench):
    pinned(bench)
    find(bench)
    kept = find(bench, None).path
    kept.write_bytes(kept.read_bytes()[:-1] + b"\0")
    with pytest.raises(SetupFault, match="No MicroPython image"):
        find(bench, None)


def flipped(octets, at):
    return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]


WHOLE = esp_image.image()


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", "ends before its bootloader"),
        (b"<html>Not found</html>" * 10, "does not begin with 0xe9"),
        (WHOLE[:0x5000], "no partition table"),
        (WHOLE[:0xF000], "ends before its application"),
        (WHOLE[:-40], "checksum|cut short|SHA-256"),
        (flipped(WHOLE, 0x200), "checksum"),
        (flipped(flipped(WHOLE, 0x200), 0x204), "SHA-256"),
        (flipped(WHOLE, 0x7004), "MD5"),
        (flipped(WHOLE, 0xF000 + 0x2000), "checksum"),
        (flipped(WHOLE, len(WHOLE) - 1), "SHA-256 is wrong"),
        (WHOLE[:23] + b"\0" + WHOLE[24:], "no SHA-256 appended"),
        (b"\xe9\x00" + WHOLE[2:], "claims 0 segments"),
        (WHOLE[:1] + b"\x05" + WHOLE[2:], "segment"),
        (WHOLE[0xF000:], "no partition table"),
        (esp_image.image(chip=9), "for an ESP32-S3"),
        (esp_image.image(chip=77), "unknown chip"),
        (esp_image.image(version="v1.19.1"), "too old"),
        (esp_image.image(project="arduino"), "does not call itself MicroPython"),
    ],
)
def test_what_an_esp32_would_not_start_is_not_pinned(bench, octets, words):
    (bench / "firmware.bin").write_bytes(octets)
    with pytest.raises(FlashFault, match=words):
        pinned(bench)
    assert images.pins(bench / "pins.toml") == []


def test_a_list_with_a_mistake_says_where(bench):
    (bench / "pins.toml").write_text('[[image]]\nname = "X"\n')
    with pytest.raises(SetupFault, match="the image 'X'.*missing"):
        find(bench)
