"""Settings files of every kind: TOML, typed by pydantic, every mistake named with its file, line and key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from firmware.wire import is_id

_HEADER = re.compile(r"^\s*(\[{1,2})\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"^\s*([\w.-]+)\s*=")


class SettingsError(Exception):
    """What is wrong with a settings file, one line for each mistake."""


def _id(text: str) -> str:
    if not is_id(text):
        message = "must be 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit"
        raise ValueError(message)
    return text


def _point(text: str) -> str:
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b""
    if len(octets) != 65 or octets[0] != 4:
        message = (
            "must be a P-256 public key: 130 hex digits that start with 04 (`tocsin check` at the parent prints it)"
        )
        raise ValueError(message)
    return text


Id = Annotated[str, AfterValidator(_id)]
Point = Annotated[str, AfterValidator(_point)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Part(BaseModel):
    """A table of a settings file: no key that it does not know, no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=Part)


def load(path: Path, kind: type[Kind]) -> Kind:
    """Reads and checks a settings file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{path}: can't be read: {error.strerror}"
        raise SettingsError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path}: can't be read: it is not UTF-8; save it as UTF-8 in the editor"
        raise SettingsError(message) from error
    try:
        return kind.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: {error}"
        raise SettingsError(message) from error
    except ValidationError as error:
        lines = [_mistake(path, text, mistake["loc"], mistake["msg"]) for mistake in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def mistake(path: Path, where: tuple[int | str, ...], what: str) -> str:
    """A line that tells of a mistake at a key of a file that `load` has read."""
    return _mistake(path, path.read_text(encoding="utf-8"), where, what)


def _mistake(path: Path, text: str, where: tuple[int | str, ...], what: str) -> str:
    name = ".".join(str(part) for part in where)
    number = line_of(text, where)
    line = f":{number}" if number else ""
    named = f"{name}: " if name else ""
    return f"{path}{line}: {named}{what.removeprefix('Value error, ')}"


def line_of(text: str, where: tuple[int | str, ...]) -> int | None:
    """The line of a key, such as ("parents", 1, "port"), or of the innermost table around it that the text has."""
    table: tuple[int | str, ...] = ()
    seen: dict[str, int] = {}
    best, found = 0, None
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = tuple(header[2].split("."))
            if header[1] == "[[":
                seen[header[2]] = seen.get(header[2], -1) + 1
                table = (*table, seen[header[2]])
            place = table
        elif key := _KEY.match(line):
            place = (*table, *key[1].split("."))
        else:
            continue
        if len(place) > best and place == where[: len(place)]:
            best, found = len(place), number
    return found
