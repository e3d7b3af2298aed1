"""What a station does with what comes: from below into the journal and up, from above down to the button's light.

An alarm goes to every parent before the local commit (the button still holds it); a receipt goes down only after it.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from firmware import wire
from gateway import maintenance, schema
from gateway.commands import Commands
from gateway.desk import MaintenanceRefusedError, Outcome, State
from gateway.incidents import check_step
from gateway.ingest import Arrival, Judge, RefusedError
from gateway.journal import Entry, Journal, Kept, stage_of
from gateway.relay import Identity, Letter
from gateway.supervision import Return, Silence, Supervision, Verdict
from gateway.vocabulary import (
    MAINTENANCE_BY,
    MAINTENANCE_UNTIL_MS,
    MANY_COUNT,
    MANY_NAMED,
    MANY_WHY,
    REFUSAL_COUNT,
    REFUSAL_WHY,
    STAGES,
    STEP_BOOT,
    STEP_BY,
    STEP_NOTE,
    STEP_OUTCOME,
    STEP_SEQ,
    STEPS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from gateway.maintenance import Maintenance
    from gateway.notice import NoticeBoard
    from gateway.refusals import Refusals
    from gateway.registry import Registry
    from gateway.settings import Settings
    from gateway.uplink import Uplink

logger = logging.getLogger(__name__)

ANSWER_MS = 9_000  # a button of headquarters' own is answered about this often; stations, and what they pass on, always
NAMED_ROOM = 640  # bytes of the ids in one event
CLOCK_SAMPLES = 12


def utc_ms() -> int:
    """UTC in milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class Report:
    """A child's last heartbeat. heard_at_ms: UTC."""

    via: str
    message: dict[int, Any]
    heard_at_ms: int


class Exchange:
    """Joins ingest, journal, supervision and relay of one station. Safe from any thread."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        registry: Registry,
        refusals: Refusals,
        notices: NoticeBoard,
        boot: int,
    ) -> None:
        self.settings = settings
        self.reports: dict[str, Report] = {}
        self.clock_offsets: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=CLOCK_SAMPLES))
        self.supervision = Supervision(
            int(settings.supervision.deadline_s * 1000), int(settings.supervision.signed_s * 1000), settings.station
        )
        self.maintenance: dict[str, Maintenance] = {}
        self.counters: dict[str, int] = defaultdict(int)
        self.uplinks: Sequence[Uplink] = ()
        self.send_down: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self.confirm: Callable[[str], None] = lambda _child: None  # a pending child was believed
        self.watch_lock = threading.RLock()
        self._journal = journal
        self._registry = registry
        self._refusals = refusals
        self._notices = notices
        self._boot = boot
        self._seq = itertools.count(1)
        self._own_key = secrets.token_bytes(32)  # own entries are sealed anew for each parent
        self._hq = settings.role == "hq"
        self._judge = Judge(settings.station, self._hq, registry.key_of, registry.is_station, registry.absence)
        self._routes: dict[str, str] = {}
        self._answered: dict[str, int] = {}
        self._headquarters: dict[str, str] = {}  # which parent answers a child's heartbeats
        self._spared: dict[str, dict[str, int]] = {}  # whose silence is no event, by the parent who said so
        self.commands = Commands(settings.station, journal, registry, self._send_command)
        self._dirty: set[str] = set()

    def next_identity(self) -> tuple[int, int]:
        """(boot, seq) for a message of the station's own."""
        return self._boot, next(self._seq)

    # ------------------------------------------------------------------------------------ from below

    def arrived(self, topic: str, payload: bytes, done: Callable[[], None]) -> None:
        """A message from the local broker. `done` is called once the broker may forget it."""
        try:
            arrival = self._judge.judge(topic, payload)
        except RefusedError as error:
            self.refuse(error.who, error.why, payload)
            self._dismiss(topic, error.about)
            done()
            return
        self.counters[topic.rsplit("/", 1)[1] + "s received"] += 1
        if not arrival.framed:
            self._routes[arrival.source] = arrival.child
        if arrival.kind == wire.ALARM and self._registry.is_pending(arrival.source):
            self.confirm(arrival.source)  # a press has come all the way: no less proves that the button works
        if arrival.kind in {wire.ALARM, wire.EVENT}:
            self._record(arrival, payload, done)
            return
        done()
        if arrival.kind == wire.HEARTBEAT:
            self._heartbeat(arrival, payload)
        else:
            self._presence(arrival)

    def _record(self, arrival: Arrival, payload: bytes, done: Callable[[], None]) -> None:
        now = utc_ms()
        first = arrival.hops[0][1] + self._clock_offset(arrival.child) if arrival.hops else now
        entry = Entry(
            source=arrival.source,
            message=arrival.message,
            envelope=arrival.envelope,
            hops=arrival.hops,
            received_at_ms=now,
            happened_at_ms=max(0, min(first, now) - arrival.message[wire.AGE]),
            exact=not arrival.message.get(wire.RESUMED),
        )
        alarm = arrival.kind == wire.ALARM
        if alarm:
            self.offer(entry)

        def committed(kept: Kept) -> None:
            done()
            if kept.conflict:
                self.refuse(arrival.source, "another message already has this boot and number", payload)
                if self._hq:
                    self._dismiss(f"tocsin/1/{arrival.child}/", arrival.identity if arrival.framed else None)
                return
            # Also a repeat is answered where it came from: its sender lacks the receipt, whatever way it takes by now.
            self.receipt(arrival.identity, kept.stage if self._hq else wire.AT_GATEWAY, arrival.child)
            if not alarm:
                self.offer(entry)
                self.commands.settled(arrival.source, arrival.message)
            if kept.fresh:
                self._routes[arrival.source] = arrival.child
                self._notices.tell("incidents" if alarm else "happenings")
                self._learn(arrival, entry.happened_at_ms)
            else:
                self.counters["repeats"] += 1

        def keep(connection: Connection) -> Kept:
            kept = self._journal.keep(connection, entry)
            if self._hq and not alarm and not kept.conflict:
                self.commands.answered(connection, arrival.source, arrival.message, now)
            return kept

        self._journal.later(keep, committed, alarm=alarm)

    def offer(self, entry: Entry) -> None:
        """Hands an entry to every parent."""
        for uplink in self.uplinks:
            uplink.offer(
                Letter(
                    Identity(*entry.identity),
                    entry.kind == wire.ALARM,
                    entry.envelope,
                    [*entry.hops, [self.settings.station, entry.received_at_ms]],
                    entry.happened_at_ms,
                )
            )

    def _learn(self, arrival: Arrival, happened_at_ms: int) -> None:
        """What a station below says of its own children: at worst it makes us look twice."""
        code, subject = arrival.message.get(wire.CODE), arrival.message.get(wire.SUBJECT, "")
        detail = arrival.message.get(wire.DETAIL)
        if code == wire.CHILD_SILENT:
            self._learn_silent(arrival.source, [subject], 1, happened_at_ms)
        elif code == wire.MANY_SILENT and isinstance(detail, dict):
            named, count = detail.get(MANY_NAMED), detail.get(MANY_COUNT)
            if isinstance(named, list) and isinstance(count, int):
                self._learn_silent(arrival.source, named, count, happened_at_ms)
        elif code == wire.REFUSAL and isinstance(detail, dict):
            why, count = detail.get(REFUSAL_WHY), detail.get(REFUSAL_COUNT)
            if isinstance(why, str) and isinstance(count, int):
                self._refusals.note(f"{subject} at {arrival.source}", why, utc_ms(), count=1)

    def _learn_silent(self, station: str, named: list[Any], count: int, happened_at_ms: int) -> None:
        def is_silent(child: object) -> bool:  # its own child, and not heard since
            report = self.reports.get(child) if isinstance(child, str) else None
            return report is not None and report.via == station and report.heard_at_ms <= happened_at_ms

        with self.watch_lock:
            silent = [child for child in named if is_silent(child)]
            more = count > len(named)
            self.supervision.reported_silent(silent, station, all_silent=more, now_ms=monotonic_ms())
        self._dirty.update(silent)
        self._notices.tell("children")

    def _heartbeat(self, arrival: Arrival, payload: bytes) -> None:
        source, boot, seq = arrival.identity
        message, now = arrival.message, monotonic_ms()
        digest = message.get(wire.DIGEST) if self._registry.is_station(source) else None
        alive: list[str] = []
        with self.watch_lock:
            verdict = self.supervision.heard(
                source,
                boot,
                seq,
                message[wire.UPTIME],
                now,
                arrival.child if arrival.framed else None,
                message.get(wire.RSSI),
            )
            if verdict is Verdict.FRESH:
                afresh = self.supervision.is_afresh(source)
                afresh |= self.supervision.back(source, now)
                if digest is not None:
                    alive = self.supervision.digested(source, dict(digest[1]), unnamed=digest[0], now_ms=now)
        if verdict is not Verdict.FRESH:
            self.refuse(source, verdict.value, payload)
            return
        known = self.reports.get(source)
        was = known.message.get(wire.REFUSED, 0) if known and known.message[wire.BOOT] == boot else 0
        self.reports[source] = Report(arrival.child, message, utc_ms())
        self._routes[source] = arrival.child
        if self._hq and message.get(wire.REFUSED, 0) > was:
            why = "it was sent something that it did not believe: a receipt that is not ours, or noise"
            self.refuse(source, why, b"", message[wire.REFUSED] - was)
        self._dirty.add(source)
        if arrival.hops:
            self.clock_offsets[arrival.child].append(utc_ms() - arrival.hops[-1][1])
        for uplink in self.uplinks:
            uplink.pass_on(
                source, message, arrival.envelope, [*arrival.hops, [self.settings.station, utc_ms()]], afresh=afresh
            )
        self._answer(arrival, now)
        if self._hq:
            for child in (source, *alive):
                self.commands.heard(child, now, utc_ms())
        for shown_boot, shown_seq, stage in message.get(wire.SHOWN, []) if self._hq else []:
            self._remind((source, shown_boot, shown_seq), stage)

    def _answer(self, arrival: Arrival, now: int) -> None:
        """Answers a heartbeat: headquarters with a sealed receipt; a site with its word that its way there works."""
        source, station = arrival.source, self._registry.is_station(arrival.source)
        if not self._hq:
            if not arrival.framed and not station and self._way_works(source, now):
                self.receipt(arrival.identity, wire.AT_GATEWAY, arrival.child)
            return
        if not (station or arrival.framed) and now - self._answered.get(source, -ANSWER_MS) < ANSWER_MS:
            return
        self._answered[source] = now
        self.receipt(arrival.identity, wire.AT_HQ, arrival.child, self._maintained_at(source) if station else None)

    def _way_works(self, child: str, now: int) -> bool:
        known = self._headquarters.get(child)
        return any(uplink.works(now) for uplink in self.uplinks if known in {None, uplink.parent.id})

    def _maintained_at(self, station: str) -> dict[int, Any]:
        """What an answer tells a station: whose silence is no event for now."""
        ends_ms = {
            child: one.until_ms
            for child, one in self.maintenance.items()
            if child == station or (child in self.reports and self.reports[child].via == station)
        }
        return {wire.MAINTAINED: maintenance.told(ends_ms, utc_ms())}

    def _spare(self, parent: str, told: list[list[Any]]) -> None:
        """A parent's answer says whose silence is no event for now."""
        now = monotonic_ms()
        self._spared[parent] = {child: now + 1000 * seconds for child, seconds in told}
        with self.watch_lock:
            self.supervision.maintained = {
                child: until_ms for spared in self._spared.values() for child, until_ms in spared.items()
            }

    def load_maintenance(self) -> None:
        """Takes from the database who is under maintenance."""
        with self._journal.readers.connect() as connection:
            self.maintenance = maintenance.current(connection, utc_ms())
        if self._hq:
            ahead_ms = monotonic_ms() - utc_ms()
            with self.watch_lock:
                self.supervision.maintained = {
                    child: one.until_ms + ahead_ms for child, one in self.maintenance.items()
                }

    def maintain(self, child: str, until_ms: int | None, by: str) -> bool:
        """Begins or ends (None) a child's maintenance; durable when this returns. False: there was none to end.

        Raises MaintenanceRefusedError, KeyError.
        """
        entry = self._journal.now(lambda connection: self.keep_maintenance(connection, child, until_ms, by))
        if entry is not None:
            self.offer(entry)
        self.load_maintenance()
        self._notices.tell("happenings", "children")
        return entry is not None

    def keep_maintenance(self, connection: Connection, child: str, until_ms: int | None, by: str) -> Entry | None:
        """The same within a transaction: the event that tells of it, None if nothing changed."""
        if not self._hq:
            raise MaintenanceRefusedError("maintenance is set at headquarters, which tells its gateways")
        if child not in self._registry.working():
            raise KeyError(child)
        if until_ms is None:
            if not maintenance.end(connection, child, utc_ms()):
                return None
            entry = self.own(wire.MAINTENANCE_ENDED, child, {MAINTENANCE_BY: by})
        else:
            maintenance.check(until_ms, utc_ms())
            maintenance.begin(connection, child, until_ms, by)
            entry = self.own(wire.MAINTENANCE, child, {MAINTENANCE_BY: by, MAINTENANCE_UNTIL_MS: until_ms})
        self._journal.keep(connection, entry)
        return entry

    def _remind(self, identity: tuple[str, int, int], shown: int) -> None:
        """Repeats a receipt that got lost: the button shows less than what is true."""
        with self._journal.readers.connect() as connection:
            stage = stage_of(connection, identity)
        if stage is not None and stage > shown:
            self.receipt(identity, stage)

    def _presence(self, arrival: Arrival) -> None:
        source, boot, seq = arrival.identity
        with self.watch_lock:
            if arrival.message[wire.STATE]:
                self.supervision.here(source, boot, seq)
            else:
                self.supervision.gone(source, boot, seq, monotonic_ms())
        self._notices.tell("children")

    def _clock_offset(self, child: str) -> int:
        """How far this station's clock is ahead of a station's below, at most, in milliseconds."""
        samples = self.clock_offsets.get(child)
        return min(samples) if samples else 0

    # --------------------------------------------------------------------------------------- receipts

    def receipt(
        self, identity: tuple[str, int, int], stage: int, via: str | None = None, more: dict[int, Any] | None = None
    ) -> None:
        """Tells a child how far its message came. Only with a committed message, or a heartbeat.

        via: the child whose connection brought the message, if it is an answer; else the way its source takes now.
        """
        source, boot, seq = identity
        message = {wire.KIND: wire.RECEIPT, wire.BOOT: boot, wire.SEQ: seq, wire.STAGE: stage, wire.DEVICE: source}
        message.update(more or {})
        key = self._registry.receipt_key_of(source)
        payload = wire.encode(message) if key is None else wire.seal(message, self.settings.station, key)
        self.send_down(f"tocsin/1/{via or self._route(source)}/receipt", payload)

    def _dismiss(self, topic: str, about: tuple[str, int, int] | None) -> None:
        """Tells a station below that what it framed will never be believed, so that it stops sending it."""
        station = topic.split("/")[2] if topic.count("/") > 1 else ""
        key = self._registry.key_of(station)
        if about is None or key is None:
            return
        source, boot, seq = about
        message = {wire.KIND: wire.RECEIPT, wire.BOOT: boot, wire.SEQ: seq, wire.STAGE: 0, wire.DEVICE: source}
        self.send_down(f"tocsin/1/{station}/receipt", wire.seal(message, self.settings.station, key))

    def _route(self, child: str) -> str:
        return self._routes.get(child, child)

    def receipted(self, parent: str, receipt: dict[int, Any], payload: bytes) -> None:
        """A parent's receipt: verbatim on to the child, whose MAC it carries, and into the journal."""
        source, stage = receipt[wire.DEVICE], receipt[wire.STAGE]
        identity = source, receipt[wire.BOOT], receipt[wire.SEQ]
        if source == self.settings.station:
            if wire.MAINTAINED in receipt:  # an answer to a heartbeat, not to an event
                self._spare(parent, receipt[wire.MAINTAINED])
        elif stage:
            self._headquarters[source] = parent
            self.send_down(f"tocsin/1/{self._route(source)}/receipt", payload)

        def noted(state: State | None) -> None:
            if state is not None:
                self._notices.tell("incidents")

        self._journal.later(lambda connection: self._journal.delivered(connection, parent, identity, stage), noted)

    # --------------------------------------------------------------------------------------- commands

    def command(self, child: str, code: int, by: str, network: tuple[str, str] | None, lasts_s: int | None) -> int:
        """Gives a child a command and sends it; see Commands.give."""
        number = self.commands.give(child, code, by, utc_ms(), network, lasts_s)
        self.commands.heard(child, monotonic_ms(), utc_ms())
        return number

    def _send_command(self, child: str, payload: bytes) -> None:
        self.send_down(f"tocsin/1/{self._route(child)}/command", payload)

    def commanded(self, command: dict[int, Any], payload: bytes) -> None:
        """A parent's command for a child: verbatim on to it, whose headquarters' MAC it carries."""
        self.counters["commands passed down"] += 1
        self._send_command(command[wire.DEVICE], payload)

    # ------------------------------------------------------------------------------------- own events

    def event(self, code: int, subject: str = "", detail: object = None) -> None:
        """Journals an event of the station's own and relays it."""
        entry = self.own(code, subject, detail)

        def committed(_: Kept) -> None:
            self.offer(entry)
            self._notices.tell("happenings", "children")

        self._journal.put(entry, committed)

    def own(self, code: int, subject: str, detail: object) -> Entry:
        """An event of the station's own, to be journaled and offered."""
        boot, seq = self.next_identity()
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
        now = utc_ms()
        envelope = wire.seal(message, self.settings.station, self._own_key)
        return Entry(self.settings.station, message, envelope, [], now, now, exact=True)

    def changed(self) -> None:
        """Tells open pages that the registry is another."""
        self._notices.tell("happenings", "children")

    def refuse(self, who: str, why: str, sample: bytes | str, count: int = 1) -> None:
        """Counts something that was turned away, and makes an event of it now and then."""
        total = self._refusals.note(who, why, utc_ms(), sample, count)
        self._notices.tell("health")
        if total is not None:
            self.event(wire.REFUSAL, who[:64], {REFUSAL_WHY: why[:200], REFUSAL_COUNT: total})

    def silent(self, found: Sequence[Silence]) -> None:
        """Makes events of silent children."""
        for silence in found:
            lost = (silence.child, *silence.others)
            self._dirty.update((*lost, *silence.behind))
            why = f"{silence.why}, silent for {silence.silent_ms / 1000:.0f} s"
            if silence.others:
                self.event(wire.MANY_SILENT, self.settings.station, _many((*lost, *silence.behind), why))
                continue
            behind = f"; behind it: {', '.join(silence.behind)}" if silence.behind else ""
            self.event(wire.CHILD_SILENT, silence.child, f"{why}{behind}"[:400])

    def returned(self, found: Sequence[Return]) -> None:
        """Makes events of children that are heard again."""
        for one in found:
            if one.others:
                self.event(wire.MANY_BACK, self.settings.station, _many((one.child, *one.others), ""))
            else:
                self.event(wire.CHILD_BACK, one.child)

    # ------------------------------------------------------------------------------------------ steps

    def step(self, number: int, state: State, by: str, note: str, outcome: Outcome | None) -> None:
        """Moves an incident; durable when this returns. Raises StepRefusedError, KeyError."""

        def work(connection: Connection) -> tuple[tuple[str, int, int], Entry]:
            table = schema.incidents
            row = connection.execute(select(table).where(table.c.id == number)).first()
            if row is None:
                raise KeyError(number)
            check_step(State(row.state), state, outcome, note)
            connection.execute(
                table.update()
                .where(table.c.id == number)
                .values(state=state.value, outcome=outcome.value if outcome else None)
            )
            detail = {STEP_BOOT: row.boot, STEP_SEQ: row.seq, STEP_BY: by, STEP_NOTE: note}
            if outcome:
                detail[STEP_OUTCOME] = outcome.value
            entry = self.own(STEPS[state], row.device, detail)
            connection.execute(
                insert(schema.steps).values(
                    incident=number,
                    state=state.value,
                    at_ms=entry.received_at_ms,
                    by=by,
                    note=note,
                    outcome=outcome.value if outcome else None,
                )
            )
            self._journal.keep(connection, entry)
            return (row.device, row.boot, row.seq), entry

        identity, entry = self._journal.now(work)
        self.offer(entry)
        self.receipt(identity, STAGES[state])
        self._notices.tell("incidents", "happenings")

    # ---------------------------------------------------------------------------------------- memory

    def remember(self) -> None:
        """Loads what the last run knew of its children."""
        self.commands.remember()
        with self._journal.readers.connect() as connection:
            rows = connection.execute(select(schema.latest)).all()
        with self.watch_lock:
            for row in rows:
                message = wire.decode(row.message)
                self.reports[row.child] = Report(row.via or row.child, message, row.heard_at_ms)
                if row.via:
                    self._routes[row.child] = row.via
                self.supervision.expect(
                    row.child, station=wire.CHILDREN in message, identity=(row.boot, row.seq), now_ms=monotonic_ms()
                )
                self.supervision.remember(
                    row.child, via=None if row.via == row.child else row.via, reported=bool(row.silent)
                )

    def save(self) -> None:
        """Writes the children that were heard since the last call."""
        names, self._dirty = self._dirty, set()
        rows = []
        for name in names & self.reports.keys():
            report, watched = self.reports[name], self.supervision.children.get(name)
            if watched is None:  # retired since
                continue
            boot, seq = watched.identity
            rows.append(
                {
                    "child": name,
                    "via": report.via,
                    "boot": boot,
                    "seq": seq,
                    "heard_at_ms": report.heard_at_ms,
                    "message": wire.encode(report.message),
                    "silent": int(watched.reported),
                }
            )
        if not rows:
            return
        statement = sqlite_insert(schema.latest)
        statement = statement.on_conflict_do_update(
            index_elements=["child"],
            set_={
                name: statement.excluded[name] for name in ("via", "boot", "seq", "heard_at_ms", "message", "silent")
            },
        )
        self._journal.later(lambda connection: connection.execute(statement, rows) and None)


def _many(children: Sequence[str], why: str) -> dict[int, Any]:
    """The detail of an event about several children: as many as fit by name, and how many there are."""
    named, room = [], NAMED_ROOM
    for child in children[: wire.MAX_ITEMS]:
        room -= len(child) + 2
        if room >= 0:
            named.append(child)
    return {MANY_WHY: why[:200], MANY_NAMED: named, MANY_COUNT: len(children)}
