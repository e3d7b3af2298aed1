"""What of the registry is in memory is read again when the registry changes, and not whenever anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, insert, update

from demo.world import HQ, World
from gateway import database, keys, schema
from gateway.journal import Journal
from gateway.registry import Registry
from gateway.settings import load
from gateway.station import Station
from tests.gateway.test_journal import entry

if TYPE_CHECKING:
    from pathlib import Path


def test_a_station_that_changes_its_own_registry_expects_others_from_then_on() -> None:
    """Whoever changes it reads it again at once: the station must not take that for nothing new."""
    world = World(buttons=())
    station = Station(load(world.folder / f"{HQ}.toml"))
    try:
        station.journal.start()
        station._tick(1)
        point = keys.point(ec.generate_private_key(ec.SECP256R1()).public_key())
        row: dict[str, object] = {"id": "x1", "kind": "button", "point": point, "site": "", "entrance": ""}
        station.registrar.enter(row, {}, "rana")
        station._tick(1)
        assert "x1" in station.exchange.supervision.children
        station.registrar.retire("x1", "gone", "rana")
        station._tick(1)
        assert "x1" not in station.exchange.supervision.children
    finally:
        station.registry.close()
        station.journal.stop()
        world.close()


def test_any_process_that_writes_the_registry_is_noticed_and_nothing_else_is(store: Path | str) -> None:
    journal = Journal(store, [])
    journal.start()
    registry = Registry(journal.readers, "hq", None)
    other = database.open_database(store, writes=True)

    def write(*statements: Any) -> None:
        with other.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    assert not registry.refresh()
    journal.now(lambda connection: journal.keep(connection, entry(1)))
    assert not registry.refresh(), "an alarm is no change of the registry"
    write(insert(schema.sites).values(id="clifton", name="Consulate"))
    assert registry.refresh()
    assert registry.sites()["clifton"].name == "Consulate"
    assert not registry.refresh()
    write(insert(schema.children).values(id="b1", kind="button", site="clifton"))
    assert registry.refresh()
    journal.now(lambda connection: journal.keep(connection, entry(2)))
    assert not registry.refresh()
    write(update(schema.children).values(site=""), delete(schema.sites))
    assert registry.refresh()
    assert registry.children()["b1"].place is None
    assert registry.sites() == {}
    write(insert(schema.maintenance).values(child="b1", until_ms=1, by="rana"))
    assert registry.refresh(), "whoever asks takes who is under maintenance from the database, too"
    with pytest.raises(ZeroDivisionError), other.begin() as connection:
        connection.execute(delete(schema.children))
        raise ZeroDivisionError
    assert not registry.refresh(), "what was taken back is no change"
    registry.close()
    other.dispose()
    journal.stop()
