"""What retention deleted, so that a recorded message of long ago is not taken for a new one: its MAC is right for ever.

Of alarms every identity is kept. Of events only the newest of each boot: one that is not newer was here, or comes after
others of its sender that were old enough to go; it is refused, and told, rather than believed or lost in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, exists, func, select, tuple_

from firmware import wire
from gateway import database, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from gateway.rows import Entry

_J, _A, _E = schema.journal.c, schema.deleted_alarms.c, schema.deleted_events.c
_IDENTITY = ("source", "boot", "seq")
_NO_ALARM = ~exists().where(tuple_(_A.source, _A.boot, _A.seq).in_(bindparam("alarms", expanding=True)))
_EVENTS = select(_E.source, _E.boot, _E.seq).where(tuple_(_E.source, _E.boot).in_(bindparam("boots", expanding=True)))


def remember(connection: Connection, up_to: int, own: str, *, events: bool) -> None:
    """Notes the entries up to a position, which are deleted next in this transaction. own: whose entries never come back.

    events: whether those are noted, too. A site passes them on instead, and headquarters judges.
    """
    going = _J.id <= up_to, _J.source != own
    alarms = select(*(_J[name] for name in _IDENTITY)).where(*going, _J.kind == wire.ALARM)
    put = database.insert(connection, schema.deleted_alarms).from_select(_IDENTITY, alarms)
    connection.execute(put.on_conflict_do_nothing())
    if not events:
        return
    newest = select(_J.source, _J.boot, func.max(_J.seq)).where(*going, _J.kind != wire.ALARM)
    noted = database.insert(connection, schema.deleted_events).from_select(
        _IDENTITY, newest.group_by(_J.source, _J.boot)
    )
    higher = noted.on_conflict_do_update(
        index_elements=["source", "boot"], set_={"seq": noted.excluded.seq}, where=_E.seq < noted.excluded.seq
    )
    connection.execute(higher)


def is_alarm(connection: Connection, identity: tuple[str, int, int]) -> bool:
    """Whether an alarm of this name was here."""
    source, boot, seq = identity
    asked = select(_A.seq).where(_A.source == source, _A.boot == boot, _A.seq == seq)
    return connection.execute(asked).first() is not None


def is_event(connection: Connection, identity: tuple[str, int, int]) -> bool:
    """Whether an event of this name was here, or comes too late."""
    source, boot, seq = identity
    newest = connection.execute(select(_E.seq).where(_E.source == source, _E.boot == boot)).scalar()
    return newest is not None and seq <= newest


def none_of(connection: Connection, entries: Sequence[Entry]) -> bool:
    """Whether nothing of this was here before it was deleted."""
    alarms = [entry.identity for entry in entries if entry.kind == wire.ALARM]
    if alarms and not connection.execute(select(_NO_ALARM), {"alarms": alarms}).scalar():
        return False
    events = [entry.identity for entry in entries if entry.kind != wire.ALARM]
    boots = list(dict.fromkeys(identity[:2] for identity in events))
    newest = {}
    if boots:
        newest = {tuple(row[:2]): row[2] for row in connection.execute(_EVENTS, {"boots": boots})}
    return all(seq > newest.get((source, boot), -1) for source, boot, seq in events)
