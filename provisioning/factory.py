"""A factory image: MicroPython and the firmware in one file, for first flashing elsewhere, with no identity in it.

Whoever flashes it needs no secret and gets none: a board that starts from it has no key, no certificate, no settings, and
waits to be enrolled. Where the file system goes is read from the partition table inside the MicroPython image itself.
The image reaches to the end of that partition, so that nothing of an earlier life of the flash is left.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from littlefs import LittleFS, LittleFSError, UserContext

from provisioning import images
from provisioning.errors import FlashFault, SetupFault

BLOCK = 4096  # a sector of the flash, and what MicroPython's Partition calls a block
# MicroPython's VfsLfs2 on a flash partition reads and programs 32 octets and caches four times that. A file that is kept
# inline must fit into the cache of whoever reads it, so the writer must have no larger one.
READ, CACHE = 32, 128
ON_DISK = 0x0002_0000  # littlefs 2.0, which every MicroPython with VfsLfs2 reads
IDENTITY = re.compile(
    r"(^|/)(settings[^/]*\.json[^/]*|identity[^/]*|state|secrets?[^/]*|[^/]*\.(der|pem|key|crt|cer|p12|csr))(/|$)",
    re.IGNORECASE,
)
KEY = re.compile(
    rb"PRIVATE KEY-----|BEGIN CERTIFICATE|\x30.\x02\x01\x01\x04\x20", re.DOTALL
)  # the last: RFC 5915, in DER


@dataclass(frozen=True)
class Factory:
    """What was built. image: the octets from `offset` in the flash on; sheet: what goes into the JSON beside it."""

    image: bytes
    offset: int
    sheet: dict[str, Any]


def build(base: images.Image, files: Mapping[str, bytes]) -> Factory:
    """One image of a pinned MicroPython and the files (path on the board -> octets), read back before it is returned.

    Raises FlashFault when the MicroPython image is not what was pinned or has no "vfs" partition, SetupFault when a file
    looks like an identity or settings, or does not fit.
    """
    octets = base.path.read_bytes()
    if hashlib.sha256(octets).hexdigest() != base.pin.sha256:
        raise FlashFault(f"{base.path} changed since it was checked against its pin: no factory image was built")
    names = {_name(path): content for path, content in files.items()}
    if "main.py" not in names:
        raise SetupFault("A factory image without main.py would start into nothing: give the whole firmware")
    for path, content in names.items():
        if KEY.search(content):
            raise SetupFault(
                f"{path} holds a key or a certificate: a factory image has none. Take it out of the firmware"
            )
    anatomy = images.examine(octets, base.pin.offset)
    partition = anatomy.partition("vfs")
    start = partition.offset - base.pin.offset
    if len(octets) > start:
        raise FlashFault(f"{base.path} reaches into its own file system: it can't be a stock image. Use another")
    system = file_system(names, partition.size)
    whole = octets.ljust(start, b"\xff") + system
    _compare(contents(whole[start:]), names)
    return Factory(whole, base.pin.offset, _sheet(base, anatomy, whole, names))


def save(factory: Factory, target: Path) -> Path:
    """Writes the image and, beside it, its sheet; gives the sheet's path. Raises SetupFault when it can't."""
    sheet = target.with_suffix(".json")
    command = f"esptool --chip esp32 write-flash {factory.offset:#x} {target.name}"
    text = json.dumps({"image": target.name, **factory.sheet, "flash_with": command}, indent=2) + "\n"
    try:
        for path, octets in ((target, factory.image), (sheet, text.encode())):
            part = path.with_name(path.name + ".part")
            part.write_bytes(octets)
            part.replace(path)
    except OSError as fault:
        raise SetupFault(f"{target} can't be written ({fault.strerror}): choose another place") from fault
    if target.read_bytes() != factory.image:
        raise SetupFault(f"{target} does not hold what was written: is the disk failing? Choose another place")
    return sheet


def file_system(files: Mapping[str, bytes], size: int) -> bytes:
    """A LittleFS of `size` octets with the files, the same for the same files."""
    medium = UserContext(size)
    try:
        system = _on(medium, size)
        system.format()
        system.mount()
        for path, octets in sorted(files.items()):
            if folder := posixpath.dirname(path):
                system.makedirs(folder, exist_ok=True)
            with system.open(path, "wb") as file:
                file.write(octets)
        system.unmount()
    except LittleFSError as fault:
        total = sum(map(len, files.values()))
        raise SetupFault(
            f"The files ({total} octets) do not go into the file system of {size} octets: {fault}"
        ) from fault
    return bytes(medium.buffer)


def contents(system: bytes) -> dict[str, bytes]:
    """Every file of a LittleFS, by path without the leading slash. Raises FlashFault when it can't be mounted."""
    medium = UserContext(len(system))
    medium.buffer[:] = system
    try:
        mounted = _on(medium, len(system))
        mounted.mount()
        found = {}
        for folder, _, names in mounted.walk("/"):
            for name in names:
                path = posixpath.join(folder, name)
                with mounted.open(path, "rb") as file:
                    found[path.lstrip("/")] = bytes(file.read())
    except LittleFSError as fault:
        raise FlashFault(f"The file system can't be read back: {fault}") from fault
    return found


def _on(medium: UserContext, size: int) -> LittleFS:
    return LittleFS(
        context=medium,
        mount=False,
        block_size=BLOCK,
        block_count=size // BLOCK,
        read_size=READ,
        prog_size=READ,
        cache_size=CACHE,
        lookahead_size=READ,
        disk_version=ON_DISK,
    )


def _name(path: str) -> str:
    """The path as it stands on the board, without the leading slash; SetupFault when it has no business in a factory."""
    name = posixpath.normpath(path).lstrip("/")
    if name in {"", "."} or ".." in path.split("/") or "\\" in path:
        raise SetupFault(f"{path!r} is not a path on a board")
    if IDENTITY.search(name):
        raise SetupFault(
            f"{path} looks like an identity or settings. A factory image has none: it goes to people who must not have "
            "any. Build it from the firmware alone"
        )
    return name


def _compare(found: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> None:
    for path, octets in wanted.items():
        if found.get(path) != octets:
            raise FlashFault(f"{path} reads back differently from the factory image: nothing was written. Report this")
    if extra := sorted(set(found) - set(wanted)):
        raise FlashFault(f"The factory image holds files that nobody put there: {', '.join(extra)}. Report this")


def _sheet(base: images.Image, anatomy: images.Anatomy, whole: bytes, files: Mapping[str, bytes]) -> dict[str, Any]:
    partition = anatomy.partition("vfs")
    return {
        "chip": anatomy.bootloader.chip,
        "offset": base.pin.offset,
        "size": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
        "micropython": {"name": base.pin.name, "version": base.pin.micropython, "sha256": base.pin.sha256},
        "file_system": {"kind": "littlefs 2.0", "offset": partition.offset, "size": partition.size, "block": BLOCK},
        "files": {
            f"/{path}": {"size": len(octets), "sha256": hashlib.sha256(octets).hexdigest()}
            for path, octets in sorted(files.items())
        },
        "identity": None,
    }
