"""The whole system on loopback: an authority, headquarters, a site, its buttons; each part a process of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import insert

from demo.button import Button
from demo.process import Keeper, Process, wait_until
from gateway import keys, schema
from gateway.journal import Journal
from gateway.registry import password_hash
from provisioning.pki import Authority, Identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

PROJECT = Path(__file__).resolve().parents[1]
HQ = "hq"
SITE = "gw-clifton"
PLACES = {
    "clifton-gate": ("gate", "Main gate", "صدر دروازہ"),
    "clifton-visa": ("visa", "Visa hall", "ویزا ہال"),
    "clifton-cars": ("cars", "Car park", "گاڑیوں کا دروازہ"),
}
SITE_NAME = ("clifton", "Consulate, Clifton", "قونصل خانہ، کلفٹن")
ADDRESS = "Plot 20, Block 4, Clifton"
ADDRESS_UR = "پلاٹ 20، بلاک 4، کلفٹن"
CONTACTS = (
    {"name": "Rabia Aslam", "role": "Head of security", "phone": "021 5550 123"},
    {"name": "Guard room", "role": "Day and night", "phone": "021 5550 124"},
)
PLAN = """Come from Khayaban-e-Saadi: the other street is closed by bollards.
Keys of the main gate: guard room, left of the turnstile. Two dogs in the yard after 20:00; ask the guard to tie them.
Ask for Rabia Aslam. Do not enter the visa hall before she says so."""
PLAN_UR = """خیابانِ سعدی کی طرف سے آئیں: دوسری سڑک رکاوٹوں سے بند ہے۔
صدر دروازے کی چابیاں: گارڈ روم، گھومنے والے دروازے کے بائیں۔ رات 8 بجے کے بعد صحن میں دو کتے ہوتے ہیں؛ گارڈ سے بندھوائیں۔
رابعہ اسلم سے ملیں۔ ان کی اجازت سے پہلے ویزا ہال میں داخل نہ ہوں۔"""
OPERATOR = "operator"
KEPT_S = 86_400


def _entrance(device: str) -> tuple[str, str, str]:
    return PLACES.get(device, (device, device, ""))


def _enter_site(connection: Connection, entrances: Sequence[Mapping[str, str]]) -> None:
    site, name, name_ur = SITE_NAME
    row = {"id": site, "name": name, "name_ur": name_ur, "address": ADDRESS, "address_ur": ADDRESS_UR, "plan": PLAN}
    where = {"plan_ur": PLAN_UR, "latitude": 24.81331, "longitude": 67.03054}
    connection.execute(insert(schema.sites).values(**row, **where))
    for number, contact in enumerate(CONTACTS):
        connection.execute(insert(schema.contacts).values(site=site, number=number, **contact))
    for entrance in entrances:
        connection.execute(insert(schema.entrances).values(site=site, **entrance))


def micropython() -> str:
    """The MicroPython that the set-up put into place, or the one on PATH."""
    cached = PROJECT / ".cache" / "bin" / "micropython"
    found = str(cached) if cached.exists() else shutil.which("micropython") or shutil.which("mpy")
    if found is None:
        message = "MicroPython is missing: start the demo with `make demo`, which gets it"
        raise FileNotFoundError(message)
    return found


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Issuer(Protocol):
    """What the world needs of an authority."""

    def issue(self, name: str, *, server: bool = False) -> Identity:
        """A new identity."""

    def crl(self) -> bytes:
        """Its revocation lists in PEM."""


def _sweep(cache: Path) -> None:
    """Deletes what a run that was killed left behind, its keys included; kept logs go after a day."""
    for old in cache.glob("run-*"):
        try:
            owner = int((old / "pid").read_text())
            if Path(f"/proc/{owner}").exists() or time.time() - old.stat().st_mtime < KEPT_S:
                continue
        except (OSError, ValueError):
            continue  # just being made or deleted
        shutil.rmtree(old, ignore_errors=True)


class World:
    """Makes the files in a new folder, which `close` deletes; `start` starts everything."""

    def __init__(
        self,
        buttons: Sequence[str] = tuple(PLACES),
        console_port: int | None = None,
        uplink_port: int | None = None,
        authority: Issuer | None = None,
        hq_database: str = "",
        release_key: str = "",
    ) -> None:
        """uplink_port: where the site reaches headquarters' broker, if not directly (a test's own link).

        hq_database: PostgreSQL's URL, if headquarters' database is not a file.

        release_key: whose releases of the firmware are believed, a point in hex.

        authority: whose identities the stations have, if not those of a throw-away one.
        """
        cache = PROJECT / ".cache" / "demo"
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=cache))
        (self.folder / "pid").write_text(str(os.getpid()))
        self.authority = Authority.create()
        self._issuer: Issuer = authority or self.authority
        self.password = secrets.token_urlsafe(9)
        hq_port, site_port, hq_console, site_console = free_ports(4)
        self.hq_port, self.site_port = hq_port, site_port
        self.hq_console, self.site_console = console_port or hq_console, site_console
        self._hq_database = hq_database
        self._release_key = release_key
        self._hq_message_key = ec.generate_private_key(ec.SECP256R1())
        self.hq_message_point = keys.point(self._hq_message_key.public_key())
        self.identities: dict[str, Identity] = {}
        self._station(HQ, "Police headquarters, Karachi", "hq", hq_port, self.hq_console)
        self._station(SITE, SITE_NAME[1], "site", site_port, site_console, uplink_port or hq_port)
        self.keeper = Keeper()
        self.buttons = {device: self._button(device) for device in buttons}
        self._enrol()
        self.processes = {
            f"{kind} {station}": Process(
                f"{kind} {station}",
                [sys.executable, "-m", "gateway.cli", kind, "--config", str(self.folder / f"{station}.toml")],
                cwd=PROJECT,
                env={"PYTHONUNBUFFERED": "1"},
                log=self.folder / f"{kind}-{station}.log",
            )
            for station in (HQ, SITE)
            for kind in ("broker", "station")
        }
        self.keeper.keep(*self.processes.values(), *self.buttons.values())

    # ------------------------------------------------------------------------------------ files

    def issue(self, name: str, *, server: bool = False) -> Identity:
        """A new identity of the world's authority."""
        self.identities[name] = self._issuer.issue(name, server=server)
        return self.identities[name]

    def revoke(self, name: str) -> None:
        """Puts an identity on both brokers' revocation lists."""
        self.authority.revoke(self.identities[name])
        self._write_revoked()

    def _write_revoked(self) -> None:
        part = self.folder / "revoked.part"
        part.write_bytes(self._issuer.crl())
        part.replace(self.folder / "revoked.pem")

    def _station(self, name: str, title: str, role: str, port: int, console: int, parent: int | None = None) -> None:
        self.issue(name, server=True).write_pem(self.folder / name / "identity")
        self._write_revoked()
        lines = [
            f'station = "{name}"',
            f'name = "{title}"',
            f'role = "{role}"',
            f'state = "{name}/state"',
            f'identity = "{name}/identity"',
            'revoked = "revoked.pem"',
        ]
        if role == "hq":
            lines.append(f'message_key = "message-key.pem"\ndatabase = "{self._hq_database}"')
            if self._release_key:
                lines.append(f'release_key = "{self._release_key}"')
            (self.folder / "message-key.pem").touch(mode=0o600)
            (self.folder / "message-key.pem").write_bytes(
                self._hq_message_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        lines += [f'[broker]\nlisten = "127.0.0.1"\nport = {port}', f"[console]\nport = {console}"]
        if parent:
            lines.append(
                f'[[parents]]\nid = "{HQ}"\naddress = "127.0.0.1"\nport = {parent}\n'
                f'message_key = "{self.hq_message_point.hex()}"'
            )
        (self.folder / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _button(self, device: str) -> Button:
        folder = self.folder / device
        self.issue(device).write_der(folder / "identity")
        settings = {
            "id": device,
            "board": "virtual",
            "brokers": [["127.0.0.1", self.site_port, SITE]],
            "hq": HQ,
            "hq_message_key": self.hq_message_point.hex(),
            "alarms_per_minute": 600,  # a self-test presses oftener than a guard
            **({"release_key": self._release_key} if self._release_key else {}),
        }
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        return Button(device, folder, PROJECT, micropython())

    def _enrol(self) -> None:
        rows = [{"id": SITE, "kind": "station", "site": SITE_NAME[0], "entrance": ""}]
        rows += [
            {"id": device, "kind": "button", "site": SITE_NAME[0], "entrance": _entrance(device)[0]}
            for device in self.buttons
        ]
        entrances = [dict(zip(("id", "name", "name_ur"), _entrance(device), strict=True)) for device in self.buttons]
        person = {
            "name": OPERATOR,
            "full_name": "Duty operator",
            "role": "operator",
            "password": password_hash(self.password),
        }
        for station in (HQ, SITE):
            points = {name: keys.point(one.certificate.public_key()) for name, one in self.identities.items()}
            mine = [{**row, "point": points[row["id"]]} for row in rows if row["id"] != station]
            journal = Journal(self._store(station), [])
            journal.start()
            journal.now(lambda connection: _enter_site(connection, entrances))
            if mine:
                journal.now(lambda connection, mine=mine: connection.execute(insert(schema.children), mine) and None)  # type: ignore[misc]
            journal.now(lambda connection: connection.execute(insert(schema.people), [person]) and None)
            journal.stop()

    def _store(self, station: str) -> Path | str:
        return (self._hq_database if station == HQ else "") or self.folder / station / "state" / "station.db"

    def enrol_button(self, device: str) -> None:
        """Enrols one more button, whose identity was issued, at the running headquarters."""
        self.enrol_buttons([device])

    def enrol_buttons(self, devices: Sequence[str]) -> None:
        """The same for several."""
        rows = [
            {
                "id": device,
                "kind": "button",
                "point": keys.point(self.identities[device].certificate.public_key()),
                "site": SITE_NAME[0],
                "entrance": device,
            }
            for device in devices
        ]
        journal = Journal(self._store(HQ), [])
        journal.start()
        journal.now(lambda connection: connection.execute(insert(schema.children), rows) and None)
        journal.stop()

    def key_of(self, child: str) -> bytes:
        """The message key between a child and headquarters."""
        return self.shared(child, keys.point(self.identities[child].certificate.public_key()))

    def shared(self, child: str, point: bytes) -> bytes:
        """The same for a child that has only a public key."""
        return keys.between(self._hq_message_key, point, child=child, parent=HQ)

    # ------------------------------------------------------------------------------------- life

    def start(self, timeout_s: float = 40) -> None:
        """Starts everything and waits until every button is supervised by headquarters."""
        for process in (*self.processes.values(), *self.buttons.values()):
            process.start()
        self.wait_ready(timeout_s)

    def wait_ready(self, timeout_s: float = 40) -> None:
        """Waits until every button shows that headquarters hears it. Raises TimeoutError with the ends of all logs."""
        try:
            for button in self.buttons.values():
                wait_until(
                    lambda button=button: button.light == "rest", timeout_s, f"{button.device} at rest and supervised"
                )  # type: ignore[misc]
        except TimeoutError as error:
            message = f"{error}\n{self.log_tails()}"
            raise TimeoutError(message) from error

    def log_tails(self) -> str:
        """The end of every process's log, for who must find out why something did not start."""
        tails = []
        for log in sorted(self.folder.glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
            tails += [f"{log.name}: {line}" for line in lines]
        for button in self.buttons.values():
            tails += [f"{button.device}: {said}" for said in button.said[-12:]]
        return "\n".join(tails)

    def close(self, *, keep: bool = False) -> None:
        """Ends everything and deletes the files."""
        self.keeper.stop()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Starts everything."""
        try:
            self.start()
        except BaseException:
            self.close(keep=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends everything."""
        self.close()

    @property
    def url(self) -> str:
        """Of headquarters' console."""
        return f"http://127.0.0.1:{self.hq_console}"

    def database(self, station: str = HQ) -> sqlite3.Connection:
        """A read-only connection to a station's database."""
        path = self.folder / station / "state" / "station.db"
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)

    def mosquitto_pid(self, station: str) -> int:
        """The process id of a station's mosquitto itself."""
        return int((self.folder / station / "state" / "mosquitto.pid").read_text())
