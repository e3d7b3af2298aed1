"""Children whose silence is no event until a given time, because somebody works on them.

Kept in the database by an operator or `tocsin maintenance`, and journaled as an event each time. Headquarters tells the
stations below in its answers to their heartbeats. A press during a maintenance is an alarm like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from firmware import wire
from gateway import schema
from gateway.desk import MaintenanceRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

LONGEST_MS = 30 * 86_400_000
ROOM = 640  # bytes of an answer


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Somebody works on a child until `until_ms`, UTC."""

    until_ms: int
    by: str


def check(until_ms: int, now_ms: int) -> None:
    """Raises MaintenanceRefusedError unless a maintenance may end at `until_ms`, UTC."""
    if until_ms <= now_ms:
        raise MaintenanceRefusedError("the end of a maintenance must lie in the future")
    if until_ms - now_ms > LONGEST_MS:
        raise MaintenanceRefusedError(
            f"a maintenance may last {LONGEST_MS // 86_400_000} days at most: retire the child"
        )


def begin(connection: Connection, child: str, until_ms: int, by: str) -> None:
    """Begins a maintenance, or gives it another end."""
    table = schema.maintenance
    statement = insert(table).values(child=child, until_ms=until_ms, by=by)
    connection.execute(statement.on_conflict_do_update(index_elements=["child"], set_={"until_ms": until_ms, "by": by}))


def end(connection: Connection, child: str, now_ms: int) -> bool:
    """Ends it. False: there was none."""
    table = schema.maintenance
    was = connection.execute(delete(table).where(table.c.child == child).returning(table.c.until_ms)).scalar()
    return was is not None and was > now_ms


def current(connection: Connection, now_ms: int) -> dict[str, Maintenance]:
    """Who is under maintenance at `now_ms`, UTC."""
    table = schema.maintenance
    rows = connection.execute(select(table).where(table.c.until_ms > now_ms)).all()
    return {row.child: Maintenance(row.until_ms, row.by) for row in rows}


def told(ends_ms: Mapping[str, int], now_ms: int) -> list[list[Any]]:
    """MAINTAINED of an answer: as many of those children as fit, with the seconds that are left. Soonest end first."""
    found, room = [], ROOM
    for child, until_ms in sorted(ends_ms.items(), key=lambda one: one[1])[: wire.MAX_NAMED]:
        room -= len(child) + 8
        if until_ms > now_ms and room >= 0:
            found.append([child, -(-(until_ms - now_ms) // 1000)])
    return found
