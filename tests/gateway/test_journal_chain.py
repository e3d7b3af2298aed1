"""Whatever is done to the journal behind the station's back is seen, and where it begins is named."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import bindparam, delete, select, update

from demo.process import wait_until
from firmware import wire
from gateway import chain, database, keeping, schema
from gateway.chain import Checkpoint, Sealer
from gateway.journal import Journal
from tests.gateway.test_journal import entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ENTRIES = 35
_J = schema.journal.c
COLUMNS = [_J[name] for name in chain.HASHED]


@pytest.fixture
def written(store: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | str:
    """A journal of 35 entries, a checkpoint every ten, stopped cleanly."""
    monkeypatch.setattr("gateway.journal.CHECKPOINT_ENTRIES", 10)
    monkeypatch.setattr("gateway.chain.CHECKPOINT_ENTRIES", 10)
    monkeypatch.setattr("gateway.chain.SLACK_ENTRIES", 5)
    journal = Journal(store, [], Sealer("hq", KEY, tmp_path / "checkpoints"))
    journal.start()
    for seq in range(1, ENTRIES + 1):
        journal.now(lambda connection, seq=seq: journal.keep(connection, entry(seq)))
    journal.stop()
    return store


def verified(store: Path | str, tmp_path: Path, *more: Checkpoint) -> keeping.Verified:
    beside = [*keeping.beside(tmp_path / "checkpoints"), *more]
    return keeping.verify(store, "hq", [KEY.public_key()], beside, lambda _: None)


def tamper(store: Path | str, work: Callable[[Connection], object]) -> None:
    engine = database.open_database(store, writes=True)
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        work(connection)
        if connection.dialect.name == "sqlite":
            for table in (schema.steps, schema.incidents):  # so that only the journal has a hole
                connection.execute(delete(table))
    engine.dispose()


def compute_anew(connection: Connection, start: int = 0, before: bytes = chain.GENESIS) -> None:
    """What somebody does who knows how the chain is made."""
    put = update(schema.journal).where(_J.id == bindparam("at")).values(chain=bindparam("link"))
    for row in connection.execute(select(*COLUMNS).where(_J.id > start).order_by(_J.id)).all():
        before = chain.link(before, list(row))
        connection.execute(put, {"at": row.id, "link": before})


def edit(connection: Connection) -> None:
    connection.execute(update(schema.journal).where(_J.id == 17).values(received_at_ms=2_000))


def swap(connection: Connection) -> None:
    rows = connection.execute(select(schema.journal).where(_J.id.in_((12, 15))).order_by(_J.id)).mappings().all()
    names = [name for name in schema.journal.c.keys() if name != "id"]
    first, second = ({name: row[name] for name in names} for row in rows)
    connection.execute(update(schema.journal).where(_J.id == 12).values(seq=999))
    connection.execute(update(schema.journal).where(_J.id == 15).values(first))
    connection.execute(update(schema.journal).where(_J.id == 12).values(second))


def insert(connection: Connection) -> None:
    row = dict(connection.execute(select(schema.journal).where(_J.id == 9)).mappings().one())
    for number in range(ENTRIES, 20, -1):
        connection.execute(update(schema.journal).where(_J.id == number).values(id=number + 1))
    connection.execute(schema.journal.insert(), {**row, "id": 21, "seq": 777})


def gone(*numbers: int) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(delete(schema.journal).where(_J.id.in_(numbers)))


def edit_and_compute_anew(connection: Connection) -> None:
    edit(connection)
    compute_anew(connection)


def delete_and_number_anew(connection: Connection) -> None:
    gone(14)(connection)
    for number in range(15, ENTRIES + 1):
        connection.execute(update(schema.journal).where(_J.id == number).values(id=number - 1))
    compute_anew(connection)


def cut_the_tail_and_its_checkpoints(connection: Connection) -> None:
    gone(*range(28, 36))(connection)
    connection.execute(delete(schema.checkpoints).where(schema.checkpoints.c.position >= 28))


def forge(connection: Connection) -> None:
    edit_and_compute_anew(connection)
    for row in connection.execute(select(_J.id, _J.chain).where(_J.id.in_((20, 30, 35)))).all():
        made = Sealer("hq", OTHER, Path("/nowhere")).seal(row.id, row.chain, row.id, 1)
        connection.execute(
            update(schema.checkpoints)
            .where(schema.checkpoints.c.position == row.id)
            .values(chain=made.chain, at_ms=1, signature=made.signature)
        )


def edit_and_remove_all_checkpoints(connection: Connection) -> None:
    edit_and_compute_anew(connection)
    connection.execute(delete(schema.checkpoints))


def edit_and_remove_the_checkpoints_since(connection: Connection) -> None:
    edit_and_compute_anew(connection)
    connection.execute(delete(schema.checkpoints).where(schema.checkpoints.c.position > 10))


def remove_all_checkpoints_of_few_entries_over_a_long_time(connection: Connection) -> None:
    gone(*range(12, 36))(connection)
    connection.execute(update(schema.journal).where(_J.id == 11).values(received_at_ms=662_000))
    connection.execute(delete(schema.checkpoints))
    compute_anew(connection)


UNSEALED: dict[Callable[[Connection], object], int] = {
    edit_and_remove_all_checkpoints: 1,
    edit_and_remove_the_checkpoints_since: 11,
    remove_all_checkpoints_of_few_entries_over_a_long_time: 1,
}

DEEDS: dict[str, tuple[Callable[[Connection], object], int, str]] = {
    "an entry is edited": (edit, 17, "edited"),
    "two entries are swapped": (swap, 12, "edited"),
    "an entry is inserted": (insert, 21, "edited"),
    "an entry is deleted": (gone(14), 14, "deleted"),
    "several are deleted": (gone(19, 20, 21), 19, "deleted"),
    "the front is deleted": (gone(1, 2, 3), 1, "deleted"),
    "the end is deleted": (gone(*range(33, 36)), 33, "missing"),
    "the end is deleted with its checkpoints": (cut_the_tail_and_its_checkpoints, 28, "missing"),
    "all is deleted": (gone(*range(1, 36)), 1, "missing"),
    "an entry is edited and the chain computed anew": (edit_and_compute_anew, 11, "recomputed"),
    "one is deleted, the rest numbered and chained anew": (delete_and_number_anew, 11, "recomputed"),
    "checkpoints are forged": (forge, 11, "recomputed"),
}


@pytest.mark.parametrize("deed", list(DEEDS))
def test_it_is_seen_when(deed: str, written: Path | str, tmp_path: Path) -> None:
    work, position, what = DEEDS[deed]
    tamper(written, work)
    findings = verified(written, tmp_path).findings
    assert (findings[0].position, findings[0].what) == (position, what), findings
    if work is forge:
        assert {one.position for one in findings if one.what == "forged"} == {20, 30, 35}


@pytest.mark.parametrize("deed", list(UNSEALED))
def test_entries_that_should_be_under_a_checkpoint_and_are_not_are_named(
    deed: Callable[[Connection], object], written: Path | str, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").unlink()
    tamper(written, deed)
    found = verified(written, tmp_path)
    assert [(one.position, one.what) for one in found.findings] == [(UNSEALED[deed], "unsealed")]
    assert found.unsealed == found.entries - UNSEALED[deed] + 1


def test_a_station_of_a_few_minutes_has_no_checkpoint_yet_and_is_in_order(store: Path | str, tmp_path: Path) -> None:
    journal = Journal(store, [])
    journal.start()
    for seq, at_ms in enumerate((1_000, 500_000), 1):
        one = replace(entry(seq), received_at_ms=at_ms)
        journal.now(lambda connection, one=one: journal.keep(connection, one))
    journal.stop()
    found = verified(store, tmp_path)
    assert (found.findings, found.unsealed) == ([], 2)


def test_what_an_earlier_run_left_unsealed_is_sealed_by_the_next_with_its_first_entry(
    store: Path | str, tmp_path: Path
) -> None:
    """As after a power cut, and days without power."""
    now_ms = time.time_ns() // 1_000_000
    left, sealer = Journal(store, []), Sealer("hq", KEY, tmp_path / "checkpoints")
    left.start()
    one = replace(entry(1), received_at_ms=now_ms - 3 * keeping.DAY_MS)
    left.now(lambda connection: left.keep(connection, one))
    left.stop()
    journal = Journal(store, [], sealer)
    journal.start()
    two = replace(entry(2), received_at_ms=now_ms)
    journal.now(lambda connection: journal.keep(connection, two))
    wait_until(lambda: keeping.beside(sealer.file), 10, "it is sealed")
    found = verified(store, tmp_path)
    journal.stop()
    assert (found.findings, found.sealed, found.unsealed) == ([], 1, 0)


def test_an_untouched_journal_is_in_order_and_its_checkpoints_agree(written: Path | str, tmp_path: Path) -> None:
    found = verified(written, tmp_path)
    assert found.findings == []
    assert (found.entries, found.sealed, found.unsealed) == (ENTRIES, 4, 0)  # 10, 20, 30, and at the stop
    assert [one.position for one in keeping.beside(tmp_path / "checkpoints")] == [10, 20, 30, 35]
    journal = Journal(written, [])
    journal.start()
    journal.now(lambda connection: journal.keep(connection, entry(100)))
    journal.stop()
    assert verified(written, tmp_path).findings == []


def test_what_only_a_parent_remembers_counts_too(written: Path | str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").unlink()
    last = [one for one in _kept(written) if one.position == 35]
    tamper(written, cut_the_tail_and_its_checkpoints)
    assert verified(written, tmp_path).findings == []
    told = [Checkpoint.of_detail(wire.decode(wire.encode(one.detail))) for one in last]
    assert told == last
    assert [one.position for one in verified(written, tmp_path, *told).findings] == [28]


def _kept(store: Path | str) -> list[Checkpoint]:
    engine = database.open_database(store, writes=False)
    with engine.connect() as connection:
        found = keeping.checkpoints(connection)
    engine.dispose()
    return found


def test_a_line_that_a_power_cut_tore_is_left_out(tmp_path: Path) -> None:
    made = Sealer("hq", KEY, tmp_path / "checkpoints")
    one = made.seal(1, bytes(32), 1, 5)
    made.write_down(one)
    with (tmp_path / "checkpoints").open("a") as file:
        file.write(one.line[:30])
    assert keeping.beside(tmp_path / "checkpoints") == [one]


def test_two_that_write_share_one_chain(store: Path | str, tmp_path: Path) -> None:
    """As `tocsin enrol` beside a running station."""
    journals: list[Any] = [Journal(store, [], Sealer("hq", KEY, tmp_path / "checkpoints")) for _ in range(2)]
    for journal in journals:
        journal.start()
    for seq in range(1, 41):
        journal = journals[seq % 2]
        journal.now(lambda connection, seq=seq, journal=journal: journal.keep(connection, entry(seq)))
    for journal in journals:
        journal.stop()
    assert verified(store, tmp_path).findings == []
