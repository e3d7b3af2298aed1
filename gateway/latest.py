"""What every child said last: one part of `Journal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, delete, select

from firmware import wire
from gateway import database, schema
from gateway.rows import Heard

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class Latest:
    """The newest heartbeats, kept over a restart."""

    readers: Engine

    def heard(self) -> list[Heard]:
        """What every child said last, as far as it was kept."""
        with self.readers.connect() as connection:
            rows = connection.execute(select(schema.latest)).all()
        return [
            Heard(
                row.child,
                row.via,
                (row.boot, row.seq),
                row.heard_at_ms,
                wire.decode(row.message),
                bool(row.silent),
            )
            for row in rows
        ]

    def keep_heard(self, connection: Connection, heard: Sequence[Heard]) -> None:
        """Writes what children said last, within a transaction."""
        rows = [
            {
                "child": last.child,
                "via": last.via,
                "boot": last.identity[0],
                "seq": last.identity[1],
                "heard_at_ms": last.heard_at_ms,
                "message": wire.encode(last.message),
                "silent": int(last.silent),
            }
            for last in heard
        ]
        database.upsert(connection, schema.latest, rows, ["child"])

    def forget_heard(self, connection: Connection, children: Collection[str]) -> None:
        """Deletes what these said last, within a transaction: they are no children of this station any more."""
        connection.execute(delete(schema.latest).where(schema.latest.c.child.in_(children)))
