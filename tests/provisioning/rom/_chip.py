"""The chip's state outside its flash: files in a folder of the host, reached even after the flash has become "/".

A rooted VfsPosix prefixes its root to absolute paths only, so every path here is absolute.
"""

import json

import vfs
import uos

_files = vfs.VfsPosix(uos.getenv("CHIP_STATE"))
_control = open(int(uos.getenv("CHIP_CONTROL")), "wb")
FLASH = int(uos.getenv("CHIP_FLASH"))
LIMITED = uos.getenv("CHIP_LIMITED") == "1"
BLOCK = 4096


def read(name):
    try:
        with _files.open("/" + name, "rb") as file:
            return file.read()
    except OSError:
        return None


def write(name, octets):
    with _files.open("/" + name, "wb") as file:
        file.write(octets)


def load(name):
    text = read(name)
    return json.loads(text) if text else None


def tell(octets):
    """To whoever owns the chip (virtual_board.py)."""
    _control.write(octets)


def used(folder="/"):
    total = 0
    for entry in uos.ilistdir(folder):
        path = ("" if folder == "/" else folder) + "/" + entry[0]
        if path == "/rom":
            continue
        if entry[1] & 0x4000:
            total += BLOCK + used(path)
        else:
            total += -(-uos.stat(path)[6] // BLOCK) * BLOCK
    return total


class _Limited:
    """A file on a flash that can be full."""

    def __init__(self, file):
        self._file = file
        self._room = FLASH - used()

    def write(self, octets):
        self._room -= len(octets)
        if self._room < 0:
            raise OSError(28)
        return self._file.write(octets)

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def limit_flash():
    if not LIMITED:
        return
    import builtins

    opened = builtins.open

    def limited(path, mode="r", *more):
        file = opened(path, mode, *more)
        return file if "r" in mode else _Limited(file)

    builtins.open = limited
