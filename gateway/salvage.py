"""A site whose database is damaged goes on: the old one is set aside, what can be read of it goes into a new one.

Nobody is there to restore a backup, and alarms must pass. Nothing is lost by it that buttons and headquarters hold: what
was owed is taken along where it can be read, and the buttons keep every alarm that headquarters has not receipted.
Headquarters itself, and a station on PostgreSQL, wait for somebody instead: there the journal is what others rely on.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway import database, registry_log, schema
from gateway.deliveries import OWED_SINCE
from gateway.desk import State, StorageError
from gateway.entries import detail
from gateway.journal import Journal
from gateway.rows import RECORD, Entry, Kept, kind_told, own_entry

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.settings import Settings

logger = logging.getLogger(__name__)

OF_POSITIONS = {"journal", "checkpoints", "incidents", "steps", "deliveries"}  # what a new journal makes anew
MOST = 50_000  # entries that are taken along at most,
TAKE_S = 20.0  # and so long: alarms must pass, and whoever starts a station waits for a minute
SLICE = 500
_OPEN = f"SELECT id FROM incidents WHERE state <> '{State.CLOSED.value}'"  # noqa: S608 no input
_OWED_ALARMS = f"SELECT entry FROM deliveries WHERE stage IS NULL AND kind = {wire.ALARM} ORDER BY entry"  # noqa: S608
_OWED_EVENTS = (
    f"SELECT entry FROM deliveries WHERE stage IS NULL AND kind = {wire.EVENT} ORDER BY entry LIMIT {MOST + 1}"  # noqa: S608
)
_NEWEST = f"SELECT id FROM journal ORDER BY id DESC LIMIT {MOST}"  # noqa: S608 no input
_ENTRY = (
    "SELECT source, boot, seq, kind, envelope, hops, received_at_ms, happened_at_ms, exact FROM journal WHERE id = ?"
)


@dataclass
class Salvaged:
    """What became of a damaged database. unread: tables of which some could not be read."""

    aside: Path
    entries: int = 0
    unread: list[str] = field(default_factory=list)


def applies(settings: Settings) -> bool:
    """Whether a station with these settings begins anew by itself."""
    return settings.role == "site" and not isinstance(settings.store, str)


def mark(settings: Settings, why: str) -> None:
    """Lets the next start begin anew, if this station is one that does."""
    if not applies(settings):
        return
    try:
        _marker(settings).write_text(f"{why}\n", encoding="utf-8")
        logger.critical("the next start sets the damaged database aside and begins a new one")
    except OSError as error:
        logger.warning("%s can't be written: %s", _marker(settings), error)


def recover(settings: Settings) -> Salvaged | None:
    """Begins anew if the last run found its database damaged; None: it did not. Raises StorageError.

    A power cut at any moment of it leads back here.
    """
    if not applies(settings):
        return None
    store, marker = settings.store, _marker(settings)
    assert not isinstance(store, str)
    made = store.with_name(store.name + ".salvaged")
    found = Salvaged(store.with_name(f"{store.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}"))
    why = "the power failed while it began anew"
    try:
        if marker.exists() and store.exists():
            why = marker.read_text(encoding="utf-8").strip()
            for old in _files(made):
                old.unlink(missing_ok=True)
            _fill(settings, store, made, why, found)
            if settings.checkpoints.exists():
                settings.checkpoints.replace(found.aside.with_name(found.aside.name + ".checkpoints"))
        elif not made.exists() or store.exists():
            marker.unlink(missing_ok=True)  # somebody took the damaged one away
            return None
        # The file itself first: from then on there is no way back, and a cut leads to where it goes on.
        for old, new in zip(_files(store), _files(found.aside), strict=True):
            if old.exists():
                old.replace(new)
        marker.unlink(missing_ok=True)
        made.replace(store)
        _thin_out(store)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"the damaged database can't be set aside: {error}") from error
    logger.critical("the database was damaged (%s): it is kept as %s, and this station has a new one", why, found.aside)
    return found


def _marker(settings: Settings) -> Path:
    return settings.state / "station.db.damaged"


def _files(path: Path) -> list[Path]:
    """A database and what SQLite keeps beside it."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


def _thin_out(store: Path) -> None:
    """Of the damaged ones the first and the newest stay: a disk that dies must not fill up with them."""
    begins = f"{store.name}.damaged-"
    there = [one for one in store.parent.iterdir() if one.name.startswith(begins)]
    moments = sorted({one.name[len(begins) :].split(".")[0].split("-")[0] for one in there})
    for one in there:
        if one.name[len(begins) :].split(".")[0].split("-")[0] in moments[1:-1]:
            one.unlink()


def _fill(settings: Settings, old: Path, new: Path, why: str, found: Salvaged) -> None:
    """Makes the new database out of what can be read of the old one."""
    database.prepare(new)
    with closing(_reading(old)) as source, closing(sqlite3.connect(new)) as target:
        for table in schema.metadata.sorted_tables:
            if table.name not in OF_POSITIONS and not _copy(source, target, table.name):
                found.unread.append(table.name)
        target.execute(
            "DELETE FROM station WHERE key IN (?, ?) OR key LIKE ?",
            [registry_log.MARK, schema.REGISTRY_WRITTEN, f"{OWED_SINCE} %"],
        )
        target.commit()
        kept, all_read = _owed(source)
    found.unread += [] if all_read else ["journal"]
    journal = Journal(new, [parent.id for parent in settings.parents])
    boot, seq = journal.next_boot(), 0
    journal.start()
    try:
        taken: list[Kept] = []
        kept.sort(key=lambda entry: entry.kind != wire.ALARM)
        end = time.monotonic() + TAKE_S
        for first in range(0, len(kept), SLICE):
            if time.monotonic() > end:
                found.unread += [] if "journal" in found.unread else ["journal"]
                break
            for entry in kept[first : first + SLICE]:
                journal.put(entry, taken.append)
            journal.now(lambda _: None)  # comes after all of them
        found.entries = sum(one.fresh for one in taken)

        def own(code: int, subject: str, said: object) -> Entry:
            nonlocal seq
            seq += 1
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            return own_entry(settings.station, (boot, seq), code, subject, said, now_ms, bytes(32))

        def tell(connection: Any) -> None:
            registry_log.recording(
                connection,
                lambda _: None,
                lambda told: journal.keep(connection, own(wire.REGISTRY_ENTRY, *told), relayed=False),
            )
            words = detail(
                f"its database was damaged ({why}): it began a new one with {found.entries} entries of the old",
                f"of these not all could be read: {', '.join(found.unread)}" if found.unread else "",
                f"the old one is kept as {found.aside.name}",
            )
            journal.keep(connection, own(wire.JOURNAL_LACKS, settings.station, words))

        journal.now(tell)
    finally:
        journal.stop()
    with closing(sqlite3.connect(new)) as target:
        target.execute("PRAGMA journal_mode = DELETE")  # so that it is one file, which is renamed as a whole


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _read(source: sqlite3.Connection, statement: str) -> tuple[list[Any], bool]:
    """Rows of a statement, and whether those were all."""
    rows: list[Any] = []
    try:
        rows.extend(source.execute(statement))
    except (sqlite3.Error, OverflowError, ValueError) as error:
        logger.warning("%s: %s", statement, error)
        return rows, False
    return rows, True


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> bool:
    """Copies what can be read of a table, from both its ends. False: that was not all."""
    listed, whole = _read(source, f"PRAGMA table_info({table})")
    there = {row[1] for row in listed}
    names = [row[1] for row in target.execute(f"PRAGMA table_info({table})") if row[1] in there]
    if not names:  # of a version that had no such table yet, or nothing is known of it
        return whole
    columns = ", ".join(f'"{name}"' for name in names)
    asked = f"SELECT {columns} FROM {table}"  # noqa: S608 no input
    rows, whole = _read(source, f"{asked} NOT INDEXED")
    if not whole:
        rows += _read(source, f"{asked} NOT INDEXED ORDER BY rowid DESC")[0]
    values = ", ".join("?" * len(names))
    put = f"INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608 no input
    for row in rows:
        try:
            if table == schema.latest.name:
                wire.decode(row[names.index("message")])
            target.execute(put, row)
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, wire.WireError, TypeError) as error:
            logger.warning("a row of %s is not taken along: %s", table, error)
            whole = False
    return whole


def _owed(source: sqlite3.Connection) -> tuple[list[Entry], bool]:
    """What parents have not receipted, or what is open, and whether that is all; if it is not known, the newest entries.

    Of too many, alarms come first, then the oldest events.
    """
    wanted: dict[int, None] = {}
    whole = True
    for statement in (_OWED_ALARMS, _OPEN, _OWED_EVENTS):
        rows, all_read = _read(source, statement)
        wanted |= dict.fromkeys(row[0] for row in rows)
        whole = whole and all_read
    if not whole:
        wanted |= dict.fromkeys(row[0] for row in _read(source, _NEWEST)[0])
    kept = []
    for position in sorted(list(wanted)[:MOST]):
        entry = _entry(source, position)
        if entry is None:
            whole = False
        elif kind_told(entry) != RECORD:  # of the old chain, or of the registry, which is told anew
            kept.append(entry)
    return kept, whole and len(wanted) <= MOST


def _entry(source: sqlite3.Connection, position: int) -> Entry | None:
    """The entry there; None: it can't be read, or its row does not say what its envelope says."""
    try:
        row = source.execute(_ENTRY, [position]).fetchone()
        message = wire.unseal(row[4]).message
        entry = Entry(row[0], message, row[4], wire.decode(row[5]), row[6], row[7], bool(row[8]))
        return entry if (*entry.identity, kind_told(entry)) == tuple(row[:4]) else None
    except (sqlite3.Error, wire.WireError, TypeError, ValueError, OverflowError, KeyError) as error:
        logger.warning("entry %d is not taken along: %s", position, error)
        return None
