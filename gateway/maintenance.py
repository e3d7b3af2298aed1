"""Children whose silence is no event until a given time, because somebody works on them.

Kept in the database by an operator or `tocsin maintenance`, and journaled as an event each time. Headquarters tells the
stations below in its answers to their heartbeats. A press during a maintenance is an alarm like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select

from firmware import wire
from gateway import database, schema
from gateway.desk import MaintenanceRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

LONGEST_MS = 30 * 86_400_000
ROOM = 640  # bytes of an answer
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


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


def end_of(until: str, lasts: str, now_ms: int) -> int:
    """UTC milliseconds of an end as a person writes it: "2026-11-25T18:00" in the machine's zone, or "90m", "2h", "3d".

    Raises ValueError with what to write instead.
    """
    if lasts:
        number, unit = lasts[:-1], lasts[-1]
        if not number.isdecimal() or unit not in _UNITS_MS or len(number) > 6:
            raise ValueError(f"--for is a number of minutes, hours or days like 90m, 2h or 3d, not {lasts}")
        return now_ms + int(number) * _UNITS_MS[unit]
    try:
        return int(datetime.fromisoformat(until).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"--until is a date and time like 2026-11-25T18:00, not {until}") from error


def begin(connection: Connection, child: str, until_ms: int, by: str) -> None:
    """Begins a maintenance, or gives it another end."""
    database.upsert(connection, schema.maintenance, {"child": child, "until_ms": until_ms, "by": by}, ["child"])


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
