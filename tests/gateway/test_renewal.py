"""Certificates are renewed before they end: a button's over the air, a station's by its file, and nobody visits."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demo.process import wait_until
from demo.world import HQ, SITE, World
from gateway import keys
from provisioning.hq import Headquarters
from provisioning.pki import Authority, joined
from tests.gateway.test_enrolment import says, token_of
from tests.operator import Operator
from tests.outsider import Outsider

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]

GATE = "clifton-gate"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(buttons=(GATE,)) as made:
        yield made


@pytest.fixture(scope="module")
def hq(world: World) -> Iterator[Headquarters]:
    with Headquarters(world.url, token_of(world, "usman")) as made:
        yield made


def point(world: World, name: str = GATE) -> bytes:
    return keys.point(world.identities[name].certificate.public_key())


def put(world: World, hq: Headquarters, child: str, certificate: x509.Certificate) -> httpx.Response:
    headers = {"Authorization": hq._http.headers["Authorization"]}
    body = {"certificate": certificate.public_bytes(Encoding.PEM).decode()}
    return httpx.put(f"{world.url}/api/v1/registry/{child}/certificate", json=body, headers=headers, timeout=10)


def in_use(world: World) -> bytes:
    return (world.folder / GATE / "identity" / "cert.der").read_bytes()


def newest(operator: Operator) -> dict[str, Any]:
    found: dict[str, Any] = operator.get(f"children/{GATE}/commands")[0]
    return found


def check(operator: Operator) -> dict[str, Any]:
    return next(one for one in operator.get("health")["checks"] if one["name"] == "certificates")


def test_a_button_s_certificate_is_renewed_over_the_air_through_power_cuts(world: World, hq: Headquarters) -> None:
    operator, button = Operator(world).sign_in(), world.buttons[GATE]
    short = world.authority.renew(GATE, point(world), (-1, 29))
    started = time.monotonic()
    hq.send_certificate(GATE, short.public_bytes(Encoding.PEM).decode())
    wait_until(lambda: newest(operator)["state"] == "done", 40, "the button's answer")
    print(f"renewed over the air, and answered, after {time.monotonic() - started:.1f} s")
    assert in_use(world) == short.public_bytes(Encoding.DER)
    ends_ms = short.not_valid_after_utc.timestamp() * 1000
    wait_until(
        lambda: [one.certified_until_ms for one in hq.entries() if one.id == GATE] == [ends_ms], 5, "it is noted"
    )
    wait_until(lambda: not check(operator)["ok"], 5, "the warning")
    assert f"end within 30 days: {GATE} (" in check(operator)["text"]
    assert "ends earlier" in says(put(world, hq, GATE, world.authority.renew(GATE, point(world), (-1, 28))), 409)

    new = world.authority.renew(GATE, point(world), (-1, 900))
    whole = {short.public_bytes(Encoding.DER), new.public_bytes(Encoding.DER)}
    button.unplug()
    assert put(world, hq, GATE, new).status_code == 202
    for said in ("command", "certificate", "started"):  # taken; shown to the broker; started anew in the middle of it
        since = len(button.said)
        button.start()
        button.wait_for(lambda line, said=said: said in line, 40, since)  # type: ignore[misc]
        button.unplug()
        assert in_use(world) in whole
    button.start()
    wait_until(lambda: newest(operator)["state"] == "done", 60, "the answer after all that")
    assert in_use(world) == new.public_bytes(Encoding.DER)
    wait_until(lambda: check(operator)["ok"], 5, "no warning any more")
    wait_until(lambda: button.light == "rest", 20, "supervised over the new certificate")
    assert not list((world.folder / GATE / "state").glob("renewal"))


def test_what_is_no_certificate_of_that_button_is_not_sent(world: World, hq: Headquarters) -> None:
    operator = Operator(world).sign_in()
    before = newest(operator)
    stranger = Authority.create("Somebody else's").renew(GATE, point(world), (-1, 999))
    assert "not signed by an authority" in says(put(world, hq, GATE, stranger), 422)
    assert "for another key" in says(put(world, hq, GATE, world.authority.issue(GATE, days=(-1, 999)).certificate), 422)
    other = world.authority.renew("clifton-visa", point(world), (-1, 999))
    assert "not for CN=clifton-gate" in says(put(world, hq, GATE, other), 422)
    station = world.authority.renew(SITE, point(world, SITE), (-1, 999))
    assert "put its new cert.pem into its identity folder" in says(put(world, hq, SITE, station), 409)
    assert "not in this registry" in says(put(world, hq, "nobody", other), 404)
    assert newest(operator) == before


def shown(world: World, port: int, name: str) -> int:
    """The serial number of the certificate that a broker shows."""
    context = ssl.create_default_context(cadata=world.authority.pem.decode())
    context.load_cert_chain(world.folder / SITE / "identity" / "cert.pem", world.folder / SITE / "identity" / "key.pem")
    with socket.create_connection(("127.0.0.1", port), 5) as tcp, context.wrap_socket(tcp, server_hostname=name) as tls:
        octets = tls.getpeercert(binary_form=True)
    assert octets
    return x509.load_der_x509_certificate(octets).serial_number


def test_a_station_and_its_broker_take_up_a_renewed_certificate_without_a_restart(world: World) -> None:
    operator = Operator(world).sign_in()
    new = world.authority.renew(SITE, point(world, SITE), (-1, 800), server=True)
    pids = [world.processes[f"{kind} {SITE}"].pid for kind in ("broker", "station")]
    mosquitto = world.mosquitto_pid(SITE)
    identity = world.folder / SITE / "identity"
    (identity / "cert.new").write_bytes(joined([new]))
    (identity / "cert.new").replace(identity / "cert.pem")
    started = time.monotonic()
    wait_until(lambda: shown(world, world.site_port, SITE) == new.serial_number, 10, "the broker shows it", every_s=0.1)
    print(f"the broker showed its new certificate after {time.monotonic() - started:.1f} s")
    assert world.mosquitto_pid(SITE) == mosquitto
    world.revoke(SITE)  # its old one: only who shows the new one is let in at headquarters
    old = world.identities[SITE]
    wait_until(lambda: not Outsider(world, SITE, world.hq_port, HQ, old).is_let_in(), 10, "headquarters' broker knows")
    wait_until(lambda: _last_link(operator) == "online", 30, "the gateway is back with its new certificate")
    assert [world.processes[f"{kind} {SITE}"].pid for kind in ("broker", "station")] == pids
    world.buttons[GATE].press()
    wait_until(lambda: operator.get("incidents"), 20, "a press through the gateway that shows its new certificate")


def _last_link(operator: Operator) -> str:
    return next(str(one["link"]) for one in operator.get("children") if one["id"] == SITE)
