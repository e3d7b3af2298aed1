"""What a journal answers of marks, and what it owes a parent again, on both kinds of database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from demo.world import SITE, World
from firmware import wire
from gateway import schema
from gateway.clock import Clock
from gateway.journal import Journal
from gateway.marking import MISSED_MS, MOST_MISSED, TOLD_MS, Marking
from gateway.rows import Entry, Owed, head
from gateway.settings import load
from gateway.uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def journal(store: Path | str) -> Iterator[Journal]:
    made = Journal(store, ["hq", "rangers"])
    made.start()
    yield made
    made.stop()


def keep(journal: Journal, *seqs: int, kind: int = wire.EVENT) -> None:
    for seq in seqs:
        what = {wire.CAUSE: wire.HOLD_UP} if kind == wire.ALARM else {wire.CODE: wire.STARTED}
        message = {wire.KIND: kind, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 0, **what}
        entry = Entry("b1", message, wire.seal(message, "b1", bytes(32)), [], 10, 10, exact=True)
        journal.now(lambda connection, entry=entry: journal.keep(connection, entry))  # type: ignore[misc]


def owed(journal: Journal, parent: str) -> list[int]:
    return [one.identity[2] for kind in (wire.ALARM, wire.EVENT) for one in journal.owed(parent, kind, 0, 100)]


def test_the_mark_is_what_is_on_the_disk(journal: Journal) -> None:
    assert journal.mark is not None
    assert journal.mark[0] == 0
    keep(journal, 1, 2)
    with journal.readers.connect() as connection:
        assert journal.mark == head(connection)
    position, chain = journal.mark
    assert journal.holds(position, chain[:8])
    assert not journal.holds(position, bytes(8))
    assert not journal.holds(position + 1, chain[:8])
    assert journal.holds(0, bytes(8))


def test_an_entry_that_retention_deleted_is_not_lacking(journal: Journal) -> None:
    keep(journal, 1, 2, 3)
    journal.now(lambda connection: connection.execute(schema.deliveries.delete()) and None)
    journal.now(lambda connection: connection.execute(schema.journal.delete().where(schema.journal.c.id <= 2)) and None)
    assert journal.holds(1, b"whatever")
    assert not journal.holds(3, b"whatever")


def test_only_what_was_receipted_since_then_by_that_parent_is_owed_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.deliveries.AT_ONCE", 2)
    keep(journal, *range(1, 8))
    keep(journal, 8, kind=wire.ALARM)
    for seq in range(1, 9):
        stage = 0 if seq == 6 else wire.AT_HQ
        for parent in ("hq", "rangers"):
            journal.now(lambda c, p=parent, n=seq, s=stage: journal.delivered(c, p, ("b1", 1, n), s, 1_000 * n))  # type: ignore[misc]
    assert owed(journal, "hq") == []
    after: int | None = 0
    while after is not None:
        after = journal.now(lambda connection, after=after: journal.owe_again(connection, "hq", 4_000, after))  # type: ignore[misc]
    assert owed(journal, "hq") == [8, 4, 5, 7]  # 6 was refused
    assert owed(journal, "rangers") == []
    with journal.readers.connect() as connection:
        first = connection.execute(select(schema.deliveries.c.at_ms).where(schema.deliveries.c.entry == 4)).scalars()
        assert set(first) == {None, 4_000}


def test_what_is_owed_again_while_the_journal_is_read_is_not_passed_over(journal: Journal) -> None:
    keep(journal, 1, 2, 3)
    for seq in (1, 2):
        journal.now(lambda connection, seq=seq: journal.delivered(connection, "hq", ("b1", 1, seq), wire.AT_HQ, 1_000))  # type: ignore[misc]
    world = World(buttons=())
    settings = load(world.folder / f"{SITE}.toml")
    nothing: Any = lambda *_: None  # noqa: E731
    uplink = Uplink(
        settings, settings.parents[0], bytes(32), lambda: (1, 1), journal, nothing, nothing, nothing, nothing
    )
    world.close()
    real = journal.owed

    def owed_meanwhile(parent: str, kind: int, after: int, limit: int) -> list[Owed]:
        found = real(parent, kind, after, limit)
        if kind == wire.EVENT and after == 0:
            journal.now(lambda connection: journal.owe_again(connection, "hq", 0, 0))
            journal.owed = real  # type: ignore[method-assign]
            uplink.again()
        return found

    journal.owed = owed_meanwhile  # type: ignore[method-assign]
    uplink.begin()
    for now_ms in range(5):
        uplink.turn(now_ms)
    assert uplink.outstanding() == (0, 3)


class Told:
    """A parent's marking over a real journal, and the events that it tells."""

    def __init__(self, journal: Journal) -> None:
        self.events: list[tuple[int, str]] = []
        self.marking = Marking(
            "hq", journal, Clock(), lambda code, subject, _detail: self.events.append((code, subject))
        )


def test_a_parent_tells_what_it_holds_and_tells_loudly_once_what_it_lacks(journal: Journal) -> None:
    told = Told(journal)
    keep(journal, 1)
    mark = told.marking.answer("gw", {}, 0)[wire.MARK]
    assert told.marking.answer("gw", {wire.MARK: mark}, 0)[wire.KNOWN] == [*mark, 1]
    other_run = [mark[0], mark[1][:8] + b"else"]
    assert told.marking.answer("gw", {wire.MARK: other_run}, 0)[wire.KNOWN] == [*other_run, 2]
    assert told.events == []
    lacked: list[Any] = [99, mark[1]]
    for now_ms in (0, TOLD_MS - 1):
        assert told.marking.answer("gw", {wire.MARK: lacked}, now_ms)[wire.KNOWN] == [*lacked, 0]
    assert told.events == [(wire.JOURNAL_LACKS, "hq")]
    told.marking.answer("gw", {wire.MARK: lacked}, TOLD_MS)
    assert len(told.events) == 2


def test_an_alarm_on_a_light_that_is_not_there_is_told_of_once_and_only_if_it_stays_so(journal: Journal) -> None:
    told, alarm = Told(journal), ("b1", 1, 7)
    for stage in (wire.AT_GATEWAY, wire.CLOSED):
        for now_ms in (0, MISSED_MS):
            told.marking.shown(alarm, stage, here=False, now_ms=now_ms)
    told.marking.shown(alarm, wire.AT_HQ, here=False, now_ms=0)
    told.marking.shown(alarm, wire.AT_HQ, here=True, now_ms=MISSED_MS)
    assert told.events == []
    for now_ms in (0, MISSED_MS - 1, MISSED_MS, 2 * MISSED_MS):
        told.marking.shown(alarm, wire.ACKNOWLEDGED, here=False, now_ms=now_ms)
    assert told.events == [(wire.JOURNAL_LACKS, "b1")]
    for seq in range(2 * MOST_MISSED):
        told.marking.shown(("b2", 1, seq), wire.AT_HQ, here=False, now_ms=0)
    assert len(told.marking._missed) == MOST_MISSED


def test_marks_are_kept(journal: Journal) -> None:
    assert journal.marks("hq") is None
    for text in ("[]", "[[1, 2, '00']]"):
        journal.now(lambda connection, text=text: journal.keep_marks(connection, "hq", text))  # type: ignore[misc]
        assert journal.marks("hq") == text
    assert journal.marks("rangers") is None
