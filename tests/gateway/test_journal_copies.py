"""Backups of a journal: made beside a running station, never damaged, never put back under one that runs."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.world import HQ
from gateway import keeping, schema
from gateway.desk import StorageError
from gateway.journal import Journal
from tests.gateway.lived import Lived
from tests.gateway.test_journal import entry

if TYPE_CHECKING:
    from tests.postgres import Server


def test_a_backup_beside_a_running_station_is_put_back_and_verified(at_site: Lived, tmp_path: Path) -> None:
    lived, copy = at_site, tmp_path / "copy.db"
    assert isinstance(lived.settings.store, Path)
    journal = Journal(lived.settings.store, [], lived.sealer)
    journal.start()
    try:
        assert lived.run("backup", str(copy)).exit_code == 0
        assert "there already" in lived.run("backup", str(copy)).output
        for seq in range(500, 505):
            journal.now(lambda connection, seq=seq: journal.keep(connection, entry(seq)))
        refused = lived.run("restore", str(copy), "--force")
        assert (refused.exit_code, "stop the station" in refused.output) == (1, True)
    finally:
        journal.stop()
    assert "--force" in lived.run("restore", str(copy)).output
    (tmp_path / "no.db").write_bytes(b"no database at all" * 100)
    assert "no backup" in lived.run("restore", str(tmp_path / "no.db"), "--force").output
    newest = max(row["id"] for row in lived.rows(schema.journal, "id"))
    done = lived.run("restore", str(copy), "--force")
    assert done.exit_code == 0, done.output
    assert max(row["id"] for row in lived.rows(schema.journal, "id")) == newest - 5
    kept = [Path(line.partition(": ")[2]) for line in done.output.splitlines() if line.startswith("kept")]
    assert [one.name.split(".before")[0] for one in kept] == ["station.db", "station.checkpoints"]
    assert all(one.exists() for one in kept)


@pytest.mark.parametrize("table", ["incidents", "deliveries", "sqlite_autoindex_journal_1"])
def test_damage_beside_the_entries_is_found_and_never_restored(at_site: Lived, tmp_path: Path, table: str) -> None:
    lived, copy = at_site, tmp_path / "copy.db"
    assert lived.run("backup", str(copy)).exit_code == 0
    with contextlib.closing(sqlite3.connect(copy)) as opened:
        (size,) = opened.execute("PRAGMA page_size").fetchone()
        (page,) = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    octets = bytearray(copy.read_bytes())
    octets[(page - 1) * size : page * size] = b"\xa5" * size
    copy.write_bytes(octets)
    found = keeping.verify(copy, HQ, [lived.sealer.key.public_key()], [], lambda _: None).findings
    assert [one.what for one in found] == ["damaged"]
    before = lived.rows(schema.journal, "id")
    refused = lived.run("restore", str(copy), "--force")
    assert (refused.exit_code, "damaged" in refused.output) == (1, True)
    assert lived.rows(schema.journal, "id") == before


def test_a_station_that_starts_while_a_backup_is_copied_keeps_its_journal(at_site: Lived, tmp_path: Path) -> None:
    lived, copy = at_site, tmp_path / "copy.db"
    assert lived.run("backup", str(copy)).exit_code == 0
    assert isinstance(lived.settings.store, Path)
    started: list[Journal] = []

    def begin(*_: int) -> None:
        if not started:
            started.append(Journal(lived.settings.store, [], lived.sealer))
            started[0].start()
            started[0].now(lambda connection: started[0].keep(connection, entry(500)))

    with pytest.raises(StorageError, match="in use"):
        keeping.restore(copy, lived.settings.store, lived.settings.checkpoints, begin)
    started[0].stop()
    assert any(row["seq"] == 500 for row in lived.rows(schema.journal))


def test_postgresql_is_backed_up_with_its_own_tools(postgres: Server) -> None:
    lived = Lived(postgres.fresh())
    try:
        for command in ("backup", "restore"):
            assert "pg_" in lived.run(command, "/nowhere/copy.db").output
    finally:
        lived.world.close()
