"""An authority on a laptop: what it signed can be revoked by name, whatever happened to the laptop in between."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import socket
import ssl
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from gateway import keyfile, keys
from provisioning import cli, durable
from provisioning.authority import AuthorityFolder
from provisioning.errors import AuthorityFault, SetupFault
from provisioning.pki import Identity
from tests.parts import micropython
from tests.provisioning.test_pki import DAY, Clock, request

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSPHRASE = "four or five good words"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module", autouse=True)
def _quick_passphrases() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(keyfile, "_ROUNDS", 70_000)
    yield
    patch.undo()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> AuthorityFolder:
    return AuthorityFolder.create(tmp_path / "authority", PASSPHRASE, "Tocsin Karachi", clock=clock)


def lists(pem: bytes) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl(part + end) for part in pem.split(end)[:-1]]


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_it_opens_again_and_signs(authority: AuthorityFolder, clock: Clock) -> None:
    again = AuthorityFolder.open(authority.path, PASSPHRASE, clock=clock)
    certificate = again.sign_request(request("khi-gate"), "khi-gate")
    certificate.verify_directly_issued_by(authority.certificate)
    (one,) = authority.issued("khi-gate")
    assert one.serial == certificate.serial_number
    assert one.not_after == certificate.not_valid_after_utc
    assert one.revoked_at is None


def test_its_key_is_sealed_and_private(authority: AuthorityFolder) -> None:
    key = authority.path / "1" / "key.pem"
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert key.stat().st_mode & 0o777 == 0o600
    assert authority.path.stat().st_mode & 0o777 == 0o700
    assert (authority.path / "index.jsonl").stat().st_mode & 0o777 == 0o600


def test_openssl_opens_the_sealed_key(authority: AuthorityFolder) -> None:
    command = ["openssl", "pkey", "-in", authority.path / "1" / "key.pem", "-passin", f"pass:{PASSPHRASE}", "-pubout"]
    shown = subprocess.run(command, check=True, capture_output=True).stdout
    own = authority.certificate.public_key()
    assert serialization.load_pem_public_key(shown) == own


def test_a_wrong_passphrase_is_said(authority: AuthorityFolder) -> None:
    for wrong in ("four or five bad words", "", "x" * 500):
        with pytest.raises(AuthorityFault, match="passphrase does not open"):
            AuthorityFolder.open(authority.path, wrong)


def test_a_short_passphrase_a_second_authority_and_a_missing_one_are_said(
    authority: AuthorityFolder, tmp_path: Path
) -> None:
    with pytest.raises(AuthorityFault, match="too short"):
        AuthorityFolder.create(tmp_path / "other", "short", "Tocsin")
    with pytest.raises(AuthorityFault, match=r"holds an authority already.*ca rotate"):
        AuthorityFolder.create(authority.path, PASSPHRASE, "Tocsin")
    with pytest.raises(AuthorityFault, match=r"no authority in .*ca init"):
        AuthorityFolder.open(tmp_path / "nowhere", PASSPHRASE)
    assert not (tmp_path / "nowhere").exists()


def test_a_key_is_certified_again_for_an_id_whose_certificate_holds(authority: AuthorityFolder, clock: Clock) -> None:
    before = authority.sign_request(request("b1"), "b1", days=(-1, 10))
    key = before.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    after, *chain = authority.renew("b1", keys.point(key), (-1, 90))
    after.verify_directly_issued_by(authority.certificate)
    assert (after.public_key(), after.subject, chain) == (key, before.subject, [])
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert [one.serial for one in authority.issued("b1")] == [before.serial_number, after.serial_number]
    with pytest.raises(AuthorityFault, match="no certificate of nobody that still holds"):
        authority.renew("nobody", keys.point(key))
    with pytest.raises(AuthorityFault, match="is not a P-256 key"):
        authority.renew("b1", bytes(65))
    clock.now += 100 * DAY
    with pytest.raises(AuthorityFault, match="still holds"):
        authority.renew("b1", keys.point(key))


def test_every_unexpired_certificate_of_an_id_is_revoked(authority: AuthorityFolder, clock: Clock) -> None:
    gone = authority.sign_request(request("b1"), "b1", days=(-1, 10))
    clock.now += 20 * DAY
    held = [authority.sign_request(request("b1"), "b1") for _ in range(2)]
    other = authority.sign_request(request("b2"), "b2")
    (crl,) = lists(authority.revoke("b1", "stolen"))
    assert {entry.serial_number for entry in crl} == {one.serial_number for one in held}
    assert gone.serial_number not in {entry.serial_number for entry in crl}
    (again,) = lists(authority.revoke("b1"))
    assert {entry.serial_number for entry in again} == {one.serial_number for one in held}
    assert number(again) > number(crl)
    assert other.serial_number not in {entry.serial_number for entry in again}
    assert (authority.path / "revoked.pem").read_bytes() == again.public_bytes(serialization.Encoding.PEM)
    assert [one.revoked_at is None for one in authority.issued("b1")] == [True, False, False]


def test_an_id_that_was_never_signed_can_not_be_revoked(authority: AuthorityFolder) -> None:
    with pytest.raises(AuthorityFault, match="never signed a certificate of b7"):
        authority.revoke("b7")


def test_a_certificate_leaves_only_when_its_line_is_on_the_disk(
    authority: AuthorityFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _line: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "append", full)
    with pytest.raises(OSError, match="No space"):
        authority.sign_request(request("b1"), "b1")
    monkeypatch.undo()
    assert authority.issued() == []


def test_a_power_cut_in_the_middle_of_a_line_loses_nothing_that_left(authority: AuthorityFolder) -> None:
    first = authority.sign_request(request("b1"), "b1")
    index = authority.path / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole + b'{"at": "2026-11-24T09:00:00+00:00", "what": "iss')
    second = authority.sign_request(request("b2"), "b2")
    assert index.read_bytes().startswith(whole + b"{")
    assert [one.serial for one in authority.issued()] == [first.serial_number, second.serial_number]


def test_a_damaged_line_is_named(authority: AuthorityFolder) -> None:
    authority.sign_request(request("b1"), "b1")
    index = authority.path / "index.jsonl"
    index.write_bytes(index.read_bytes().replace(b'"what"', b"?what?", 1))
    with pytest.raises(AuthorityFault, match=r"index.jsonl:1: this line is damaged"):
        authority.revoke("b1")


def test_a_laptop_whose_clock_went_back_signs_nothing(authority: AuthorityFolder, clock: Clock) -> None:
    clock.now += 100 * DAY
    authority.sign_request(request("b1"), "b1")
    clock.now -= timedelta(hours=5)  # set right: the local time was taken for UTC
    authority.sign_request(request("b2"), "b2")
    clock.now -= 50 * DAY
    for attempt in (lambda: authority.sign_request(request("b3"), "b3"), lambda: authority.revoke("b1"), authority.crl):
        with pytest.raises(AuthorityFault, match=r"clock says 2027-01-.*used on 2027-03-04.*set the clock"):
            attempt()
    assert authority.issued("b3") == []


def test_an_expired_authority_signs_nothing_until_it_has_a_successor(authority: AuthorityFolder, clock: Clock) -> None:
    clock.now += 3651 * DAY
    for attempt in (lambda: authority.sign_request(request("b1"), "b1"), authority.crl):
        with pytest.raises(AuthorityFault, match="expired on 2036-11-21"):
            attempt()
    authority.rotate()
    certificate = authority.sign_request(request("b1"), "b1")
    certificate.verify_directly_issued_by(authority.certificate)
    assert len(lists(authority.crl())) == 1


def _sign_some(path: Path, first: int) -> None:
    authority = AuthorityFolder.open(path, PASSPHRASE)
    for n in range(first, first + 10):
        authority.sign_request(request(f"b{n}"), f"b{n}")
    authority.revoke(f"b{first}")


def test_two_programs_sign_at_once(tmp_path: Path) -> None:
    authority = AuthorityFolder.create(tmp_path / "authority", PASSPHRASE, "Tocsin")
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_sign_some, args=(authority.path, first)) for first in (100, 200)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len({one.serial for one in authority.issued()}) == 20
    assert {one.id for one in authority.issued() if one.revoked_at} == {"b100", "b200"}
    entries = [json.loads(line) for line in (authority.path / "index.jsonl").read_bytes().splitlines()]
    assert [entry["number"] for entry in entries if entry["what"] == "list"] == [1, 2, 3]


def test_a_lock_that_is_never_given_back_is_said(tmp_path: Path) -> None:
    with durable.locked(tmp_path / "lock"), pytest.raises(SetupFault, match="held by another tocsin"):  # noqa: SIM117
        with durable.locked(tmp_path / "lock", wait_s=0.1):
            pass


# ------------------------------------------------------------------------------------------- successors


@contextlib.contextmanager
def server(identity: Identity, folder: Path, crl: bytes) -> Iterator[int]:
    """A broker's TLS: its certificate with the chain, its ca.pem, its revocation lists. Yields the port."""
    identity.write_pem(folder)
    (folder / "revoked.pem").write_bytes(crl)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.load_verify_locations(folder / "revoked.pem")
    context.verify_mode, context.verify_flags = ssl.CERT_REQUIRED, ssl.VERIFY_CRL_CHECK_LEAF
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):  # refusals are the client's to see
                    raw = listener.accept()[0]
                    raw.settimeout(5)
                    with raw, context.wrap_socket(raw, server_side=True) as secure:
                        secure.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        thread.join()


_BUTTON = """
import socket, sys, tls
folder, port = sys.argv[1], int(sys.argv[2])
def read(name):
    with open(folder + "/" + name, "rb") as file:
        return file.read()
context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(read("ca.der"))
context.load_cert_chain(read("cert.der"), read("key.der"))
raw = socket.socket()
raw.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
try:
    print(context.wrap_socket(raw, server_hostname="gw").read(5))
except (OSError, ValueError) as error:
    print("refused", error)
"""


def is_let_in(button: Identity, folder: Path, port: int) -> bool:
    """Whether a MicroPython button with this identity and the broker believe each other."""
    button.write_der(folder)
    command = [micropython(), "-c", _BUTTON, str(folder), str(port)]
    said = subprocess.run(command, check=True, capture_output=True, timeout=20).stdout
    assert said.startswith((b"b'hello'", b"refused")), said
    return said.startswith(b"b'hello'")


def test_old_and_new_buttons_and_stations_believe_each_other_after_a_rotation(tmp_path: Path) -> None:
    authority = AuthorityFolder.create(tmp_path / "authority", PASSPHRASE, "Tocsin Karachi")
    first = authority.issue("first")
    before = authority.issue("gw", server=True)
    authority.rotate()
    second = authority.issue("second")
    authority.rotate()
    third = authority.issue("third")
    after = authority.issue("gw", server=True)
    assert authority.certificate.subject.rfc4514_string() == "CN=Tocsin Karachi 3"
    assert [len(lists(authority.crl())), authority.bundle().count(b"BEGIN CERT"), len(after.chain)] == [3, 3, 2]
    buttons = {"first": first, "second": second, "third": third}
    with server(after, tmp_path / "after", authority.crl()) as port:
        assert {name: is_let_in(one, tmp_path / name, port) for name, one in buttons.items()} == {
            "first": True, "second": True, "third": True,
        }  # fmt: skip
    old = Identity(before.name, before.key, before.certificate, after.ca, before.chain, after.trusted)
    with server(old, tmp_path / "before", authority.crl()) as port:  # why stations come before new buttons
        assert is_let_in(first, tmp_path / "first", port)
        assert not is_let_in(third, tmp_path / "third", port)
    with server(after, tmp_path / "after", authority.revoke("first")) as port:
        assert not is_let_in(first, tmp_path / "first", port)
        assert is_let_in(second, tmp_path / "second", port)


def test_an_old_authority_is_offered_until_nothing_depends_on_it(authority: AuthorityFolder, clock: Clock) -> None:
    first = authority.certificate
    authority.sign_request(request("b1"), "b1", days=(-1, 100))
    authority.sign_request(request("b2"), "b2", days=(-1, 10))
    authority.rotate()
    assert x509.load_pem_x509_certificates(authority.bundle()) == [authority.certificate, first]
    clock.now += 50 * DAY
    assert x509.load_pem_x509_certificates(authority.bundle())[1:] == [first]
    new, old = lists(authority.revoke("b1"))
    assert old.issuer == first.subject
    assert old.is_signature_valid(first.public_key())
    assert [len(new), len(old)] == [0, 1]
    assert x509.load_pem_x509_certificates(authority.bundle()) == [authority.certificate]
    assert (authority.path / "ca.pem").read_bytes() == authority.bundle()
    assert authority.issue("gw", server=True).chain == ()


def test_a_program_notices_that_another_has_rotated(authority: AuthorityFolder, clock: Clock) -> None:
    other = AuthorityFolder.open(authority.path, PASSPHRASE, clock=clock)
    other.rotate()
    authority.sign_request(request("b1"), "b1").verify_directly_issued_by(other.certificate)


def test_a_successor_needs_a_name_of_its_own(authority: AuthorityFolder) -> None:
    with pytest.raises(AuthorityFault, match="choose another name"):
        authority.rotate("Tocsin Karachi")
    assert not (authority.path / "2").exists()


def test_a_stations_certificate_is_renewed_from_a_shell_for_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_VAULT", "file")
    monkeypatch.setenv("TOCSIN_PASSPHRASE", PASSPHRASE)

    def run(*words: str, says: str = "") -> tuple[int, dict[str, Any]]:
        told = CliRunner().invoke(cli.app, ["--home", str(tmp_path / "home"), "--json", "ca", *words], input=says)
        return told.exit_code, json.loads(told.stdout)

    assert run("init", says=f"{PASSPHRASE}\n")[0] == 0
    for name in ("gw-clifton", "gw-other"):
        assert run("issue", name, "--to", str(tmp_path / name))[0] == 0
    old, new = tmp_path / "gw-clifton" / "cert.pem", tmp_path / "new.pem"
    code, answer = run("renew", "gw-clifton", "--from", str(old), "--to", str(new))
    assert code == 0, answer
    before, after = keys.certificate(old), keys.certificate(new)
    assert (after.subject, after.public_key()) == (before.subject, before.public_key())
    assert after.serial_number != before.serial_number
    assert f"{after.not_valid_after_utc:%Y-%m-%d}" == answer["until"]
    after.verify_directly_issued_by(keys.certificate(tmp_path / "home" / "authority" / "ca.pem"))
    new.unlink()
    for given, says in (
        (tmp_path / "gw-other" / "cert.pem", "give the station's own"),
        (new, "give the station's present"),
    ):
        code, answer = run("renew", "gw-clifton", "--from", str(given), "--to", str(new))
        assert (code != 0, says in answer["error"]["text"]) == (True, True), answer
        assert not new.exists()
