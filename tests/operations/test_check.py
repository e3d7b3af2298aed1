"""`tocsin check` names each mistake, says what to do, and ends with 1; what is in order ends with 0."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from gateway import keys
from gateway.checks import machine
from gateway.checks.look import Look
from gateway.checks.run import EX_CONFIG, everything, run
from gateway.cli import app
from gateway.journal import Journal
from gateway.settings import load
from provisioning.pki import Authority
from tests.parts import free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.checks.look import Finding

NOW = datetime.now(UTC)
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or "mosquitto"


class Place:
    """A station's files, all in order until a test spoils one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create()
        self.identity = self.authority.issue("hq", server=True)
        self.identity.write_pem(folder / "identity")
        (folder / "revoked.pem").write_bytes(self.authority.crl())
        self.key("message-key.pem", ec.generate_private_key(ec.SECP256R1()))
        point = keys.point(self.identity.key.public_key()).hex()
        self.port, self.console, self.parent = free_port(), free_port(), free_port()
        self.text = "\n".join(
            (
                'station = "hq"',
                'role = "hq"',
                'revoked = "revoked.pem"',
                'message_key = "message-key.pem"',
                "[broker]",
                f"port = {self.port}",
                "[console]",
                'listen = "127.0.0.1"',
                f"port = {self.console}",
                "[[parents]]",
                'id = "ministry"',
                'address = "127.0.0.1"',
                f"port = {self.parent}",
                f'message_key = "{point}"',
            )
        )
        self.now = NOW

    def key(self, name: str, key: ec.EllipticCurvePrivateKey) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def set(self, key: str, value: str) -> None:
        """Changes the first line of that key, or adds one before the first table."""
        changed, times = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", self.text, count=1)
        self.text = changed if times else f"{key} = {value}\n{self.text}"

    def found(self, *, connect: bool = False) -> list[Finding]:
        (self.folder / "hq.toml").write_text(self.text)
        return list(everything(Look(load(self.folder / "hq.toml"), self.text, self.now), connect=connect))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_in_order_ends_with_nothing(place: Place) -> None:
    wrong = [one for one in place.found() if one.grade != "good" and one.what != "clock"]  # a container has no NTP
    assert not wrong
    said: list[str] = []
    assert run(place.folder / "hq.toml", connect=False, as_json=False, say=said.append) == 0
    assert any(line.startswith("✓ hq.toml:4 message key: for children's settings: 04") for line in said)
    assert not list(place.folder.glob("state*")), "a check changes nothing"


def test_sealed_keys_are_in_order_with_their_passphrase_alone(place: Place) -> None:
    secret = place.folder / "secret"
    secret.write_text("a passphrase that a machine made")
    secret.chmod(0o600)
    place.set("key_file", '"secret"')
    place.found()
    sealed = CliRunner().invoke(app, ["keys", "seal", "--config", str(place.folder / "hq.toml")])
    assert sealed.exit_code == 0, sealed.output
    assert [one for one in place.found() if one.grade != "good" and one.what != "clock"] == []
    (parent,) = (one for one in place.found(connect=True) if one.what == "parent ministry")
    assert "does not answer" in parent.text, "the keys were opened"
    secret.write_text("another passphrase of a machine")
    told = {one.what: one.text for one in place.found() if one.grade == "mistake"}
    assert set(told) == {"key", "message key"}
    assert all("was sealed under another one" in text for text in told.values())
    secret.chmod(0o644)
    told = {one.what: one.text for one in place.found() if one.grade == "mistake"}
    assert "chmod 600" in told["passphrase of the keys"]
    assert "no passphrase is set" in told["key"]


def other_key(place: Place) -> None:
    place.key("identity/key.pem", ec.generate_private_key(ec.SECP256R1()))


def other_curve(place: Place) -> None:
    place.key("message-key.pem", ec.generate_private_key(ec.SECP384R1()))


def other_authority(place: Place) -> None:
    (place.folder / "identity" / "ca.pem").write_bytes(Authority.create().pem)
    place.text = place.text.replace('revoked = "revoked.pem"\n', "")


def other_name(place: Place) -> None:
    place.authority.issue("gw-clifton", server=True).write_pem(place.folder / "identity")


def no_server(place: Place) -> None:
    place.authority.issue("hq").write_pem(place.folder / "identity")


def ended(place: Place) -> None:
    place.authority.issue("hq", server=True, days=(-10, -1)).write_pem(place.folder / "identity")


def begins_later(place: Place) -> None:
    place.authority.issue("hq", server=True, days=(2, 10)).write_pem(place.folder / "identity")


def list_ended(place: Place) -> None:
    authority = Authority(place.authority.key, place.authority.certificate, lambda: NOW)
    octets = authority.crl()
    (place.folder / "revoked.pem").write_bytes(octets)
    place.now = NOW + timedelta(days=20 * 365)


def foreign_list(place: Place) -> None:
    (place.folder / "revoked.pem").write_bytes(Authority.create().crl())


def own_revoked(place: Place) -> None:
    place.authority.revoke(place.identity)
    (place.folder / "revoked.pem").write_bytes(place.authority.crl())


def state_is_a_file(place: Place) -> None:
    (place.folder / "state").write_text("")


def broken_journal(place: Place) -> None:
    (place.folder / "state").mkdir()
    (place.folder / "state" / "station.db").write_bytes(b"this is no database" * 100)


def clock_behind(place: Place) -> None:
    (place.folder / "state").mkdir()
    path = place.folder / "state" / "station.db"
    journal = Journal(path, [])
    journal.start()
    journal.stop()
    with sqlite3.connect(path) as database:
        later = int((NOW + timedelta(days=1)).timestamp() * 1000)
        values = ("hq", 1, 1, 2, later, 1, later, b"", b"", b"")
        database.execute("INSERT INTO journal VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    database.close()


def half_tls(place: Place) -> None:
    place.text = place.text.replace("[console]", '[console]\ncertificate = "identity/cert.pem"')


def no_tls(place: Place) -> None:
    place.text = place.text.replace('listen = "127.0.0.1"', 'listen = "0.0.0.0"')


def short_token(place: Place) -> None:
    (place.folder / "token").write_text("guess\n")
    place.text = place.text.replace("[console]", '[console]\nmetrics_token = "token"')


def off_the_curve(place: Place) -> None:
    place.text = re.sub(r'(?m)^(message_key = "04)[0-9a-f]{128}"', lambda found: f'{found[1]}{"11" * 64}"', place.text)


def spoilt(name: str, octets: bytes | None) -> Callable[[Place], None]:
    def spoil(place: Place) -> None:
        if octets is None:
            (place.folder / name).unlink()
        else:
            (place.folder / name).write_bytes(octets)

    return spoil


def mode(name: str, bits: int) -> Callable[[Place], None]:
    return lambda place: (place.folder / name).chmod(bits)


MISTAKES: list[tuple[Callable[[Place], None], str, str, int | None]] = [
    (spoilt("identity/key.pem", None), "key", "No such file", None),
    (spoilt("identity/key.pem", b"-----BEGIN"), "key", "P-256 key in PEM", None),
    (mode("identity/key.pem", 0o640), "key", "chmod 600", None),
    (other_key, "key", "is not the key of cert.pem", None),
    (spoilt("identity/cert.pem", None), "certificate", "the authority issues it", None),
    (spoilt("identity/cert.pem", b"nonsense"), "certificate", "the authority issues it", None),
    (spoilt("identity/ca.pem", None), "authority", "copy the authority's ca.pem", None),
    (other_authority, "certificate", "is not signed by an authority", None),
    (other_name, "certificate", "is for 'gw-clifton', but the station is 'hq'", 1),
    (no_server, "certificate", "not good for a server", None),
    (ended, "certificate", "have a new one issued", None),
    (begins_later, "certificate", "set this machine's clock", None),
    (spoilt("message-key.pem", None), "message key", "No such file", 4),
    (other_curve, "message key", "not a P-256 key", 4),
    (mode("message-key.pem", 0o604), "message key", "chmod 600", 4),
    (spoilt("revoked.pem", None), "revocation list", "the broker would not start", 3),
    (spoilt("revoked.pem", b"nonsense"), "revocation list", "no revocation list in PEM", 3),
    (list_ended, "revocation list", "has run out", 3),
    (foreign_list, "revocation list", "not signed by an authority of this station", 3),
    (own_revoked, "revocation list", "this station's own certificate on it", 3),
    (state_is_a_file, "state", "is no folder", None),
    (broken_journal, "journal", "can't be read", None),
    (clock_behind, "clock", "the journal's last entry is of", None),
    (lambda place: setattr(place, "now", datetime(1970, 1, 1, tzinfo=UTC)), "clock", "set the clock", None),
    (half_tls, "console", "`console.key` is missing", 7),
    (short_token, "token of the metrics", "16 characters or more", 8),
    (off_the_curve, "parent ministry", "no point of P-256", 14),
    (lambda place: place.set("listen", '"192.0.2.77"'), "port of the console", "is it an address of this machine", 8),
    (lambda place: place.set("listen", '"no such host"'), "port of the console", "is no address of this machine", 8),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "what", "says", "line"), MISTAKES, ids=[f"{m[1]}: {m[2]}" for m in MISTAKES])
def test_each_mistake_is_named(
    place: Place, spoil: Callable[[Place], None], what: str, says: str, line: int | None
) -> None:
    spoil(place)
    told = [one for one in place.found() if one.grade == "mistake"]
    assert any(one.what == what and says in one.text and one.line == line for one in told), told


def test_what_is_doubtful_is_a_warning_and_ends_well(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    no_tls(place)
    place.text = place.text.replace('revoked = "revoked.pem"\n', "")
    place.authority.issue("hq", server=True, days=(-10, 5.5)).write_pem(place.folder / "identity")
    monkeypatch.setattr(machine, "OLDEST_MOSQUITTO", (99, 0, 0))
    monkeypatch.setattr(machine, "LITTLE_DISK_MB", 1 << 40)
    monkeypatch.setattr(machine, "_unsynchronized", lambda: True)
    told = {one.what: one.text for one in place.found() if one.grade == "warning"}
    assert "without TLS" in told["console"]
    assert "stolen button" in told["revocation list"]
    assert "ends in 5 days" in told["certificate"]
    assert "older than 99.0.0" in told["mosquitto"]
    assert "make room soon" in told["state"]
    assert "NTP" in told["clock"]
    assert run(place.folder / "hq.toml", connect=False, as_json=False, say=lambda _: None) == 0


def test_without_mosquitto_or_room_it_ends_with_1(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda *_args, **_more: None)
    monkeypatch.setattr(machine, "LEAST_DISK_MB", 1 << 40)
    told = {one.what: one.text for one in place.found() if one.grade == "mistake"}
    assert set(told) == {"mosquitto", "state"}
    said: list[str] = []
    assert run(place.folder / "hq.toml", connect=False, as_json=True, say=said.append) == 1
    answer = json.loads(said[0])
    assert answer["ok"] is False
    assert {"grade", "what", "text", "line"} == set(answer["findings"][0])


def test_a_state_folder_of_somebody_else_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "access", lambda *_: False)  # the tests may run as root, whom nothing stops
    assert any("can't be written by" in one.text for one in place.found() if one.grade == "mistake")


def test_settings_that_cannot_be_read_end_with_78(place: Place) -> None:
    (place.folder / "hq.toml").write_text('station = "HQ"\nrole = "boss"\n')
    said: list[str] = []
    assert run(place.folder / "hq.toml", connect=False, as_json=False, say=said.append) == EX_CONFIG
    assert "hq.toml:1: station" in said[0] and "hq.toml:2: role" in said[0]
    assert run(place.folder / "hq.toml", connect=False, as_json=True, say=said.append) == EX_CONFIG
    assert len(json.loads(said[1])["findings"]) == 2


def test_who_has_a_port_is_told(place: Place) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", place.console))
        taker.listen()
        (told,) = [one for one in place.found() if one.grade == "mistake"]
    assert (told.what, told.line) == ("port of the console", 9)
    assert f"process {os.getpid()}" in told.text


def test_a_parent_is_reached_and_held_against_its_name(place: Place) -> None:
    def parent(station: str, authority: Authority) -> list[str]:
        """mosquitto as the parent's broker, as the check at `place` sees it."""
        folder = place.folder / f"at-{station}-{authority.name}"
        authority.issue(station, server=True).write_pem(folder)
        (folder / "ca.pem").write_bytes((authority if authority is not place.authority else trusted).pem)
        (folder / "mosquitto.conf").write_text(
            f"listener {place.parent} 127.0.0.1\nrequire_certificate true\nuse_identity_as_username true\n"
            + "".join(
                f"{key} {folder / name}.pem\n"
                for key, name in (("cafile", "ca"), ("certfile", "cert"), ("keyfile", "key"))
            )
            + "user root\n"
        )
        with running([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL):
            end = time.monotonic() + 20
            while True:
                found = [one for one in place.found(connect=True) if one.what == "parent ministry"]
                if "does not answer" not in found[0].text or time.monotonic() > end:
                    return [f"{one.grade} {one.text}" for one in found]

    trusted = place.authority
    (nobody,) = [one for one in place.found(connect=True) if one.what == "parent ministry"]
    assert "does not answer" in nobody.text
    assert parent("ministry", place.authority) == [f"good 127.0.0.1:{place.parent} answers and is ministry"]
    (named,) = parent("imposter", place.authority)
    assert named.startswith("mistake") and "shows a certificate that is not ministry's" in named
    (foreign,) = parent("ministry", Authority.create("Another authority"))
    assert foreign.startswith("mistake") and "shows a certificate that is not ministry's" in foreign
    trusted = Authority.create("An authority that does not know us")
    (refused,) = parent("ministry", place.authority)
    assert refused.startswith("mistake") and "turns this station away" in refused
    place.set("address", '"no-such-host.invalid"')
    (unknown,) = [one for one in place.found(connect=True) if one.what == "parent ministry"]
    assert "is not known here" in unknown.text


def test_a_credential_of_systemd_stands_in_for_the_message_key(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.found()
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert load(place.folder / "hq.toml").message_key == place.folder / "message-key.pem"
    (place.folder / "message-key.pem").rename(credentials / "message-key.pem")
    assert load(place.folder / "hq.toml").message_key == credentials / "message-key.pem"
