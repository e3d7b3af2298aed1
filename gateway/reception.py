"""The desk of a running station: what the console sees and does, made from the journal and from what is in memory."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from firmware import wire
from gateway import database, dates, keys, schema, sitebook
from gateway.clock import monotonic_ms, utc_ms
from gateway.commands import NAMES
from gateway.desk import (
    OPEN,
    TEST_CAUSE,
    Check,
    Child,
    Command,
    CommandRefusedError,
    EntrancePast,
    Happening,
    Health,
    Incident,
    Link,
    Outcome,
    Person,
    State,
    Step,
    StepRefusedError,
)
from gateway.enrolment import moment
from gateway.settings import VERSION
from gateway.standing import standing
from gateway.vocabulary import (
    CODES,
    LOOPS,
    MAINTENANCE_BY,
    MAINTENANCE_UNTIL_MS,
    MANY_COUNT,
    MANY_NAMED,
    MANY_WHY,
    PATHS,
    REFUSAL_COUNT,
    REFUSAL_WHY,
    SITE_BY,
    SITE_FIELDS,
    SPARES,
    STEP_BY,
    STEP_NOTE,
    STEP_OUTCOME,
    TESTINGS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from gateway.desk import Subscription
    from gateway.enrolment import Registrar
    from gateway.registry import Enrolled
    from gateway.sites import Site, SiteChange
    from gateway.station import Station
    from gateway.supervision import Watched

MOST_ALARMS, MOST_TESTS = 500, 50  # on the list of open ones
MOST_OF_ONE = 20  # of one button: a stolen key that presses for ever takes nobody else's place
WARN_CERTIFICATE_MS = 30 * 86_400_000
LEAST_DISK_MB = 200
CLOCK_LIMIT_MS = 2_000
PAST_SHOWN, PAST_SEARCHED = 200, 3_000  # of an entrance: rows shown; newest events of all looked through
BACKLOG_LIMIT = 1_000  # writes
WAIT_LIMIT_S = 2.0


class Reception:
    """Implements `gateway.desk.Desk`."""

    def __init__(self, station: Station) -> None:
        self._of = station

    @property
    def station(self) -> str:
        """The station's id."""
        return self._of.settings.station

    @property
    def role(self) -> str:
        """ "site" or "hq"."""
        return self._of.settings.role

    @property
    def name(self) -> str:
        """What people call the station."""
        return self._of.settings.name or self._of.settings.station

    def now_ms(self) -> int:
        """UTC milliseconds."""
        return utc_ms()

    def unreadable(self, error: Exception) -> tuple[str, int] | None:
        """Why the database can't be read at present and since when, if that is what `error` says."""
        found = database.trouble(error) if isinstance(error, DBAPIError) else None
        if found is None:
            return None
        known = self._of.journal.trouble
        return found.why, utc_ms() - int(1000 * (time.monotonic() - known.since) if known else 0)

    # -------------------------------------------------------------------------------- incidents

    def open_incidents(self) -> Sequence[Incident]:
        """Not closed, the newest to come first, each button's fair share of them."""
        return sorted(
            [
                *self._open(MOST_ALARMS, tests=False),
                *self._open(MOST_TESTS, tests=True),
            ],  # apart: tests push no alarm off
            key=lambda incident: -incident.id,
        )

    def _open(self, most: int, *, tests: bool) -> list[Incident]:
        table = schema.incidents.c
        # By name: "not closed" would have SQLite look at every incident there ever was, and pages ask every second.
        opened = table.state.in_([state.value for state in OPEN])
        of_one = func.row_number().over(partition_by=table.device, order_by=table.id.desc()).label("of_one")
        there = func.count().over(partition_by=table.device).label("there")
        is_test = table.cause == TEST_CAUSE
        ranked = (
            select(table.id, table.device, of_one, there).where(opened & (is_test if tests else ~is_test)).subquery()
        )
        newest = select(ranked).where(ranked.c.of_one <= MOST_OF_ONE)
        with self._of.journal.readers.connect() as connection:
            rows = connection.execute(newest.order_by(ranked.c.of_one, ranked.c.id.desc()).limit(most)).all()
        oldest = {row.device: row for row in rows}
        more = {row.id: row.there - row.of_one for row in oldest.values() if row.there > row.of_one}
        return self._incidents(table.id.in_([row.id for row in rows]), most, more)

    def incident(self, number: int) -> Incident | None:
        """The incident of that id."""
        found = self._incidents(schema.incidents.c.id == number, 1)
        return found[0] if found else None

    def history(self, before: int | None = None, limit: int = 50) -> Sequence[Incident]:
        """All incidents, newest first."""
        return self._incidents(schema.incidents.c.id < (before or 1 << 62), limit)

    def step(self, number: int, state: State, by: str, note: str = "", outcome: Outcome | None = None) -> Incident:
        """Moves an incident."""
        if self.role != "hq":
            message = "alarms are worked at headquarters"
            raise StepRefusedError(message)
        self._of.exchange.step(number, state, by, note, outcome)
        incident = self.incident(number)
        if incident is None:
            raise KeyError(number)
        return incident

    def _incidents(self, condition: Any, limit: int, more: Mapping[int, int] | None = None) -> list[Incident]:
        table, journal, steps = schema.incidents.c, schema.journal.c, schema.steps.c
        with self._of.journal.readers.connect() as connection:
            rows = connection.execute(
                select(schema.incidents, journal.happened_at_ms, journal.exact, journal.received_at_ms, journal.hops)
                .join(schema.journal, journal.id == table.id)
                .where(condition)
                .order_by(table.id.desc())
                .limit(limit)
            ).all()
            taken = connection.execute(
                select(schema.steps).where(steps.incident.in_([row.id for row in rows])).order_by(steps.id)
            ).all()
        steps_of: dict[int, list[Row[Any]]] = {row.id: [] for row in rows}
        for step in taken:
            steps_of[step.incident].append(step)
        return [self._incident(row, steps_of[row.id], (more or {}).get(row.id, 0)) for row in rows]

    def _incident(self, row: Row[Any], taken: Sequence[Row[Any]], more: int) -> Incident:
        place = self._of.registry.place_of(row.device)
        return Incident(
            id=row.id,
            device=row.device,
            boot=row.boot,
            seq=row.seq,
            place=place,
            site=self._of.registry.sites().get(place.site),
            cause=row.cause,
            how=row.how,
            pressed_at_ms=row.happened_at_ms,
            pressed_at_exact=bool(row.exact),
            received_at_ms=row.received_at_ms,
            state=State(row.state),
            steps=tuple(
                Step(State(step.state), step.at_ms, step.by, step.note, Outcome(step.outcome) if step.outcome else None)
                for step in taken
            ),
            outcome=Outcome(row.outcome) if row.outcome else None,
            vouched_by=self._voucher(row),
            more=more,
        )

    def _voucher(self, row: Row[Any]) -> str:
        """Headquarters, and an agency, take no alarm of a button they don't know but through a station that vouches."""
        hops = wire.decode(row.hops)
        if not hops or self.role != "hq" or row.device in self._of.registry.children():
            return ""
        return str(hops[-1][0])

    # --------------------------------------------------------------------------------- children

    def children(self) -> Sequence[Child]:
        """Every child that is known and not retired, by site and entrance."""
        exchange, now = self._of.exchange, monotonic_ms()
        enrolled, known = self._of.registry.working(), self._of.registry.children()
        with exchange.watch_lock:
            names = {*enrolled, *exchange.supervision.children} - (known.keys() - enrolled.keys())
            seen = {name: self._standing(name, now) for name in names}
        made = [self._child(name, *seen[name], enrolled.get(name)) for name in names]
        return sorted(
            made, key=lambda child: (child.place.site if child.place else child.id, child.kind != "station", child.id)
        )

    def child(self, child: str) -> Child | None:
        """One child, a retired one included."""
        known = self._of.registry.children().get(child)
        with self._of.exchange.watch_lock:
            watched = self._of.exchange.supervision.children.get(child)
            if known is None and watched is None:
                return None
            if known and known.retired_at_ms is not None:
                return Child(child, known.kind, known.place, Link.RETIRED, "it is believed no more", None)
            seen = self._standing(child, monotonic_ms())
        return self._child(child, *seen, known)

    def maintain(self, child: str, until_ms: int | None, by: str) -> None:
        """Puts a child under maintenance, or ends it."""
        self._of.exchange.maintain(child, until_ms, by)

    def _standing(self, name: str, now: int) -> tuple[Link, str, Watched | None, int | None]:
        """Its state, why, and when it was last heard, in UTC."""
        exchange = self._of.exchange
        watched, report = exchange.supervision.children.get(name), exchange.reports.get(name)
        link, why = standing(exchange.supervision, watched, report.message if report else None, now)
        heard_ms = report.heard_at_ms if report else None
        if watched and watched.via and watched.last_ms is not None and heard_ms is not None:
            heard_ms = max(heard_ms, utc_ms() - (now - watched.last_ms))  # its station heard it since
        return link, why, watched, heard_ms

    def _child(
        self, name: str, link: Link, why: str, watched: Watched | None, heard_ms: int | None, enrolled: Enrolled | None
    ) -> Child:
        place, expires_ms = (enrolled.place, enrolled.expires_at_ms) if enrolled else (None, None)
        report, maintained = self._of.exchange.reports.get(name), self._of.exchange.maintenance.get(name)
        until_ms = maintained.until_ms if maintained and maintained.until_ms > utc_ms() else None
        if maintained and until_ms:
            why = f"by {maintained.by}" if link is Link.ONLINE else f"by {maintained.by}; {why}"
            link = Link.MAINTENANCE
        message = report.message if report else {}
        station = watched.station if watched else enrolled is not None and enrolled.kind == "station"
        return Child(
            id=name,
            kind="station" if station or wire.CHILDREN in message else "button",
            place=place,
            link=link,
            why=why,
            last_heard_ms=heard_ms,
            loop=LOOPS.get(message.get(wire.LOOP, -1)),
            tampered=None if wire.TAMPER not in message else bool(message[wire.TAMPER]),
            battery_mv=message.get(wire.BATTERY),
            on_mains=None if wire.SUPPLY not in message else message[wire.SUPPLY] == wire.ON_MAINS,
            rssi_dbm=message.get(wire.RSSI),
            path=PATHS.get(message.get(wire.PATH, -1)),
            spare=SPARES.get(message.get(wire.SPARE, -1)),
            testing=TESTINGS.get(message.get(wire.TESTING, 0)),
            firmware=message.get(wire.FIRMWARE),
            uptime_ms=message.get(wire.UPTIME),
            pending=message.get(wire.PENDING),
            via=None if report is None or report.via == name else report.via,
            enrolling_until_ms=expires_ms,
            maintenance_until_ms=until_ms,
        )

    # --------------------------------------------------------------------------------- commands

    def command(
        self,
        child: str,
        command: str,
        by: str,
        network: tuple[str, str] | None = None,
        lasts_s: int | None = None,
        changes: Mapping[str, str | int] | None = None,
    ) -> Command:
        """Gives a button a command."""
        if self.role != "hq":
            raise CommandRefusedError("commands are given at headquarters: a button believes nobody else")
        code = {name: code for code, name in NAMES.items()}[command]
        number = self._of.exchange.command(child, code, by, network, lasts_s, changes)
        return next(given for given in self.commands(child) if given.id == number)

    def commands(self, child: str) -> Sequence[Command]:
        """The commands that were given to a button, newest first."""
        if child not in self._of.registry.children():
            raise KeyError(child)
        return self._of.exchange.commands.of(child)

    # ------------------------------------------------------------------------------- happenings

    def happenings(self, before: int | None = None, limit: int = 100) -> Sequence[Happening]:
        """Events, newest first."""
        table = schema.journal.c
        with self._of.journal.readers.connect() as connection:
            rows = connection.execute(
                select(schema.journal)
                .where(table.kind == wire.EVENT, table.id < (before or 1 << 62))
                .order_by(table.id.desc())
                .limit(limit)
            ).all()
        return [self._happening(row) for row in rows]

    def _happening(self, row: Row[Any]) -> Happening:
        message = wire.unseal(row.envelope).message
        subject = message.get(wire.SUBJECT, "")
        known = self._of.registry.children()
        place = next((known[name].place for name in (subject, row.source) if name in known), None)
        return Happening(
            id=row.id,
            device=row.source,
            place=place,
            code=CODES.get(message[wire.CODE], str(message[wire.CODE])),
            subject=subject,
            detail=_told(message.get(wire.DETAIL)),
            happened_at_ms=row.happened_at_ms,
            received_at_ms=row.received_at_ms,
        )

    # ------------------------------------------------------------------------------------ sites

    def sites(self) -> Sequence[Site]:
        """Every site, by id."""
        return tuple(self._of.registry.sites().values())

    def site_changes(self, site: str) -> Sequence[SiteChange]:
        """Who changed what of a site, newest first."""
        with self._of.journal.readers.connect() as connection:
            return sitebook.changes(connection, site)

    def change_site(self, site: str, fields: Mapping[str, str], by: str, seen: int | None = None) -> Site:
        """Gives fields of a site other texts."""
        made = self._of.registrar.change_site(site, fields, by, seen)
        self._of.notices.tell("incidents")
        return made

    def undo_site(self, site: str, number: int, by: str) -> Site:
        """Takes a change back."""
        made = self._of.registrar.undo_site(site, number, by)
        self._of.notices.tell("incidents")
        return made

    def entrance_past(self, site: str, entrance: str) -> EntrancePast | None:
        """What an entrance had and what happened there."""
        of = self._of.registry.sites().get(site)
        found = next((one for one in of.entrances if one.id == entrance), None) if of else None
        if of is None or found is None:
            return None
        buttons = [one for one in self.registrar.entries(site) if one.entrance == entrance and one.kind == "button"]
        names = [one.id for one in buttons]
        return EntrancePast(
            site=of,
            entrance=found,
            buttons=tuple(sorted(buttons, key=lambda one: one.enrolled_at_ms or 0, reverse=True)),
            incidents=tuple(self._incidents(schema.incidents.c.device.in_(names), PAST_SHOWN)),
            happenings=tuple(self._told_of(names)),
        )

    def _told_of(self, names: Sequence[str]) -> list[Happening]:
        """What the buttons themselves told, and what stations told of them among their newest events."""
        table = schema.journal.c
        events = select(schema.journal).where(table.kind == wire.EVENT)
        # Button by button in the order of its own numbers, which an index has: by position, SQLite would go back
        # through everybody's events until it had found enough of a button that says little.
        of_one = events.order_by(table.boot.desc(), table.seq.desc()).limit(PAST_SHOWN)
        with self._of.journal.readers.connect() as connection:
            own = [row for name in names for row in connection.execute(of_one.where(table.source == name))]
            newest = connection.execute(events.order_by(table.id.desc()).limit(PAST_SEARCHED)).all()
        told = {row.id: self._happening(row) for row in own}
        for row in newest:
            happening = self._happening(row)
            if happening.subject in names:
                told[row.id] = happening
        return [told[number] for number in sorted(told, reverse=True)][:PAST_SHOWN]

    # ----------------------------------------------------------------------------------- health

    def health(self) -> Health:
        """The station's own state."""
        of = self._of
        counters = {**of.exchange.counters, "commits": of.journal.commits, "refused": of.refusals.total}
        counters |= {"writes that failed for what they say": of.journal.unfit} if of.journal.unfit else {}
        return Health(
            station=self.station,
            role=self.role,
            version=VERSION,
            started_ms=of.started_ms,
            checks=tuple(self._checks()),
            refused=of.refusals.newest(),
            counters=tuple(sorted(counters.items())),
        )

    def _checks(self) -> list[Check]:
        of, now = self._of, monotonic_ms()
        free = shutil.disk_usage(of.settings.state).free >> 20
        checks = [
            Check("broker", of.broker_up, "connected" if of.broker_up else "not connected: no child can be heard"),
            self._journal_check(),
            self._certificates(),
            Check("disk", free > LEAST_DISK_MB, f"{free} MB free"),
        ]
        for uplink in of.uplinks:
            alarms, events = uplink.outstanding()
            answered = (
                "never answered"
                if uplink.answered_ms is None
                else f"answered {(now - uplink.answered_ms) // 1000} s ago"
            )
            heard = uplink.answered_ms is not None and now - uplink.answered_ms < 25_000
            checks.append(
                Check(
                    f"parent {uplink.parent.id}",
                    uplink.connected and heard,
                    f"{f'connected at {uplink.address}' if uplink.connected else 'not connected'}, {answered}; "
                    f"{alarms} alarms and {events} events not receipted",
                )
            )
        for child, samples in sorted(of.exchange.clock_offsets.items()):
            offset = min(samples, default=0)
            checks.append(
                Check(f"clock of {child}", abs(offset) < CLOCK_LIMIT_MS, f"{offset / 1000:+.1f} s from this station's")
            )
        return checks

    def _journal_check(self) -> Check:
        journal = self._of.journal
        trouble, waits = journal.trouble, f"{journal.backlog} writes wait, the oldest for {journal.waiting_s:.1f} s"
        if trouble is not None:
            lasts = f"for {time.monotonic() - trouble.since:.0f} s"
            return Check(
                "journal", False, f"{lasts}: {trouble.why}; alarms are passed on, nothing is promised; {waits}"
            )
        sound = journal.backlog < BACKLOG_LIMIT and journal.waiting_s < WAIT_LIMIT_S
        return Check("journal", sound, f"{waits}; {journal.commits} committed")

    def _certificates(self) -> Check:
        """Of the station, which are its broker's, and of its children: a month is time to renew them."""
        soon = self.now_ms() + WARN_CERTIFICATE_MS
        own = int(keys.certificate(self._of.settings.identity / "cert.pem").not_valid_after_utc.timestamp() * 1000)
        ends = {child.id: child.certified_until_ms for child in self._of.registry.working().values()}
        near = sorted((at, name) for name, at in {**ends, self.station: own}.items() if at is not None and at < soon)
        if not near:
            first = min([own, *(at for at in ends.values() if at is not None)])
            return Check("certificates", True, f"the first of those that are known ends on {moment(first)}")
        named = ", ".join(f"{name} ({moment(at)})" for at, name in near[:5])
        more = f" and {len(near) - 5} more" if len(near) > 5 else ""
        return Check("certificates", False, f"end within 30 days: {named}{more}: run `tocsin provision renew`")

    # ----------------------------------------------------------------------------------- people

    def sign_in(self, name: str, password: str) -> Person | None:
        """The person, or None."""
        return self._of.registry.sign_in(name, password)

    def person(self, name: str) -> Person | None:
        """The person of that name."""
        return self._of.registry.person(name)

    @property
    def registrar(self) -> Registrar:
        """The registry, for technicians' programs."""
        return self._of.registrar

    def subscribe(self) -> Subscription:
        """Tells of changes."""
        return self._of.notices.subscribe()


def _told(detail: object) -> str:
    """An event's particulars as a sentence."""
    if detail is None:
        return ""
    if not isinstance(detail, dict):
        return str(detail)
    if isinstance(detail.get(MANY_NAMED), list):
        named, why = [str(child) for child in detail[MANY_NAMED]], detail.get(MANY_WHY)
        count = detail.get(MANY_COUNT)
        more = count - len(named) if isinstance(count, int) else 0
        told = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        return f"{why}: {told}" if why else told
    if MAINTENANCE_BY in detail:
        until_ms = detail.get(MAINTENANCE_UNTIL_MS)
        told = (
            f", until {moment(until_ms)}" if isinstance(until_ms, int) and until_ms > 0 and dates.has(until_ms) else ""
        )
        return f"by {detail[MAINTENANCE_BY]}{told}"
    if REFUSAL_WHY in detail and isinstance(detail[REFUSAL_WHY], str):
        return f"{detail[REFUSAL_WHY]} ({detail.get(REFUSAL_COUNT, 1)} times)"
    if isinstance(detail.get(wire.ANSWER_TEXT), str):
        return str(detail[wire.ANSWER_TEXT])
    if SITE_FIELDS in detail:
        return _told_of_site(detail)
    parts = [f"by {detail[STEP_BY]}"] if STEP_BY in detail else []
    parts += [str(detail[key]) for key in (STEP_OUTCOME, STEP_NOTE) if detail.get(key)]
    return ", ".join(parts)


def _told_of_site(detail: Mapping[int, Any]) -> str:
    """A change of a site as a sentence; a station below may have sent anything."""
    said = []
    for one in detail[SITE_FIELDS] if isinstance(detail[SITE_FIELDS], list) else []:
        if isinstance(one, list) and len(one) == 4 and isinstance(one[2], int):
            field, text, piece, pieces = one
            said.append(f"{field}: {text}" if pieces == 1 else f"{field} ({piece + 1} of {pieces}): {text}")
    return f"by {detail.get(SITE_BY, '?')}; " + " · ".join(said)
