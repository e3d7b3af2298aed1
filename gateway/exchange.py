"""What a station does with what comes: from below into the journal and up, from above down to the button's light.

An alarm goes to every parent before the local commit (the button still holds it); a receipt goes down only after it.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway import logs, maintenance
from gateway.commands import Commands
from gateway.desk import MaintenanceRefusedError, Outcome, State
from gateway.ingest import Arrival, Judge, RefusedError
from gateway.journal import DeletedError, Journal
from gateway.marking import Marking
from gateway.relay import Identity
from gateway.rows import Entry, Heard, Kept, kind_of
from gateway.supervision import Supervision, Verdict
from gateway.vocabulary import (
    MAINTENANCE_BY,
    MAINTENANCE_UNTIL_MS,
    MANY_COUNT,
    MANY_NAMED,
    REFUSAL_COUNT,
    REFUSAL_WHY,
    STAGES,
    STATES,
)
from gateway.voice import Voice, said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from gateway.clock import Clock
    from gateway.maintenance import Maintenance
    from gateway.notice import NoticeBoard
    from gateway.refusals import Refusals
    from gateway.registry import Registry
    from gateway.settings import Settings
    from gateway.uplink import Uplink

logger = logging.getLogger(__name__)

ANSWER_MS = 9_000  # a button of headquarters' own is answered about this often; stations, and what they pass on, always
CLOCK_SAMPLES = 12
JUMPED_MS = 30_000  # between two samples: no fresh heartbeat is under way for so long, so a clock was set
HELD = 100  # messages that the broker keeps for a journal in trouble: half of its window stays free for alarms
EVENTS_UNKEPT, ALARMS_UNKEPT = 100, 1_000  # so many may wait for a journal in trouble; more are left to who sent them
MOST_ELSEWHERE = 4  # children named in one answer: with those under maintenance they must fit into an envelope


@dataclass(slots=True)
class Report:
    """A child's last heartbeat. heard_at_ms: UTC."""

    via: str
    message: dict[int, Any]
    heard_at_ms: int


class Exchange(Voice):
    """Joins ingest, journal, supervision and relay of one station. Safe from any thread."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        registry: Registry,
        refusals: Refusals,
        notices: NoticeBoard,
        boot: int,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings, journal, registry, refusals, notices, boot, clock)
        self.reports: dict[str, Report] = {}
        self.clock_offsets: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=CLOCK_SAMPLES))
        self.supervision = Supervision(
            int(settings.supervision.deadline_s * 1000), int(settings.supervision.signed_s * 1000), settings.station
        )
        self.maintenance: dict[str, Maintenance] = {}
        self.uplinks: Sequence[Uplink] = ()
        self.send_down: Callable[[str, bytes], None] = lambda _topic, _payload: None
        self.wanted: Callable[[str, dict[int, Any]], None] = lambda _child, _message: None  # pieces of an update
        self.confirm: Callable[[str], None] = lambda _child: None  # a pending child was believed
        self.pressed: Callable[[float], None] = lambda _seconds: None  # of a press: how long until it was committed
        self.watch_lock = threading.RLock()
        self._hq = settings.role == "hq"
        self._judge = Judge(
            settings.station, self._hq, registry.key_of, registry.is_station, registry.absence, registry.is_vouched
        )
        self._answered: dict[str, int] = {}
        self.commands = Commands(settings.station, journal, registry, self._send_command)
        self._unkept: set[Identity] = set()  # in memory only while the journal can't be written
        self._held: dict[int, Callable[[], None]] = {}  # what the broker may not forget yet
        self._tickets = itertools.count()
        self.marking = Marking(settings.station, journal, self.clock, self.event)

    # ------------------------------------------------------------------------------------ from below

    def arrived(self, topic: str, payload: bytes, done: Callable[[], None]) -> None:
        """A message from the local broker. `done` is called once the broker may forget it."""
        found = self._judge.open(topic, payload)
        if len(found) == 1:
            self._took(topic, payload, found[0], done)
            return
        receipts: list[tuple[tuple[str, int, int], int]] = []
        left = itertools.count(1 - len(found))

        def settled() -> None:
            if next(left) == 0:
                done()
                self._receipts(topic.split("/")[2], receipts)

        for one in found:
            self._took(topic, payload, one, settled, receipts)

    def _took(
        self,
        topic: str,
        payload: bytes,
        arrival: Arrival | RefusedError,
        done: Callable[[], None],
        receipts: list[tuple[tuple[str, int, int], int]] | None = None,
    ) -> None:
        """One message. receipts: where its receipt is put, to go with others'; None: it goes at once."""
        if isinstance(arrival, RefusedError):
            self.refuse(arrival.who, str(arrival), payload)
            self._dismiss(topic, arrival.about)
            done()
            return
        self.counters[topic.rsplit("/", 1)[1] + "s received"] += 1
        if not arrival.framed:
            self._routes[arrival.source] = arrival.child
        if arrival.kind == wire.ALARM and self._registry.is_pending(arrival.source):
            self.confirm(arrival.source)  # a press has come all the way: no less proves that the button works
        if arrival.kind in {wire.ALARM, wire.EVENT}:
            self._record(arrival, payload, done, receipts)
            return
        done()
        if arrival.kind == wire.HEARTBEAT:
            self._heartbeat(arrival, payload)
        else:
            self._presence(arrival)

    def _record(
        self,
        arrival: Arrival,
        payload: bytes,
        done: Callable[[], None],
        receipts: list[tuple[tuple[str, int, int], int]] | None,
    ) -> None:
        now = self.clock.utc_ms()
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
        logs.hop(
            "received",
            arrival.identity,
            alarm=alarm,
            says=said(arrival.message),
            via=arrival.child,
            age_ms=arrival.message[wire.AGE],
        )
        if not self._take_on(arrival.identity, alarm=alarm):
            if alarm:
                self.offer(entry)
            done()  # its sender still holds it
            return
        ticket = next(self._tickets)
        self._held[ticket] = done
        offered = alarm and self.offer(entry)

        def committed(kept: Kept) -> None:
            self._unkept.discard(Identity(*arrival.identity))
            stage = kept.stage if self._hq else wire.AT_GATEWAY
            if receipts is not None and not kept.conflict:
                receipts.append((arrival.identity, stage))
            self._let_go(ticket)
            lasted_ms = self.clock.utc_ms() - entry.happened_at_ms
            logs.hop("committed", arrival.identity, alarm=alarm, number=kept.id, fresh=kept.fresh, since_ms=lasted_ms)
            if alarm and kept.fresh and entry.exact:
                self.pressed(lasted_ms / 1000)
            if kept.conflict:
                self.refuse(arrival.source, "another message already has this boot and number", payload)
                if self._hq:
                    self._dismiss(f"tocsin/1/{arrival.child}/", arrival.identity if arrival.framed else None)
                return
            # Also a repeat is answered where it came from: its sender lacks the receipt, whatever way it takes by now.
            if receipts is None:
                self.receipt(arrival.identity, stage, arrival.child)
            logs.hop("receipted", arrival.identity, alarm=alarm, stage=stage, to=arrival.child)
            if not offered:
                self.offer(entry)
            if not alarm:
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

        def unkept(error: Exception) -> None:
            self._unkept.discard(Identity(*arrival.identity))
            why = str(error) if isinstance(error, DeletedError) else f"it can't be journaled: {error}"
            self.refuse(arrival.source, why[:200], payload)
            if self._hq and not alarm:
                self._dismiss(f"tocsin/1/{arrival.child}/", arrival.identity if arrival.framed else None)
            self._let_go(ticket)

        def bare(connection: Connection) -> Kept:
            return self._journal.keep_bare(connection, entry)

        self._journal.later(keep, committed, alarm=alarm, failed=unkept, instead=bare, entry=entry)

    def _take_on(self, identity: tuple[str, int, int], *, alarm: bool) -> bool:
        """Whether a message is to be journaled. While the disk is in trouble a repeat is not, nor one too many: memory is bounded."""
        one = Identity(*identity)
        if self._journal.trouble is not None and one in self._unkept:
            return False
        if len(self._unkept) >= (ALARMS_UNKEPT if alarm else EVENTS_UNKEPT) and self._journal.stuck:
            return False
        self._unkept.add(one)
        return True

    def relieve(self) -> None:
        """Lets the broker forget what fills its window while nothing can be written, or later alarms would wait there unseen."""
        if len(self._held) > HELD and self._journal.stuck:
            for ticket in list(self._held)[:-HELD]:
                self._let_go(ticket)

    def _let_go(self, ticket: int) -> None:
        done = self._held.pop(ticket, None)
        if done is not None:  # else it was let go before
            done()

    def _learn(self, arrival: Arrival, happened_at_ms: int) -> None:
        """What a station below says of its own children: at worst it makes us look twice."""
        code, subject = arrival.message.get(wire.CODE), arrival.message.get(wire.SUBJECT, "")
        detail = arrival.message.get(wire.DETAIL)
        if code in {wire.CHILD_SILENT, wire.MANY_SILENT}:
            silent, of = ([subject], 1) if code == wire.CHILD_SILENT else ([], 0)
            if isinstance(detail, dict):  # of one child, the detail names those behind it
                named, many = detail.get(MANY_NAMED), detail.get(MANY_COUNT)
                if isinstance(named, list) and isinstance(many, int):
                    silent, of = [*silent, *named], of + many
            self._learn_silent(arrival.source, silent, of, happened_at_ms)
        elif code == wire.REFUSAL and isinstance(detail, dict):
            why, count = detail.get(REFUSAL_WHY), detail.get(REFUSAL_COUNT)
            if isinstance(why, str) and isinstance(count, int):
                self._refusals.note(f"{subject} at {arrival.source}", why, self.clock.utc_ms(), count=1)

    def _learn_silent(self, station: str, named: list[Any], count: int, happened_at_ms: int) -> None:
        def is_silent(child: object) -> bool:  # its own child, and not heard since
            report = self.reports.get(child) if isinstance(child, str) else None
            return report is not None and report.via == station and report.heard_at_ms <= happened_at_ms

        with self.watch_lock:
            silent = [child for child in named if is_silent(child)]
            more = count > len(named)
            self.supervision.reported_silent(silent, station, all_silent=more, now_ms=self.clock.monotonic_ms())
        self._dirty.update(silent)
        self._notices.tell("children")

    def _heartbeat(self, arrival: Arrival, payload: bytes) -> None:
        source, boot, seq = arrival.identity
        message, now = arrival.message, self.clock.monotonic_ms()
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
                message.get(wire.ANSWERED),
                proves=self._hq and not arrival.vouched and not self._registry.is_station(source),
            )
            if verdict is Verdict.FRESH:
                afresh = self.supervision.is_afresh(source)
                afresh |= self.supervision.back(source, now)
                afresh |= arrival.framed  # the station below chose it; of what it chose, none must be left out
                if digest is not None:
                    alive = self.supervision.digested(source, dict(digest[1]), unnamed=digest[0], now_ms=now)
        if verdict is Verdict.UNPROVEN:  # the answer to it is what the next one can name
            self.counters["heartbeats unproven"] += 1
            self._answer(arrival, now)
            return
        if verdict is not Verdict.FRESH:
            self.refuse(source, verdict.value, payload)
            return
        known = self.reports.get(source)
        was = known.message.get(wire.REFUSED, 0) if known and known.message[wire.BOOT] == boot else 0
        self.reports[source] = Report(arrival.child, message, self.clock.utc_ms())
        self._routes[source] = arrival.child
        if self._hq and message.get(wire.REFUSED, 0) > was:
            why = "it was sent something that it did not believe: a receipt that is not ours, or noise"
            self.refuse(source, why, b"", message[wire.REFUSED] - was)
        self._dirty.add(source)
        if wire.UTC in message and not arrival.hops:
            self._sample_clock(source, self.clock.utc_ms() - message[wire.UTC])
        for uplink in self.uplinks:
            uplink.pass_on(
                source,
                message,
                arrival.envelope,
                [*arrival.hops, [self.settings.station, self.clock.utc_ms()]],
                afresh=afresh,
            )
        if wire.CHILDREN in message:
            self._watch_storage(source, known, message)
        self._answer(arrival, now)
        if self._hq:
            for child in (source, *alive):
                self._command_again(child)
            if wire.WANTED in message:
                self.wanted(source, message)
        for shown_boot, shown_seq, stage in message.get(wire.SHOWN, []) if self._hq else []:
            self._remind((source, shown_boot, shown_seq), stage)

    def _answer(self, arrival: Arrival, now: int) -> None:
        """Answers a heartbeat: headquarters with a sealed receipt; a site with its word that its way there works."""
        source, station = arrival.source, self._registry.is_station(arrival.source)
        if not self._hq:
            if not arrival.framed and not station and self._way_works(now):
                self.receipt(arrival.identity, wire.AT_GATEWAY, arrival.child)
            return
        if arrival.vouched:  # its key is its own headquarters'
            return
        if self._journal.stuck:  # a press could not be kept: nobody is told that all is well
            with self.watch_lock:
                self.supervision.lenient(now)
            return
        if not (station or arrival.framed) and now - self._answered.get(source, -ANSWER_MS) < ANSWER_MS:
            return
        self._answered[source] = now
        with self.watch_lock:
            self.supervision.answered(source, *arrival.identity[1:], now)
        more = None
        if station:
            more = self._maintained_at(source) | self._elsewhere(source, arrival.message, now)
            more |= self.marking.answer(source, arrival.message, now)
        self.receipt(arrival.identity, wire.AT_HQ, arrival.child, more)

    def _way_works(self, now: int) -> bool:
        return any(uplink.works(now) for uplink in self.uplinks if uplink.parent.id == self.settings.headquarters)

    def _maintained_at(self, station: str) -> dict[int, Any]:
        """What an answer tells a station: whose silence is no event for now."""
        ends_ms = {
            child: one.until_ms
            for child, one in self.maintenance.items()
            if child == station or (child in self.reports and self.reports[child].via == station)
        }
        return {wire.MAINTAINED: maintenance.told(ends_ms, self.clock.utc_ms())}

    def _elsewhere(self, station: str, message: dict[int, Any], now: int) -> dict[int, Any]:
        """What an answer tells a station: whom it misses though another one brings them, or nobody will: it forgets them."""
        found = []
        with self.watch_lock:
            for child, state in message.get(wire.DIGEST, [0, []])[1]:
                report = self.reports.get(child)
                if self._registry.is_retired(child):
                    found.append(child)
                elif state in {wire.CHILD_LATE, wire.CHILD_OFFLINE} and report and report.via != station:
                    found += [] if self.supervision.is_late(child, now) else [child]
        return {wire.ELSEWHERE: found[:MOST_ELSEWHERE]} if found else {}

    def _forget(self, parent: str, moved: list[str]) -> None:
        """The answer of the buttons' headquarters names children that left this station for another."""
        if parent != self.settings.headquarters:
            return
        known, now = self._registry.children(), self.clock.monotonic_ms()
        with self.watch_lock:
            watched = self.supervision.children
            gone = {one for one in moved if one in watched and one not in known and self.supervision.is_late(one, now)}
            self.forget(gone)
        if not gone:
            return
        self._journal.later(lambda connection: self._journal.forget_heard(connection, gone))
        self._notices.tell("children")

    def forget(self, gone: set[str]) -> None:
        """Keeps nothing in memory of children that are not this station's any more."""
        self.supervision.forget(self.supervision.children.keys() - gone)
        for child in gone:
            for known in (self.reports, self._routes, self._answered, self.clock_offsets):
                known.pop(child, None)
        self._dirty -= gone

    def _spare(self, parent: str, told: list[list[Any]]) -> None:
        """The answer of the buttons' headquarters says whose silence is no event for now."""
        if parent != self.settings.headquarters:
            return
        now = self.clock.monotonic_ms()
        with self.watch_lock:
            self.supervision.maintained = {child: now + 1000 * seconds for child, seconds in told}

    def load_maintenance(self) -> None:
        """Takes from the database who is under maintenance."""
        with self._journal.readers.connect() as connection:
            self.maintenance = maintenance.current(connection, self.clock.utc_ms())
        if self._hq:
            ahead_ms = self.clock.monotonic_ms() - self.clock.utc_ms()
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
            if not maintenance.end(connection, child, self.clock.utc_ms()):
                return None
            entry = self.own(wire.MAINTENANCE_ENDED, child, {MAINTENANCE_BY: by})
        else:
            maintenance.check(until_ms, self.clock.utc_ms())
            maintenance.begin(connection, child, until_ms, by)
            entry = self.own(wire.MAINTENANCE, child, {MAINTENANCE_BY: by, MAINTENANCE_UNTIL_MS: until_ms})
        self._journal.keep(connection, entry)
        return entry

    def _watch_storage(self, station: str, known: Report | None, message: dict[int, Any]) -> None:
        """A station below can't write its own journal, so that it can't tell of it as events are told: this one does."""
        fails = bool(message.get(wire.STORAGE))
        if fails != bool(known and known.message.get(wire.STORAGE)):
            self._notices.tell("children")
            self.event(
                wire.STORAGE_FAILED if fails else wire.STORAGE_RESTORED,
                station,
                "it can't write its journal: it passes alarms on and promises nothing" if fails else None,
            )

    def _remind(self, identity: tuple[str, int, int], shown: int) -> None:
        """Repeats a receipt that got lost: the button shows less than what is true."""
        stage = self._journal.stage(identity)
        self.marking.shown(identity, shown, here=stage is not None, now_ms=self.clock.monotonic_ms())
        if stage is not None and stage > shown:
            self.receipt(identity, stage)
            logs.hop("receipted again", identity, alarm=True, stage=stage, shown=shown)

    def _presence(self, arrival: Arrival) -> None:
        source, boot, seq = arrival.identity
        with self.watch_lock:
            if arrival.message[wire.STATE]:
                self.supervision.here(source, boot, seq)
            else:
                self.supervision.gone(source, boot, seq, self.clock.monotonic_ms())
        self._notices.tell("children")

    def _sample_clock(self, child: str, ahead_ms: int) -> None:
        """A fresh heartbeat came `ahead_ms` after the time that its station wrote on it."""
        samples = self.clock_offsets[child]
        if samples and abs(ahead_ms - samples[-1]) > JUMPED_MS:  # what was before says nothing of now
            samples.clear()
        samples.append(ahead_ms)

    def _clock_offset(self, child: str) -> int:
        """How far this station's clock is ahead of a station's below, at most, in milliseconds."""
        samples = self.clock_offsets.get(child)
        return min(samples) if samples else 0

    # --------------------------------------------------------------------------------------- receipts

    def receipted(self, parent: str, receipts: Sequence[tuple[dict[int, Any], bytes]]) -> None:
        """A parent's receipts: into the journal; those of the buttons' headquarters verbatim on to the child, too."""
        simple: list[tuple[tuple[str, int, int], int]] = []
        for receipt, payload in receipts:
            source, stage = receipt[wire.DEVICE], receipt[wire.STAGE]
            identity = source, receipt[wire.BOOT], receipt[wire.SEQ]
            down = None
            if (
                source == self.settings.station and wire.MAINTAINED in receipt
            ):  # an answer to a heartbeat, not to an event
                self._spare(parent, receipt[wire.MAINTAINED])
                self._forget(parent, receipt.get(wire.ELSEWHERE, []))
                self.marking.answered(parent, receipt)
            if parent != self.settings.headquarters:
                stage = min(stage, wire.AT_HQ)  # it has the message; what its operators do with it is no step of ours
            elif source != self.settings.station and stage:
                down = self._route(source)
                self.send_down(f"tocsin/1/{down}/receipt", payload)
            if stage in STATES or len(receipts) == 1:
                self._moved(parent, identity, stage, down)
            else:  # of a batch, so of events
                simple.append((identity, stage))
        if simple:
            now = self.clock.utc_ms()
            self._journal.later(lambda connection: self._journal.delivered_all(connection, parent, simple, now))

    def _moved(self, parent: str, identity: tuple[str, int, int], stage: int, down: str | None) -> None:
        now = self.clock.utc_ms()

        def note(connection: Connection) -> tuple[int | None, State | None]:
            kind = kind_of(connection, identity)
            return kind, self._journal.delivered(connection, parent, identity, stage, now) if kind else None

        def noted(known: tuple[int | None, State | None]) -> None:
            kind, state = known
            if kind is not None:  # else it is a heartbeat's
                alarm = kind == wire.ALARM
                logs.hop("receipted by a parent", identity, alarm=alarm, parent=parent, stage=stage, passed_to=down)
            if state is not None:
                self._notices.tell("incidents")

        self._journal.later(note, noted, key=("delivered", parent, identity))

    # --------------------------------------------------------------------------------------- commands

    def command(
        self,
        child: str,
        code: int,
        by: str,
        network: tuple[str, str] | None,
        lasts_s: int | None,
        changes: Mapping[str, str | int] | None = None,
    ) -> int:
        """Gives a child a command and sends it; see Commands.give."""
        number = self.commands.give(child, code, by, self.clock.utc_ms(), network, lasts_s, changes)
        self._command_again(child)
        return number

    def _command_again(self, child: str) -> None:
        """A child was heard, or something was given for it: sends what it has not answered, upon its newest heartbeat."""
        now = self.clock.monotonic_ms()
        with self.watch_lock:
            watched = self.supervision.children.get(child)
            beat, came_ms = (watched.identity, watched.beat_ms) if watched else ((0, 0), None)
        if came_ms is not None:
            self.commands.heard(child, beat, now - came_ms, now, self.clock.utc_ms())

    def renew(self, child: str, certificate: bytes, until: str, by: str) -> None:
        """Sends a button a certificate, in DER; see Commands.give."""
        self.commands.give(child, wire.RENEW, by, self.clock.utc_ms(), None, None, brings=(until, certificate))
        self._command_again(child)

    def offer_update(self, child: str, version: str, offer: bytes, by: str) -> None:
        """Offers a button a release; see Commands.give."""
        self.commands.give(child, wire.UPDATE, by, self.clock.utc_ms(), None, None, brings=(version, offer))
        self._command_again(child)

    def _send_command(self, child: str, payload: bytes) -> None:
        self.send_down(f"tocsin/1/{self._route(child)}/command", payload)

    def commanded(self, parent: str, command: dict[int, Any], payload: bytes) -> None:
        """A parent's command for a child: verbatim on to it, whose headquarters' MAC it carries."""
        if parent != self.settings.headquarters:
            self.refuse(parent, "it sent a command, and is not the headquarters of the buttons here", payload)
            return
        self.counters["commands passed down"] += 1
        self._send_command(command[wire.DEVICE], payload)

    # ------------------------------------------------------------------------------------------ steps

    def step(self, number: int, state: State, by: str, note: str, outcome: Outcome | None) -> None:
        """Moves an incident; durable when this returns. Raises StepRefusedError, KeyError."""

        def work(connection: Connection) -> tuple[tuple[str, int, int], Entry]:
            return self._journal.step(connection, number, state, by, note, outcome, self.own)

        identity, entry = self._journal.now(work)
        self.offer(entry)
        self.receipt(identity, STAGES[state])
        logs.hop("step", identity, alarm=True, to=state.value, by=by, outcome=outcome, stage=STAGES[state])
        self._notices.tell("incidents", "happenings")

    # ---------------------------------------------------------------------------------------- memory

    def remember(self) -> None:
        """Loads what the last run knew of its children."""
        self.commands.remember()
        known = self._journal.heard()
        with self.watch_lock:
            for last in known:
                self.reports[last.child] = Report(last.via or last.child, last.message, last.heard_at_ms)
                if last.via:
                    self._routes[last.child] = last.via
                self.supervision.expect(
                    last.child,
                    station=wire.CHILDREN in last.message,
                    identity=last.identity,
                    now_ms=self.clock.monotonic_ms(),
                )
                via = None if last.via == last.child else last.via
                names = wire.ANSWERED in last.message
                self.supervision.remember(last.child, via=via, reported=last.silent, names=names)

    def save(self) -> None:
        """Writes the children that were heard since the last call."""
        names, self._dirty = self._dirty, set()
        heard = []
        for name in names & self.reports.keys():
            report, watched = self.reports[name], self.supervision.children.get(name)
            if watched is None:  # retired since
                continue
            message = (
                {wire.ANSWERED: 0, **report.message} if watched.names else report.message
            )  # once named, always asked for
            heard.append(Heard(name, report.via, watched.identity, report.heard_at_ms, message, watched.reported))
        if heard:
            self._journal.later(lambda connection: self._journal.keep_heard(connection, heard))
        self.marking.save()
