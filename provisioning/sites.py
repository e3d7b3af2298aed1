"""What is known of a site, kept once and used for every button there: one TOML file a site, in the technician's folder.

The folder is `home`; a site's file is sites/<id>.toml in it. No secret is in it: passwords of Wi-Fi networks, the
authority's passphrase and the technician's token are in the vault.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from firmware.wire import is_id
from gateway import tomlfile
from gateway.tomlfile import Id, Part, Point, Port, SettingsError
from provisioning import durable
from provisioning.errors import SetupFault

Text = Annotated[str, Field(max_length=200)]
_SSID_OCTETS = 32  # IEEE 802.11


def _network(name: str) -> str:
    if not 0 < len(name.encode()) <= _SSID_OCTETS:
        raise ValueError(f"the name of a Wi-Fi network has 1 to {_SSID_OCTETS} octets")
    return name


def _url(text: str) -> str:
    if not text.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise ValueError("must start with https:// (http:// only for this machine itself): the token travels with it")
    return text.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]


class Broker(Part):
    """Where a button connects to. name: what the broker's certificate must be for, most often the station's id."""

    address: Annotated[str, Field(min_length=1)]
    port: Port = 8883
    name: Id


class Headquarters(Part):
    """Headquarters' console and keys. id, message_key: None until headquarters was asked for them once.

    release_key: what a button believes updates of its firmware by; without it, it takes none over the air.
    """

    url: Url
    ca: Path | None = None
    id: Id | None = None
    message_key: Point | None = None
    release_key: Point | None = None


class Entrance(Part):
    """Where a button can be. contacts, signal: of firmware/settings.py."""

    id: Id
    name: Text
    name_ur: Text = ""
    contacts: Literal["both", "normally_closed", "normally_open"] = "both"
    signal: Literal["visible", "silent", "audible"] = "visible"


class Site(Part):
    """A site's file."""

    id: Id
    name: Text
    name_ur: Text = ""
    address: Text = ""
    phone: Text = ""
    board: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "olimex_esp32_poe_iso"
    wifi: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    revocation_urls: tuple[Url, ...] = ()
    hq: Headquarters
    brokers: Annotated[tuple[Broker, ...], Field(min_length=1, max_length=4)]
    entrances: tuple[Entrance, ...] = ()

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        ids = [entrance.id for entrance in self.entrances]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"entrances: {', '.join(twice)} is there twice: each needs an id of its own")
        return self

    def entrance(self, entrance_id: str) -> Entrance:
        """The entrance of this id. Raises SetupFault."""
        for one in self.entrances:
            if one.id == entrance_id:
                return one
        known = ", ".join(one.id for one in self.entrances) or "none yet"
        raise SetupFault(
            f"The site {self.id} has no entrance {entrance_id!r} (there: {known}). Check the spelling, or add an "
            f"[[entrances]] table to the site's file."
        )

    def with_headquarters(self, station: str, message_key: str) -> Site:
        """The site with what headquarters said of itself. Raises SetupFault if something else was said before."""
        for name, before, now in (("id", self.hq.id, station), ("message_key", self.hq.message_key, message_key)):
            if before not in {None, now}:
                raise SetupFault(
                    f"Headquarters at {self.hq.url} now has the {name} {now}, but the file of {self.id} has {before}. "
                    "Ask headquarters which is right. If it has a new one: every button of the site must be enrolled "
                    "again; change hq in the site's file first."
                )
        hq = self.hq.model_copy(update={"id": station, "message_key": message_key})
        return self.model_copy(update={"hq": hq})

    def button_settings(self, device_id: str, entrance: Entrance) -> dict[str, Any]:
        """The settings.json of a button at an entrance, as firmware/settings.py reads it, without the Wi-Fi's secrets. Raises SetupFault."""
        if self.hq.id is None or self.hq.message_key is None:
            raise SetupFault(
                f"The file of {self.id} has no id and message_key under [hq]: connect to headquarters once, "
                "or copy both from there (`tocsin check` prints them)."
            )
        told = {
            "id": device_id,
            "board": self.board,
            "brokers": [[one.address, one.port, one.name] for one in self.brokers],
            "hq": self.hq.id,
            "hq_message_key": self.hq.message_key,
            "contacts": entrance.contacts,
            "signal": entrance.signal,
        }
        return told | ({"release_key": self.hq.release_key} if self.hq.release_key else {})


def home(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The technician's folder: the one given, TOCSIN_HOME, or tocsin in the user's configuration folder (XDG)."""
    if given is not None:
        return given
    if named := environ.get("TOCSIN_HOME"):
        return Path(named)
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "tocsin"


def file_of(folder: Path, site_id: str) -> Path:
    """Where the file of a site is, or would be. Raises SetupFault if this can't be a site's id."""
    if not is_id(site_id):
        raise SetupFault(f"{site_id!r} can't be a site's id: use 1 to 64 of a-z, 0-9, '-' and '.', such as khi-cn.")
    return folder / "sites" / f"{site_id}.toml"


def listed(folder: Path) -> list[str]:
    """The ids of the sites that are set up."""
    return sorted(path.stem for path in (folder / "sites").glob("*.toml") if not path.name.startswith("."))


def load(folder: Path, site_id: str) -> Site:
    """Reads and checks a site's file. Raises SetupFault, with a line for each mistake: file, line, key, what is wrong."""
    path = file_of(folder, site_id)
    if not path.exists():
        known = ", ".join(listed(folder)) or "none yet"
        raise SetupFault(
            f"The site {site_id} is not set up on this laptop (set up: {known}): {path} is missing. "
            "Check the spelling, or set the site up first."
        )
    try:
        site = tomlfile.load(path, Site)
    except SettingsError as error:
        raise SetupFault(str(error)) from error
    if site.id != site_id:
        line = tomlfile.line_of(path.read_text(encoding="utf-8"), ("id",))
        raise SetupFault(
            f"{path}:{line}: id: is {site.id!r}, but the file's name says {site_id!r}: make them the same."
        )
    if site.hq.ca is not None:
        site = site.model_copy(update={"hq": site.hq.model_copy(update={"ca": path.parent / site.hq.ca})})
    return site


def save(folder: Path, site: Site) -> Path:
    """Writes a site's file, with its comments; returns its path. Comments of somebody's own are not kept."""
    path = file_of(folder, site.id)
    ca = site.hq.ca
    if ca is not None and ca.is_relative_to(path.parent):
        site = site.model_copy(update={"hq": site.hq.model_copy(update={"ca": ca.relative_to(path.parent)})})
    durable.make_folder(folder)
    durable.make_folder(path.parent)
    durable.write(path, render(site).encode())
    return path


def begin(folder: Path, site_id: str) -> Path:
    """Writes a file to fill in for a new site; returns its path. Raises SetupFault if the site has one."""
    path = file_of(folder, site_id)
    if path.exists():
        raise SetupFault(f"{path} is there already: change it in an editor.")
    example = Site(
        id=site_id,
        name="Consulate, Clifton",
        name_ur="قونصل خانہ، کلفٹن",
        address="Plot 20, Block 4, Clifton",
        phone="021 5550 123",
        hq=Headquarters(url="https://headquarters.example:8443", ca=Path("headquarters-ca.pem")),
        brokers=(Broker(address="192.168.10.2", name=f"gw-{site_id}"[:64]),),
        entrances=(Entrance(id="main-gate", name="Main gate", name_ur="صدر دروازہ"),),
    )
    return save(folder, example)


def render(site: Site) -> str:
    """A site's file as text, every key with what it means."""
    hq = site.hq
    lines = [
        "# A site, as `tocsin provision` knows it. No passwords here: they are in the vault.",
        "",
        f"id = {_quoted(site.id)}",
        f"name = {_quoted(site.name)}",
        f"name_ur = {_quoted(site.name_ur)}  # in Urdu: on the label, and on headquarters' console",
        f"address = {_quoted(site.address)}  # where the police drive to",
        f"phone = {_quoted(site.phone)}  # whom headquarters calls back",
        f"board = {_quoted(site.board)}  # a module of firmware/boards",
        f"wifi = {_array(site.wifi)}  # names of networks, in the order in which a button tries them; [] if it has a cable",
        f"revocation_urls = {_array(site.revocation_urls)}  # stations' consoles that get each revocation list at once",
        "",
        "[hq]",
        f"url = {_quoted(hq.url)}  # of headquarters' console",
        _optional("ca", str(hq.ca) if hq.ca else None, "headquarters-ca.pem")
        + "  # who signed the console's certificate, beside this file; leave it out for a public authority",
        "# Asked from headquarters at the first connection, and kept:",
        _optional("id", hq.id, "hq"),
        _optional("message_key", hq.message_key, "04…"),
        "# From `tocsin provision release-key`: without it a button takes no firmware over the air.",
        _optional("release_key", hq.release_key, "04…"),
        "",
        "# Stations that a button connects to, in the order in which it tries them. An address in digits works without a",
        "# name server. name: the station's id, which its certificate must be for.",
    ]
    for broker in site.brokers:
        lines += [
            "[[brokers]]",
            f"address = {_quoted(broker.address)}",
            f"port = {broker.port}",
            f"name = {_quoted(broker.name)}",
            "",
        ]
    lines.append("# One table for each place where a button is.")
    for entrance in site.entrances:
        lines += [
            "[[entrances]]",
            f"id = {_quoted(entrance.id)}",
            f"name = {_quoted(entrance.name)}",
            f"name_ur = {_quoted(entrance.name_ur)}",
            f"contacts = {_quoted(entrance.contacts)}  # both, normally_closed (loop A alone), normally_open (loop B alone)",
            f"signal = {_quoted(entrance.signal)}  # how openly a press is confirmed: visible, silent, audible",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _quoted(text: str) -> str:
    # A basic string of TOML is one of JSON, but for one character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _array(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"


def _optional(key: str, text: str | None, example: str) -> str:
    return f"# {key} = {_quoted(example)}" if text is None else f"{key} = {_quoted(text)}"
