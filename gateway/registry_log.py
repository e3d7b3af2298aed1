"""The registry's changes as events of the station: every field of every entry, so that the journal alone can give it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import delete, select

from firmware import wire
from gateway import database, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Connection, Table

TABLES: tuple[Table, ...] = (schema.children, schema.enrolments)
"""In the order in which rows may be inserted; their numbers are those of the wire."""
MOST = 600  # bytes of fields in one event
MARK = "registry journaled"

# Entries of DETAIL:
TABLE = 0
FIELDS = 1  # name, value, name, value …
GONE = 2  # 1: the entry was removed

T = TypeVar("T")
Rows = dict[tuple[int, str], dict[str, Any]]
Told = tuple[str, dict[int, Any]]
"""Subject and detail of an event."""


def snapshot(connection: Connection) -> Rows:
    """Every row of the registry, by table and id."""
    return {
        (number, row["id"]): dict(row)
        for number, table in enumerate(TABLES)
        for row in connection.execute(select(table)).mappings()
    }


def changes(before: Rows, after: Rows) -> Iterator[Told]:
    """What must be journaled so that `after` can be had from what makes `before`."""
    for (number, child), row in after.items():
        known = before.get((number, child))
        if known != row:
            yield from _pieces(
                number, child, {name: row[name] for name in row if not known or known[name] != row[name]}
            )
    for number, child in reversed([key for key in before if key not in after]):
        yield child, {TABLE: number, GONE: 1}


def entry(rows: Rows, child: str) -> Iterator[Told]:
    """Everything that is known of one child."""
    return changes({}, {key: row for key, row in rows.items() if key[1] == child})


def _pieces(number: int, child: str, fields: Mapping[str, Any]) -> Iterator[Told]:
    some: list[Any] = []
    size = 0
    for name, value in fields.items():
        length = len(wire.encode([name, value]))
        if some and size + length > MOST:
            yield child, {TABLE: number, FIELDS: some}
            some, size = [], 0
        some += [name, value]
        size += length
    yield child, {TABLE: number, FIELDS: some}


def recording(connection: Connection, work: Callable[[Connection], T], tell: Callable[[Told], object]) -> T:
    """Does `work` and tells what it changed, in one transaction; the first time of all, everything that is there."""
    known = database.kept(connection, MARK)
    before = snapshot(connection) if known else {}
    result = work(connection)
    for told in changes(before, snapshot(connection)):
        tell(told)
    if not known:
        database.upsert(connection, schema.station, {"key": MARK, "value": "1"}, ["key"])
    return result


def rebuilt(told: Iterable[Told]) -> tuple[Rows, set[tuple[int, str]]]:
    """The rows that the events make, in their order, and the keys of those that they removed."""
    rows: Rows = {}
    gone: set[tuple[int, str]] = set()
    for child, detail in told:
        key = (detail[TABLE], child)
        if detail.get(GONE):
            rows.pop(key, None)
            gone.add(key)
            continue
        gone.discard(key)
        fields = detail[FIELDS]
        rows.setdefault(key, {}).update(zip(fields[::2], fields[1::2], strict=True))
    return rows, gone


def put_back(connection: Connection, rows: Rows, gone: Iterable[tuple[int, str]]) -> list[str]:
    """Makes the tables say so. Entries that no event tells of stay; their ids are returned."""
    known = snapshot(connection)
    for number, child in sorted(gone, reverse=True):
        connection.execute(delete(TABLES[number]).where(TABLES[number].c.id == child))
    for number, child in sorted(rows):
        names = TABLES[number].c.keys()
        row = {name: value for name, value in rows[number, child].items() if name in names}
        database.upsert(connection, TABLES[number], {"id": child, **row}, ["id"])
    return sorted({child for _, child in known.keys() - rows.keys() - set(gone)})
