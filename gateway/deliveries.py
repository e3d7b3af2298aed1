"""What each parent has receipted of what the journal holds: one part of `Journal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, bindparam, func, insert, or_, select, update

from firmware import wire
from gateway import database, schema
from gateway.desk import State
from gateway.rows import Entry, Owed, head, named
from gateway.vocabulary import STAGES, STATES

if TYPE_CHECKING:
    from collections.abc import Sequence


AT_ONCE = 20_000  # positions: an alarm waits for no more
OWED_SINCE, LEFT = (
    "owed since",
    "left",
)  # of the table `station`: the key, with a parent's name; of one that is none now


class Deliveries:
    """Deliveries of the journal's entries to its station's parents."""

    readers: Engine
    parents: tuple[str, ...]

    def begin_owing(self, connection: Connection) -> None:
        """Writes down from where on each parent gets entries, the first time it is among the settings, or again."""
        table, keys = schema.deliveries.c, schema.station.c.key
        mine = [f"{OWED_SINCE} {parent}" for parent in self.parents]
        left = keys.like(f"{OWED_SINCE} %"), keys.not_in(mine)
        connection.execute(update(schema.station).where(*left).values(value=LEFT))
        for parent in self.parents:
            if owed_since(connection, parent) is None:
                first = None  # a database of before this was written down says it by what is owed
                if database.kept(connection, f"{OWED_SINCE} {parent}") != LEFT:
                    first = connection.execute(select(func.min(table.entry)).where(table.parent == parent)).scalar()
                after = head(connection)[0] if first is None else first - 1
                row = {"key": f"{OWED_SINCE} {parent}", "value": str(after)}
                database.upsert(connection, schema.station, row, ["key"])

    def owe(self, connection: Connection, number: int, entry: Entry) -> None:
        """Every parent is to get the entry at position `number`, within its transaction."""
        rows = [{"entry": number, "parent": parent, "kind": entry.kind} for parent in self.parents]
        connection.execute(insert(schema.deliveries), rows)

    def delivered(
        self,
        connection: Connection,
        parent: str,
        identity: tuple[str, int, int],
        stage: int,
        at_ms: int | None = None,
    ) -> State | None:
        """Notes a parent's receipt. Returns the state that the incident moved to, if it did. at_ms: when it came, UTC."""
        number = connection.execute(select(schema.journal.c.id).where(*named(identity))).scalar()
        if number is None:
            return None
        table = schema.deliveries
        connection.execute(
            update(table)
            .where(
                table.c.entry == number, table.c.parent == parent, (table.c.stage.is_(None)) | (table.c.stage < stage)
            )
            .values(stage=stage, stage_at_ms=at_ms, at_ms=func.coalesce(table.c.at_ms, at_ms))
        )
        state = STATES.get(stage)
        now = connection.execute(select(schema.incidents.c.state).where(schema.incidents.c.id == number)).scalar()
        if state is None or now is None or STAGES[State(now)] >= stage:
            return None
        connection.execute(update(schema.incidents).where(schema.incidents.c.id == number).values(state=state.value))
        return state

    def delivered_all(
        self, connection: Connection, parent: str, receipts: Sequence[tuple[tuple[str, int, int], int]], now_ms: int
    ) -> None:
        """Notes receipts, (identity, stage) each, that came at `now_ms`, UTC, and move no incident: of stage 2 at most."""
        rows = [
            {
                "of": parent,
                "its_source": source,
                "its_boot": boot,
                "its_seq": seq,
                "its_stage": stage,
                "now_ms": now_ms,
            }
            for (source, boot, seq), stage in receipts
        ]
        if rows:
            connection.execute(_DELIVERED, rows)

    def owe_again(self, connection: Connection, parent: str, since_ms: int, after: int) -> int | None:
        """What `parent` receipted since `since_ms`, UTC, counts as never delivered to it.

        Some entries at a time, from position `after` on, within a transaction: where to go on; None: that was all.
        """
        table = schema.deliveries
        last = connection.execute(select(func.max(table.c.entry)).where(table.c.parent == parent)).scalar() or 0
        connection.execute(
            update(table)
            .where(
                table.c.parent == parent,
                table.c.entry > after,
                table.c.entry <= after + AT_ONCE,
                table.c.stage > 0,
                or_(table.c.at_ms.is_(None), table.c.at_ms >= since_ms),
            )
            .values(stage=None, at_ms=None, stage_at_ms=None)
        )
        return after + AT_ONCE if after + AT_ONCE < last else None

    def marks(self, parent: str) -> str | None:
        """What is remembered of a parent's journal: see gateway/marks.py."""
        with self.readers.connect() as connection:
            return database.kept(connection, f"marks {parent}")

    def keep_marks(self, connection: Connection, parent: str, text: str) -> None:
        """Writes that down, within a transaction."""
        database.upsert(connection, schema.station, {"key": f"marks {parent}", "value": text}, ["key"])

    def owed(self, parent: str, kind: int, after: int, limit: int) -> list[Owed]:
        """What `parent` has not receipted of one kind beyond the position `after`, oldest first."""
        deliveries, journal = schema.deliveries.c, schema.journal.c
        query = (
            select(
                journal.id,
                journal.source,
                journal.boot,
                journal.seq,
                journal.envelope,
                journal.hops,
                journal.received_at_ms,
                journal.happened_at_ms,
            )
            .join(schema.deliveries, deliveries.entry == journal.id)
            .where(
                deliveries.parent == parent,
                deliveries.kind == kind,
                deliveries.stage.is_(None),
                deliveries.entry > after,
            )
            .order_by(deliveries.entry)  # by journal.id, SQLite would sort everything that waits for every page
            .limit(limit)
        )
        with self.readers.connect() as connection:
            rows = connection.execute(query).all()
        return [
            Owed(
                row.id,
                (row.source, row.boot, row.seq),
                row.envelope,
                wire.decode(row.hops),
                row.received_at_ms,
                row.happened_at_ms,
            )
            for row in rows
        ]


def owed_since(connection: Connection, parent: str) -> int | None:
    """The position after which a parent gets every entry; None: it is no parent of a station that ran."""
    said = database.kept(connection, f"{OWED_SINCE} {parent}")
    return None if said is None or said == LEFT else int(said)


_DELIVERED = (
    update(schema.deliveries)
    .where(
        schema.deliveries.c.parent == bindparam("of"),
        schema.deliveries.c.entry
        == select(schema.journal.c.id)
        .where(
            schema.journal.c.source == bindparam("its_source"),
            schema.journal.c.boot == bindparam("its_boot"),
            schema.journal.c.seq == bindparam("its_seq"),
        )
        .scalar_subquery(),
        schema.deliveries.c.stage.is_(None) | (schema.deliveries.c.stage < bindparam("its_stage")),
    )
    .values(
        stage=bindparam("its_stage"),
        stage_at_ms=bindparam("now_ms"),
        at_ms=func.coalesce(schema.deliveries.c.at_ms, bindparam("now_ms")),
    )
)
