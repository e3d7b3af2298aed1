"""Files that outlive a power cut and a second process: written whole or not at all, line by line, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING

from provisioning.errors import SetupFault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WAIT_S = 20.0
_STEP_S = 0.02


def make_folder(path: Path) -> None:
    """Makes a folder that its owner alone can enter; one that is there already is closed to others."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


def write(path: Path, octets: bytes, mode: int = 0o600) -> None:
    """Puts a whole file into place: after a power cut it holds the old octets or the new ones, never a mixture."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    settle(path.parent)


def settle(folder: Path) -> None:
    """Makes what was just renamed or created in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, line: bytes) -> None:
    """Adds one line, and returns when it is on the disk. Hold `locked` around it.

    What a power cut left behind the last whole line is cut off first. line: without its end, and without one inside.
    """
    is_new = not path.exists()
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        there = file.read()
        file.truncate(there.rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        settle(path.parent)


def lines(path: Path) -> tuple[list[bytes], bytes]:
    """The whole lines of a file, and what follows the last of them: what a power cut left of an unfinished line."""
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], b""
    return whole, rest


@contextlib.contextmanager
def locked(path: Path, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Nobody else who takes this lock runs inside the block, in this process or another. Raises SetupFault.

    The kernel takes the lock from a process that dies, so that none is ever left behind.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise SetupFault(
                        f"{path} has been held by another tocsin for {wait_s:.0f} s: let that one end, "
                        "or end it, and run the same command again."
                    ) from None
                time.sleep(_STEP_S)
        yield
