"""Nobody else gets in: whatever a foreign client tries is refused, counted and shown, and stops nobody's alarm."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from provisioning.pki import Authority
from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from tests.operator import Operator
from tests.outsider import Outsider, knock_without_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

GATE, VISA = "clifton-gate", "clifton-visa"
ATTACKER, VICTIM = "attacker", "victim"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(buttons=(GATE, VISA)) as made:
        for name in (ATTACKER, VICTIM):
            made.issue(name)
            made.enrol_button(name)
        operator = Operator(made).sign_in()
        wait_until(lambda: VICTIM in {child["id"] for child in operator.get("children")}, 10, "the enrolment")
        yield made


@pytest.fixture(scope="module")
def desks(world: World) -> dict[str, Operator]:
    site = Operator(world, f"http://127.0.0.1:{world.site_console}").sign_in()
    return {HQ: Operator(world).sign_in(), SITE: site}


@pytest.fixture(params=[SITE, HQ])
def broker(request: pytest.FixtureRequest, world: World) -> tuple[str, int]:
    return request.param, {SITE: world.site_port, HQ: world.hq_port}[request.param]


@pytest.fixture(autouse=True)
def _nobody_is_stopped(world: World) -> Iterator[None]:
    """After whatever was tried, a real press is at headquarters, and on the button's light, within 2 s."""
    yield
    button = world.buttons[VISA]
    wait_until(lambda: button.link == "up", 15, "the button is connected")
    since = len(button.said)
    button.press()
    latched = button.wait_for(lambda said: "latched" in said, 2, since)["latched"]
    alarm = [latched["boot"], latched["seq"]]
    button.wait_for(lambda said: said.get("stage") == 2 and said["alarm"] == alarm, 2, since)


def count(desk: Operator, who: str, why: str) -> int:
    refused = desk.get("health")["refused"]
    return sum(one["count"] for one in refused if who in one["who"] and why in one["why"])


def shows(desk: Operator, who: str, why: str, more_than: int = 0) -> None:
    """Waits until the health page lists it."""
    try:
        wait_until(lambda: count(desk, who, why) > more_than, 8, "the refusal", every_s=0.1)
    except TimeoutError:
        pytest.fail(f"{who}: {why} is not on the health page: {desk.get('health')['refused']}")


def alarm(seq: int, boot: int = 1) -> dict[int, Any]:
    return {wire.KIND: wire.ALARM, wire.BOOT: boot, wire.SEQ: seq, wire.AGE: 5, wire.CAUSE: wire.HOLD_UP}


def alarms_of(world: World, source: str, station: str = HQ) -> list[Any]:
    return (
        world.database(station)
        .execute("SELECT boot, seq FROM journal WHERE source = ? AND kind = 1", (source,))
        .fetchall()
    )


def test_without_a_certificate(world: World, desks: dict[str, Operator], broker: tuple[str, int]) -> None:
    name, port = broker
    assert not knock_without_certificate(world, port, name)
    shows(desks[name], "127.0.0.1", "no certificate")


def test_with_another_authoritys_certificate(world: World, desks: dict[str, Operator], broker: tuple[str, int]) -> None:
    name, port = broker
    before = count(desks[name], "127.0.0.1", "not of this authority")
    forged = Authority.create("Tocsin throw-away authority").issue(ATTACKER)
    assert not Outsider(world, ATTACKER, port, name, forged).is_let_in()
    shows(desks[name], "127.0.0.1", "not of this authority", before)


def test_with_an_expired_certificate(world: World, desks: dict[str, Operator], broker: tuple[str, int]) -> None:
    name, port = broker
    before = count(desks[name], "127.0.0.1", "expired")
    assert not Outsider(world, ATTACKER, port, name, world.authority.issue(ATTACKER, days=(-10, -1))).is_let_in()
    shows(desks[name], "127.0.0.1", "expired", before)


def test_with_a_revoked_certificate(world: World, desks: dict[str, Operator], broker: tuple[str, int]) -> None:
    name, port = broker
    thief = f"stolen-{name}"
    world.issue(thief)
    mosquitto = world.mosquitto_pid(name)
    inside = Outsider(world, thief, port, name).connect()
    neighbour = Outsider(world, ATTACKER, port, name).connect()
    before = count(desks[name], "127.0.0.1", "revoked")
    started = time.monotonic()
    world.revoke(thief)
    assert inside.down.wait(10), "it is put out"
    print(f"put out {time.monotonic() - started:.1f} s after the list came")
    assert not Outsider(world, thief, port, name).is_let_in()
    shows(desks[name], "127.0.0.1", "revoked", before)
    assert not neighbour.down.is_set(), "and nobody else is"
    assert world.mosquitto_pid(name) == mosquitto, "without a restart"
    inside.close()
    neighbour.close()


def test_a_list_that_would_turn_everybody_away_is_not_used(world: World, desks: dict[str, Operator]) -> None:
    good = (world.folder / "revoked.pem").read_bytes()
    neighbour = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    mosquitto = world.mosquitto_pid(SITE)
    try:
        for bad, why in ((good[:200], "no revocation list in PEM"), (Authority.create().crl(), "not signed by an")):
            (world.folder / "revoked.pem").write_bytes(bad)
            shows(desks[SITE], "revoked.pem", why)
    finally:
        (world.folder / "revoked.pem").write_bytes(good)
    assert not neighbour.down.is_set()
    neighbour.close()
    assert Outsider(world, ATTACKER, world.site_port, SITE).is_let_in()
    assert world.mosquitto_pid(SITE) == mosquitto


def test_a_button_under_another_buttons_topic(world: World, desks: dict[str, Operator]) -> None:
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    client.publish("alarm", wire.seal(alarm(900), VICTIM, world.key_of(VICTIM)), child=VICTIM)
    shows(desks[SITE], ATTACKER, "may not publish on that topic")
    client.close()
    assert not alarms_of(world, VICTIM, SITE)
    assert not alarms_of(world, VICTIM)


def test_another_buttons_envelope_under_ones_own_topic(world: World, desks: dict[str, Operator]) -> None:
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    client.publish("alarm", wire.seal(alarm(901), VICTIM, world.key_of(VICTIM)))
    shows(desks[SITE], ATTACKER, "under another name")
    client.close()
    assert not alarms_of(world, VICTIM)


def test_a_heartbeat_that_is_played_again(world: World, desks: dict[str, Operator]) -> None:
    client = Outsider(world, VICTIM, world.site_port, SITE).connect()
    beat = {wire.KIND: wire.HEARTBEAT, wire.BOOT: 1, wire.SEQ: 50, wire.UPTIME: 1000}
    octets = wire.seal(beat, VICTIM, world.key_of(VICTIM))
    for _ in range(3):
        client.publish("heartbeat", octets)
    shows(desks[SITE], VICTIM, "old heartbeat")
    client.close()


def test_a_bit_that_was_flipped_is_refused_and_not_sent_for_ever(world: World, desks: dict[str, Operator]) -> None:
    octets = bytearray(wire.seal(alarm(902), ATTACKER, world.key_of(ATTACKER)))
    octets[-1] ^= 1
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    client.publish("alarm", bytes(octets))
    shows(desks[HQ], ATTACKER, "the MAC is wrong")
    client.close()
    assert (1, 902) not in alarms_of(world, ATTACKER)
    asked = "SELECT stage FROM deliveries JOIN journal ON journal.id = entry WHERE source = ? AND seq = 902"
    wait_until(
        lambda: world.database(SITE).execute(asked, (ATTACKER,)).fetchall() == [(0,)], 10, "the gateway gave it up"
    )
    settled = count(desks[HQ], ATTACKER, "the MAC is wrong")
    button = world.buttons[GATE]
    since = len(button.said)
    button.press()
    button.wait_for(lambda said: said.get("stage") == 2, 5, since)
    assert count(desks[HQ], ATTACKER, "the MAC is wrong") == settled


def test_a_second_message_under_a_used_identity(world: World, desks: dict[str, Operator]) -> None:
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    key = world.key_of(ATTACKER)
    client.publish("alarm", wire.seal(alarm(903), ATTACKER, key))
    wait_until(lambda: (1, 903) in alarms_of(world, ATTACKER), 10, "the first")
    client.publish("alarm", wire.seal({**alarm(903), wire.CAUSE: wire.TEST}, ATTACKER, key))
    shows(desks[HQ], ATTACKER, "another message already has")
    client.close()
    rows = (
        world.database().execute("SELECT cause FROM incidents WHERE device = ? AND seq = 903", (ATTACKER,)).fetchall()
    )
    assert rows == [("hold_up",)]


def test_an_alarm_that_is_played_again_is_one_alarm(world: World, desks: dict[str, Operator]) -> None:
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    octets = wire.seal(alarm(904), ATTACKER, world.key_of(ATTACKER))
    repeats = dict(desks[HQ].get("health")["counters"]).get("repeats", 0)
    for _ in range(3):
        client.publish("alarm", octets)
    wait_until(lambda: dict(desks[HQ].get("health")["counters"]).get("repeats", 0) >= repeats + 2, 10, "the count")
    client.close()
    assert alarms_of(world, ATTACKER).count((1, 904)) == 1


@pytest.mark.parametrize("kind", [wire.ALARM, wire.HEARTBEAT])
def test_a_button_that_speaks_for_another_in_a_frame(
    world: World, desks: dict[str, Operator], broker: tuple[str, int], kind: int
) -> None:
    name, port = broker
    far = 0xFFFFFFF0
    inner = {**alarm(905, far)} if kind == wire.ALARM else {
        wire.KIND: wire.HEARTBEAT, wire.BOOT: far, wire.SEQ: 905, wire.UPTIME: 1,
    }  # fmt: skip
    frame = {
        wire.KIND: wire.FRAME,
        wire.ENVELOPE: wire.seal(inner, GATE, os.urandom(32)),
        wire.HOPS: [[ATTACKER, 1]],
    }
    before = count(desks[name], ATTACKER, "may not speak for others")
    client = Outsider(world, ATTACKER, port, name).connect()
    client.publish("alarm" if kind == wire.ALARM else "heartbeat", wire.seal(frame, ATTACKER, world.key_of(ATTACKER)))
    shows(desks[name], ATTACKER, "may not speak for others", before)
    client.close()
    assert (far, 905) not in alarms_of(world, GATE, name)
    heard = {child["id"]: child["link"] for child in desks[name].get("children")}
    assert heard[GATE] == "online"


@pytest.mark.parametrize("code", [wire.CHILD_SILENT, wire.STEP_CLOSED])
def test_a_button_that_tells_what_only_a_station_may_tell(world: World, desks: dict[str, Operator], code: int) -> None:
    told = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: 910 + code, wire.AGE: 0, wire.CODE: code, wire.SUBJECT: SITE}
    before = count(desks[SITE], ATTACKER, "only a station")
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    client.publish("event", wire.seal(told, ATTACKER, world.key_of(ATTACKER)))
    shows(desks[SITE], ATTACKER, "only a station", before)
    client.close()
    assert {child["id"]: child["link"] for child in desks[HQ].get("children")}[SITE] == "online"


@pytest.mark.parametrize("at_ms", [-(2**60), -1, 2**63, True])
def test_a_stolen_gateway_that_gives_impossible_times(world: World, desks: dict[str, Operator], at_ms: int) -> None:
    """It speaks with the gateway's own key; the real gateway is back as soon as it is gone."""
    before = count(desks[HQ], SITE, "a hop is not")
    envelope = wire.seal(alarm(906), ATTACKER, world.key_of(ATTACKER))
    frame = {wire.KIND: wire.FRAME, wire.ENVELOPE: envelope, wire.HOPS: [[SITE, at_ms]]}
    client = Outsider(world, SITE, world.hq_port, HQ).connect()
    client.publish("alarm", wire.seal(frame, SITE, world.key_of(SITE)))
    shows(desks[HQ], SITE, "a hop is not", before)
    client.close()
    health = {check["name"]: check for check in desks[HQ].get("health")["checks"]}
    assert health["journal"]["ok"]
    parent = f"parent {HQ}"
    wait_until(
        lambda: {check["name"]: check["ok"] for check in desks[SITE].get("health")["checks"]}[parent],
        15,
        "the real gateway is back",
    )


def test_a_receipt_forged_on_the_gateways_side(world: World, desks: dict[str, Operator]) -> None:
    """Whoever holds the gateway holds its identity: the most that they can send a button is stage 1."""
    button = world.buttons[GATE]
    world.processes[f"station {SITE}"].stop()
    try:
        since = len(button.said)
        button.press()
        latched = button.wait_for(lambda said: "latched" in said, 5, since)["latched"]
        gateway = Outsider(world, SITE, world.site_port, SITE).connect()
        receipt = {
            wire.KIND: wire.RECEIPT, wire.BOOT: latched["boot"], wire.SEQ: latched["seq"], wire.STAGE: 2, wire.DEVICE: GATE,
        }  # fmt: skip
        gateway.publish("receipt", wire.seal(receipt, HQ, os.urandom(32)), child=GATE)
        button.wait_for(lambda said: "refused" in said, 5, since)
        since_bare = len(button.said)
        gateway.publish("receipt", wire.encode(receipt), child=GATE)
        button.wait_for(lambda said: "refused" in said, 5, since_bare)
        assert not [
            said for said in button.said[since:] if said.get("light") in {"at_hq", "acknowledged", "responding"}
        ]
        gateway.close()
    finally:
        world.processes[f"station {SITE}"].start()
    button.wait_for(
        lambda said: said.get("stage") == 2 and said["alarm"] == [latched["boot"], latched["seq"]], 20, since
    )
    shows(desks[HQ], GATE, "did not believe")


def test_64_kib_of_noise(world: World, desks: dict[str, Operator], broker: tuple[str, int]) -> None:
    name, port = broker
    client = Outsider(world, ATTACKER, port, name).connect()
    client.publish_and_forget("alarm", os.urandom(65536))
    shows(desks[name], ATTACKER, "too large")
    client.close()


def bomb(payload: bytes, key: bytes) -> bytes:
    """A well-sealed envelope around any payload."""
    protected = wire.encode({1: 5, 4: ATTACKER.encode()})
    tag = wire.hmac_sha256(key, wire._mac_structure(protected, payload))
    head = wire._head(2, len(protected)) + protected + b"\xa0" + wire._head(2, len(payload)) + payload
    return b"\xd1\x84" + head + b"\x58\x20" + tag


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\xa1\x00" + b"\x81" * 500 + b"\x00", "nested too deeply"),
        (b"\xa5\x00\x01\x01\x01\x02\x01\x03\x05\x05\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "longer than the message"),
        (b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00", "too many entries"),
        (b"\xa6\x00\x01\x01\x01\x02\x01\x02\x02\x03\x05\x05\x01", "repeated or out of order"),
        (b"\xa5\x00\x01\x01\x18\x01\x02\x01\x03\x05\x05\x01", "shortest form"),
        (b"\xbf\x00\x01\xff", "indefinite"),
        (b"\xa1\x00\xfb\x40\x09\x21\xfb\x54\x44\x2d\x18", "float"),
        (b"", "ends in the middle"),
    ],
)
def test_cbor_bombs(world: World, desks: dict[str, Operator], payload: bytes, why: str) -> None:
    client = Outsider(world, ATTACKER, world.site_port, SITE).connect()
    client.publish("alarm", bomb(payload, world.key_of(ATTACKER)))
    shows(desks[SITE], ATTACKER, why)
    client.close()
    shows(desks[HQ], f"{ATTACKER} at {SITE}", why)
