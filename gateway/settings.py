"""A station's settings: one TOML file, every key typed, every mistake named with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gateway import tomlfile
from gateway.tomlfile import Id, Part, Point, Port, SettingsError

__all__ = ["Settings", "SettingsError", "load"]

VERSION = "1"


class Broker(Part):
    """The station's own mosquitto."""

    listen: str = "0.0.0.0"
    port: Port = 8883
    address: str = "127.0.0.1"  # where the station itself reaches it


class Parent(Part):
    """A station above this one."""

    id: Id
    address: str
    port: Port = 8883
    message_key: Point


class Console(Part):
    """The operators' pages. Put a TLS proxy before them, or give `certificate` and `key`."""

    listen: str = "127.0.0.1"
    port: Port = 8443
    certificate: Path | None = None
    key: Path | None = None
    metrics_token: Path | None = None  # a file; without it /metrics is for this machine alone


class Supervision(Part):
    """How long silence may last before it is an event, in seconds."""

    deadline_s: Annotated[float, Field(ge=3, le=16)] = 14


class Settings(Part):
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
    """Reads and checks a settings file. Raises SettingsError.

    A systemd credential of the message key's file name stands in for that file, which then only root need be able to read.
    """
    settings = tomlfile.load(path, Settings)
    folder = path.resolve().parent
    based = {
        name: folder / value
        for name in ("state", "identity", "revoked", "message_key")
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
    return settings
