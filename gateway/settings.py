"""A station's settings: one TOML file, every key typed, every mistake named with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway import tomlfile
from gateway.tomlfile import Id, Part, Point, Port, SettingsError

__all__ = ["Settings", "SettingsError", "load"]

VERSION = "1"


def _postgresql(url: str) -> str:
    if url and not url.startswith("postgresql+psycopg://"):
        message = "must be postgresql+psycopg://USER@HOST/NAME; leave it out for SQLite, in the state folder"
        raise ValueError(message)
    return url


class Broker(Part):
    """The station's own mosquitto."""

    listen: str = "0.0.0.0"
    port: Port = 8883
    address: str = "127.0.0.1"  # where the station itself reaches it


def _address(text: str) -> str:
    host, port = _host_and_port(text, 8883)
    if not host or any(letter in " /[]" for letter in host):
        message = 'must be a name or an IP address, such as "hq1.example:8883", "10.0.0.2" or "[2001:db8::2]:8883"'
        raise ValueError(message)
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        message = "must end with a port from 1 to 65535, or name none"
        raise ValueError(message)
    return text


def _host_and_port(text: str, port: int) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":") or str(port)
    if text.count(":") == 1:
        host, _, given = text.partition(":")
        return host, given
    return text, str(port)


Address = Annotated[str, AfterValidator(_address)]


class Parent(Part):
    """A station above this one. addresses: "host" or "host:port", tried in turn, the preferred one first.

    headquarters: whether it is the one that the buttons below believe; by default the first parent is.
    """

    id: Id
    address: Address | None = None
    addresses: Annotated[tuple[Address, ...], Field(max_length=16)] = ()
    port: Port = 8883  # of those that name none
    message_key: Point
    headquarters: bool | None = None
    return_s: Annotated[float, Field(ge=1, le=3600)] = 30  # how often a preferred address is tried that failed

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if bool(self.address) == bool(self.addresses):
            message = 'needs either address = "…", or addresses = ["…", "…"] with the preferred one first'
            raise ValueError(message)
        return self

    @property
    def ways(self) -> list[tuple[str, int]]:
        """(host, port) of every address."""
        found = (_host_and_port(one, self.port) for one in self.addresses or (self.address or "",))
        return [(host, int(port)) for host, port in found]


class Console(Part):
    """The operators' pages. Put a TLS proxy before them, or give `certificate` and `key`."""

    listen: str = "127.0.0.1"
    port: Port = 8443
    certificate: Path | None = None
    key: Path | None = None
    metrics_token: Path | None = None  # a file; without it /metrics is for this machine alone


class Supervision(Part):
    """How long silence may last before it is an event, in seconds.

    signed_s: how long a child behind a station may be alive by that station's word alone. One signed heartbeat a minute
    comes verbatim; what is left of 75 s is for one that got lost and its repetition.
    """

    deadline_s: Annotated[float, Field(ge=3, le=16)] = 14
    signed_s: Annotated[float, Field(ge=75, le=600)] = 75


class Settings(Part):
    """A whole settings file. Relative paths start from the file's folder."""

    station: Id
    name: str = ""
    role: Literal["site", "hq"] = "site"
    state: Path = Path("state")
    database: Annotated[str, AfterValidator(_postgresql)] = ""  # empty: SQLite, in the state folder
    identity: Path = Path("identity")
    revoked: Path | None = None
    message_key: Path | None = None
    release_key: Point | None = None  # headquarters': whose signature a firmware for the buttons must carry
    key_file: Path | None = None  # the passphrase of sealed keys
    broker: Broker = Broker()
    console: Console | None = Console()
    supervision: Supervision = Supervision()
    parents: tuple[Parent, ...] = ()

    @property
    def headquarters(self) -> str | None:
        """The parent whose receipts and commands go down to the buttons; None where no parent's do."""
        if self.role == "hq":
            return None
        flagged = [parent.id for parent in self.parents if parent.headquarters]
        others = [parent.id for parent in self.parents if parent.headquarters is None]
        return next(iter(flagged + others), None)

    @property
    def store(self) -> Path | str:
        """The database: SQLite's file, or PostgreSQL's URL."""
        return self.database or self.state / "station.db"

    @property
    def is_begun(self) -> bool:
        """Whether there can be a database to look into."""
        return not isinstance(self.store, Path) or self.store.exists()

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the journal's hash chain are written beside the database."""
        return self.state / "station.checkpoints"

    @property
    def refusals(self) -> Path:
        """Where the broker's wrapper says whom the broker turned away."""
        return self.state / "broker-refusals.json"


def load(path: Path) -> Settings:
    """Reads and checks a settings file. Raises SettingsError.

    A systemd credential of the message key's file name stands in for that file, which then only root need be able to read.
    """
    settings = tomlfile.load(path, Settings)
    folder = path.resolve().parent
    based = {
        name: folder / value
        for name in ("state", "identity", "revoked", "message_key", "key_file")
        if (value := getattr(settings, name)) is not None
    }
    settings = settings.model_copy(update=based)
    if settings.console:
        based = {
            name: folder / value
            for name in ("certificate", "key", "metrics_token")
            if (value := getattr(settings.console, name)) is not None
        }
        settings = settings.model_copy(update={"console": settings.console.model_copy(update=based)})
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and settings.message_key and (Path(credentials) / settings.message_key.name).is_file():
        settings = settings.model_copy(update={"message_key": Path(credentials) / settings.message_key.name})
    if settings.role == "hq" and settings.message_key is None:
        message = f'{path}: headquarters needs message_key = "…": the file of its P-256 message key, in PEM'
        raise SettingsError(message)
    _check_parents(path, settings)
    return settings


def _check_parents(path: Path, settings: Settings) -> None:
    """Raises SettingsError for parents that can't all be what they are said to be."""
    mistakes = []
    known: dict[str, int] = {}
    flagged: list[int] = []
    for number, parent in enumerate(settings.parents):
        if parent.id == settings.station:
            mistakes.append((("parents", number, "id"), f"{parent.id} is this station itself"))
        elif parent.id in known:
            what = f"{parent.id} is named already: give each station one table, with all of its addresses"
            mistakes.append((("parents", number, "id"), what))
        known.setdefault(parent.id, number)
        if parent.headquarters:
            flagged.append(number)
            if settings.role == "hq":
                mistakes.append(
                    (("parents", number, "headquarters"), "this station is the buttons' headquarters itself")
                )
            elif len(flagged) > 1:
                what = "buttons have one headquarters: leave true at one parent only"
                mistakes.append((("parents", number, "headquarters"), what))
    if mistakes:
        raise SettingsError("\n".join(tomlfile.mistake(path, where, what) for where, what in mistakes))
