"""The MicroPython images that the project trusts, and what an ESP32 image is made of.

A technician gives a file or a folder (or has given one before: it is kept in a cache). Nothing is written to a board whose
SHA-256 is not in images.toml. `examine` reads an image as the chip will: bootloader, partition table, application, each
with its checksum and digest (ESP-IDF programming guide, "App Image Format" and "Partition Tables").
"""

import hashlib
import os
import re
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path

from provisioning.errors import FlashFault, SetupFault

PINS = Path(os.environ.get("TOCSIN_IMAGES") or Path(__file__).with_name("images.toml"))  # a house may keep its own list
OFFSET = 0x1000  # where the ESP32's ROM looks for the bootloader
SECTOR = 4096
OLDEST = (1, 24)
CHIPS = {0: "ESP32", 2: "ESP32-S2", 5: "ESP32-C3", 9: "ESP32-S3", 12: "ESP32-C2", 13: "ESP32-C6", 16: "ESP32-H2"}
MAGIC, TABLE_MAGIC, TABLE_DIGEST = 0xE9, b"\xaa\x50", b"\xeb\xeb"
DESCRIPTION_MAGIC = 0xABCD5432
MOST_SEGMENTS = 16
APPLICATION, DATA = 0, 1


@dataclass(frozen=True)
class Pin:
    """One trusted image: its SHA-256 and size in octets, MicroPython version, chip, and place in the flash."""

    name: str
    micropython: str
    chip: str
    sha256: str
    size: int
    offset: int = OFFSET

    def stanza(self) -> str:
        """How the pin stands in images.toml."""
        return (
            f'\n[[image]]\nname = "{self.name}"\nmicropython = "{self.micropython}"\nchip = "{self.chip}"\n'
            f'sha256 = "{self.sha256}"\nsize = {self.size}\noffset = {self.offset:#x}\n'
        )


@dataclass(frozen=True)
class Image:
    """A file whose octets are those of a pin."""

    pin: Pin
    path: Path


@dataclass(frozen=True)
class Partition:
    """A row of the partition table. kind 0 is an application, 1 data; offset and size in octets of the flash."""

    name: str
    kind: int
    subtype: int
    offset: int
    size: int
    encrypted: bool


@dataclass(frozen=True)
class Program:
    """A bootloader or application: where it begins in the flash, its length with digest, and what it demands."""

    chip: str
    offset: int
    length: int
    oldest_revision: int  # hundreds: 300 is v3.0
    digest: bytes


@dataclass(frozen=True)
class Anatomy:
    """What `examine` found. table: offset of the partition table in the flash. version: MicroPython's, "1.25.0"."""

    bootloader: Program
    application: Program
    table: int
    partitions: tuple[Partition, ...]
    version: str

    def partition(self, name: str) -> Partition:
        """The partition of that name; FlashFault when there is none."""
        for partition in self.partitions:
            if partition.name == name:
                return partition
        names = ", ".join(partition.name for partition in self.partitions)
        raise FlashFault(f"The image's partition table has no {name!r} partition (it has {names}): use another image")


def pins(path: Path = PINS) -> list[Pin]:
    """All that is pinned. Raises SetupFault with the stanza that can't be read."""
    try:
        stanzas = tomllib.loads(path.read_text("utf-8")).get("image", [])
    except (OSError, tomllib.TOMLDecodeError) as fault:
        raise SetupFault(f"{path} can't be read: {fault}") from fault
    found = []
    for stanza in stanzas:
        try:
            pin = Pin(**stanza)
        except TypeError as fault:
            raise SetupFault(f"{path}: the image {stanza.get('name', stanza)!r}: {fault}") from None
        if not re.fullmatch("[0-9a-f]{64}", pin.sha256):
            raise SetupFault(f"{path}: the sha256 of {pin.name!r} is not 64 hexadecimal digits in lower case")
        found.append(pin)
    return found


def find(
    given: Path | None = None, name: str | None = None, *, pinned: Path = PINS, cache: Path | None = None
) -> Image:
    """The image to write: of what was given (a file or a folder), or kept from before, the newest that is pinned.

    name: only images pinned under this name. An image that was given is kept in the cache for the next run.
    Raises SetupFault when there is none, FlashFault when the file given is not pinned (the text says how to pin it).
    """
    trusted = {pin.sha256: pin for pin in pins(pinned) if name in {None, pin.name}}
    kept = cache if cache is not None else default_cache()
    if given is not None and not given.exists():
        raise SetupFault(f"{given} does not exist: give a MicroPython image or a folder of them with --image")
    places = [given] if given is not None else [kept]
    files = [file for place in places for file in (sorted(place.glob("*.bin")) if place.is_dir() else [place])]
    hashes = {file: hashlib.sha256(_octets(file)).hexdigest() for file in files if file.is_file()}
    images = [Image(trusted[sha256], file) for file, sha256 in hashes.items() if sha256 in trusted]
    if images:
        best = max(images, key=lambda image: _version(image.pin.micropython))
        return best if given is None else _keep(best, kept)
    if given is not None and given.is_file():
        raise FlashFault(_unpinned(given, pinned))
    where = f"{given} has no image that is pinned" if given is not None else "No MicroPython image was given or kept"
    names = ", ".join(f"{pin.name} {pin.micropython}" for pin in trusted.values()) or "none yet"
    raise SetupFault(
        f"{where} in {pinned.name} (pinned: {names}). Give one with --image FILE; it is kept for the next run"
    )


def pin(path: Path, sha256: str, name: str = "ESP32_GENERIC", *, pinned: Path = PINS) -> Pin:
    """Adds an image to the pins, after a person read its SHA-256 at the publisher's and gave it here.

    Raises FlashFault when the file has another hash, or is not a whole MicroPython image for an ESP32; SetupFault when
    the pins can't be written. An image that is pinned already is left as it is.
    """
    octets = _octets(path)
    actual = hashlib.sha256(octets).hexdigest()
    if sha256.strip().lower() != actual:
        raise FlashFault(
            f"{path} has the SHA-256 {actual}, not the one given. Nothing was pinned. Load the file again from its "
            "publisher, and compare with what the publisher says, not with what the file says of itself"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name):
        raise SetupFault(f"{name!r} is no name for an image: use letters, digits, _ . + -")
    for known in pins(pinned):
        if known.sha256 == actual:
            return known
    anatomy = examine(octets)
    new = Pin(name, anatomy.version, anatomy.bootloader.chip, actual, len(octets))
    try:
        with pinned.open("a", encoding="utf-8") as file:
            file.write(new.stanza())
    except OSError as fault:
        raise SetupFault(f"{pinned} can't be written ({fault.strerror}). Append:\n{new.stanza()}") from fault
    return new


def default_cache() -> Path:
    """Where images that were given once are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tocsin" / "images"


def examine(octets: bytes, offset: int = OFFSET) -> Anatomy:
    """Reads a whole MicroPython image for an ESP32, whose first octet stands at `offset` in the flash.

    Raises FlashFault, in words, for anything that an ESP32 would not start or that is not MicroPython.
    """
    bootloader = program(octets, 0, "bootloader", offset)
    table, partitions = _table(octets, offset)
    applications = [partition for partition in partitions if partition.kind == APPLICATION]
    if not applications:
        raise FlashFault("The image's partition table has no application: it can't start. Use another image")
    first = applications[0]
    application = program(octets, first.offset - offset, "application", offset)
    if application.length > first.size:
        raise FlashFault("The image's application is larger than its partition: it can't start. Use another image")
    for part in (bootloader, application):
        if part.chip != "ESP32":
            raise FlashFault(f"The image is for an {part.chip}, not for an ESP32: use ESP32_GENERIC")
    return Anatomy(bootloader, application, table, partitions, _micropython(octets, first.offset - offset))


def program(octets: bytes, at: int, what: str, base: int = OFFSET) -> Program:
    """Checks one program in the image: header, segments, checksum and the appended SHA-256."""
    if at < 0 or len(octets) < at + 24:
        raise FlashFault(f"The image ends before its {what}: the file is cut short. Load it again")
    magic, segments = octets[at], octets[at + 1]
    chip, _, oldest, _ = struct.unpack_from("<HBHH", octets, at + 12)
    if magic != MAGIC:
        raise FlashFault(f"The {what} does not begin with 0xe9 (but {magic:#04x}): this is not an image for an ESP32")
    if not 1 <= segments <= MOST_SEGMENTS:
        raise FlashFault(
            f"The {what} claims {segments} segments (1 to {MOST_SEGMENTS} are possible): the file is damaged"
        )
    if chip not in CHIPS:
        raise FlashFault(f"The {what} is for an unknown chip ({chip}): use ESP32_GENERIC")
    place, checksum = at + 24, 0xEF
    for number in range(segments):
        if place + 8 > len(octets):
            raise FlashFault(f"The {what} is cut short in segment {number}: load the file again")
        size = struct.unpack_from("<I", octets, place + 4)[0]
        place += 8 + size
        if size % 4 or place > len(octets):
            raise FlashFault(f"The {what} has a segment {number} that does not fit: the file is cut short or damaged")
        checksum ^= _folded(octets[place - size : place])
    place += 15 - (place - at) % 16
    if place >= len(octets) or octets[place] != checksum:
        raise FlashFault(f"The {what}'s checksum is wrong: the file is damaged. Load it again")
    place += 1
    if octets[at + 23] != 1:
        raise FlashFault(f"The {what} has no SHA-256 appended, so nothing says that it is whole: use another image")
    digest = octets[place : place + 32]
    if hashlib.sha256(octets[at:place]).digest() != digest:
        raise FlashFault(f"The {what}'s appended SHA-256 is wrong: the file is damaged. Load it again")
    return Program(CHIPS[chip], base + at, place + 32 - at, oldest, digest)


def _folded(octets: bytes) -> int:
    """The exclusive-or of all octets, by whole numbers: a loop over octets takes a second for an image."""
    number = int.from_bytes(octets, "little")
    width = 1 << max(3, (8 * len(octets) - 1).bit_length())
    while width > 8:
        width //= 2
        number = (number >> width) ^ (number & ((1 << width) - 1))
    return number


def _table(octets: bytes, offset: int) -> tuple[int, tuple[Partition, ...]]:
    """The partition table and its place: 0x8000, or further up where a signed bootloader needs the room."""
    for place in range(0x8000 - offset, 0x20000 - offset, SECTOR):
        if place >= 0 and octets[place : place + 2] == TABLE_MAGIC:
            break
    else:
        raise FlashFault("The image has no partition table at 0x8000: it is a bare application, or no image at all")
    rows: list[Partition] = []
    for at in range(place, place + 3072, 32):
        row = octets[at : at + 32]
        if row[:2] == TABLE_DIGEST:
            if hashlib.md5(octets[place:at], usedforsecurity=False).digest() != row[16:32]:
                raise FlashFault("The partition table's MD5 is wrong: the file is damaged. Load it again")
            return place + offset, tuple(rows)
        if row[:2] != TABLE_MAGIC:
            break
        kind, subtype, start, size, name, flags = struct.unpack("<2xBBII16sI", row)
        rows.append(
            Partition(name.rstrip(b"\0").decode("ascii", "replace"), kind, subtype, start, size, bool(flags & 1))
        )
    raise FlashFault("The partition table does not end with its MD5: the file is damaged or not by ESP-IDF")


def _micropython(octets: bytes, at: int) -> str:
    """The version in the application's description (esp_app_desc_t, the first thing in its first segment)."""
    magic, version, project = struct.unpack_from("<I12x32s32s", octets, at + 32)
    words: str = version.rstrip(b"\0").decode("ascii", "replace").removeprefix("v")
    if magic != DESCRIPTION_MAGIC or project.rstrip(b"\0") != b"micropython":
        raise FlashFault("The application does not call itself MicroPython: use an ESP32_GENERIC image of MicroPython")
    if _version(words) < OLDEST:
        raise FlashFault(f"MicroPython {words} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    return words


def _version(words: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", words)
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)


def _unpinned(path: Path, pinned: Path) -> str:
    octets = _octets(path)
    actual = hashlib.sha256(octets).hexdigest()
    try:
        anatomy = examine(octets)
    except FlashFault as fault:
        return f"{path} is not pinned, and could not be: {fault}"
    return (
        f"{path} is not pinned: nothing was written. It looks whole: MicroPython {anatomy.version} for "
        f"{anatomy.bootloader.chip}, {len(octets)} octets, SHA-256 {actual}. When a person has compared that hash with what "
        f"the publisher says, pin it:\n  tocsin provision pin {path} --sha256 THE-PUBLISHER'S-HASH\n"
        f"or append to {pinned}:\n{Pin('ESP32_GENERIC', anatomy.version, 'ESP32', actual, len(octets)).stanza()}"
    )


def _keep(image: Image, cache: Path) -> Image:
    """A copy in the cache, so that the next run needs no --image; a cache that can't be written is no fault."""
    copy = cache / f"{image.pin.name}-{image.pin.micropython}-{image.pin.sha256[:12]}.bin"
    if not copy.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            part = copy.with_suffix(".part")
            part.write_bytes(image.path.read_bytes())
            part.replace(copy)
        except OSError:
            return image
    return image


def _octets(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise SetupFault(f"{path} can't be read ({fault.strerror}): give a MicroPython image file") from fault
