"""The life of an entry at a real headquarters, over real HTTP and real MQTT; the rules by themselves."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway import database, keys, schema
from gateway.cli import app
from gateway.console.listing import readiness, troubled
from gateway.desk import Child, Link
from gateway.enrolment import (
    Enrolment,
    Move,
    NewButton,
    RegistryRefusedError,
    Standing,
    UnfitError,
    certified_point,
    check_newcomer,
    decide,
)
from provisioning.hq import Headquarters
from provisioning.pki import Authority
from tests.operator import Operator
from tests.outsider import Outsider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provisioning.pki import Identity

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

PLACE = {
    "site": "khi-cn", "site_name": "Consulate", "site_name_ur": "قونصل خانہ", "entrance": "main-gate",
    "entrance_name": "Main gate", "entrance_name_ur": "صدر دروازہ", "address": "Plot 20", "phone": "021 5550 123",
}  # fmt: skip
MAC = "24:0a:c4:00:01:10"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(buttons=()) as made:
        Operator(made).sign_in()
        yield made


@pytest.fixture(scope="module")
def token(world: World) -> str:
    return token_of(world, "usman")


@pytest.fixture
def hq(world: World, token: str) -> Iterator[Headquarters]:
    with Headquarters(world.url, token) as made:
        yield made


@pytest.fixture(scope="module")
def operator(world: World) -> Operator:
    return Operator(world).sign_in()


def command(world: World, *words: str) -> Any:
    return CliRunner().invoke(app, [words[0], "--config", str(world.folder / "hq.toml"), *words[1:]])


def token_of(world: World, name: str) -> str:
    result = command(world, "technician", name)
    assert result.exit_code == 0, result.output
    return str(result.stdout.strip().splitlines()[-1])


def pem(identity: Identity) -> str:
    return identity.certificate.public_bytes(Encoding.PEM).decode()


def put(world: World, token: str, child: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.put(f"{world.url}/api/v1/registry/{child}", json={**PLACE, **body}, headers=headers, timeout=10)


def says(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def write(world: World, child: str, **values: Any) -> None:
    """Changes an enrolment behind the running station's back, as another process would."""
    engine = database.open_database(world.folder / HQ / "state" / "station.db", writes=True)
    with engine.begin() as connection:
        table = schema.enrolments
        connection.execute(table.update().where(table.c.id == child).values(**values))
    engine.dispose()


def events(operator: Operator, code: str) -> list[tuple[str, str]]:
    """(subject, detail) of events at headquarters."""
    return [(one["subject"], one["detail"]) for one in operator.get("happenings") if one["code"] == code]


def alarm(seq: int) -> dict[int, Any]:
    return {wire.KIND: wire.ALARM, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 5, wire.CAUSE: wire.TEST}


def press(world: World, name: str, seq: int) -> None:
    """One alarm through the site's broker; what comes of it shows at headquarters."""
    client = Outsider(world, name, world.site_port, SITE).connect()
    client.publish("alarm", wire.seal(alarm(seq), name, world.key_of(name)))
    client.close()


def incident_of(operator: Operator, name: str, seq: int) -> Any:
    found = [one for one in operator.get("history") if one["device"] == name and one["seq"] == seq]
    return found[0] if found else None


def state_of(hq: Headquarters, child: str) -> str | None:
    found = hq.entry(child)
    return found.state if found else None


# -------------------------------------------------------------------------------------- a whole life


def test_from_pending_to_retired(world: World, hq: Headquarters, operator: Operator) -> None:
    old, new = "khi-cn-b1", "khi-cn-b2"
    first = hq.enrol(old, pem(world.issue(old)), mac=MAC, **PLACE)
    assert (first.state, first.by, first.mac, first.replaces) == ("pending", "usman", MAC, None)
    assert 3_590_000 < (first.expires_at_ms or 0) - time.time() * 1000 <= 3_600_000
    assert first.point == keys.point(world.identities[old].certificate.public_key()).hex()
    again = hq.enrol(old, pem(world.identities[old]), mac=MAC, **PLACE)
    assert (again.state, again.point) == ("pending", first.point)
    assert len([subject for subject, _ in events(operator, "enrolment_begun") if subject == old]) == 1
    child = next(one for one in operator.get("children") if one["id"] == old)
    assert (child["link"], child["enrolling_until_ms"]) == ("never_seen", again.expires_at_ms)

    press(world, old, 1)
    wait_until(lambda: state_of(hq, old) == "enrolled", 5, "the first believed message enrols it")
    entry = hq.entry(old)
    assert entry
    assert abs((entry.enrolled_at_ms or 0) - time.time() * 1000) < 10_000
    assert entry.expires_at_ms is None
    assert (old, f"by usman; board {MAC}") in events(operator, "enrolled")
    wait_until(lambda: incident_of(operator, old, 1), 5, "the press at headquarters")

    hq.enrol(new, pem(world.issue(new)), replaces=old, **PLACE)
    assert (state_of(hq, old), state_of(hq, new)) == ("enrolled", "pending")
    press(world, old, 2)
    wait_until(lambda: incident_of(operator, old, 2), 5, "the old one counts until the new one is heard")
    press(world, new, 1)
    wait_until(lambda: state_of(hq, old) == "retired", 5, "the old one is retired")
    assert state_of(hq, new) == "enrolled"
    retired = hq.entry(old)
    assert retired
    assert (retired.why, retired.enrolled_at_ms) == (f"replaced by {new}", entry.enrolled_at_ms)
    assert (old, f"by usman; replaced by {new}") in events(operator, "retired")

    def listed() -> set[str]:
        return {one["id"] for one in operator.get("children")}

    wait_until(lambda: old not in listed() and new in listed(), 5, "only the new one is listed")
    press(world, old, 3)

    def refused() -> list[Any]:
        return [one for one in operator.get("health")["refused"] if one["who"] == f"{old} through {SITE}"]

    wait_until(refused, 5, "the refusal of a retired one")
    assert refused()[0]["why"].startswith("it was retired on 20")
    assert incident_of(operator, old, 3) is None
    assert incident_of(operator, old, 1)["place"]["entrance_name"] == "Main gate"
    number = incident_of(operator, old, 1)["id"]
    assert operator.step(number, "acknowledged").status_code == 200

    said = says(put(world, token_of(world, "zara"), old, certificate=pem(world.identities[old])), 409)
    assert said.startswith(f"{old} was retired on 20")
    assert "never used twice" in said
    assert hq.retire(old, "again").why == f"replaced by {new}"
    result = command(world, "enrol", "--id", old, "--cert", str(write_certificate(world, old)))
    assert (result.exit_code, "never used twice" in result.output) == (1, True)

    world.processes[f"station {HQ}"].kill()
    operator.sign_in()
    wait_until(lambda: new in listed(), 20, "headquarters is back")
    assert old not in listed()


def write_certificate(world: World, name: str) -> Any:
    folder = world.folder / f"of-{name}"
    world.identities[name].write_pem(folder)
    return folder / "cert.pem"


def test_a_button_is_believed_at_once(world: World, token: str, operator: Operator) -> None:
    name = "khi-cn-quick"
    world.issue(name)
    client = Outsider(world, name, world.hq_port, HQ).connect()
    assert put(world, token, name, certificate=pem(world.identities[name])).status_code == 201
    begun = time.monotonic()
    client.publish("alarm", wire.seal(alarm(1), name, world.key_of(name)))
    wait_until(lambda: client.receipts(2), 1, "headquarters' sealed receipt")
    assert time.monotonic() - begun < 1
    client.close()


def test_what_is_not_heard_within_the_hour_is_forgotten(world: World, hq: Headquarters, operator: Operator) -> None:
    name = "khi-cn-late"
    hq.enrol(name, pem(world.issue(name)), mac=MAC, **PLACE)
    write(world, name, expires_at_ms=int(time.time() * 1000) - 1)
    wait_until(lambda: hq.entry(name) is None, 5, "it is forgotten")
    wait_until(lambda: events(operator, "enrolment_expired"), 5, "the event")
    assert (name, f"begun by usman; board {MAC}") in events(operator, "enrolment_expired")
    wait_until(lambda: name not in {one["id"] for one in operator.get("children")}, 5, "no longer listed")
    world.identities[name] = world.authority.issue(name)
    assert hq.enrol(name, pem(world.identities[name]), **PLACE).state == "pending"


def test_an_hour_in_which_headquarters_was_down_does_not_count(world: World, hq: Headquarters) -> None:
    name = "khi-cn-meanwhile"
    hq.enrol(name, pem(world.issue(name)), **PLACE)
    station = world.processes[f"station {HQ}"]
    station.stop()
    write(world, name, expires_at_ms=int(time.time() * 1000) - 1)
    station.start()
    Operator(world).sign_in()
    entry = hq.entry(name)
    assert entry
    assert 500_000 < (entry.expires_at_ms or 0) - time.time() * 1000 <= 600_000
    press(world, name, 1)
    wait_until(lambda: state_of(hq, name) == "enrolled", 15, "it is enrolled all the same")


def test_retired_by_hand_and_what_can_not_be(world: World, hq: Headquarters, token: str, operator: Operator) -> None:
    name = "khi-cn-broken"
    hq.enrol(name, pem(world.issue(name)), **PLACE)
    gone = hq.retire(name, "fell into the sea")
    assert (gone.state, gone.why, gone.expires_at_ms) == ("retired", "fell into the sea", None)
    assert (name, "by usman; fell into the sea") in events(operator, "retired")

    def retire(child: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{world.url}/api/v1/registry/{child}/retire", json=body, headers=headers, timeout=10)

    assert "not in this registry" in says(retire("khi-cn-nobody", reason="x"), 404)
    assert "is a station" in says(retire(SITE, reason="x"), 409)
    assert says(retire(name), 422).startswith("reason: ")


def test_a_pending_one_is_shown_with_its_hour_and_expected_of_nobody(
    world: World, hq: Headquarters, operator: Operator
) -> None:
    name = "khi-cn-shown"
    hq.enrol(name, pem(world.issue(name)), **{**PLACE, "entrance": "shown-gate"})

    def page(language: str) -> str:
        answer = operator._http.get("/children", cookies={"tocsin-language": language})
        assert answer.status_code == 200
        return str(answer.text)

    wait_until(lambda: f'data-child="{name}"' in page("en"), 5, "it is on the page")
    assert "being enrolled, until <bdi>" in page("en")
    assert "اندراج جاری ہے" in page("ur")
    child = next(one for one in children_of(operator) if one.id == name)
    assert (troubled([child]), readiness([child]).entrances) == (0, 0)
    later = replace(child, enrolling_until_ms=None)
    assert (troubled([later]), readiness([later]).entrances) == (1, 1)
    hq.retire(name, "shown")
    wait_until(lambda: f'data-child="{name}"' not in page("en"), 5, "it is off the page")


def children_of(operator: Operator) -> list[Child]:
    return [Child(**{**one, "link": Link(one["link"]), "place": None}) for one in operator.get("children")]


# ------------------------------------------------------------------------------------- who may do it


def test_tokens_that_open_nothing(world: World, operator: Operator) -> None:
    def ask(token: str | None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{world.url}/api/v1/registry", headers=headers, timeout=10)

    assert "needs a technician's token" in says(ask(None), 401)
    assert ask(None).headers["www-authenticate"] == "Bearer"
    assert "unknown here" in says(ask("made-up"), 401)
    first = token_of(world, "bilal")
    assert ask(first).status_code == 200
    second = token_of(world, "bilal")
    assert "bilal ended on 20" in says(ask(first), 401)
    assert ask(second).status_code == 200
    result = command(world, "technician", "bilal", "--revoke")
    assert (result.exit_code, "has ended" in result.output) == (0, True)
    assert "ended on 20" in says(ask(second), 401)
    assert "no token" in command(world, "technician", "bilal", "--revoke").output
    third = token_of(world, "bilal")
    engine = database.open_database(world.folder / HQ / "state" / "station.db", writes=True)
    with engine.begin() as connection:
        at = schema.tokens.c
        connection.execute(schema.tokens.update().where(at.name == "bilal").values(expires_at_ms=1_700_000_000_000))
    engine.dispose()
    assert says(ask(third), 401) == "this token of bilal expired on 2023-11-14 22:13 UTC."
    whys = [one["why"] for one in operator.get("health")["refused"] if one["who"] == "127.0.0.1"]
    assert any("token is unknown" in why for why in whys)
    kept = (world.folder / HQ / "state" / "station.db").read_bytes()
    kept += (world.folder / f"station-{HQ}.log").read_bytes()
    for one in (first, second, third):
        assert len(one) == 64
        assert one.encode() not in kept


def test_a_session_of_the_console_is_no_token(world: World, operator: Operator) -> None:
    assert operator._http.get("/api/v1/registry").status_code == 401


def test_another_sites_page_gets_nothing(world: World, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Origin": "https://elsewhere.example"}
    answer = httpx.post(f"{world.url}/api/v1/registry/b1/retire", json={"reason": "x"}, headers=headers, timeout=10)
    assert answer.status_code == 403


def test_a_site_enrols_nobody(world: World, token: str) -> None:
    url = f"http://127.0.0.1:{world.site_console}/api/v1/registry"
    headers = {"Authorization": f"Bearer {token}"}
    for path in ("", "/station", "/b1"):
        assert "enrolled at headquarters" in says(httpx.get(url + path, headers=headers, timeout=10), 409)
    config = str(world.folder / f"{SITE}.toml")
    result = CliRunner().invoke(app, ["technician", "--config", config, "usman"])
    assert (result.exit_code, "at headquarters" in result.output) == (1, True)


# --------------------------------------------------------------------------------- what is not taken


def test_ids_and_keys_that_are_not_taken(world: World, token: str, hq: Headquarters) -> None:
    name = "khi-cn-taken"
    mine = pem(world.issue(name))
    other = pem(world.authority.issue(name))
    assert put(world, token, name, certificate=mine, mac=MAC).status_code == 201
    assert put(world, token, name, certificate=mine, mac=MAC).status_code == 200
    said = says(put(world, token, name, certificate=other, mac="24:0a:c4:00:01:11"), 409)
    assert f"being enrolled by usman with another key, on board {MAC}" in said
    erased = put(world, token, name, certificate=other, mac=MAC.upper())
    assert (erased.status_code, erased.json()["mac"]) == (200, MAC)
    assert put(world, token, name, certificate=mine, mac=MAC).status_code == 200
    press(world, name, 1)
    wait_until(lambda: state_of(hq, name) == "enrolled", 5, "enrolled")
    assert "in use with another key" in says(put(world, token, name, certificate=other, mac=MAC), 409)
    assert "gets a new id" in says(put(world, token, name, certificate=mine, entrance="visa"), 409)
    renamed = put(world, token, name, certificate=mine, entrance_name="Great gate", phone="")
    assert (renamed.status_code, renamed.json()["state"]) == (200, "enrolled")
    assert (renamed.json()["entrance_name"], renamed.json()["phone"]) == ("Great gate", PLACE["phone"])
    assert [one.id for one in hq.entries("khi-cn") if one.id == name] == [name]
    assert hq.entries("elsewhere") == []
    assert "id of a station" in says(put(world, token, HQ, certificate=pem(world.identities[HQ])), 409)
    assert "is a station" in says(put(world, token, SITE, certificate=pem(world.identities[SITE])), 409)


def test_requests_that_are_wrong_in_themselves(world: World, token: str) -> None:
    name = "khi-cn-wrong"
    good = pem(world.authority.issue(name))
    foreign = pem(Authority.create("Somebody else's authority").issue(name))

    def refused(status: int = 422, child: str = name, **body: Any) -> str:
        return says(put(world, token, child, **{"certificate": good, **body}), status)

    assert "not signed by an authority" in refused(certificate=foreign)
    assert "for CN=other, not for CN=khi-cn-wrong" in refused(certificate=pem(world.authority.issue("other")))
    assert "expired on" in refused(certificate=pem(world.authority.issue(name, days=(-3, -1))))
    assert "valid from" in refused(certificate=pem(world.authority.issue(name, days=(1, 3))))
    assert "can't be read" in refused(certificate="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "no button of this registry" in refused(replaces="khi-cn-nobody")
    assert "can't replace itself" in refused(replaces=name)
    assert "can't be an id" in refused(child="station")
    assert "can't be an id" in refused(child="KHI")
    assert refused(site="Khi Cn").startswith("site: must be 1 to 64")
    assert refused(mac="24:0a").startswith("mac: must be six pairs")
    assert refused(owner="me").startswith("owner: Extra inputs")
    assert "certificate: Field required" in says(
        httpx.put(
            f"{world.url}/api/v1/registry/{name}", json=PLACE, headers={"Authorization": f"Bearer {token}"}, timeout=10
        ),
        422,
    )
    world.issue("khi-cn-revoked")
    world.revoke("khi-cn-revoked")
    revoked = pem(world.identities["khi-cn-revoked"])
    assert "is on the revocation list" in refused(child="khi-cn-revoked", certificate=revoked)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "a" * 121])
def test_text_that_no_table_could_hold(world: World, token: str, text: str) -> None:
    name = "khi-cn-text"
    body = {**PLACE, "certificate": pem(world.authority.issue(name)), "entrance_name": text}
    answer = httpx.put(
        f"{world.url}/api/v1/registry/{name}", content=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"}, timeout=10,
    )  # fmt: skip
    assert answer.status_code == (201 if text == "\x00" else 422), answer.text


# -------------------------------------------------------------------------------------- the rules


def known(state: Standing, **changes: Any) -> Enrolment:
    values: dict[str, Any] = {
        **dict.fromkeys(Enrolment.__slots__, ""), **PLACE, "id": "b1", "kind": "button", "point": "04ab", "state": state, "mac": MAC,
        "replaces": None, "enrolled_at_ms": None, "expires_at_ms": None, "retired_at_ms": None,
    }  # fmt: skip
    return Enrolment(**{**values, **changes})


WANTED = NewButton(certificate="", site="khi-cn", entrance="main-gate", mac=MAC)
ELSEWHERE = NewButton(certificate="", site="khi-cn", entrance="visa", mac="24:0a:c4:00:01:99")
SAME, OTHER = bytes.fromhex("04ab"), bytes.fromhex("04cd")


@pytest.mark.parametrize(
    ("there", "wanted", "point", "move"),
    [
        (None, WANTED, SAME, Move.ENTER),
        (known(Standing.PENDING), WANTED, SAME, Move.RENEW),
        (known(Standing.PENDING), ELSEWHERE, SAME, Move.RENEW),
        (known(Standing.PENDING), WANTED, OTHER, Move.RENEW),
        (known(Standing.PENDING), ELSEWHERE, OTHER, None),
        (known(Standing.PENDING, mac=""), NewButton(certificate="", site="a", entrance="b"), OTHER, None),
        (known(Standing.ENROLLED), WANTED, SAME, Move.KEEP),
        (known(Standing.ENROLLED, site="", entrance=""), WANTED, SAME, Move.KEEP),
        (known(Standing.ENROLLED), ELSEWHERE, SAME, None),
        (known(Standing.ENROLLED), WANTED, OTHER, None),
        (known(Standing.RETIRED, retired_at_ms=1), WANTED, SAME, None),
    ],
)
def test_what_a_wish_comes_to(there: Enrolment | None, wanted: NewButton, point: bytes, move: Move | None) -> None:
    if move is None:
        with pytest.raises(RegistryRefusedError):
            decide(there, wanted, point)
    else:
        assert decide(there, wanted, point) is move


def test_a_certificate_of_another_curve() -> None:
    authority = Authority.create()
    identity = authority.issue("b1", key=ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(UnfitError, match="P-256"):
        certified_point(pem(identity), "b1", [authority.certificate], datetime.now(UTC))


def test_one_of_two_authorities_is_enough() -> None:
    old, new = Authority.create("old"), Authority.create("new")
    identity = new.issue("b1")
    both = [old.certificate, new.certificate]
    assert len(certified_point(pem(identity), "b1", both, datetime.now(UTC))) == 65
    with pytest.raises(UnfitError, match="clocks"):
        certified_point(pem(identity), "b1", both, datetime.now(UTC) - timedelta(days=9))


def test_ids_that_nobody_gets() -> None:
    for child in ("", "station", "Ä", "a" * 65, "-a"):
        with pytest.raises(UnfitError):
            check_newcomer(child, set(), WANTED)
    with pytest.raises(RegistryRefusedError, match="station"):
        check_newcomer("hq", {"hq"}, WANTED)
