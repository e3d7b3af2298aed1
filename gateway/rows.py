"""Entries of the journal, and what one transaction reads of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from firmware import wire
from gateway import chain, database, deleted, schema
from gateway.desk import State
from gateway.vocabulary import CAUSES, HOWS, STAGES

if TYPE_CHECKING:
    from gateway.chain import Checkpoint, Sealer

RECORD = 100  # kind of an entry that is an event for the journal's sake only: no page lists it
RECORDS = {wire.CHECKPOINT, wire.REGISTRY_ENTRY}


@dataclass(frozen=True, slots=True)
class Entry:
    """A message for the journal. Times in UTC milliseconds; `exact` False: it happened then or earlier."""

    source: str
    message: dict[int, Any]
    envelope: bytes
    hops: list[list[Any]]
    received_at_ms: int
    happened_at_ms: int
    exact: bool

    @property
    def kind(self) -> int:
        """ALARM or EVENT."""
        return int(self.message[wire.KIND])

    @property
    def identity(self) -> tuple[str, int, int]:
        """(source, boot, seq): names this message for ever."""
        return self.source, self.message[wire.BOOT], self.message[wire.SEQ]


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an entry. id: its position. conflict: its identity already names another message."""

    id: int
    fresh: bool
    conflict: bool
    stage: int  # the newest stage that can be receipted


@dataclass(frozen=True, slots=True)
class Owed:
    """A kept message that a parent has not receipted. position: where it stands in the journal."""

    position: int
    identity: tuple[str, int, int]
    envelope: bytes
    hops: list[list[Any]]
    received_at_ms: int
    happened_at_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What a child said last. identity: (boot, seq) of its newest heartbeat; silent: it is reported as silent."""

    child: str
    via: str | None
    identity: tuple[int, int]
    heard_at_ms: int
    message: dict[int, Any]
    silent: bool


def kind_told(entry: Entry) -> int:
    """Of an entry that is relayed, as the table says it."""
    return RECORD if entry.message.get(wire.CODE) in RECORDS else entry.kind


def incident(number: int, entry: Entry) -> dict[str, Any]:
    """The incident that the alarm at position `number` opens."""
    source, boot, seq = entry.identity
    return {
        "id": number,
        "device": source,
        "boot": boot,
        "seq": seq,
        "cause": CAUSES.get(entry.message[wire.CAUSE], f"cause {entry.message[wire.CAUSE]}"),
        "how": HOWS.get(entry.message.get(wire.HOW, 0), "both"),
        "state": State.RAISED.value,
    }


def head(connection: Connection) -> tuple[int, bytes]:
    """Position and chain of the newest entry; where retention left none, of the cut."""
    table = schema.journal.c
    row = connection.execute(select(table.id, table.chain).order_by(table.id.desc()).limit(1)).first()
    if row is None:
        cuts = schema.checkpoints.c
        row = connection.execute(select(cuts.position, cuts.chain).order_by(cuts.position.desc()).limit(1)).first()
    return (row[0], row[1]) if row else (0, chain.GENESIS)


def last_sealed(connection: Connection) -> tuple[int, int]:
    """Position and time, UTC milliseconds, of the last checkpoint; without one, of where the journal begins."""
    marks, table = schema.checkpoints.c, schema.journal.c
    for asked in (
        select(marks.position, marks.at_ms).order_by(marks.position.desc(), marks.at_ms.desc()),
        select(table.id - 1, table.received_at_ms).order_by(table.id),
    ):
        row = connection.execute(asked.limit(1)).first()
        if row is not None:
            return row[0], row[1]
    return 0, time.time_ns() // 1_000_000


def seal(connection: Connection, sealer: Sealer, position: int, now_chain: bytes, *, cut: bool = False) -> Checkpoint:
    """A new checkpoint, within a transaction."""
    table, journal = schema.checkpoints.c, schema.journal.c
    last = connection.execute(
        select(table.position, table.count).where(table.position <= position).order_by(table.position.desc()).limit(1)
    ).first()
    since = connection.execute(
        select(func.count()).where(journal.id > (last[0] if last else 0), journal.id <= position)
    ).scalar_one()
    made = sealer.seal(position, now_chain, (last[1] if last else 0) + since, time.time_ns() // 1_000_000, cut=cut)
    row = {
        "position": position,
        "cut": int(cut),
        "chain": now_chain,
        "count": made.count,
        "at_ms": made.at_ms,
        "signature": made.signature,
    }
    database.upsert(connection, schema.checkpoints, row, ["position", "cut"])
    return made


def own_entry(
    station: str, identity: tuple[int, int], code: int, subject: str, detail: object, now_ms: int, key: bytes
) -> Entry:
    """An event of a station's own. identity: (boot, seq). now_ms: UTC. key: any; parents get it sealed anew."""
    boot, seq = identity
    message: dict[int, Any] = {
        wire.KIND: wire.EVENT,
        wire.BOOT: boot,
        wire.SEQ: seq,
        wire.AGE: 0,
        wire.CODE: code,
        wire.SUBJECT: subject,
    }
    if detail is not None:
        message[wire.DETAIL] = detail
    return Entry(station, message, wire.seal(message, station, key), [], now_ms, now_ms, exact=True)


def named(identity: tuple[str, int, int]) -> tuple[Any, Any, Any]:
    """What a statement asks for one message."""
    source, boot, seq = identity
    table = schema.journal.c
    return table.source == source, table.boot == boot, table.seq == seq


def lasting(message: dict[int, Any]) -> dict[int, Any]:
    """A message without what its sender brings up to date at every sending."""
    return {field: value for field, value in message.items() if field not in {wire.AGE, wire.RESUMED}}


def kind_of(connection: Connection, identity: tuple[str, int, int]) -> int | None:
    """ALARM or EVENT; None: no such message is in the journal."""
    return connection.execute(select(schema.journal.c.kind).where(*named(identity))).scalar()


def stage_of(connection: Connection, identity: tuple[str, int, int]) -> int | None:
    """The newest stage that headquarters can receipt for a message; None if it was never here."""
    source, boot, seq = identity
    table = schema.incidents.c
    state = connection.execute(
        select(table.state).where(table.device == source, table.boot == boot, table.seq == seq)
    ).scalar()
    if state is not None:
        return STAGES[State(state)]
    here = connection.execute(select(schema.journal.c.id).where(*named(identity))).scalar()
    if here is not None:
        return wire.AT_HQ
    return wire.CLOSED if deleted.is_alarm(connection, identity) else None
