"""The whole system of one schedule, what must always be true of it, and what must be true in the end.

Every check names its invariant in the text of the ViolationError that it raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware import wire
from gateway import batch, relay
from gateway.desk import NEXT_STEPS, Outcome, State, StepRefusedError, StorageError
from gateway.exchange import EVENTS_UNKEPT
from gateway.supervision import LATE_MS
from gateway.vocabulary import MANY_NAMED, STAGES
from tests.simulation.button import ButtonMachine
from tests.simulation.engine import Engine, Machine
from tests.simulation.network import Broker, Way
from tests.simulation.station import Above, Registry, Station
from tests.simulation.witness import Number, Witness

if TYPE_CHECKING:
    from gateway.rows import Entry
    from tests.simulation.network import Message
    from tests.simulation.records import Records

DEADLINE_MS = 20_000
CALM_MS = 30_000  # so long after a fault a child may still be silent because of it
STEADY_MS = 6_000  # a session that is up for so long has shown by a heartbeat that it is


def key_between(child: str, parent: str) -> bytes:
    """The message key of two ends."""
    return f"{child}>{parent}".encode().ljust(32, b".")


class World(Witness):
    """Buttons b1…, gateways g1…, headquarters hq, and agencies a1… above it."""

    def __init__(
        self, engine: Engine, buttons: int, gateways: int, agencies: int, *, second_ways: bool = False
    ) -> None:
        super().__init__(engine)
        self.forged: set[Number] = set()
        self.calm_since_ms = 0  # when the last fault ended; what begins is a fault, too
        self.troubles = 0  # that last
        self.wiped: set[str] = set()  # stations that lost their disk
        self.put_back: dict[
            Number, int
        ] = {}  # what headquarters had, and its stage, before a backup was put back there
        self.heard_silent: dict[str, int] = {}  # by child: when headquarters first had it that the child is silent
        gates = [f"g{number + 1}" for number in range(gateways)]
        pressers = [f"b{number + 1}" for number in range(buttons)]
        self.brokers = {name: Broker(engine, name) for name in [*gates, "hq", *(f"a{n + 1}" for n in range(agencies))]}
        self.ways = {name: Way(engine, name, 20) for name in [*pressers, *gates]}
        keys = {name: key_between(name, "hq") for name in [*pressers, *gates]}
        self.stations: dict[str, Station] = {}
        above = []
        for number in range(agencies):
            name = f"a{number + 1}"
            self.ways[f"hq-{name}"] = Way(engine, f"hq-{name}", 20)
            above.append(Above(name, self.brokers[name], self.ways[f"hq-{name}"], key_between("hq", name)))
            known = Registry({"hq": key_between("hq", name)}, {"hq"}, voucher="hq")
            self.stations[name] = Station(engine, self, name, "hq", self.brokers[name], known, [])
        self.hq = Station(engine, self, "hq", "hq", self.brokers["hq"], Registry(keys, set(gates)), above)
        self.stations["hq"] = self.hq
        for name in gates:
            up = Above("hq", self.brokers["hq"], self.ways[name], keys[name])
            self.stations[name] = Station(engine, self, name, "site", self.brokers[name], Registry({}, set()), [up])
        self.fate = Machine(engine, "fate")  # what happens to all of it
        self.fate.start()
        self.home = {name: gates[number % len(gates)] for number, name in enumerate(pressers)}
        self.buttons = {
            name: ButtonMachine(engine, self, name, keys[name], [(self.brokers[self.home[name]], self.ways[name])])
            for name in pressers
        }
        if second_ways and len(gates) > 1:
            for number, (name, machine) in enumerate(self.buttons.items()):
                way = self.ways[f"{name}, second"] = Way(engine, f"{name}, second", 20)
                machine.ends.append((self.brokers[gates[(number + 1) % len(gates)]], way))
        self.homes = [station.home for station in self.stations.values()]
        self.machines = [*self.brokers.values(), *self.stations.values(), *self.buttons.values()]

    @property
    def known(self) -> World:
        """What headquarters has, or had before a backup was put back."""
        return self

    def has(self, number: Number) -> bool:
        """Whether headquarters has a message, or had it."""
        return number in self.hq.records.positions or number in self.put_back

    def stage(self, number: Number) -> int | None:
        """The newest stage that it can have receipted."""
        now, before = self.hq.records.stage(number), self.put_back.get(number)
        return before if now is None else now if before is None else max(now, before)

    def is_true(self, number: Number, shown: int) -> bool:
        """Whether a light shows what headquarters says now, or what it said before a backup was put back."""
        return (self.hq.records.stage(number) or 0) <= shown <= (self.stage(number) or 0)

    def restore(self, station: Station, backup: Records) -> None:
        """Somebody puts a backup back at a station that does not run."""
        lost = [number for number in station.records.positions if number not in backup.positions]
        self.engine.tell(
            station.name, f"has a backup put back, which lacks {[one for one in lost if one in self.pressed]}"
        )
        if station is self.hq:
            stages = {number: station.records.stage(number) for number in station.records.positions}
            self.put_back |= {number: max(stage or 0, self.put_back.get(number, 0)) for number, stage in stages.items()}
        station.records = backup

    def start(self) -> None:
        """Gives power to everything."""
        for machine in self.machines:
            machine.start()

    # --------------------------------------------------------------------------------- what is watched

    def few(self, station: Station, alarms: int, events: int) -> None:
        """Whether a station's memory is bounded: what it holds for one parent."""
        if alarms > relay.IN_MEMORY or events > relay.IN_MEMORY:
            self.broken("memory is bounded", f"{station.name} holds {alarms} alarms and {events} events for a parent")

    def sent_down(self, station: Station, topic: str, payload: bytes) -> None:
        """A station is about to send something down: a receipt must not be ahead of its commit."""
        if not topic.endswith("/receipt"):
            return
        bare = payload[:1] != b"\xd1"
        if not bare and wire.unseal(payload, wire.MAX_BATCH).message[wire.KIND] == wire.BATCH:
            for letter in wire.unseal(payload, wire.MAX_BATCH).message[wire.LETTERS]:
                self.sent_down(station, topic, batch.unpacked(letter)[0])
            return
        if not bare and wire.unseal(payload).kid != station.name:
            return  # passed down
        message = wire.message_of(payload) if bare else wire.unseal(payload).message
        number = (message[wire.DEVICE], message[wire.BOOT], message[wire.SEQ])
        if station is self.hq and number not in self.lasting:
            self.answered[number[0]] = self.engine.now
        if message[wire.STAGE] and number in self.lasting and not station.records.has(number):
            self.broken(
                "no receipt before its commit", f"{station.name} receipts {number}, stage {message[wire.STAGE]}"
            )

    def acknowledged(self, station: Station, message: Message, refused: bool) -> None:
        """A station lets its broker forget a message."""
        if refused or message.topic.rpartition("/")[2] not in {"alarm", "event"}:
            return
        envelope = wire.unseal(message.payload, wire.MAX_BATCH)
        if envelope.message[wire.KIND] == wire.BATCH:
            for letter in envelope.message[wire.LETTERS]:
                inner = wire.unseal(batch.unpacked(letter)[0])
                self._must_hold(station, inner)
            return
        if envelope.message[wire.KIND] == wire.FRAME:
            envelope = wire.unseal(envelope.message[wire.ENVELOPE])
        self._must_hold(station, envelope)

    def _must_hold(self, station: Station, envelope: wire.Envelope) -> None:
        number = (envelope.kid, envelope.message[wire.BOOT], envelope.message[wire.SEQ])
        unkept = station.exchange._unkept
        left = station.journal.trouble is not None and (number in unkept or len(unkept) >= EVENTS_UNKEPT)
        if not station.records.has(number) and not left:  # what is left to who sent it comes again
            self.broken("no PUBACK before the commit", f"{station.name} acknowledges {number}")

    def committed(self, station: Station, entry: Entry) -> None:
        """A message is in a station's journal."""
        self.engine.tell(station.name, f"commits {_name(entry)}")
        if entry.source == station.name:
            self.lasting.add(entry.identity)
        if entry.kind == wire.ALARM:
            if entry.identity not in self.pressed and station.settings.role == "hq":
                self.broken("no alarm that nobody pressed", f"{station.name} believes {entry.identity}")
            return
        code, subject = entry.message[wire.CODE], entry.message.get(wire.SUBJECT)
        detail = entry.message.get(wire.DETAIL)
        if code in {wire.CHILD_SILENT, wire.MANY_SILENT}:
            named = detail[MANY_NAMED] if isinstance(detail, dict) else []
            lost, behind = ([subject], named) if code == wire.CHILD_SILENT else (named, [])
            if entry.source == station.name:
                for child in lost:
                    self._reported(station, child)
            if station is self.hq:
                for child in (*lost, *behind):
                    self.heard_silent.setdefault(child, self.engine.now)
        elif code in {wire.CHILD_BACK, wire.MANY_BACK} and entry.source == station.name:
            station.reported.difference_update(detail[MANY_NAMED] if isinstance(detail, dict) else [subject])
        elif station is self.hq and code in {wire.BROKER_LOST, wire.LOOP_CUT}:
            self.heard_silent.setdefault(entry.source, self.engine.now)

    def told(self, station: Station, number: Number, stage: int) -> None:
        """A station notes headquarters' receipt for a message: it can't know more than headquarters."""
        if number in self.lasting and stage > (self.stage(number) or 0):
            self.broken("no receipt before its commit", f"{station.name} is told stage {stage} of {number}")

    def _reported(self, station: Station, subject: str) -> None:
        if subject in station.reported:
            self.broken("silence is reported once", f"{station.name} tells again of {subject}")
        station.reported.add(subject)
        if not self.troubles and self.engine.now - self.calm_since_ms > CALM_MS:
            self.broken("no false report", f"{station.name} reports {subject} though nothing happened")
        button = self.buttons.get(subject)
        if button is None or not button.running or not button.session.up or button.frozen:
            return
        since_ms = max(button.session.up_ms, self.calm_since_ms if not self.troubles else self.engine.now)
        heard_ms = station.exchange.supervision.silent_ms(subject, self.engine.now)
        if self.engine.now - since_ms > STEADY_MS and heard_ms is not None and heard_ms < LATE_MS:
            self.broken("no false report", f"{station.name} reports {subject}, which it heard {heard_ms} ms ago")

    # ------------------------------------------------------------------------------------- the operator

    def operate(self, state: State) -> None:
        """An operator at headquarters tries a step on one of the alarms, allowed or not."""
        hq = self.hq
        if not hq.running or hq.frozen or not hq.records.states:
            return
        number = self.engine.chance.choice(list(hq.records.states))
        self.engine.post(hq, 0, self._step, number, state)

    def _step(self, number: int, state: State) -> None:
        hq = self.hq
        before = hq.records.states[number]
        try:
            hq.exchange.step(number, state, "op", "", Outcome.TEST if state is State.CLOSED else None)
        except (StepRefusedError, StorageError):
            return
        self.engine.tell("operator", f"moves {hq.records.rows[number - 1].identity} to {state}")
        if state not in NEXT_STEPS[before]:
            self.broken("no stage goes back", f"an incident went from {before} to {state}")

    def close_all(self) -> None:
        """Closes every incident."""
        if self.hq.running:
            for number, state in list(self.hq.records.states.items()):
                if state is not State.CLOSED:
                    self._step(number, State.CLOSED)

    # ------------------------------------------------------------------------------------------- the end

    def heal(self) -> None:
        """Everything has power, runs, and is connected by good ways; nothing happens to it any more."""
        self.fate.crash()
        self.fate.start()
        for machine in self.machines:
            if machine.frozen:
                machine.thaw()
            machine.fuse = None
            if not machine.running:
                machine.start()
        for way in (*self.ways.values(), *self.homes):
            way.heal()
        for station in self.stations.values():
            station.disk_fails = False
        self.troubles = 0
        self.calm_since_ms = self.engine.now

    def delivered(self) -> bool:
        """Every latched alarm is at headquarters and at its parents."""
        ends = [self.stations[above.name].records for above in self.hq.above]
        return all(
            self.hq.records.has(number) and all(end.has(number) for end in ends) for number in self.latched
        ) and all(
            (machine.name, alarm.boot, alarm.seq) not in self.latched or alarm.stage >= wire.AT_HQ
            for machine in self.buttons.values()
            for alarm in machine.button.latch.alarms
        )

    def settled(self) -> bool:
        """Nothing waits any more, and every light tells the truth."""
        return (
            self.delivered()
            and not any(machine.button.outbox.waiting for machine in self.buttons.values())
            and not any(
                stage is None
                for station in self.stations.values()
                for owed in station.records.owed.values()
                for stage in owed.values()
            )
            and all(
                self.is_true((machine.name, alarm.boot, alarm.seq), alarm.stage)
                for machine in self.buttons.values()
                for alarm in machine.button.latch.alarms
            )
        )

    def check_end(self) -> None:
        """Every press is there exactly once, everywhere, and nothing else is."""
        for station in self.stations.values():
            if station.name in self.home.values() and station.name in self.wiped:
                continue
            alarms = [entry.identity for entry in station.records.rows if entry.kind == wire.ALARM]
            if len(alarms) != len(set(alarms)):
                self.broken("exactly once", f"{station.name} holds {sorted(alarms)}")
            if station is self.hq or station.name.startswith("a"):
                lost = self.latched - set(alarms)
                if lost:
                    self.broken("every latched press arrives", f"{station.name} lacks {sorted(lost)}")
        for machine in self.buttons.values():
            for alarm in machine.button.latch.alarms:
                number = (machine.name, alarm.boot, alarm.seq)
                if number in self.latched and alarm.stage < wire.AT_HQ:
                    self.broken("every light comes true", f"{number} shows {alarm.stage} for ever")

    def check_settled(self) -> None:
        """As `check_end`, and nothing is left to do anywhere."""
        self.check_end()
        if self.settled():
            return
        for machine in self.buttons.values():
            if machine.button.outbox.waiting:
                self.broken("every event arrives", f"{machine.name} still holds {machine.button.outbox.events}")
            for alarm in machine.button.latch.alarms:
                number = (machine.name, alarm.boot, alarm.seq)
                if not self.is_true(number, alarm.stage):
                    self.broken("every light comes true", f"{number} shows {alarm.stage} for ever")
        for station in self.stations.values():
            for parent, owed in station.records.owed.items():
                left = [_name(station.records.rows[at - 1]) for at, stage in owed.items() if stage is None]
                if left:
                    self.broken("every event arrives", f"{station.name} still owes {parent} {left}")


def _name(entry: Entry) -> str:
    what = "alarm" if entry.kind == wire.ALARM else f"event {entry.message[wire.CODE]}"
    return f"{what} {entry.source} {entry.message[wire.BOOT]}-{entry.message[wire.SEQ]}"


__all__ = ["STAGES", "World", "key_between"]
