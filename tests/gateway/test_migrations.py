"""Databases of every earlier version are brought up to date, and lose nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gateway import database, keeping, schema
from gateway.journal import Journal
from tests.gateway.test_journal import entry

if TYPE_CHECKING:
    from tests.postgres import Server

OLD = Path(__file__).with_name("first_database.sql")


# ---------------------------------------------------------------------------------------------- migrations


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_migrations_make_what_the_schema_says(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server: Server | None = request.getfixturevalue("postgres") if kind == "postgresql" else None
    where: Path | str = server.empty() if server else tmp_path / "station.db"
    database.prepare(where)
    database.prepare(where)  # again changes nothing
    engine = database.open_database(where, writes=False)
    with engine.connect() as connection:
        assert database.revision(connection) == schema.REVISION
        different = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    engine.dispose()
    assert different == [], (
        "gateway/schema.py says more than the migrations make: add a migration, and its number as REVISION"
    )


@pytest.mark.parametrize("lacking", [(), ("enrolments", "tokens", "commands")], ids=["", "before enrolments"])
def test_a_database_of_the_first_version_is_brought_up_to_date_with_all_that_it_holds(
    tmp_path: Path, lacking: tuple[str, ...]
) -> None:
    path = tmp_path / "station.db"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(OLD.read_text(encoding="utf-8"))
        for table in lacking:
            old.execute(f"DROP TABLE {table}")
        old.commit()
        tables = [row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        before = {table: old.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    journal = Journal(path, ["hq"])
    journal.start()
    assert journal.now(lambda connection: journal.keep(connection, entry(9))).id == 4
    journal.stop()
    with contextlib.closing(sqlite3.connect(path)) as new:
        for table, rows in before.items():
            columns = len(rows[0]) if rows else 0
            if table not in {"sqlite_sequence", "journal", "incidents", "deliveries", "children"}:
                now = [row[:columns] for row in new.execute(f"SELECT * FROM {table}")]
                assert [row for row in now if row in rows or table != "station"] == rows, table
        children = new.execute("SELECT id, kind, point, site FROM children").fetchall()
        assert children == [row[:4] for row in before["children"]]
        assert new.execute("SELECT id, name FROM sites").fetchall() == [("clifton", "clifton")]
        assert [row[:10] for row in new.execute("SELECT * FROM journal WHERE id < 4")] == before["journal"]
        assert new.execute("SELECT count(*) FROM journal WHERE length(chain) = 32").fetchone() == (4,)
        assert [row[0] for row in new.execute("SELECT stage FROM deliveries ORDER BY entry")] == [2, None, None, None]
    assert keeping.verify(path, "hq", [], [], lambda _: None).findings == []
