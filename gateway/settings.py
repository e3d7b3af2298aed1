"""A station's settings: one TOML file, every key typed, every mistake named with its line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from firmware.wire import is_id

VERSION = "1"


class SettingsError(Exception):
    """What is wrong with the settings file, one line for each mistake."""


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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Broker(_Part):
    """The station's own mosquitto."""

    listen: str = "0.0.0.0"
    port: Port = 8883
    address: str = "127.0.0.1"  # where the station itself reaches it


class Parent(_Part):
    """A station above this one."""

    id: Id
    address: str
    port: Port = 8883
    message_key: Point


class Console(_Part):
    """The operators' pages. Put a TLS proxy before them, or give `certificate` and `key`."""

    listen: str = "127.0.0.1"
    port: Port = 8443
    certificate: Path | None = None
    key: Path | None = None


class Supervision(_Part):
    """How long silence may last before it is an event, in seconds."""

    deadline_s: Annotated[float, Field(ge=3, le=16)] = 14


class Settings(_Part):
    """A whole settings file. Relative paths start from the file's folder."""

    station: Id
    name: str = ""
    role: Literal["site", "hq"] = "site"
    state: Path = Path("state")
    identity: Path = Path("identity")
    revoked: Path | None = None
    message_key: Path | None = None
    broker: Broker = Broker()
    console: Console | None = Console()
    supervision: Supervision = Supervision()
    parents: tuple[Parent, ...] = ()

    @property
    def database(self) -> Path:
        """The journal's file."""
        return self.state / "station.db"

    @property
    def refusals(self) -> Path:
        """Where the broker's wrapper says whom the broker turned away."""
        return self.state / "broker-refusals.json"


def load(path: Path) -> Settings:
    """Reads and checks a settings file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{path}: can't be read: {error.strerror}"
        raise SettingsError(message) from error
    try:
        settings = Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        message = f"{path}: {error}"
        raise SettingsError(message) from error
    except ValidationError as error:
        lines = [_mistake(path, text, mistake["loc"], mistake["msg"]) for mistake in error.errors()]
        raise SettingsError("\n".join(lines)) from error
    folder = path.resolve().parent
    based = {
        name: folder / value
        for name in ("state", "identity", "revoked", "message_key")
        if (value := getattr(settings, name)) is not None
    }
    settings = settings.model_copy(update=based)
    if settings.role == "hq" and settings.message_key is None:
        message = f'{path}: headquarters needs message_key = "…": the file of its P-256 message key, in PEM'
        raise SettingsError(message)
    return settings


def _mistake(path: Path, text: str, where: tuple[int | str, ...], what: str) -> str:
    name = ".".join(str(part) for part in where)
    keys = [part for part in where if isinstance(part, str)]
    pattern = re.compile(rf"^\s*(\[+\s*)?([\w.]+\.)?{re.escape(keys[-1])}\s*(=|\])") if keys else None
    numbers = [n for n, line in enumerate(text.splitlines(), 1) if pattern and pattern.match(line)]
    line = f":{numbers[0]}" if numbers else ""
    return f"{path}{line}: {name}: {what.removeprefix('Value error, ')}"
