"""The life of one message, hop by hop, as the journal of one station knows it: `tocsin trace`.

Only what is written down is told: a time that nobody kept is said to be unknown. Times are UTC milliseconds; those of
another station are by that station's clock.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from firmware import wire
from gateway import database, dates, schema
from gateway.vocabulary import CAUSES, CODES, HOWS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from gateway.settings import Settings

_NAME = re.compile(r"([a-z0-9][a-z0-9.-]{0,63})/(\d+)/(\d+)")
SKEW_MS = 2_000  # by which clocks that are kept right may disagree
STAGES = {
    0: "refused it: it will never be believed there",
    wire.AT_GATEWAY: "has it",
    wire.AT_HQ: "has it in its journal",
    wire.ACKNOWLEDGED: "says that an operator acknowledged it",
    wire.RESPONDING: "says that a unit responds",
    wire.CLOSED: "says that it is closed",
}
LIGHT = {
    wire.AT_GATEWAY: "that the gateway has it",
    wire.AT_HQ: "that headquarters has it",
    wire.ACKNOWLEDGED: "that an operator acknowledged it",
    wire.RESPONDING: "that a unit responds",
    wire.CLOSED: "that it is closed",
}


class TraceError(Exception):
    """There is nothing to show; the text says why."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that is known. at_ms None: that it was so is known, not when. clock: whose, if another station's.

    doubtful: it can't have been then.
    """

    at_ms: int | None
    what: str
    clock: str | None = None
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Life:
    """All that a station knows of a message. number: its position in that station's journal."""

    id: str
    number: int
    station: str
    about: str
    happened_at_ms: int
    exact: bool  # whether the time of the press is known; else it was then or earlier
    moments: tuple[Moment, ...]
    unknown: tuple[str, ...]


def find(settings: Settings, asked: str | None, *, last: bool = False) -> Life:
    """The life of `asked` (device/boot/seq, or an incident's number), or of the newest alarm. Raises TraceError."""
    if last == (asked is not None):
        raise TraceError("name one alarm: device/boot/seq, an incident's number, or --last")
    if not settings.is_begun:
        raise TraceError(f"{settings.store}: there is no journal yet: this station never ran with these settings")
    engine = database.open_database(settings.store, writes=False)
    try:
        with engine.connect() as connection:
            return life(connection, settings.station, _row(connection, asked))
    except DatabaseError as error:
        raise TraceError(f"{settings.store}: the journal can't be read: {error.orig}") from error
    finally:
        engine.dispose()


def _row(connection: Connection, asked: str | None) -> Row[Any]:
    table = schema.journal.c
    wanted = select(schema.journal)
    if asked is None:
        wanted, absent = wanted.where(table.kind == wire.ALARM).order_by(table.id.desc()), "there is no alarm yet"
    elif name := _NAME.fullmatch(asked):
        source, boot, seq = name[1], int(name[2]), int(name[3])
        wanted = wanted.where(table.source == source, table.boot == boot, table.seq == seq)
        absent = f"{asked} is not in this station's journal: it never came here, or has been removed as too old"
    elif re.fullmatch(r"\d{1,18}", asked):
        wanted, absent = wanted.where(table.id == int(asked)), f"number {asked} is not in this station's journal"
    else:
        raise TraceError(f"{asked!r} names no alarm: it is device/boot/seq, such as khi-cn-b1/3/17, or a number")
    row = connection.execute(wanted.limit(1)).first()
    if row is None:
        raise TraceError(absent)
    return row


def life(connection: Connection, station: str, row: Row[Any]) -> Life:
    """What the journal of `station` knows of one of its rows."""
    message = wire.unseal(row.envelope).message
    pressed = "pressed" if row.kind == wire.ALARM else "happened"
    moments = [
        Moment(row.happened_at_ms, pressed if row.exact else f"{pressed} then or earlier: the sender lost power since")
    ]
    moments += _hops(wire.decode(row.hops), row.received_at_ms)
    own = row.source == station
    moments.append(Moment(row.received_at_ms, f"{'made' if own else 'received'} here, at {station}"))
    moments.append(Moment(None, f"committed here: number {row.id} of the journal"))
    unknown = ["when it was committed here: before the first receipt, which follows on the commit"]
    for delivery in connection.execute(select(schema.deliveries).where(schema.deliveries.c.entry == row.id)):
        moments += _delivery(delivery)
        if delivery.stage is not None and delivery.at_ms is None:
            unknown.append(f"when {delivery.parent} receipted it: that was before this station kept such times")
    incident = connection.execute(select(schema.incidents).where(schema.incidents.c.id == row.id)).first()
    if incident is not None:
        steps = connection.execute(
            select(schema.steps).where(schema.steps.c.incident == row.id).order_by(schema.steps.c.id)
        ).all()
        moments += [Moment(step.at_ms, _step(step)) for step in steps]
        if not steps and incident.state != "raised":
            unknown.append(f"who moved it to {incident.state!r}, and when: that is in headquarters' journal")
        moments.append(_light(connection, row, incident.state))
    if not own:
        unknown.append("when its sender got the receipts: they are sent after the commit, and again until they arrive")
    order = sorted(enumerate(moments), key=lambda numbered: _place(moments, numbered[0]))
    about = _alarm(message) if row.kind == wire.ALARM else _event(message)
    name = f"{row.source}/{row.boot}/{row.seq}"
    return Life(
        id=name,
        number=row.id,
        station=station,
        about=about,
        happened_at_ms=row.happened_at_ms,
        exact=bool(row.exact),
        moments=tuple(moment for _, moment in order),
        unknown=tuple(unknown),
    )


def _hops(hops: list[list[Any]], received_at_ms: int) -> list[Moment]:
    """The way here. Doubtful is what lies before the hop before it, or after the arrival here."""
    moments, before_ms = [], dates.FIRST_MS
    for name, at_ms in hops:
        doubtful = not before_ms - SKEW_MS <= at_ms <= received_at_ms + SKEW_MS or not dates.has(at_ms)
        moments.append(Moment(at_ms, f"received by {name}", name, doubtful))
        before_ms = before_ms if doubtful else at_ms
    return moments


def _place(moments: list[Moment], index: int) -> tuple[int, int]:
    """By time; what has none, or another's clock, stays behind what was told before it."""
    known = [moment.at_ms for moment in moments[: index + 1] if moment.at_ms is not None and moment.clock is None]
    moment = moments[index]
    at = known[-1] if moment.at_ms is None or moment.clock else moment.at_ms
    return at, index


def _alarm(message: dict[int, Any]) -> str:
    cause = CAUSES.get(message[wire.CAUSE], f"cause {message[wire.CAUSE]}")
    return f"alarm: {cause}, {HOWS.get(message.get(wire.HOW, 0), 'both')}"


def _event(message: dict[int, Any]) -> str:
    told = CODES.get(message[wire.CODE], f"code {message[wire.CODE]}")
    return f"event: {told} {message.get(wire.SUBJECT, '')}".rstrip()


def _delivery(row: Row[Any]) -> list[Moment]:
    if row.stage is None:
        return [Moment(None, f"not receipted by {row.parent} yet: it is sent until it is")]
    if row.stage == 0:
        return [Moment(row.stage_at_ms, f"{row.parent} {STAGES[0]}")]
    first = [] if row.stage == wire.AT_HQ else [Moment(row.at_ms, f"first receipt of {row.parent}: it has it")]
    return [
        *first,
        Moment(row.stage_at_ms, f"receipt of {row.parent}: it {STAGES.get(row.stage, f'says stage {row.stage}')}"),
    ]


def _step(row: Row[Any]) -> str:
    note = f": {row.note}" if row.note else ""
    return f"{row.state.replace('_', ' ')} by {row.by}{f' as {row.outcome}' if row.outcome else ''}{note}"


def _light(connection: Connection, row: Row[Any], state: str) -> Moment:
    """What the button's last heartbeat says of its light."""
    latest = connection.execute(select(schema.latest).where(schema.latest.c.child == row.source)).first()
    if latest is None:
        return Moment(None, "no heartbeat of the button is kept here: whether its light showed anything is not known")
    shown = {(boot, seq): stage for boot, seq, stage in wire.decode(latest.message).get(wire.SHOWN, [])}
    stage = shown.get((row.boot, row.seq))
    if stage is not None:
        return Moment(
            latest.heard_at_ms, f"the button's last heartbeat: its light shows {LIGHT.get(stage, f'stage {stage}')}"
        )
    if latest.heard_at_ms < row.received_at_ms:
        return Moment(None, "no heartbeat of the button since: whether its light showed anything is not known")
    told = "nothing of it any more" if state == "closed" else "nothing of it"
    return Moment(latest.heard_at_ms, f"the button's last heartbeat: its light shows {told}")


def as_json(found: Life) -> str:
    """One JSON object."""
    return json.dumps(asdict(found), ensure_ascii=False, indent=1)


def as_text(found: Life) -> str:
    """For people: each moment, the time since the one before it, and the time since the press."""
    lines = [f"{found.id}  number {found.number} at {found.station}  {found.about}", ""]
    lines.append(f"{'UTC':<24} {'after that':>12} {'since press':>12}")
    before = found.happened_at_ms
    for moment in found.moments:
        if moment.at_ms is None:
            lines.append(f"{'time not kept':<24} {'':>12} {'':>12}  {moment.what}")
            continue
        when = dates.text(moment.at_ms)[:23].replace("T", " ")
        if moment.doubtful:
            lines.append(f"{when:<24} {'':>12} {'':>12}  {moment.what} (its own clock: implausible)")
            continue
        since = "" if moment is found.moments[0] else _span(moment.at_ms - before)
        total = (
            ""
            if moment is found.moments[0]
            else ("" if found.exact else "at least ") + _span(moment.at_ms - found.happened_at_ms)
        )
        clock = " (its own clock)" if moment.clock else ""
        lines.append(f"{when:<24} {since:>12} {total:>12}  {moment.what}{clock}")
        before = moment.at_ms
    lines += ["", *(f"Not in the journal: {what}." for what in found.unknown)]
    return "\n".join(line.rstrip() for line in lines)


def _span(ms: int) -> str:
    sign, ms = ("-" if ms < 0 else "+"), abs(ms)
    if ms < 60_000:
        return f"{sign}{ms / 1000:.3f} s"
    minutes, s = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes:02} min" if hours else f"{sign}{minutes} min {s:02} s"
