"""One button, the stations that it may use, and headquarters behind them; what must be true of the button, always."""

from __future__ import annotations

from typing import Any

from firmware import wire
from tests.firmware.simulation.line import Path, Station
from tests.firmware.simulation.machine import FirmwareMachine
from tests.simulation.engine import Engine, Machine
from tests.simulation.witness import Number, Witness
from tests.simulation.world import key_between

BUTTON = "b1"
RECEIPT = f"tocsin/1/{BUTTON}/receipt"
COMMIT_MS = 15
HOP_MS = 30


class Headquarters(Machine):
    """What is committed, and receipts for it. Between it and the stations messages get lost, come twice, and late."""

    def __init__(self, engine: Engine, place: Place) -> None:
        super().__init__(engine, "hq")
        self.place = place
        self.rough = 0.0
        self.stages: dict[Number, int] = {}
        self.dropped = 0  # events that the button says it had no room for
        self._key = key_between(BUTTON, "hq")
        self._heard_by: Station | None = None

    def has(self, number: Number) -> bool:
        return number in self.stages

    def stage(self, number: Number) -> int | None:
        return self.stages.get(number)

    def took(self, station: Station, topic: str, payload: bytes) -> None:
        """A station's gateway has a message of the button: its own word for it, and on with it."""
        lane = topic.rpartition("/")[2]
        if lane == "presence":
            return
        message = wire.unseal(payload).message
        bare = wire.encode(self._receipt(message[wire.BOOT], message[wire.SEQ], wire.AT_GATEWAY))
        self.engine.post(station, self.engine.chance.randrange(HOP_MS), station.down, RECEIPT, bare)
        self._hop(self, self._commit, station, lane, payload)

    def _hop(self, to: Machine, what: Any, *args: Any) -> None:
        engine = self.engine
        ms = 1 + int(engine.random() * HOP_MS)
        if self.rough:
            roll = engine.random() / self.rough
            if roll < 1:
                return
            if roll < 2:
                engine.post(to, engine.chance.randrange(8_000), what, *args)
            elif roll < 3:
                ms = engine.chance.randrange(4_000)
        engine.post(to, ms + int(engine.random() * COMMIT_MS), what, *args)

    def _commit(self, station: Station, lane: str, payload: bytes) -> None:
        self._heard_by = station
        envelope = wire.unseal(payload)
        assert envelope.sealed_with(self._key)
        message = envelope.message
        number = (BUTTON, message[wire.BOOT], message[wire.SEQ])
        if lane == "heartbeat":
            self.place.answered[BUTTON] = self.engine.now
            self._send(number, wire.AT_HQ)
            for boot, seq, stage in message[wire.SHOWN]:
                if self.stages.get((BUTTON, boot, seq), 0) > stage:
                    self._send((BUTTON, boot, seq), self.stages[BUTTON, boot, seq])
            return
        if number not in self.stages:
            self.engine.tell("hq", f"commits {lane} {number[1:]}")
            self.stages[number] = wire.AT_HQ
            self.place.committed(number, message)
        self._send(number, self.stages[number])

    def step(self) -> None:
        """An operator goes on with one of the alarms."""
        open_ones = [n for n in self.stages if n in self.place.pressed and self.stages[n] < wire.CLOSED]
        if open_ones and self.running:
            number = self.engine.chance.choice(open_ones)
            self.stages[number] += 1
            self.engine.tell("hq", f"moves {number[1:]} to stage {self.stages[number]}")
            self._send(number, self.stages[number])

    @staticmethod
    def _receipt(boot: int, seq: int, stage: int) -> dict[int, Any]:
        return {wire.KIND: wire.RECEIPT, wire.BOOT: boot, wire.SEQ: seq, wire.STAGE: stage, wire.DEVICE: BUTTON}

    def _send(self, number: Number, stage: int) -> None:
        if self._heard_by is not None:
            sealed = wire.seal(self._receipt(number[1], number[2], stage), "hq", self._key)
            self._hop(self._heard_by, self._heard_by.down, RECEIPT, sealed)


class Place(Witness):
    """Everything around one button, with the hazards' view of it (tests/simulation/schedules.py)."""

    def __init__(self, engine: Engine, stations: int) -> None:
        super().__init__(engine)
        self.violation = ""  # the first one
        self.dropped: set[Number] = set()  # events that left the flash before headquarters had them
        self.dropped_told = 0  # how many headquarters knows of
        self.troubles = self.calm_since_ms = 0
        self.fate = Machine(engine, "fate")
        self.hq = Headquarters(engine, self)
        self.stations = [Station(engine, f"g{n + 1}") for n in range(stations)]
        self.ways = [Path(engine, f"{BUTTON} to {station.name}", 20) for station in self.stations]
        for station in self.stations:
            station.gateway = self.hq
        ends: list[Any] = list(zip(self.stations, self.ways, strict=True))
        self.button = FirmwareMachine(engine, self, BUTTON, key_between(BUTTON, "hq"), ends)
        self.buttons = {BUTTON: self.button}
        self.lost: Station | None = None  # one that never comes back
        self.machines: list[Machine] = [*self.stations, self.hq, self.button]

    @property
    def known(self) -> Headquarters:
        return self.hq

    def broken(self, invariant: str, what: str) -> None:
        """Ends the schedule; remembered, as a session catches what its callbacks raise."""
        self.violation = self.violation or f"{invariant}: {what}"
        super().broken(invariant, what)

    def start(self) -> None:
        """Gives power to everything."""
        for machine in (self.fate, *self.machines):
            machine.start()

    def lose(self, station: Station) -> None:
        """A station dies for good, or the way to it does."""
        self.lost = station
        self.engine.tell("fate", f"{station.name} is gone for ever")
        if self.engine.random() < 0.5:
            station.crash()
        else:
            self.ways[self.stations.index(station)].cut = True

    def committed(self, number: Number, message: dict[int, Any]) -> None:
        """Headquarters has a message that it did not have."""
        if message[wire.KIND] == wire.ALARM:
            if number not in self.pressed:
                self.broken("no alarm that nobody pressed", f"headquarters believes {number}")
        elif message[wire.CODE] == wire.EVENTS_DROPPED:
            self.dropped_told += message[wire.DETAIL]

    def heal(self) -> None:
        """Everything but `lost` has power, runs, and is connected by good ways; nothing happens to it any more."""
        self.fate.crash()
        self.fate.start()
        self.button.stingy = False
        self.button.boot_fuse = None
        for machine in self.machines:
            if machine is self.lost:
                continue
            if machine.frozen:
                machine.thaw()
            machine.fuse = None
            if not machine.running:
                machine.start()
        for station, way in zip(self.stations, self.ways, strict=True):
            if station is not self.lost:
                way.heal()
        self.hq.rough = 0.0

    def delivered(self) -> bool:
        """Headquarters has every press, the button knows, and its connection stands."""
        return (
            self.button.session.up
            and all(map(self.hq.has, self.latched))
            and all(alarm.stage >= wire.AT_HQ for alarm in self.button.button.latch.alarms)
        )

    def settled(self) -> bool:
        """Nothing waits any more, and the light is as headquarters has it."""
        return (
            self.delivered()
            and not self.button.button.outbox.waiting
            and not self.button.button.outbox.dropped
            and all(self._is_true(alarm) for alarm in self.button.button.latch.alarms)
        )

    def _is_true(self, alarm: Any) -> bool:
        return bool(alarm.stage == self.hq.stage((BUTTON, alarm.boot, alarm.seq)))

    def check_delivered(self) -> None:
        """After the last fault and the time that delivery may take."""
        lost = [number for number in self.latched if not self.hq.has(number)]
        if lost:
            self.broken("every latched press arrives", f"headquarters lacks {sorted(lost)}")
        if not self.button.session.up:
            self.broken("the connection comes back", "the button is not connected")
        self._lights(lambda alarm: alarm.stage >= wire.AT_HQ)

    def check_settled(self) -> None:
        """As `check_delivered`; and events, and lights."""
        self.check_delivered()
        self._lights(self._is_true)
        outbox = self.button.button.outbox
        if outbox.waiting:
            self.broken("every event arrives", f"{outbox.events} still wait")
        lost = sum(not self.hq.has(number) for number in self.dropped)
        if self.dropped_told < lost:
            self.broken("what is dropped is counted", f"{lost} are lost, and headquarters knows of {self.dropped_told}")

    def _lights(self, is_true: Any) -> None:
        for alarm in self.button.button.latch.alarms:
            if not is_true(alarm):
                self.broken("every light comes true", f"{(alarm.boot, alarm.seq)} shows {alarm.stage} for ever")
