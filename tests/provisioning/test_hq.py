"""Headquarters as the bench meets it: a real station over TLS, one that is silent, one that is somebody else."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, World, free_ports
from gateway.cli import app
from provisioning.errors import HeadquartersRefused, HeadquartersUnreachable, SetupFault
from provisioning.hq import Headquarters
from provisioning.pki import Authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(120)]

SECRET = "0123456789abcdef" * 4
AUTHORITY = Authority.create("bench")


class Somebody:
    """Accepts connections on loopback and does to each what it is told; over TLS if it has an identity."""

    def __init__(self, conduct: Callable[[Any], None], folder: Path | None = None, **issue: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._conduct = conduct
        self.heard: list[bytes] = []
        self._context: ssl.SSLContext | None = None
        if folder is not None:
            name = issue.pop("name", "localhost")
            issue.pop("by", AUTHORITY).issue(name, server=True, **issue).write_pem(folder)
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: Any) -> None:
        with contextlib.suppress(OSError), connection:
            secure = self._context.wrap_socket(connection, server_side=True) if self._context else connection
            self.heard.append(secure.recv(65536))
            self._conduct(secure)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def somebody(conduct: Callable[[Any], None], folder: Path | None = None, **issue: Any) -> Iterator[Somebody]:
    made = Somebody(conduct, folder, **issue)
    try:
        yield made
    finally:
        made.close()


def answering(status: str, body: bytes, *headers: str) -> Callable[[Any], None]:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + body)


def error(message: str) -> bytes:
    return b'{"error": {"status": 0, "message": "%s"}}' % message.encode()


def nothing(_: Any) -> None:
    """Says nothing, and hangs up."""


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.pem)
    return path


def asking(url: str, ca_file: Path | None = None, deadline_s: float = 5) -> Headquarters:
    return Headquarters(url, SECRET, ca_file, deadline_s=deadline_s)


# ------------------------------------------------------------------------------- the real one, over TLS


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World(buttons=())
    made.authority.issue("localhost", server=True).write_pem(made.folder / "console")
    (made.folder / "authority.pem").write_bytes(made.authority.pem)
    settings = made.folder / "hq.toml"
    tls = 'certificate = "{0}/cert.pem"\nkey = "{0}/key.pem"\n'.format(made.folder / "console")
    settings.write_text(settings.read_text().replace("[console]\n", f"[console]\n{tls}"))
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_real_headquarters_over_tls(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    given = CliRunner().invoke(app, ["technician", "--config", str(world.folder / "hq.toml"), "usman"])
    token = given.stdout.strip().splitlines()[-1]
    url = f"https://localhost:{world.hq_console}"
    with Headquarters(url, token, world.folder / "authority.pem") as hq:
        deadline = time.monotonic() + 20
        while True:
            try:
                facts = hq.facts()
                break
            except HeadquartersUnreachable:
                assert time.monotonic() < deadline
        assert (facts.station, facts.message_key) == (HQ, world.hq_message_point.hex())
        certificate = world.issue("b1").certificate.public_bytes(Encoding.PEM)
        place = {"site": "s", "entrance": "gate", "entrance_name_ur": "صدر دروازہ"}
        made = hq.enrol("b1", certificate, mac="24:0a:c4:00:01:10", **place)
        assert (made.id, made.state, made.by, made.entrance_name_ur) == ("b1", "pending", "usman", "صدر دروازہ")
        assert hq.entry("b1") == made
        assert hq.entry("b2") is None
        assert hq.entry("../station") is None
        assert [one.id for one in hq.entries("s")] == ["b1"]
        assert hq.retire("b1", "test").state == "retired"
        with pytest.raises(HeadquartersRefused, match="Headquarters refuses: b1 was retired on"):
            hq.enrol("b1", certificate, **place)
        assert token not in repr(hq) + repr(vars(hq)["_http"]) + caplog.text
    with Headquarters(url, SECRET, world.folder / "authority.pem") as hq:
        with pytest.raises(HeadquartersRefused) as refused:
            hq.facts()
        assert "unknown here" in str(refused.value)
        assert "ask headquarters for a new token: tocsin technician NAME" in str(refused.value)
        assert SECRET not in str(refused.value) + caplog.text


def test_a_name_that_is_not_in_the_certificate(world: World) -> None:
    with Headquarters(f"https://127.0.0.1:{world.hq_console}", SECRET, world.folder / "authority.pem") as hq:
        with pytest.raises(HeadquartersRefused, match="is for another name"):
            hq.facts()


def test_an_authority_that_nobody_named(world: World) -> None:
    with Headquarters(f"https://localhost:{world.hq_console}", SECRET) as hq:
        with pytest.raises(HeadquartersRefused, match="signed by nobody whom we trust"):
            hq.facts()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_plain_http_to_a_port_with_tls(world: World) -> None:
    wait_until(lambda: listens(world.hq_console), 20, "the console")
    with asking(f"http://localhost:{world.hq_console}") as hq:
        with pytest.raises(HeadquartersUnreachable, match="broke off in the middle"):
            hq.facts()


# ------------------------------------------------------------------------------------- somebody else


@pytest.mark.parametrize(
    ("issue", "why"),
    [
        ({"days": (-9, -1)}, "has expired"),
        ({"days": (1, 9)}, "clock"),
        ({"by": Authority.create("bench")}, "signed by nobody"),
        ({"name": "other"}, "is for another name"),
    ],
)
def test_certificates_that_prove_nothing(tmp_path: Path, ca_file: Path, issue: dict[str, Any], why: str) -> None:
    with somebody(answering("200 OK", b"{}"), tmp_path / "server", **issue) as other:
        with asking(f"https://localhost:{other.port}", ca_file) as hq:
            with pytest.raises(HeadquartersRefused, match=why) as refused:
                hq.facts()
            assert "The token was not sent" in str(refused.value)
        assert not any(SECRET.encode() in heard for heard in other.heard)


def test_tls_to_a_port_without(ca_file: Path) -> None:
    with somebody(answering("400 Bad Request", b"what?")) as other:
        with asking(f"https://localhost:{other.port}", ca_file) as hq:
            with pytest.raises(HeadquartersRefused, match="does not speak TLS"):
                hq.facts()


@pytest.mark.parametrize(
    ("status", "body", "kind", "why"),
    [
        ("200 OK", b"<html>router</html>", HeadquartersRefused, "not Tocsin's console"),
        ("200 OK", b"[]", HeadquartersRefused, "not Tocsin's console"),
        ("200 OK", b'{"station": "hq"}', HeadquartersRefused, "not Tocsin's console"),
        ("404 Not Found", b"<html>", HeadquartersRefused, "not Tocsin's console"),
        ("401 Unauthorized", b"<html>", HeadquartersRefused, "not Tocsin's console"),
        ("502 Bad Gateway", b"<html>", HeadquartersUnreachable, r"does not work \(502\)"),
        ("500 Oops", error("it failed"), HeadquartersUnreachable, "it failed"),
        ("409 Conflict", error("no"), HeadquartersRefused, "refuses: no"),
    ],
)
def test_answers_of_every_kind(status: str, body: bytes, kind: type[Exception], why: str) -> None:
    with somebody(answering(status, body)) as other, asking(f"http://localhost:{other.port}") as hq:
        with pytest.raises(kind, match=why):
            hq.facts()


def test_a_redirect_does_not_get_the_token() -> None:
    with somebody(answering("200 OK", b"{}")) as second:
        there = f"http://localhost:{second.port}/"
        with somebody(answering("301 Moved", b"", f"Location: {there}")) as other:
            with asking(f"http://localhost:{other.port}") as hq:
                with pytest.raises(HeadquartersRefused, match="sends us on to"):
                    hq.facts()
        assert second.heard == []


# ------------------------------------------------------------------------------------- no answer


def test_nobody_there() -> None:
    with asking(f"http://localhost:{free_ports(1)[0]}") as hq:
        with pytest.raises(HeadquartersUnreachable, match="can't be reached.*--offline"):
            hq.facts()
    with asking("https://no-such-headquarters.invalid") as hq:
        with pytest.raises(HeadquartersUnreachable):
            hq.facts()


def silent(_: Any) -> None:
    time.sleep(20)


def dripping(connection: Any) -> None:
    for octet in b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b" " * 5000:
        connection.sendall(bytes([octet]))
        time.sleep(0.05)


@pytest.mark.parametrize("conduct", [silent, dripping])
def test_one_deadline_for_all_of_it(conduct: Callable[[Any], None]) -> None:
    with somebody(conduct) as other, asking(f"http://localhost:{other.port}", deadline_s=1) as hq:
        begun = time.monotonic()
        with pytest.raises(HeadquartersUnreachable, match="no whole answer within 1 s"):
            hq.facts()
        assert time.monotonic() - begun < 2


def test_hung_up_in_the_middle() -> None:
    with somebody(nothing) as other, asking(f"http://localhost:{other.port}") as hq:
        with pytest.raises(HeadquartersUnreachable, match="broke off"):
            hq.facts()


# ------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    ("url", "token", "why"),
    [
        ("http://hq.example.pk", SECRET, "for everybody to read"),
        ("hq.example.pk", SECRET, "no address"),
        ("ftp://hq.example.pk", SECRET, "no address"),
        ("https://", SECRET, "no address"),
        ("https://h\x00q", SECRET, "no address"),
        ("https://hq.example.pk", f"{SECRET} twice", "copy it again"),
        ("https://hq.example.pk", f"{SECRET}\n", "copy it again"),
    ],
)
def test_settings_that_are_wrong(url: str, token: str, why: str) -> None:
    with pytest.raises(SetupFault, match=why) as fault:
        Headquarters(url, token)
    assert SECRET not in str(fault.value)


def test_an_authoritys_file_that_is_none(tmp_path: Path) -> None:
    for content in (b"no certificate", b""):
        (tmp_path / "ca.pem").write_bytes(content)
        with pytest.raises(SetupFault, match="no usable certificate"):
            Headquarters("https://hq.example.pk", SECRET, tmp_path / "ca.pem")
    with pytest.raises(SetupFault, match="no usable certificate"):
        Headquarters("https://hq.example.pk", SECRET, tmp_path / "nothing.pem")
