"""The desk of a running station: what the console sees and does, made from the journal and from what is in memory."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from firmware import wire
from gateway import schema
from gateway.clock import monotonic_ms, utc_ms
from gateway.commands import NAMES
from gateway.desk import (
    TEST_CAUSE,
    Check,
    Child,
    Command,
    CommandRefusedError,
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
from gateway.settings import VERSION
from gateway.vocabulary import CODES, LOOPS, REFUSAL_COUNT, REFUSAL_WHY, STEP_BY, STEP_NOTE, STEP_OUTCOME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from gateway.desk import Subscription
    from gateway.enrolment import Registrar
    from gateway.exchange import Report
    from gateway.registry import Enrolled
    from gateway.station import Station

MOST_ALARMS, MOST_TESTS = 500, 50  # on the list of open ones
LEAST_DISK_MB = 200
CLOCK_LIMIT_MS = 2_000
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

    # -------------------------------------------------------------------------------- incidents

    def open_incidents(self) -> Sequence[Incident]:
        """Not closed, newest press first."""
        opened, is_test = schema.incidents.c.state != State.CLOSED.value, schema.incidents.c.cause == TEST_CAUSE
        # Apart, so that forgotten tests never push an alarm off the list.
        found = [*self._incidents(opened & ~is_test, MOST_ALARMS), *self._incidents(opened & is_test, MOST_TESTS)]
        return sorted(found, key=lambda incident: -incident.pressed_at_ms)

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

    def _incidents(self, condition: Any, limit: int) -> list[Incident]:
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
        return [self._incident(row, [step for step in taken if step.incident == row.id]) for row in rows]

    def _incident(self, row: Row[Any], taken: Sequence[Row[Any]]) -> Incident:
        return Incident(
            id=row.id,
            device=row.device,
            boot=row.boot,
            seq=row.seq,
            place=self._of.registry.place_of(row.device),
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
        )

    def _voucher(self, row: Row[Any]) -> str:
        """Headquarters, and an agency, take no alarm of a button they don't know but through a station that vouches."""
        hops = wire.decode(row.hops)
        if not hops or self.role != "hq" or row.device in self._of.registry.children():
            return ""
        return str(hops[-1][0])

    # --------------------------------------------------------------------------------- children

    def children(self) -> Sequence[Child]:
        """Every child that is known, by site and entrance."""
        exchange, now = self._of.exchange, monotonic_ms()
        enrolled, known = self._of.registry.working(), self._of.registry.children()
        with exchange.watch_lock:
            names = {*enrolled, *exchange.supervision.children} - (known.keys() - enrolled.keys())
            seen = {name: self._standing(name, now) for name in names}
        made = [self._child(name, *seen[name], exchange.reports.get(name), enrolled.get(name)) for name in names]
        return sorted(
            made, key=lambda child: (child.place.site if child.place else child.id, child.kind != "station", child.id)
        )

    def _standing(self, name: str, now: int) -> tuple[Link, str, bool]:
        supervision = self._of.exchange.supervision
        watched = supervision.children.get(name)
        if watched is None or watched.last_ms is None:
            return Link.NEVER_SEEN, "it has not been heard since it was enrolled", bool(watched and watched.station)
        silent = (now - watched.last_ms) // 1000
        if watched.reported:
            through = f"; {watched.via} is silent too" if watched.via and supervision.is_late(watched.via, now) else ""
            return Link.OFFLINE, f"no heartbeat for {silent} s{through}", watched.station
        if supervision.is_late(name, now):
            broke = "its connection broke" if watched.gone_ms is not None else f"no heartbeat for {silent} s"
            return Link.LATE, broke, watched.station
        return Link.ONLINE, "", watched.station

    def _child(
        self, name: str, link: Link, why: str, station: bool, report: Report | None, enrolled: Enrolled | None
    ) -> Child:
        place, expires_ms = (enrolled.place, enrolled.expires_at_ms) if enrolled else (None, None)
        if report is None:
            kind = "station" if station else "button"
            return Child(name, kind, place, link, why, None, enrolling_until_ms=expires_ms)
        message = report.message
        kind = "station" if station or wire.CHILDREN in message else "button"
        loop = LOOPS.get(message.get(wire.LOOP, -1))
        tampered = None if wire.TAMPER not in message else bool(message[wire.TAMPER])
        if link is Link.ONLINE and tampered:
            link, why = Link.TAMPERED, "its enclosure is open"
        elif link is Link.ONLINE and message.get(wire.STORAGE):
            link, why = Link.FAULTY, "its flash can't be written: a press would not survive a power cut"
        elif link is Link.ONLINE and loop in {"cut", "shorted", "faulty"}:
            link, why = Link.FAULTY, f"its wire is {loop}"
        return Child(
            id=name,
            kind=kind,
            place=place,
            link=link,
            why=why,
            last_heard_ms=report.heard_at_ms,
            loop=loop,
            tampered=tampered,
            battery_mv=message.get(wire.BATTERY),
            on_mains=None if wire.SUPPLY not in message else message[wire.SUPPLY] == wire.ON_MAINS,
            rssi_dbm=message.get(wire.RSSI),
            firmware=message.get(wire.FIRMWARE),
            uptime_ms=message.get(wire.UPTIME),
            pending=message.get(wire.PENDING),
            via=None if report.via == name else report.via,
            enrolling_until_ms=expires_ms,
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

    # ----------------------------------------------------------------------------------- health

    def health(self) -> Health:
        """The station's own state."""
        of = self._of
        counters = {**of.exchange.counters, "commits": of.journal.commits, "refused": of.refusals.total}
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
            Check(
                "journal",
                of.journal.backlog < BACKLOG_LIMIT and of.journal.waiting_s < WAIT_LIMIT_S,
                f"{of.journal.backlog} writes wait, the oldest for {of.journal.waiting_s:.1f} s; "
                f"{of.journal.commits} committed",
            ),
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
    if REFUSAL_WHY in detail and isinstance(detail[REFUSAL_WHY], str):
        return f"{detail[REFUSAL_WHY]} ({detail.get(REFUSAL_COUNT, 1)} times)"
    if isinstance(detail.get(wire.ANSWER_TEXT), str):
        return str(detail[wire.ANSWER_TEXT])
    parts = [f"by {detail[STEP_BY]}"] if STEP_BY in detail else []
    parts += [str(detail[key]) for key in (STEP_OUTCOME, STEP_NOTE) if detail.get(key)]
    return ", ".join(parts)
