"""A revocation list: believed for its authority's signature, and at a real broker within seconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from demo.process import wait_until
from demo.world import HQ, SITE, World
from gateway import revocation
from gateway.enrolment import RegistryRefusedError, UnfitError
from provisioning.hq import Headquarters
from provisioning.pki import Authority
from tests.operator import Operator
from tests.outsider import Outsider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]

NOW = datetime.now(UTC)
OLD, NEW = Authority.create("old authority"), Authority.create("new authority")
BOTH = [OLD.certificate, NEW.certificate]


def merged(sent: bytes, there: bytes = b"", now: datetime = NOW) -> tuple[bytes, revocation.InPlace]:
    return revocation.merged(sent, there, BOTH, now)


def listing(number: int, *serials: int, of: Authority = OLD) -> bytes:
    return of.list_of({serial: (NOW, f"khi-{serial}") for serial in serials}, number)


# -------------------------------------------------------------------------------------------- rules


def test_a_newer_list_takes_the_place_of_an_older_one() -> None:
    first, state = merged(listing(1, 7))
    assert (state.changed, state.lists) == (True, (revocation.OneList("old authority", 1, 1),))
    second, state = merged(listing(2, 7, 8), first)
    assert (state.changed, state.lists[0].number, state.lists[0].revoked) == (True, 2, 2)
    assert revocation.serials(second, BOTH) == {7, 8}


def test_the_same_list_again_changes_nothing() -> None:
    sent = listing(3, 7)
    there, _ = merged(sent)
    again, state = merged(sent, there)
    assert (again, state.changed) == (there, False)


def test_each_authority_has_its_own_list() -> None:
    there, _ = merged(listing(5, 7))
    both, state = merged(listing(1, 8, of=NEW), there)
    assert {(one.authority, one.number) for one in state.lists} == {("old authority", 5), ("new authority", 1)}
    assert revocation.serials(both, BOTH) == {7, 8}
    together, state = merged(listing(6, 7, 9) + listing(2, 8, of=NEW), both)
    assert revocation.serials(together, BOTH) == {7, 8, 9}
    with pytest.raises(RegistryRefusedError, match="number 5, and number 6"):
        merged(listing(5, 7) + listing(3, of=NEW), together)


@pytest.mark.parametrize("number", [1, 2])
def test_an_older_list_is_refused(number: int) -> None:
    there, _ = merged(listing(2, 7, 8))
    with pytest.raises(RegistryRefusedError, match=f"number {number}, and number 2 is in place"):
        merged(listing(number, 7), there)


def test_a_list_of_somebody_else_is_refused() -> None:
    namesake = Authority.create("old authority")
    with pytest.raises(UnfitError, match="not signed by an authority"):
        merged(listing(9, of=namesake))


def test_an_altered_list_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_crl(listing(4, 0x1234567890)).public_bytes(Encoding.DER))
    at = bytes(der).index(bytes.fromhex("1234567890"))
    der[at] ^= 1
    altered = x509.load_der_x509_crl(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(UnfitError, match="not signed by an authority"):
        merged(altered)


def test_a_list_that_would_turn_everybody_away_is_refused() -> None:
    with pytest.raises(UnfitError, match="has run out"):
        merged(listing(1), now=NOW + timedelta(days=4000))
    with pytest.raises(UnfitError, match="clocks"):
        merged(listing(1), now=NOW - timedelta(days=3))


def test_a_list_without_a_number_is_refused() -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(OLD.certificate.subject)
    builder = builder.last_update(NOW - timedelta(days=1)).next_update(NOW + timedelta(days=1))
    unnumbered = builder.sign(OLD.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    with pytest.raises(UnfitError, match="has no number"):
        merged(unnumbered)
    assert merged(listing(1), unnumbered)[1].changed


@pytest.mark.parametrize(
    "octets", [b"", b"hello", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", listing(1) * 9]
)
def test_what_is_no_list_is_refused(octets: bytes) -> None:
    with pytest.raises(UnfitError):
        merged(octets)


def test_a_damaged_list_in_place_stands_in_nobodys_way() -> None:
    assert merged(listing(1), b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")[1].changed


def test_the_file_is_whole_or_as_before(tmp_path: Path) -> None:
    path = tmp_path / "revoked.pem"
    path.write_bytes(b"before")
    path.chmod(0o640)
    with pytest.raises(TypeError):
        revocation.put(path, "no octets")  # type: ignore[arg-type]
    assert path.read_bytes() == b"before"
    revocation.put(path, b"after")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"after", 0o640)
    assert [one.name for one in tmp_path.iterdir()] == ["revoked.pem"]


# --------------------------------------------------------------------------- a real station and broker


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World(buttons=())
    without = made.folder / f"{SITE}.toml"
    without.write_text(without.read_text().replace('revoked = "revoked.pem"\n', ""))
    try:
        made.start()
        Operator(made).sign_in()
        yield made
    finally:
        made.close()


def send(world: World, octets: bytes, station: str = HQ) -> httpx.Response:
    port = {HQ: world.hq_console, SITE: world.site_console}[station]
    return httpx.put(f"http://127.0.0.1:{port}/api/v1/revocations", content=octets, timeout=10)


def says(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def test_a_revoked_certificate_is_turned_away_within_seconds_and_nobody_else(world: World) -> None:
    for name in ("stolen", "faithful"):
        world.issue(name)
    thief = Outsider(world, "stolen", world.hq_port, HQ).connect()
    operator = Operator(world).sign_in()
    world.authority.revoke(world.identities["stolen"])
    crl = world.authority.crl()
    started = time.monotonic()
    with Headquarters(world.url, None) as hq:
        assert hq.send_revocations(crl)
        assert not hq.send_revocations(crl)
    wait_until(lambda: thief.down.is_set(), 10, "the thief's connection ends", every_s=0.05)
    ended_s = time.monotonic() - started
    thief.close()

    def let_in(name: str) -> bool:
        return Outsider(world, name, world.hq_port, HQ).is_let_in()

    wait_until(lambda: let_in("faithful"), 10, "the rest come back", every_s=0.3)
    back_s = time.monotonic() - started
    print(f"revoked: its connection ended after {ended_s:.1f} s, everybody else was back after {back_s:.1f} s")
    assert back_s < 10
    assert not let_in("stolen")

    def told() -> list[Any]:
        return [one["detail"] for one in operator.get("happenings") if one["code"] == "revocations"]

    wait_until(told, 5, "the event")
    assert told()[0].startswith("from 127.0.0.1; number ")
    assert told()[0].endswith("1 revoked")
    assert len(told()) == 1

    def site_is_back() -> bool:
        found = [one for one in operator.get("children") if one["id"] == SITE]
        return bool(found) and found[0]["link"] == "online"

    wait_until(site_is_back, 25, "the gateway comes back by itself")


def test_lists_that_are_refused_change_nothing(world: World) -> None:
    before = (world.folder / "revoked.pem").read_bytes()
    older = world.authority.list_of({}, 1)
    assert "send the newest one" in says(send(world, older), 409)
    assert "not signed by an authority" in says(send(world, Authority.create("other").crl()), 422)
    assert "no revocation list" in says(send(world, b"x" * 200_000), 422)
    assert "longer than 1024 KB" in says(send(world, b"x" * 1_048_577), 413)
    assert (world.folder / "revoked.pem").read_bytes() == before
    operator = Operator(world).sign_in()
    whys = {one["why"] for one in operator.get("health")["refused"] if one["who"] == "127.0.0.1"}
    assert any(why.startswith("a revocation list: ") for why in whys)


def test_a_list_larger_than_a_form_is_taken(world: World) -> None:
    large = world.authority.list_of(
        {serial: (NOW, f"khi-{serial}"[:20]) for serial in range(10**40, 10**40 + 2_000)}, 1_000
    )
    assert 16_384 < len(large) < 262_144
    answer = send(world, large)
    assert (answer.status_code, answer.json()["lists"][0]["revoked"]) == (200, 2_000)


def test_a_station_without_a_list_says_so(world: World) -> None:
    assert "keeps no revocation list" in says(send(world, world.authority.crl(), SITE), 409)
