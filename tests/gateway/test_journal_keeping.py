"""The whole journal: migrated, derived from anew, copied, put back, shortened, written out."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import delete, func, insert, select, update
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway import database, keeping, keys, schema, shell
from gateway.chain import Sealer
from gateway.cli import app
from gateway.desk import Outcome, State, StorageError
from gateway.enrolment import NewButton
from gateway.exchange import Exchange
from gateway.journal import Journal, NumberTakenError
from gateway.rows import Entry, own_entry
from gateway.notice import NoticeBoard
from gateway.refusals import Refusals
from gateway.registrar import Registrar
from gateway.registry import Registry
from gateway.settings import load
from tests.gateway.test_journal import entry
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result
    from sqlalchemy import Connection

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
                assert [row[:columns] for row in new.execute(f"SELECT * FROM {table}")] == rows, table
        children = new.execute("SELECT id, kind, point, site FROM children").fetchall()
        assert children == [row[:4] for row in before["children"]]
        assert new.execute("SELECT id, name FROM sites").fetchall() == [("clifton", "clifton")]
        assert [row[:10] for row in new.execute("SELECT * FROM journal WHERE id < 4")] == before["journal"]
        assert new.execute("SELECT count(*) FROM journal WHERE length(chain) = 32").fetchone() == (4,)
        assert [row[0] for row in new.execute("SELECT stage FROM deliveries ORDER BY entry")] == [2, None, None, None]
    assert keeping.verify(path, "hq", [], [], lambda _: None).findings == []


# ------------------------------------------------------------------------------------------------- rebuild


class Lived:
    """A headquarters with two parents, in whose database things have happened; nothing of it runs."""

    def __init__(self, store: Path | str) -> None:
        self.world = World(buttons=(), hq_database=store if isinstance(store, str) else "")
        self.config = str(self.world.folder / f"{HQ}.toml")
        with open(self.config, "a", encoding="utf-8") as file:
            for parent in ("sindh", "rangers"):
                point = self.world.hq_message_point.hex()
                file.write(f'[[parents]]\nid = "{parent}"\naddress = "localhost"\nmessage_key = "{point}"\n')
        self.settings = load(Path(self.config))
        self.sealer = Sealer(HQ, keys.private_key(self.settings.identity / "key.pem"), self.settings.checkpoints)
        self.settings.state.mkdir(exist_ok=True)
        self.journal = Journal(self.settings.store, [one.id for one in self.settings.parents], self.sealer)
        message_key = keys.private_key(self.world.folder / "message-key.pem")
        self.registry = Registry(self.journal.readers, HQ, message_key)
        self.exchange = Exchange(
            self.settings, self.journal, self.registry, Refusals(), NoticeBoard(), self.journal.next_boot()
        )
        self.registrar = Registrar(self.settings, self.journal, self.registry, self.exchange)
        self.exchange.confirm = self.registrar.confirm
        self.journal.start()
        self._live()
        self.registry.close()
        self.journal.stop()

    def _live(self) -> None:
        self.registrar.begin()
        for child, replaces in (("gate-1", None), ("gate-2", "gate-1"), ("gate-3", None), ("gate-4", None)):
            self._enrol(child, replaces)
            if child != "gate-4":
                self._send(child, 1, wire.ALARM, {wire.CAUSE: wire.TEST})
        self.registrar.retire("gate-3", "water", "rana")
        self.registrar.change_site("clifton", {"plan": "Keys. " * 300, "contacts": "Rabia; head; 15"}, "rabia")
        self.registrar.change_site("clifton", {"plan": "", "position": "24.8, 67.0"}, "rabia")
        self.registrar.expire()
        self._send("gate-2", 2, wire.ALARM, {wire.CAUSE: wire.HOLD_UP, wire.HOW: wire.CONTACT_B})
        self._send("gate-2", 3, wire.EVENT, {wire.CODE: wire.LOOP_CUT})
        self.exchange.event(wire.BROKER_LOST, HQ)
        alarms = self.rows(schema.incidents)
        self.exchange.step(alarms[0]["id"], State.CLOSED, "ayesha", "", Outcome.TEST)
        self.exchange.step(alarms[-1]["id"], State.ACKNOWLEDGED, "ayesha", "seen", None)
        self.exchange.step(alarms[-1]["id"], State.RESPONDING, "ayesha", "", None)
        self.exchange.step(alarms[-1]["id"], State.CLOSED, "bilal", "گرفتار", Outcome.GENUINE)
        self.journal.now(lambda connection: self.journal.delivered(connection, "sindh", ("gate-2", 1, 2), 2))

    def _enrol(self, child: str, replaces: str | None) -> None:
        certificate = self.world.issue(child).certificate.public_bytes(Encoding.PEM).decode()
        wanted = NewButton(
            certificate=certificate,
            site="clifton",
            entrance=child,
            site_name_ur="قونصل خانہ " * 10,
            entrance_name_ur="دروازہ " * 15,
            address="ا" * 250,
            mac="24:0a:c4:00:01:10",
            replaces=replaces,
        )
        self.registrar.enrol(child, wanted, "rana")

    def _send(self, child: str, seq: int, kind: int, fields: dict[int, Any]) -> None:
        self.registry.refresh()
        message = {wire.KIND: kind, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 5, **fields}
        payload = wire.seal(message, child, self.world.key_of(child))
        done: list[None] = []
        lane = "alarm" if kind == wire.ALARM else "event"
        self.exchange.arrived(f"tocsin/1/{child}/{lane}", payload, lambda: done.append(None))
        self.journal.now(lambda _: None)
        assert done, self.exchange._refusals.newest()

    def rows(self, table: Any, *columns: str) -> list[dict[str, Any]]:
        engine = database.open_database(self.settings.store, writes=False)
        with engine.connect() as connection:
            names = columns or tuple(table.c.keys())
            asked = select(*(table.c[name] for name in names)).order_by(*table.primary_key)
            rows = [dict(row) for row in connection.execute(asked).mappings()]
        engine.dispose()
        return rows

    def do(self, work: Any) -> None:
        engine = database.open_database(self.settings.store, writes=True)
        with engine.begin() as connection:
            work(connection)
        engine.dispose()

    def run(self, *command: str) -> Result:
        return CliRunner().invoke(app, ["journal", command[0], "--config", self.config, *command[1:]])


@pytest.fixture
def lived(store: Path | str) -> Iterator[Lived]:
    made = Lived(store)
    yield made
    made.world.close()


SITES = (schema.contacts, schema.entrances, schema.site_changes, schema.sites)


def wipe(connection: Connection) -> None:
    for table in (*SITES, schema.steps, schema.incidents, schema.deliveries, schema.enrolments, schema.children):
        connection.execute(delete(table))


def test_everything_that_the_journal_tells_is_derived_from_it_again_table_by_table(lived: Lived) -> None:
    tables = (schema.incidents, schema.steps, schema.children, schema.enrolments, *SITES, schema.journal, schema.people)
    before = {table.name: lived.rows(table) for table in tables}
    assert all(before[table.name] for table in SITES)
    assert len(before["incidents"]) == 4
    assert len(before["steps"]) == 4
    assert {row["state"] for row in before["enrolments"]} == {"pending", "enrolled", "retired"}
    assert {row["state"] for row in before["incidents"]} == {"raised", "closed"}
    deliveries = lived.rows(schema.deliveries, "entry", "parent", "kind")
    lived.do(wipe)
    done = lived.run("rebuild")
    assert done.exit_code == 0, done.output
    for table in tables:
        assert _numbered(lived.rows(table)) == _numbered(before[table.name]), table.name
    assert lived.rows(schema.deliveries, "entry", "parent", "kind") == deliveries
    assert {row["stage"] for row in lived.rows(schema.deliveries)} == {None}, "parents are asked again"
    again = {table.name: lived.rows(table) for table in tables}
    assert lived.run("rebuild").exit_code == 0
    assert {table.name: _numbered(lived.rows(table)) for table in tables} == {
        name: _numbered(rows) for name, rows in again.items()
    }


def _numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps are numbered as the database likes; what counts is their order."""
    return [{**row, "id": number} if "incident" in row else row for number, row in enumerate(rows)]


def test_an_entry_of_the_registry_that_no_event_tells_of_is_kept_and_named(lived: Lived) -> None:
    row = {"id": "by-hand", "kind": "button", "site": "clifton"}
    lived.do(lambda connection: connection.execute(schema.children.insert(), row))
    done = lived.run("rebuild")
    assert (done.exit_code, "by-hand" in done.output) == (0, True)
    assert any(one["id"] == "by-hand" for one in lived.rows(schema.children))


# ------------------------------------------------------------------------------------------------- retain


def test_old_closed_and_delivered_entries_go_and_what_is_left_verifies_and_rebuilds(lived: Lived) -> None:
    assert lived.run("retain", "--days", "1").output == "0 entries deleted\n"
    day_ms, table = 86_400_000, schema.journal
    newest = max(row["id"] for row in lived.rows(table, "id"))

    def age(connection: Connection) -> None:
        """All of it was a hundred days ago; the chain says so too."""
        from tests.gateway.test_journal_chain import compute_anew

        at = table.c
        connection.execute(update(table).values(received_at_ms=at.received_at_ms - 100 * day_ms))
        connection.execute(update(schema.steps).values(at_ms=schema.steps.c.at_ms - 100 * day_ms))
        connection.execute(delete(schema.checkpoints))
        compute_anew(connection)

    lived.do(age)
    lived.settings.checkpoints.unlink()
    undelivered = min(row["entry"] for row in lived.rows(schema.deliveries))
    assert lived.run("retain", "--days", "30").output == f"{undelivered - 1} entries deleted\n"
    entries = {row["entry"]: row["kind"] for row in lived.rows(schema.deliveries)}
    stranger = [{"parent": "dissolved", "entry": entry, "kind": kind} for entry, kind in entries.items()]
    lived.do(lambda connection: connection.execute(update(schema.deliveries).values(stage=2)))
    # A parent that was taken out of the settings holds nothing back.
    lived.do(lambda connection: connection.execute(insert(schema.deliveries), stranger))
    open_ones = [row["id"] for row in lived.rows(schema.incidents) if row["state"] != "closed"]
    assert min(open_ones) > undelivered
    assert lived.run("retain", "--days", "30").output == f"{min(open_ones) - undelivered} entries deleted\n"
    assert min(row["id"] for row in lived.rows(table, "id")) == min(open_ones)
    lived.do(lambda connection: connection.execute(update(schema.incidents).values(state="closed")))
    assert lived.run("retain", "--days", "30").exit_code == 0
    left = [row["id"] for row in lived.rows(table, "id")]
    assert min(left) > newest, "only what was journaled again is there"
    assert all(row["id"] > newest for row in lived.rows(schema.incidents))
    told = lived.run("verify", "--json")
    assert json.loads(told.stdout)["findings"] == []
    of_registry = (schema.children, schema.enrolments, *SITES)
    registry = [lived.rows(one) for one in of_registry]
    assert all(registry)
    lived.do(wipe)
    assert lived.run("rebuild").exit_code == 0
    assert [lived.rows(one) for one in of_registry] == registry
    lived.do(lambda connection: connection.execute(delete(table).where(table.c.id == min(left))))
    told = lived.run("verify", "--json")
    assert (told.exit_code, json.loads(told.stdout)["findings"][0]["position"]) == (1, min(left))


def test_an_event_of_a_command_is_never_taken_for_another(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[BaseException] = []
    monkeypatch.setattr(Journal, "next_boot", lambda _: 7)
    monkeypatch.setattr(Journal, "_give_up", lambda _, error: ended.append(error))
    for what in ("one", "another"):
        assert not ended
        with shell.exchange(lived.settings) as made:
            made.event(wire.BROKER_LOST, what)
    assert [type(one) for one in ended] == [NumberTakenError]


def test_what_retention_journals_again_is_never_taken_for_another(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, ended = own_entry(HQ, (7, 1), wire.BROKER_LOST, "x", None, 1, bytes(32)), threading.Event()
    monkeypatch.setattr(Journal, "next_boot", lambda _: 7)
    monkeypatch.setattr(Journal, "_give_up", lambda *_: ended.set())
    monkeypatch.setattr(Future, "result", lambda *_: ended.wait(20) and 0)
    monkeypatch.setattr(keeping, "may_go", lambda *_: 3)
    lived.do(lambda connection: Journal.keep(lived.journal, connection, taken))
    assert lived.run("retain", "--days", "1").exit_code == 0
    assert ended.is_set()
    assert min(row["id"] for row in lived.rows(schema.journal, "id")) == 1, "nothing was deleted"


# ------------------------------------------------------------------------------- verify, export, backup


def test_verify_says_in_words_and_in_json_what_it_found(lived: Lived) -> None:
    sound = lived.run("verify")
    assert sound.exit_code == 0, sound.output
    assert "in order" in sound.output
    lived.do(
        lambda connection: connection.execute(update(schema.journal).where(schema.journal.c.id == 3).values(seq=999))
    )
    wrong = lived.run("verify")
    assert (wrong.exit_code, wrong.output.split(":")[0]) == (1, "EDITED at position 3")
    told = json.loads(lived.run("verify", "--json").stdout)
    assert (told["ok"], told["findings"][0]["position"], told["findings"][0]["what"]) == (False, 3, "edited")


def test_export_writes_every_entry_and_only_those_that_are_asked_for(lived: Lived, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in lived.run("export").stdout.splitlines()]
    assert [one["position"] for one in lines] == [row["id"] for row in lived.rows(schema.journal, "id")]
    assert bytes.fromhex(lines[-1]["envelope"]) == lived.rows(schema.journal)[-1]["envelope"]
    alarms = list(csv.DictReader(io.StringIO(lived.run("export", "--format", "csv", "--kind", "alarm").stdout)))
    assert [one["what"] for one in alarms] == ["test", "test", "test", "hold_up"]
    file = tmp_path / "out.jsonl"
    assert lived.run("export", "--since", "2100-01-01", "-o", str(file)).exit_code == 0
    assert file.read_text() == ""
    assert lived.run("export", "--until", "2100-01-01", "-o", str(file)).exit_code == 1, "a file is never replaced"
    assert len(lived.run("export", "--until", "2100-01-01").stdout.splitlines()) == len(lines)
    assert lived.run("export", "--kind", "heartbeat").exit_code == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["verify"], "verifying"),
        (["export"], "exporting"),
        (["rebuild"], "rebuilding"),
        (["backup", "copy.db"], "backing up"),
        (["retain", "--days", "1"], "deleting"),  # the last: it alters what it finds
    ],
)
def test_on_a_terminal_each_command_shows_how_far_it_is(
    command: list[str], says: str, lived_once: Lived, tmp_path: Path
) -> None:
    """The total is shown, and reached."""
    lived, (ours, its) = lived_once, pty.openpty()
    if command[0] == "retain":
        lived.do(lambda connection: connection.execute(update(schema.journal).values(received_at_ms=1)))
        lived.do(lambda connection: connection.execute(update(schema.deliveries).values(stage=2)))
        lived.do(lambda connection: connection.execute(update(schema.steps).values(at_ms=1)))
        lived.do(lambda connection: connection.execute(update(schema.incidents).values(state="closed")))
    whole = [sys.executable, "-m", "gateway.cli", "journal", command[0], "--config", lived.config, *command[1:]]
    running = subprocess.Popen(
        whole,
        stderr=its,
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(its)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # the other end is closed: the command has ended
            while some := os.read(ours, 4096):
                shown += some
        assert running.wait(60) == 0, shown
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    counts = re.findall(rf"{says} .*? (\d+)/(\d+)", plain)
    assert counts, shown
    assert counts[-1][0] == counts[-1][1] != "0", shown


@pytest.fixture(scope="module")
def lived_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    made = Lived(tmp_path_factory.mktemp("lived"))
    yield made
    made.world.close()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Lived]:
    """A headquarters that holds an alarm with times that no calendar has, and with a subject for a spreadsheet."""
    made = Lived(tmp_path)
    journal = Journal(made.settings.store, [])
    journal.start()
    event = {wire.KIND: wire.EVENT, wire.BOOT: 9, wire.SEQ: 1, wire.AGE: 2**53 - 1, wire.CODE: wire.CHILD_SILENT}
    for seq, subject in enumerate(SUBJECTS, 1):
        message = {**event, wire.SEQ: seq, wire.SUBJECT: subject}
        envelope = wire.seal(message, "b1", bytes(32))
        one = Entry("b1", message, envelope, [["gw", 2**53 - 1]], 2**53 - 1, -(2**53), exact=True)
        journal.now(lambda connection, one=one: journal.keep(connection, one))
    journal.stop()
    yield made
    made.world.close()


SUBJECTS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "gate", "'=1", " =1"]


def test_times_that_no_calendar_has_are_exported_and_traced_as_numbers(far: Lived) -> None:
    lines = [json.loads(line) for line in far.run("export").stdout.splitlines()]
    assert (lines[-1]["received_at"], lines[-1]["hops"]) == (str(2**53 - 1), [["gw", str(2**53 - 1)]])
    traced = CliRunner().invoke(app, ["trace", "b1/9/1", "--config", far.config])
    assert (traced.exit_code, str(2**53 - 1) in traced.output) == (0, True), traced.output


def test_a_cell_of_the_csv_is_never_a_formula_and_says_what_json_lines_say(far: Lived) -> None:
    lines = [json.loads(line) for line in far.run("export").stdout.splitlines()]
    rows = list(csv.DictReader(io.StringIO(far.run("export", "--format", "csv").stdout, newline="")))
    assert [one["subject"] for one in lines][-len(SUBJECTS) :] == SUBJECTS
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        told = {**{name: str(value) for name, value in line.items()}, "hops": json.dumps(line["hops"])}
        for name, value in told.items():
            assert row[name] == ("'" + value if value[:1] in set("=+-@\t\r") else value), name


@pytest.fixture
def at_site(tmp_path: Path) -> Iterator[Lived]:
    made = Lived(tmp_path)
    yield made
    made.world.close()


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


def _cut_connections(journal: Journal) -> None:
    with journal.readers.connect() as connection:
        number = connection.exec_driver_sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        others = [row[0] for row in number if row[0] is not None]
        mine = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        for pid in set(others) - {mine}:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")


def test_rebuilding_beside_a_running_station_is_refused_also_after_an_outage(store: Path | str) -> None:
    lived = Lived(store)
    try:
        journal = Journal(lived.settings.store, [], lived.sealer)
        journal.start()
        journal.now(lambda connection: journal.keep(connection, entry(1)))
        if isinstance(store, str):
            assert "in use: stop the station" in lived.run("rebuild").output
            _cut_connections(journal)
            kept: list[Any] = []
            journal.put(entry(2), kept.append)
            wait_until(lambda: kept, 20, "it is committed over a new connection")
        refused = lived.run("rebuild")
        assert (refused.exit_code, "in use: stop the station" in refused.output) == (1, True), refused.output
        with shell.registrar(lived.settings):
            assert "in use: stop the station" in lived.run("rebuild").output
        journal.stop()
        assert lived.run("rebuild").exit_code == 0
    finally:
        lived.world.close()


def test_the_journal_keeps_working_when_its_server_is_away_for_a_while(postgres: Server) -> None:
    journal = Journal(postgres.fresh(), [])
    journal.next_boot()
    journal.start()
    journal.now(lambda connection: journal.keep(connection, entry(1)))
    _cut_connections(journal)
    kept: list[Any] = []
    journal.put(entry(2), kept.append)
    wait_until(lambda: kept, 20, "it is committed over a new connection")
    with journal.readers.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.journal)).scalar_one() == 2
    journal.stop()


def test_what_a_site_tells_of_its_checkpoints_can_be_had_at_headquarters(at_site: Lived) -> None:
    lived = at_site
    one = Sealer(SITE, lived.sealer.key, Path("/nowhere")).seal(7, bytes(32), 7, 1)
    message = {
        wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: 1, wire.AGE: 0, wire.CODE: wire.CHECKPOINT, wire.DETAIL: one.detail,
    }  # fmt: skip
    journal = Journal(lived.settings.store, [])
    journal.start()
    bad: list[Any] = [None, "x", {}, *({**one.detail, field: "x"} for field in range(6)), {**one.detail, 2: 2**33}]
    bad += [{**one.detail, 2: bytes(31)}, {**one.detail, 0: -1}, {**one.detail, 0: True}]
    for seq, detail in enumerate([*bad, one.detail]):
        said = {**message, wire.SEQ: seq, wire.DETAIL: detail}
        told = replace(entry(1), source=SITE, message=said, envelope=wire.seal(said, SITE, bytes(32)))
        journal.now(lambda connection, told=told: journal.keep(connection, told))
    journal.stop()
    done = lived.run("checkpoints", "--of", SITE)
    assert (done.exit_code, done.stdout) == (0, one.line + "\n")
    assert f"{len(bad)} events of {SITE} carry no checkpoint" in done.stderr
