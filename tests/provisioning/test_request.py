"""An enrolment that was made without a connection: imported at a real headquarters; altered, late and foreign ones not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway.cli import app
from provisioning import request
from provisioning.errors import SetupFault
from provisioning.pki import Authority
from tests.operator import Operator
from tests.outsider import Outsider

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(120)]

OURS, OLDER, FOREIGN = Authority.create("ours"), Authority.create("older"), Authority.create("ours")
TRUSTED = [OLDER.certificate, OURS.certificate]
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BODY: dict[str, Any] = {
    "id": "b1",
    "site": "khi-cn",
    "entrance": "gate",
    "entrance_name_ur": "صدر دروازہ",
    "replaces": None,
}


def made(body: dict[str, Any] = BODY, by: Authority = OURS, now: datetime = NOW, **options: Any) -> bytes:
    return request.make(body, "usman", lambda octets: by.key.sign(octets, ec.ECDSA(SHA256())), now=now, **options)


def test_what_was_asked_comes_back() -> None:
    asked = request.read(made(), TRUSTED, NOW + timedelta(days=6))
    assert (asked.body, asked.technician, asked.made_at) == (BODY, "usman", NOW)
    assert asked.expires_at == NOW + timedelta(days=7)
    assert asked.expires_at_ms == int(asked.expires_at.timestamp() * 1000)


def test_the_form_of_the_file_may_change_but_nothing_in_it() -> None:
    told = json.loads(made())
    reordered = json.dumps(dict(reversed(told.items())), ensure_ascii=True).encode()
    assert request.read(reordered, TRUSTED, NOW).body == BODY
    alterations: list[tuple[tuple[str, ...], Any]] = [
        (("technician",), "zara"), (("expires_at",), "2036-11-24T12:00:00+00:00"), (("body", "id"), "b2"),
        (("body", "extra"), ""), (("signature",), told["signature"][:-8] + "AAAAAAA="), (("signature",), "?"), (("signature",), 5),
    ]  # fmt: skip
    for path, value in alterations:
        altered = json.loads(made())
        inside = altered
        for name in path[:-1]:
            inside = inside[name]
        inside[path[-1]] = value
        with pytest.raises(SetupFault, match="altered"):
            request.read(json.dumps(altered).encode(), TRUSTED, NOW)


def test_a_foreign_one_is_refused() -> None:
    with pytest.raises(SetupFault, match="another authority"):
        request.read(made(by=FOREIGN), TRUSTED, NOW)
    assert request.read(made(by=OLDER), TRUSTED, NOW).technician == "usman"


def test_another_signature_of_the_authority_is_no_request() -> None:
    told = json.loads(made())
    bare = json.dumps(
        {name: told[name] for name in told if name != "signature"},
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    import base64

    told["signature"] = base64.b64encode(OURS.key.sign(bare, ec.ECDSA(SHA256()))).decode()
    with pytest.raises(SetupFault, match="altered"):
        request.read(json.dumps(told).encode(), TRUSTED, NOW)


def test_an_expired_one_is_refused_with_both_times() -> None:
    late = NOW + timedelta(days=7)
    with pytest.raises(SetupFault, match=r"expired on 2026-12-01 12:00 UTC, and it is 2026-12-01 12:00 UTC here"):
        request.read(made(), TRUSTED, late)


@pytest.mark.parametrize("cut", [0, 1, 40, -3])
def test_a_part_of_a_file_is_no_request(cut: int) -> None:
    with pytest.raises(SetupFault, match="no enrolment request"):
        request.read(made()[:cut], TRUSTED, NOW)


@pytest.mark.parametrize("octets", [b"[]", b"{}", b"\xff\xfe", b"[" * 60_000, b" " * 70_000, b'{"body": 1}'])
def test_something_else_is_no_request(octets: bytes) -> None:
    with pytest.raises(SetupFault, match="no enrolment request"):
        request.read(octets, TRUSTED, NOW)


# ----------------------------------------------------------------------------- at a real headquarters


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(buttons=()) as running:
        yield running


def imported(world: World, octets: bytes) -> Any:
    path = world.folder / "b.request.json"
    path.write_bytes(octets)
    return CliRunner().invoke(app, ["import-request", "--config", str(world.folder / "hq.toml"), str(path)])


def test_import_then_press(world: World) -> None:
    name = "khi-cn-offline"
    certificate = world.issue(name).certificate.public_bytes(Encoding.PEM).decode()
    body = {**BODY, "id": name, "certificate": certificate, "mac": "24:0a:c4:00:01:10"}
    now = datetime.now(UTC)
    file = made(body, world.authority, now, lifetime=timedelta(days=3))
    first = imported(world, file)
    assert first.exit_code == 0, first.output
    until = (now + timedelta(days=3)).replace(microsecond=0)
    assert first.output == f"{name} is entered for usman, pending until {until:%Y-%m-%d %H:%M} UTC\n"
    again = imported(world, file)
    assert (again.exit_code, "was entered before" in again.output) == (0, True)

    operator = Operator(world).sign_in()
    wait_until(lambda: name in {one["id"] for one in operator.get("children")}, 5, "the running station noticed")
    begun = [one for one in operator.get("happenings") if one["code"] == "enrolment_begun"]
    assert [(one["subject"], one["detail"].partition(";")[0]) for one in begun] == [(name, "by usman")]
    client = Outsider(world, name, world.site_port, SITE).connect()
    alarm = {wire.KIND: wire.ALARM, wire.BOOT: 1, wire.SEQ: 1, wire.AGE: 5, wire.CAUSE: wire.TEST}
    client.publish("alarm", wire.seal(alarm, name, world.key_of(name)))
    wait_until(lambda: client.receipts(2), 5, "headquarters' receipt")
    client.close()

    def state() -> Any:
        return world.database(HQ).execute("SELECT state FROM enrolments WHERE id = ?", (name,)).fetchone()

    wait_until(lambda: state() == ("enrolled",), 5, "enrolled")
    after = imported(world, file)
    assert (after.exit_code, after.output) == (0, f"{name} was entered before for usman: it is enrolled\n")


def test_imports_that_are_refused_change_nothing(world: World) -> None:
    name = "khi-cn-refused"
    certificate = world.issue(name).certificate.public_bytes(Encoding.PEM).decode()
    body = {**BODY, "id": name, "certificate": certificate}
    now = datetime.now(UTC)
    for file, why in (
        (made(body, FOREIGN, now), "another authority"),
        (made(body, world.authority, now - timedelta(days=8)), "expired on"),
        (made(body, world.authority, now)[:-40], "no enrolment request"),
        (made({**body, "id": "other"}, world.authority, now), "for CN=khi-cn-refused, not for CN=other"),
        (made({**body, "site": "Not An Id"}, world.authority, now), "site: "),
        (made({**body, "replaces": "nobody"}, world.authority, now), "no button of this registry"),
        (made({"site": "a"}, world.authority, now), "not understood"),
    ):
        result = imported(world, file)
        assert result.exit_code == 1
        assert why in result.output, result.output
        assert "Traceback" not in result.output
    missing = CliRunner().invoke(app, ["import-request", "--config", str(world.folder / "hq.toml"), "nothing.json"])
    assert (missing.exit_code, "can't be read" in missing.output) == (1, True)
    here = world.database(HQ).execute("SELECT id FROM children WHERE id IN (?, 'other')", (name,)).fetchall()
    assert here == []


def test_a_site_imports_nothing(world: World) -> None:
    name = "khi-cn-at-site"
    certificate = world.issue(name).certificate.public_bytes(Encoding.PEM).decode()
    path = world.folder / "site.request.json"
    path.write_bytes(made({**BODY, "id": name, "certificate": certificate}, world.authority, datetime.now(UTC)))
    result = CliRunner().invoke(app, ["import-request", "--config", str(world.folder / f"{SITE}.toml"), str(path)])
    assert (result.exit_code, "enrolled at headquarters" in result.output) == (1, True)
