"""What is done with a whole journal: hold it against its chain, copy, put back, shorten, write out, derive the rest anew.

Each goes through the entries once, in order, in bounded memory, and calls `advance(n)` as it does.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.exc import DBAPIError

from firmware import wire
from gateway import database, dates, deleted, maintenance, registry_log, schema, sitebook
from gateway.chain import HASHED, Checkpoint, Finding, Verifier, written_down
from gateway.deliveries import owed_since
from gateway.desk import State, StorageError
from gateway.registry_log import Told
from gateway.rows import RECORD, Entry, head, incident, own_entry, seal
from gateway.vocabulary import (
    CAUSES,
    CODES,
    MAINTENANCE_BY,
    MAINTENANCE_UNTIL_MS,
    STATES,
    STEP_BOOT,
    STEP_BY,
    STEP_NOTE,
    STEP_OUTCOME,
    STEP_SEQ,
    STEPS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric import ec
    from sqlalchemy import Connection, Row

    from gateway.chain import Sealer
    from gateway.journal import Journal

CHUNK = 5_000
DAY_MS = 86_400_000
KINDS = {"alarm": wire.ALARM, "event": wire.EVENT, "record": RECORD}

_J = schema.journal.c
_COLUMNS = [_J[name] for name in HASHED]


def chunks(connection: Connection, statement: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
    """A statement's rows, some at a time."""
    with connection.execution_options(yield_per=CHUNK).execute(statement) as result:
        yield from result.partitions()


def span(connection: Connection) -> tuple[int, int]:
    """First and last position; (1, 0) if there is none."""
    first, last = connection.execute(select(func.min(_J.id), func.max(_J.id))).one()
    return (first, last) if first is not None else (1, 0)


# ------------------------------------------------------------------------------------------------ verify


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found. sealed: checkpoints that the chain agrees with; unsealed: entries beyond the last."""

    entries: int
    sealed: int
    unsealed: int
    findings: list[Finding]


def checkpoints(connection: Connection) -> list[Checkpoint]:
    """Those of the database."""
    return [
        Checkpoint(position, bool(cut), chain, count, at_ms, signature)
        for position, cut, chain, count, at_ms, signature in connection.execute(select(schema.checkpoints))
    ]


def witnessed(connection: Connection, station: str) -> Iterator[Checkpoint | None]:
    """The checkpoints that a station below told this one of; None for an event that carries none."""
    for rows in chunks(connection, select(_J.envelope).where(_J.source == station, _J.kind == RECORD)):
        for row in rows:
            message = wire.unseal(row.envelope).message
            if message[wire.CODE] == wire.CHECKPOINT:
                try:
                    yield Checkpoint.of_detail(message.get(wire.DETAIL))
                except ValueError:
                    yield None


def verify(
    where: Path | str,
    station: str,
    keys: Sequence[ec.EllipticCurvePublicKey],
    beside: Sequence[Checkpoint],
    advance: Callable[[int], None],
) -> Verified:
    """Holds the journal against its chain and every checkpoint. beside: those of files. Raises StorageError."""
    engine = database.open_database(where, writes=False)
    verifier = None
    try:
        with engine.connect() as connection:
            verifier = Verifier(station, keys, [*checkpoints(connection), *beside])
            for rows in chunks(connection, select(*_COLUMNS, _J.chain).order_by(_J.id)):
                verifier.feed(rows)
                advance(len(rows))
        findings = verifier.end()
        damage = "" if isinstance(where, str) else _damage(where)
        if damage:
            words = (
                f"the entries are there, but the database is damaged elsewhere ({damage}): restore the newest backup"
            )
            findings = [*findings, Finding(verifier.position, "damaged", words)]
    except DBAPIError as error:
        found = database.trouble(error)
        if found is None or (verifier is None and found.passes):
            raise StorageError(f"the journal can't be read: {error.orig}") from error
        after = verifier.position if verifier else 0
        words = f"from entry {after + 1} on the journal can't be read: {found.why}"
        findings = [*(verifier.findings if verifier else []), Finding(after + 1, "damaged", words)]
    finally:
        engine.dispose()
    if verifier is None:
        return Verified(0, 0, 0, findings)
    return Verified(verifier.entries, verifier.sealed, verifier.unsealed, findings)


# ------------------------------------------------------------------------------------------------ export


def export(
    connection: Connection,
    out: IO[str],
    form: str,
    since_ms: int | None,
    until_ms: int | None,
    kind: str | None,
    advance: Callable[[int], None],
) -> int:
    """Writes entries that happened from `since_ms` until before `until_ms`. form: jsonl or csv. How many there were."""
    statement = select(*_COLUMNS, _J.chain).order_by(_J.id)
    statement = statement.where(_J.happened_at_ms >= since_ms) if since_ms is not None else statement
    statement = statement.where(_J.happened_at_ms < until_ms) if until_ms is not None else statement
    statement = statement.where(_J.kind == KINDS[kind]) if kind else statement
    names = [*_told_of(None), "envelope", "chain"]
    table = csv.DictWriter(out, names)
    if form == "csv":
        table.writeheader()
    count = 0
    for rows in chunks(connection, statement):
        for row in rows:
            told = {**_told_of(row), "envelope": row.envelope.hex(), "chain": (row.chain or b"").hex()}
            if form == "csv":
                cells = {**told, "hops": json.dumps(told["hops"])}
                table.writerow({name: _cell(value) for name, value in cells.items()})
            else:
                out.write(json.dumps(told, ensure_ascii=False) + "\n")
        count += len(rows)
        advance(len(rows))
    return count


def _cell(value: object) -> object:
    """A spreadsheet takes a text that begins like a formula for one, whoever wrote it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _told_of(row: Row[Any] | None) -> dict[str, Any]:
    if row is None:
        names = (
            "position",
            "source",
            "boot",
            "seq",
            "kind",
            "what",
            "subject",
            "happened_at",
            "exact",
            "received_at",
            "hops",
        )
        return dict.fromkeys(names)
    message = wire.unseal(row.envelope).message
    is_alarm = row.kind == wire.ALARM
    number = message[wire.CAUSE if is_alarm else wire.CODE]
    return {
        "position": row.id,
        "source": row.source,
        "boot": row.boot,
        "seq": row.seq,
        "kind": next((name for name, kind in KINDS.items() if kind == row.kind), str(row.kind)),
        "what": (CAUSES if is_alarm else CODES).get(number, str(number)),
        "subject": message.get(wire.SUBJECT, ""),
        "happened_at": dates.text(row.happened_at_ms),
        "exact": bool(row.exact),
        "received_at": dates.text(row.received_at_ms),
        "hops": [[station, dates.text(at_ms)] for station, at_ms in wire.decode(row.hops)],
    }


# ------------------------------------------------------------------------------------- backup and restore


def backup(source: Path, target: Path, advance: Callable[[int, int], None]) -> None:
    """A copy of a database as it is now, beside a running station. advance(done, of): pages. Raises StorageError."""
    part = target.with_name(target.name + ".part")
    try:
        part.unlink(missing_ok=True)
        with closing(_sqlite(source)) as origin, closing(sqlite3.connect(part)) as copy:
            origin.execute("BEGIN")
            origin.execute(
                "SELECT count(*) FROM sqlite_master"
            ).fetchone()  # what is committed later is not in the copy
            origin.backup(copy, pages=2_000, progress=lambda _, left, of: advance(of - left, of))
            origin.rollback()
            copy.execute("PRAGMA journal_mode = DELETE")
        part.replace(target)
    except (sqlite3.Error, OSError) as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{source} can't be copied to {target}: {error}") from error


def _sqlite(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise StorageError(f"{path} is not there")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=1, isolation_level=None)


def in_use(path: Path) -> bool:
    """Whether a station, or any other program, has this database open."""
    if not path.exists():
        return False
    try:
        with closing(_sqlite(path)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.rollback()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    except sqlite3.Error:  # damaged: nobody can use it
        return False
    return False


def restore(source: Path, target: Path, checkpoints_file: Path, advance: Callable[[int, int], None]) -> list[Path]:
    """Puts a backup into place. What was there is kept under other names, which are returned. Raises StorageError."""
    with closing(_sqlite(source)) as opened:
        try:
            opened.execute("SELECT count(*) FROM alembic_version").fetchone()
        except sqlite3.Error as error:
            raise StorageError(f"{source} is no backup of a station: {error}") from error
    if in_use(target):
        raise StorageError(f"{target} is in use: stop the station first")
    target.parent.mkdir(parents=True, exist_ok=True)
    arrived = target.with_name(target.name + ".restored")
    backup(source, arrived, advance)
    damage = _damage(arrived)
    if damage or in_use(target):  # once more: copying may take minutes
        arrived.unlink()
        told = f"{source} is damaged ({damage}): take another backup" if damage else f"{target} is in use"
        raise StorageError(f"{told}; nothing was changed")
    aside = []
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for old in (
        target,
        *(target.with_name(target.name + end) for end in ("-wal", "-shm", ".damaged")),
        checkpoints_file,
    ):
        if old.exists():
            aside.append(old.with_name(f"{old.name}.before-{moment}"))
            old.replace(aside[-1])
    arrived.replace(target)
    with closing(_sqlite(target)) as opened:
        columns = "position, cut, chain, count, at_ms, signature"
        for row in opened.execute(f"SELECT {columns} FROM checkpoints ORDER BY position"):  # noqa: S608 no input
            one = Checkpoint(row[0], bool(row[1]), *row[2:])
            with checkpoints_file.open("a", encoding="utf-8") as file:
                file.write(one.line + "\n")
    return aside


def _damage(path: Path) -> str:
    """What SQLite finds wrong with the file as a whole: tables and indices that no chain covers. Empty: nothing."""
    try:
        with closing(_sqlite(path)) as opened:
            found = str(opened.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else " ".join(found.split())


def beside(file: Path) -> list[Checkpoint]:
    """The checkpoints of the file beside the database; none if there is no file. Raises StorageError."""
    try:
        return written_down(file)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StorageError(f"{file} can't be read: {error}") from error


# ------------------------------------------------------------------------------------------------ retain


def may_go(connection: Connection, before_ms: int, parents: Sequence[str], closes: str | None) -> int:
    """The last position of the front that is older, closed and delivered to every one of `parents`; 0: nothing is.

    closes: the parent whose operators close alarms, at a site: one that it refused it never closes.
    """
    deliveries, incidents, steps = schema.deliveries.c, schema.incidents.c, schema.steps.c
    stays = [
        connection.execute(select(_J.id).where(_J.received_at_ms >= before_ms).order_by(_J.id).limit(1)).scalar(),
        connection.execute(
            select(func.min(deliveries.entry)).where(deliveries.stage.is_(None), deliveries.parent.in_(parents))
        ).scalar(),
        connection.execute(
            select(func.min(incidents.id)).where(
                incidents.state != State.CLOSED.value,
                ~exists().where(deliveries.entry == incidents.id, deliveries.stage == 0, deliveries.parent == closes),
            )
        ).scalar(),
        connection.execute(select(func.min(steps.incident)).where(steps.at_ms >= before_ms)).scalar(),
    ]
    first, last = span(connection)
    limit = min((position for position in stays if position is not None), default=last + 1) - 1
    return limit if limit >= first else 0


def to_go(journal: Journal, days: int, closes: str | None) -> tuple[int, int]:
    """What `retain` may delete: up to which position (0: nothing), and how many entries. closes: as `may_go`."""
    before_ms = time.time_ns() // 1_000_000 - days * DAY_MS
    with journal.readers.connect() as connection:
        limit = may_go(connection, before_ms, journal.parents, closes)
        return limit, limit - span(connection)[0] + 1 if limit else 0


def retain(
    journal: Journal, sealer: Sealer, boot: int, limit: int, closes: str | None, advance: Callable[[int], None]
) -> int:
    """Deletes the entries of the front up to `limit`, as `to_go` gives it; how many. closes: as `may_go`.

    Some at a time, beside a running station, and each time a signed checkpoint says where the journal begins now. What
    the registry needs is journaled again. boot: for that, the journal's next one. Raises StorageError.
    """
    now_ms = time.time_ns() // 1_000_000
    done, seq = 0, 0

    def cut(connection: Connection) -> int:
        nonlocal seq
        rows = connection.execute(
            select(_J.id, _J.chain, _J.source, _J.envelope).where(_J.id <= limit).order_by(_J.id).limit(CHUNK)
        ).all()
        if not rows:
            return 0
        at = rows[-1].id
        before = seq
        for code, subject, detail in _still_needed(connection, rows, sealer.station):
            seq += 1
            told = own_entry(sealer.station, (boot, seq), code, subject, detail, now_ms, bytes(32))
            journal.keep(connection, told, relayed=False)
        made = [seal(connection, sealer, at, rows[-1].chain, cut=True)]
        if seq > before:
            made.append(seal(connection, sealer, *head(connection)))
        steps, marks = schema.steps, schema.checkpoints
        deleted.remember(connection, at, sealer.station, events=closes is None)
        connection.execute(delete(steps).where(steps.c.incident <= at))
        connection.execute(delete(schema.incidents).where(schema.incidents.c.id <= at))
        connection.execute(delete(schema.deliveries).where(schema.deliveries.c.entry <= at))
        connection.execute(delete(schema.journal).where(_J.id <= at))
        connection.execute(delete(marks).where(marks.c.position < at))
        made_of.append(made)
        return len(rows)

    made_of: list[list[Checkpoint]] = []
    while limit and (some := journal.now(cut)):
        done += some
        for one in made_of[-1]:
            sealer.write_down(one)
        advance(some)
    return done


def _still_needed(connection: Connection, rows: Sequence[Any], station: str) -> Iterator[tuple[int, str, Any]]:
    """Code, subject and detail of what must be journaled again before these entries go: else no rebuilding has it."""
    messages = [wire.unseal(row.envelope).message for row in rows if row.source == station]
    children = {one[wire.SUBJECT] for one in messages if one[wire.CODE] == wire.REGISTRY_ENTRY}
    known = registry_log.snapshot(connection) if children else {}
    for child in sorted(children):
        for subject, detail in registry_log.entry(known, child):
            yield wire.REGISTRY_ENTRY, subject, detail
    for one in messages:
        if one[wire.CODE] == wire.SITE_CHANGED:
            yield wire.SITE_CHANGED, one[wire.SUBJECT], one[wire.DETAIL]


# ----------------------------------------------------------------------------------------------- rebuild


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How much was derived. unknown: ids of the registry that no entry tells of; they were left as they are."""

    entries: int
    incidents: int
    steps: int
    children: int
    unknown: list[str]


def rebuild(connection: Connection, station: str, parents: Sequence[str], advance: Callable[[int], None]) -> Rebuilt:
    """Derives incidents, steps, deliveries and the registry from the journal, within the caller's transaction.

    What a parent receipted stands in its receipts only: a delivery that is there stays, one that is missing is made as
    not receipted, and the parent is asked again. Of what is from before it was one, a parent gets nothing.
    """
    connection.execute(delete(schema.steps))
    connection.execute(delete(schema.incidents))
    connection.execute(delete(schema.maintenance))
    told: list[Told] = []
    of_sites: list[Told] = []
    counts = {"entries": 0, "incidents": 0, "steps": 0}
    after = 0
    since = {parent: owed_since(connection, parent) or 0 for parent in parents}
    statement = select(*_COLUMNS).order_by(_J.id).limit(CHUNK)
    while rows := connection.execute(statement.where(_J.id > after)).all():
        after = rows[-1].id
        for row in rows:
            message = wire.unseal(row.envelope).message
            if row.kind == wire.ALARM:
                one = Entry(
                    row.source, message, row.envelope, [], row.received_at_ms, row.happened_at_ms, bool(row.exact)
                )
                connection.execute(schema.incidents.insert(), incident(row.id, one))
                counts["incidents"] += 1
            elif row.source == station and message[wire.CODE] in STEPS.values():
                counts["steps"] += _step_again(connection, row.received_at_ms, message)
            elif row.source == station and message[wire.CODE] == wire.MAINTENANCE:
                until_ms, by = (message[wire.DETAIL][key] for key in (MAINTENANCE_UNTIL_MS, MAINTENANCE_BY))
                maintenance.begin(connection, message[wire.SUBJECT], until_ms, by)
            elif row.source == station and message[wire.CODE] == wire.MAINTENANCE_ENDED:
                maintenance.end(connection, message[wire.SUBJECT], row.received_at_ms)
            elif row.source == station and message[wire.CODE] == wire.REGISTRY_ENTRY:
                told.append((message[wire.SUBJECT], message[wire.DETAIL]))
                continue
            elif row.source == station and message[wire.CODE] == wire.SITE_CHANGED:
                of_sites.append((message[wire.SUBJECT], message[wire.DETAIL]))
                if row.kind == RECORD:  # `retain` journaled it again: parents have it
                    continue
            for parent in (one for one in parents if row.id > since[one]):
                due = {"entry": row.id, "parent": parent, "kind": message[wire.KIND]}
                connection.execute(database.insert(connection, schema.deliveries).on_conflict_do_nothing(), due)
        counts["entries"] += len(rows)
        advance(len(rows))
    _follow_receipts(connection)
    sitebook.rebuild(connection, of_sites)
    known, gone = registry_log.rebuilt(told)
    unknown = registry_log.put_back(connection, known, gone)
    return Rebuilt(**counts, children=len({child for _, child in known}), unknown=unknown)


def _step_again(connection: Connection, at_ms: int, message: dict[int, Any]) -> int:
    table, detail = schema.incidents, message[wire.DETAIL]
    state = next(state for state, code in STEPS.items() if code == message[wire.CODE])
    number = connection.execute(
        select(table.c.id).where(
            table.c.device == message[wire.SUBJECT],
            table.c.boot == detail[STEP_BOOT],
            table.c.seq == detail[STEP_SEQ],
        )
    ).scalar()
    if number is None:  # retention deleted the alarm
        return 0
    outcome = detail.get(STEP_OUTCOME)
    connection.execute(update(table).where(table.c.id == number).values(state=state.value, outcome=outcome))
    taken = {"incident": number, "state": state.value, "at_ms": at_ms, "by": detail[STEP_BY], "note": detail[STEP_NOTE]}
    connection.execute(schema.steps.insert(), {**taken, "outcome": outcome})
    return 1


def _follow_receipts(connection: Connection) -> None:
    """At a site an alarm stands where its parent's newest receipt says."""
    deliveries, table = schema.deliveries.c, schema.incidents
    rows = connection.execute(
        select(deliveries.entry, func.max(deliveries.stage))
        .where(deliveries.kind == wire.ALARM, deliveries.stage.is_not(None))
        .group_by(deliveries.entry)
    ).all()
    for entry, stage in rows:
        if stage in STATES:
            connection.execute(
                update(table)
                .where(table.c.id == entry, table.c.state == State.RAISED.value)
                .values(state=STATES[stage].value)
            )
