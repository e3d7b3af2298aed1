"""A site whose database is damaged goes on with a new one, and takes along what can be read of the old one."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.world import HQ, SITE, World
from firmware import wire
from gateway import database, keeping, salvage, schema
from gateway.journal import Journal
from gateway.settings import load
from tests.gateway.test_deleted import event
from tests.gateway.test_journal import entry
from tests.gateway.test_journal_storage import damage
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings import Settings

KEPT = ("sites", "children", "people", "station", "maintenance", "latest")


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A site that delivered two alarms and an event, of which the first is closed, and owes an alarm and an event."""
    with contextlib.ExitStack() as ending:
        world = World(buttons=())
        ending.callback(world.close)
        made = load(world.folder / f"{SITE}.toml")
        journal = Journal(made.store, ["hq"])
        journal.start()
        for one in (entry(1), entry(2), event(3), entry(4), event(5)):
            journal.now(lambda connection, one=one: journal.keep(connection, one))  # type: ignore[misc]
        for seq, stage in ((1, wire.CLOSED), (2, wire.ACKNOWLEDGED), (3, wire.AT_HQ)):
            journal.now(
                lambda connection, seq=seq, stage=stage: journal.delivered(connection, "hq", ("b1", 1, seq), stage)
            )  # type: ignore[misc]
        journal.stop()
        put = {
            "sites": {"id": "saddar", "name": "Consulate"},
            "children": {"id": "b1", "kind": "button", "site": "saddar"},
            "people": {"name": "rana", "full_name": "Rana", "role": "viewer", "password": "x"},
            "maintenance": {"child": "b1", "until_ms": 5, "by": "rana"},
            "latest": {"child": "b1", "boot": 1, "seq": 9, "heard_at_ms": 5, "message": b"\xa0", "silent": 0},
        }
        engine = database.open_database(made.store, writes=True)
        with engine.begin() as connection:
            for name, row in put.items():
                connection.execute(schema.metadata.tables[name].insert(), row)
        engine.dispose()
        yield made


def table(settings: Settings, name: str, columns: str = "*") -> list[Any]:
    assert isinstance(settings.store, Path)
    with contextlib.closing(sqlite3.connect(settings.store)) as opened:
        return opened.execute(f"SELECT {columns} FROM {name} ORDER BY 1").fetchall()


def owed(settings: Settings) -> list[Any]:
    query = "deliveries JOIN journal ON journal.id = deliveries.entry WHERE stage IS NULL AND source = 'b1'"
    return table(settings, query, "seq")


def told(settings: Settings) -> str:
    [envelope] = [row[0] for row in table(settings, f"journal WHERE source = '{SITE}' AND kind = 2", "envelope")]
    message = wire.unseal(envelope).message
    assert (message[wire.CODE], message[wire.SUBJECT]) == (wire.JOURNAL_LACKS, SITE)
    return str(message[wire.DETAIL])


def test_a_station_that_is_not_damaged_begins_nothing_anew(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    before = settings.store.read_bytes()
    assert salvage.recover(settings) is None
    assert settings.store.read_bytes() == before


@pytest.mark.parametrize("lost", ["incidents", "deliveries", "deliveries_waiting", "journal", *KEPT])
def test_what_can_be_read_is_taken_along_whatever_is_lost(settings: Settings, lost: str) -> None:
    assert isinstance(settings.store, Path)
    before = {name: table(settings, name) for name in KEPT}
    assert all(before.values())
    damage(settings.store, lost)
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    by_index = lost in {
        "incidents",
        "deliveries_waiting",
    }  # what is asked of the one, its index says, of the other, its table
    assert found.unread == ([] if by_index else ["journal" if lost == "deliveries" else lost])
    for name in KEPT:
        if name not in {lost, "station"}:
            assert table(settings, name) == before[name], name
    expected = {"journal": set(), "deliveries": {1, 2, 3, 4, 5}}.get(lost, {2, 4, 5})
    assert {row[0] for row in owed(settings)} == expected, "those that are owed or open; all, if that is not known"
    assert ("not all could be read" in told(settings)) is not by_index
    assert "page 7" in told(settings)
    assert found.aside.name in told(settings)
    assert found.aside.exists()
    assert salvage.recover(settings) is None, "once"
    findings = keeping.verify(settings.store, SITE, [], [], lambda _: None).findings
    assert {one.what for one in findings} <= {"unsealed"}, "its first checkpoint comes with its start"


def test_the_new_journal_goes_on_and_its_registry_can_be_derived_from_it(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    boot = table(settings, "station WHERE key = 'boot'", "value")
    damage(settings.store, "incidents")
    salvage.mark(settings, "page 7")
    salvage.recover(settings)
    journal = Journal(settings.store, ["hq"], own=SITE)
    assert journal.next_boot() > int(boot[0][0]) if boot else True
    journal.start()
    assert not journal.now(lambda connection: journal.keep(connection, entry(4))).fresh
    assert journal.now(lambda connection: journal.keep(connection, entry(6))).fresh
    journal.stop()
    engine = database.open_database(settings.store, writes=True)
    with engine.begin() as connection:
        connection.execute(schema.children.delete())
        assert keeping.rebuild(connection, SITE, ["hq"], lambda _: None).children == 1
    engine.dispose()
    assert [row[0] for row in table(settings, "children", "id")] == ["b1"]


def test_a_file_that_is_no_database_any_more_is_set_aside_and_the_station_begins_empty(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    settings.store.write_bytes(b"this was a database" * 500)
    salvage.mark(settings, "not a database")
    found = salvage.recover(settings)
    assert found is not None
    assert found.aside.read_bytes().startswith(b"this was a database")
    assert table(settings, "children") == []
    assert "not a database" in told(settings)


@pytest.mark.parametrize("lost", ["latest", "deliveries"])
def test_of_too_much_alarms_are_taken_first_and_what_is_left_behind_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Ten newer events are owed, or, where it is not known what is, are among the newest entries."""
    assert isinstance(settings.store, Path)
    journal = Journal(settings.store, ["hq"])
    journal.start()
    for seq in range(10, 20):
        journal.now(lambda connection, seq=seq: journal.keep(connection, event(seq)))  # type: ignore[misc]
    journal.stop()
    monkeypatch.setattr(salvage, "MOST", 4)
    damage(settings.store, lost)
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    kept = [row[0] for row in owed(settings)]
    assert kept == ([2, 4, 5, 10] if lost == "latest" else [2, 4, 18, 19]), "2 and 4 are open alarms"
    assert "journal" in found.unread
    assert "not all could be read" in told(settings)


def test_a_last_heartbeat_that_says_nothing_is_left_behind_rather_than_read_at_every_start(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    with contextlib.closing(sqlite3.connect(settings.store)) as opened:
        opened.execute("UPDATE latest SET message = ?", [b"\x55\x55"])
        opened.commit()
    damage(settings.store, "incidents")
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    assert found.unread == ["latest"]
    assert table(settings, "latest") == []


def test_of_many_damaged_databases_the_first_and_the_newest_stay(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    for second in range(4):
        for end in ("", "-wal", ".checkpoints"):
            (settings.state / f"station.db.damaged-20260101T00000{second}{end}").touch()
    damage(settings.store, "incidents")
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    there = {one.name for one in settings.state.iterdir() if "damaged-" in one.name}
    first = {f"station.db.damaged-20260101T000000{end}" for end in ("", "-wal", ".checkpoints")}
    assert first < there
    assert all(name in first or name.startswith(found.aside.name) for name in there)


def test_a_database_of_an_earlier_version_gives_what_it_had(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    with contextlib.closing(sqlite3.connect(settings.store)) as opened:
        opened.execute("ALTER TABLE children DROP COLUMN vouches")
        opened.execute("DROP TABLE deleted_alarms")
        opened.commit()
    damage(settings.store, "incidents")
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    assert found.unread == []
    assert table(settings, "children", "id, kind, vouches") == [("b1", "button", 0)]


def test_a_row_that_has_no_place_is_named_and_not_dropped_in_silence(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    with contextlib.closing(sqlite3.connect(settings.store)) as opened:
        opened.execute("PRAGMA writable_schema = ON")
        opened.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'full_name TEXT NOT NULL', 'full_name TEXT') WHERE name = 'people'"
        )
        opened.commit()
    with contextlib.closing(sqlite3.connect(settings.store)) as opened:
        opened.execute("UPDATE people SET full_name = NULL")
        opened.commit()
    damage(settings.store, "incidents")
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    assert found.unread == ["people"]


def test_what_takes_too_long_is_left_behind_but_for_alarms(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(settings.store, Path)
    damage(settings.store, "latest")
    monkeypatch.setattr(salvage, "TAKE_S", 0.0)
    monkeypatch.setattr(salvage, "SLICE", 2)
    monkeypatch.setattr(salvage.time, "monotonic", itertools.count().__next__)
    salvage.mark(settings, "page 7")
    found = salvage.recover(settings)
    assert found is not None
    assert "journal" in found.unread


def test_a_damaged_database_that_somebody_took_away_is_not_looked_for_later(settings: Settings) -> None:
    assert isinstance(settings.store, Path)
    salvage.mark(settings, "page 7")
    settings.store.rename(settings.state / "at-the-workshop.db")
    assert salvage.recover(settings) is None
    database.prepare(settings.store)
    assert salvage.recover(settings) is None


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_power_cut_while_it_begins_anew_loses_neither_the_old_nor_the_new(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Before each change of a name."""
    assert isinstance(settings.store, Path)
    damage(settings.store, "incidents")
    salvage.mark(settings, "page 7")
    changes = 0

    def counted(name: str) -> None:
        real = getattr(Path, name)

        def change(self: Path, *args: Any, **options: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes == cut:
                raise KeyboardInterrupt
            return real(self, *args, **options)

        monkeypatch.setattr(Path, name, change)

    for name in ("replace", "unlink"):
        counted(name)
    with contextlib.suppress(KeyboardInterrupt):
        salvage.recover(settings)
    assert changes == cut or cut > 6
    monkeypatch.undo()
    salvage.recover(settings)
    assert {row[0] for row in owed(settings)} == {2, 4, 5}
    assert len([one for one in settings.state.iterdir() if one.name.startswith("station.db.damaged-")]) >= 1
    assert told(settings)
    assert salvage.recover(settings) is None


def test_headquarters_waits_for_somebody_instead() -> None:
    world = World(buttons=())
    try:
        settings = load(world.folder / f"{HQ}.toml")
        assert isinstance(settings.store, Path)
        damage(settings.store, "children")
        command = [sys.executable, "-m", "gateway.cli", "station", "--config", str(world.folder / f"{HQ}.toml")]
        for _ in range(2):
            ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
            assert (ended.returncode, "Traceback" in ended.stderr) == (74, False), ended.stderr
            assert "tocsin journal restore" in ended.stderr
        assert not [one for one in settings.state.iterdir() if "damaged" in one.name]
    finally:
        world.close()
