"""What pages ask of the journal costs the same however much is in it: counted in SQLite's own steps, not by the clock."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import event

from firmware import wire
from gateway import schema
from gateway.desk import Place
from gateway.journal import Journal
from gateway.reception import PAST_SEARCHED, Reception

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LITTLE, MUCH = PAST_SEARCHED + 500, 10 * (PAST_SEARCHED + 500)
EVERY = 20  # steps of SQLite's machine at which it is counted
NOWHERE = Place("", "", "", "", "", "")


def filled(path: Path, entries: int) -> Journal:
    """A journal whose first entry is the quiet button's; every tenth is a closed alarm of the busy one's."""
    journal = Journal(path, [])
    fields = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: 0, wire.AGE: 0, wire.CODE: wire.LOOP_CUT}
    envelope, hops = wire.seal(fields, "busy", bytes(32)), wire.encode([])
    with closing(sqlite3.connect(path)) as database:
        database.executemany(
            "INSERT INTO journal (id, source, boot, seq, kind, happened_at_ms, exact, received_at_ms, envelope, hops)"
            " VALUES (?, ?, 1, ?, ?, 0, 1, 0, ?, ?)",
            (
                (
                    number,
                    "busy" if number > 1 else "quiet",
                    number,
                    wire.EVENT if number % 10 else wire.ALARM,
                    envelope,
                    hops,
                )
                for number in range(1, entries + 1)
            ),
        )
        database.execute(
            "INSERT INTO incidents (id, device, boot, seq, cause, how, state)"
            " SELECT id, source, boot, seq, 'hold_up', 'both', 'closed' FROM journal WHERE kind = 1"
        )
        database.commit()
    return journal


def steps_of(journal: Journal, ask: Callable[[Reception], Any]) -> int:
    """How many of SQLite's steps an answer took, in units of EVERY."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    @event.listens_for(journal.readers, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.set_progress_handler(count, EVERY)

    registry = SimpleNamespace(place_of=lambda _: NOWHERE, sites=dict, children=lambda: defaultdict(lambda: None))
    station = SimpleNamespace(journal=journal, registry=registry, settings=SimpleNamespace(role="site"))
    ask(Reception(cast("Any", station)))
    journal.readers.dispose()
    return counted[0]


ASKED: dict[str, Callable[[Reception], Any]] = {
    "open alarms": lambda desk: desk.open_incidents(),
    "history": lambda desk: desk.history(),
    "older history": lambda desk: desk.history(before=LITTLE // 2),
    "an alarm": lambda desk: desk.incident(10),
    "events": lambda desk: desk.happenings(),
    "older events": lambda desk: desk.happenings(before=LITTLE // 2),
    "a quiet entrance's events": lambda desk: desk._told_of(["quiet"]),  # noqa: SLF001 the page's own query
    "a quiet entrance's alarms": lambda desk: desk._incidents(schema.incidents.c.device.in_(["quiet"]), 200),  # noqa: SLF001
}


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Journal, Journal]:
    folder = tmp_path_factory.mktemp("growth")
    return filled(folder / "little.db", LITTLE), filled(folder / "much.db", MUCH)


@pytest.mark.parametrize("asked", ASKED)
def test_ten_times_the_journal_takes_no_more_steps(journals: tuple[Journal, Journal], asked: str) -> None:
    little, much = (steps_of(journal, ASKED[asked]) for journal in journals)
    assert much <= little * 1.2 + 50, f"{EVERY} times {little} and {much} steps"
