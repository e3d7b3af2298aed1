"""Writes many entries of the journal with one statement a table: what a batch costs is hardly more than what its rows cost.

Only for entries that are all new, which is the usual case: it finds out by writing them, and takes that back if not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert
from sqlalchemy.dialects import postgresql, sqlite

from firmware import wire
from gateway import chain, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from gateway.rows import Entry

    Head = tuple[int, bytes]  # position and chain of the newest entry

_NAMES = (*chain.HASHED, "chain")
_KEEP = {
    name: made(schema.journal).on_conflict_do_nothing(index_elements=["source", "boot", "seq"])
    for name, made in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}


def columns(position: int, entry: Entry, kind: int) -> list[Any]:
    """An entry's columns, those of chain.HASHED. kind: as the table says it."""
    return [
        position, *entry.identity, kind,
        entry.happened_at_ms, int(entry.exact), entry.received_at_ms, entry.envelope, wire.encode(entry.hops),
    ]  # fmt: skip


def write(
    connection: Connection,
    head: Head,
    entries: Sequence[Entry],
    parents: Sequence[str],
    kind_of: Callable[[Entry], int],
    incident: Callable[[int, Entry], dict[str, Any]],
) -> Head | None:
    """Writes entries in order after `head`; returns the new head. None: one was there already, and nothing is written."""
    rows, (position, link) = [], head
    for entry in entries:
        position += 1
        values = columns(position, entry, kind_of(entry))
        link = chain.link(link, values)
        rows.append(dict(zip(_NAMES, (*values, link), strict=True)))
    savepoint = connection.begin_nested()
    kept = connection.execute(_KEEP[connection.dialect.name], rows, execution_options={"preserve_rowcount": True})
    if kept.rowcount != len(rows):
        savepoint.rollback()
        return None
    savepoint.commit()
    numbered = list(enumerate(entries, head[0] + 1))
    opened = [incident(number, entry) for number, entry in numbered if entry.kind == wire.ALARM]
    if opened:
        connection.execute(insert(schema.incidents), opened)
    if parents:
        owed = [
            {"entry": number, "parent": parent, "kind": entry.kind} for number, entry in numbered for parent in parents
        ]
        connection.execute(insert(schema.deliveries), owed)
    return position, link
