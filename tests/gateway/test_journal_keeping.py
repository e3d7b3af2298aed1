"""The whole journal: derived from anew, shortened, written out."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, func, insert, select, update
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, SITE
from firmware import wire
from gateway import keeping, schema, shell
from gateway.chain import Sealer
from gateway.cli import app
from gateway.journal import Journal, NumberTakenError
from gateway.rows import Entry, own_entry
from tests.gateway.lived import Lived
from tests.gateway.test_journal import entry
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.postgres import Server

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


def test_a_parent_that_came_later_gets_nothing_of_the_past_from_a_rebuilding(lived: Lived) -> None:
    point = lived.world.hq_message_point.hex()
    with open(lived.config, "a", encoding="utf-8") as file:
        file.write(f'[[parents]]\nid = "ministry"\naddress = "localhost"\nmessage_key = "{point}"\n')
    before = max(row["id"] for row in lived.rows(schema.journal, "id"))
    journal = Journal(lived.settings.store, ["sindh", "rangers", "ministry"], lived.sealer)
    journal.start()
    journal.now(lambda connection: journal.keep(connection, entry(77)))
    journal.stop()
    owed = lived.rows(schema.deliveries, "entry", "parent")
    assert {row["entry"] for row in owed if row["parent"] == "ministry"} == {before + 1}
    lived.do(wipe)
    assert lived.run("rebuild").exit_code == 0
    again = lived.rows(schema.deliveries, "entry", "parent")
    assert again == owed
    assert len(again) > 3
    for parents in (["sindh"], ["sindh", "ministry"]):  # it leaves, and comes back later
        journal = Journal(lived.settings.store, parents, lived.sealer)
        journal.start()
        journal.now(lambda connection: journal.keep(connection, entry(78 + len(parents))))
        journal.stop()
    since = {row["key"]: row["value"] for row in lived.rows(schema.station) if row["key"].startswith("owed since")}
    assert since.pop("owed since rangers") == "left"
    assert since.keys() == {"owed since sindh", "owed since ministry"}
    assert int(since["owed since ministry"]) > before + 1


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


def test_an_alarm_that_headquarters_refused_does_not_stay_for_ever_at_a_site(store: Path | str) -> None:
    journal = Journal(store, ["hq", "rangers"])
    journal.start()
    for seq, refuses in ((1, "hq"), (2, "rangers")):
        kept = journal.now(lambda connection, seq=seq: journal.keep(connection, entry(seq)))  # type: ignore[misc]
        assert kept.fresh
        for parent in ("hq", "rangers"):
            told = parent, entry(seq).identity, 0 if parent == refuses else 2, 1
            journal.now(lambda connection, told=told: journal.delivered(connection, *told))  # type: ignore[misc]
    with journal.readers.connect() as connection:
        later_ms = entry(1).received_at_ms + 1
        assert keeping.may_go(connection, later_ms, journal.parents, "hq") == 1, (
            "the second is open, whoever else refused it"
        )
        assert keeping.may_go(connection, later_ms, journal.parents, None) == 0
    journal.stop()


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
