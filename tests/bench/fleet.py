"""Simulated gateways and the buttons behind them: enrolled at headquarters, with keys of their own and no process each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import insert

from demo.world import HQ, World
from gateway import keys, schema
from gateway.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Member:
    """A simulated button. key: its MAC key with headquarters."""

    id: str
    gateway: str
    key: bytes


def enrol(world: World, buttons: int, a_site: int, *, prefix: str = "fleet") -> list[Member]:
    """Enrols so many buttons at headquarters, `a_site` of them at a site, each site with a gateway that has a certificate.

    Call it while headquarters' station does not run, or wait until it has read its registry again.
    """
    gateways = [f"{prefix}-gw-{number:04}" for number in range(-(-buttons // a_site))]
    names = [(f"{prefix}-{number:05}", gateways[number // a_site]) for number in range(buttons)]
    points = {}
    for name, _ in names:
        points[name] = keys.point(ec.generate_private_key(ec.SECP256R1()).public_key())
    for gateway in gateways:
        points[gateway] = keys.point(world.issue(gateway).certificate.public_key())
    rows: dict[str, list[dict[str, Any]]] = {
        "sites": [{"id": f"site-{gateway}", "name": f"Consulate of {gateway}"} for gateway in gateways],
        "entrances": [{"site": f"site-{gateway}", "id": name, "name": f"Gate {name}"} for name, gateway in names],
        "children": [
            {"id": gateway, "kind": "station", "point": points[gateway], "site": f"site-{gateway}", "entrance": ""}
            for gateway in gateways
        ]
        + [
            {"id": name, "kind": "button", "point": points[name], "site": f"site-{gateway}", "entrance": name}
            for name, gateway in names
        ],
    }
    journal = Journal(world.folder / HQ / "state" / "station.db", [])
    journal.start()
    try:
        journal.now(lambda connection: _enter(connection, rows))
    finally:
        journal.stop()
    return [Member(name, gateway, world.shared(name, points[name])) for name, gateway in names]


def _enter(connection: Connection, rows: dict[str, Sequence[dict[str, Any]]]) -> None:
    for table in ("sites", "entrances", "children"):
        connection.execute(insert(schema.metadata.tables[table]), rows[table])
