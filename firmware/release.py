"""A release of the firmware as it travels: its head, which is signed, and then the files that the head names.

    head: signature (ECDSA P-256 with SHA-256: r and s, 32 bytes each) | manifest, CBOR
    manifest: {0: 1, 1: version, 2: [board, …], 3: mpy version, 4: [[path, size, SHA-256], …]}

Everything in the files is checked by the head's hashes, and the head by the key of releases in settings.json.
"""

from firmware import settings, wire

FORMAT = 1
MAX_HEAD = 4096  # one piece of the heap
MAX_SIZE = 400_000  # of all: two of them, and the state, fit into the smallest flash
MAX_FILES = 60
SIGNATURE = 64
SIGNED = b"tocsin release 1\0"  # before the manifest in what is signed: no signature means anything else

_FORMAT = 0
_VERSION = 1
_BOARDS = 2
_MPY = 3
_FILES = 4


def number(version) -> tuple:
    """(1, 20, 3) of "1.20.3". Raises WireError."""
    parts = version.split(".") if isinstance(version, str) else ()
    if len(parts) != 3 or not all([part.isdigit() and len(part) < 6 for part in parts]):
        raise wire.WireError("a version must be three numbers")
    return tuple([int(part) for part in parts])


def _is_file(file) -> bool:
    if not isinstance(file, list) or len(file) != 3 or not isinstance(file[0], str):
        return False
    names = file[0].split("/")
    if not 2 <= len(names) <= 3 or names[0] != "firmware" or not file[0].endswith(".mpy") or len(file[0]) > 60:
        return False
    for name in names[:-1] + [names[-1][:-4]]:  # noqa: RUF005 - MicroPython has no [*names, …]
        if not name or not all(["a" <= c <= "z" or "0" <= c <= "9" or c == "_" for c in name]):
            return False
    is_size = type(file[1]) is int and 0 < file[1] <= MAX_SIZE
    return is_size and isinstance(file[2], bytes) and len(file[2]) == 32


class Manifest:
    """version, boards, mpy, and files: (path, size, SHA-256) in the order in which they follow the head."""

    def __init__(self, octets: bytes) -> None:
        fields = wire.decode(octets)
        if not isinstance(fields, dict) or sorted(fields) != [0, 1, 2, 3, 4] or fields[_FORMAT] != FORMAT:
            raise wire.WireError("the manifest is not of a form that this firmware knows")
        self.version = fields[_VERSION]
        number(self.version)
        self.boards = fields[_BOARDS]
        self.mpy = fields[_MPY]
        files = fields[_FILES]
        if not isinstance(self.boards, list) or not all([board in settings.BOARDS for board in self.boards]):
            raise wire.WireError("the manifest names no boards")
        if (
            not isinstance(files, list)
            or not 0 < len(files) <= MAX_FILES
            or not all([_is_file(file) for file in files])
        ):
            raise wire.WireError("the manifest's list of files is damaged")
        if len({file[0] for file in files}) != len(files):
            raise wire.WireError("the manifest names a file twice")
        self.files = [tuple(file) for file in files]
        self.size = sum([file[1] for file in files])


def manifest(version: str, boards, mpy: int, files) -> bytes:
    """The octets of a manifest."""
    return wire.encode({_FORMAT: FORMAT, _VERSION: version, _BOARDS: boards, _MPY: mpy, _FILES: files})


def offer(version: str, head: int, size: int, digest: bytes) -> bytes:
    """The detail of the command: octets of the head, of all, and the head's SHA-256."""
    return wire.encode([version, head, size, digest])


def offered(octets) -> tuple:
    """(version, octets of the head, of all, SHA-256 of the head) of a command's detail. Raises WireError."""
    fields = wire.decode(octets) if isinstance(octets, bytes) else None
    if not isinstance(fields, list) or len(fields) != 4:
        raise wire.WireError("it names no release")
    version, head, size, digest = fields
    number(version)
    if type(head) is not int or type(size) is not int or not isinstance(digest, bytes) or len(digest) != 32:
        raise wire.WireError("it names no release")
    if not SIGNATURE < head <= MAX_HEAD or not head < size <= MAX_SIZE:
        raise wire.WireError("the release is too long")
    return version, head, size, digest
