"""Schedules: what happens to the system, at random, from one number; and the run of one."""

from __future__ import annotations

import contextlib
import gc
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firmware import health, outbox, window, wire
from gateway import exchange, logs, relay, uplink
from gateway.desk import State
from tests.simulation import records
from tests.simulation.button import CUT, ButtonMachine
from tests.simulation.engine import Engine, Machine, ViolationError
from tests.simulation.seals import REAL_OF, sealing
from tests.simulation.station import Station
from tests.simulation.world import DEADLINE_MS, World, key_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.network import Way

RESTORED_OF = 200  # at one of so many a backup is put back at headquarters or at an agency
WATCH_OF = 80  # of so many schedules one is about supervision
LONG_OF = 100  # one is long, with many presses
LARGE_OF = 2_000  # and one is long and has many buttons and gateways
HEALED_MS = 90_000  # alarms arrive within so long after the last fault
SETTLED_MS = 420_000  # and events, whose pauses grow


@dataclass
class Result:
    """What became of one schedule."""

    seed: int
    kind: str
    violation: str = ""
    story: list[str] = field(default_factory=list)
    presses: int = 0


@contextlib.contextmanager
def small_limits(*, small: bool) -> Iterator[None]:
    """Limits that a schedule can reach; no measuring of this process's heap, no logs, no SQL."""
    heap_free, health.heap_free = health.heap_free, lambda: 0
    hop, logs.hop = logs.hop, lambda *_, **__: None
    kind_of, exchange.kind_of = exchange.kind_of, records.kind_of
    names = [
        (outbox, "MAX_ALARMS", 4),
        (outbox, "MAX_EVENTS", 12),
        (outbox, "HEAD", 6),
        (outbox, "_LEAST", 4),
        (window, "SIZE", 2),
        (relay, "IN_MEMORY", 6),
        (uplink, "PAGE", 4),
    ]
    before = [getattr(module, name) for module, name, _ in names]
    if small:
        for module, name, value in names:
            setattr(module, name, value)
    try:
        yield
    finally:
        health.heap_free, logs.hop, exchange.kind_of = heap_free, hop, kind_of
        for (module, name, _), value in zip(names, before, strict=True):
            setattr(module, name, value)


class Hazards:
    """Puts faults, presses and operators' steps into a world's time."""

    def __init__(self, engine: Engine, world: World) -> None:
        self.engine = engine
        self.chance = engine.chance
        self.world = world
        self.fate = world.fate

    def at(self, ms: int, what: Callable[..., None], *args: object) -> None:
        self.engine.post(self.fate, max(0, ms - self.engine.now), what, *args)

    def _begins(self, what: str, lasts_ms: int) -> None:
        self.world.troubles += 1
        self.engine.tell("fate", what)
        self.engine.post(self.fate, lasts_ms, self._ends)

    def _ends(self) -> None:
        if self.world.troubles:
            self.world.troubles -= 1
            self.world.calm_since_ms = self.engine.now

    # -------------------------------------------------------------------------------------------- faults

    def cut_power(self, machine: Machine, operations: int, for_ms: int, *, wipe: bool = False) -> None:
        """Ends a machine after so many more operations, or a second later; starts it again, with its disk or without."""
        if not machine.running:
            return
        for_ms = max(for_ms, 1_000) if wipe else for_ms  # nobody changes a disk within a second
        self._begins(
            f"{machine.name} dies after {operations} operations{', with its disk' if wipe else ''}", for_ms + 1
        )
        if operations:
            machine.fuse = operations
        else:
            machine.crash()
        self.engine.post(self.fate, for_ms, self._power, machine, machine.life, wipe)

    def _power(self, machine: Machine, life: int, wipe: bool) -> None:
        if machine.life == life and machine.running:
            machine.crash()
        if machine.running:
            return
        if wipe and isinstance(machine, Station):
            machine.records = type(machine.records)()
            self.world.wiped.add(machine.name)
        machine.start()
        if not isinstance(machine, ButtonMachine):
            self.engine.tell(machine.name, "starts")

    def freeze(self, machine: Machine, for_ms: int) -> None:
        """SIGSTOP, and SIGCONT later."""
        if machine.running and not machine.frozen:
            self._begins(f"{machine.name} freezes for {for_ms} ms", for_ms)
            machine.frozen = True
            self.engine.post(self.fate, for_ms, self._thaw, machine, machine.life)

    @staticmethod
    def _thaw(machine: Machine, life: int) -> None:
        if machine.life == life and machine.frozen:
            machine.thaw()

    def cut_way(self, way: Way, for_ms: int) -> None:
        """Swallows everything for a while."""
        if not way.cut:
            self._begins(f"the way of {way.name} is cut for {for_ms} ms", for_ms)
            way.cut = True
            self.engine.post(self.fate, for_ms, self._mend, way)

    @staticmethod
    def _mend(way: Way) -> None:
        if way.cut:
            rough = way.rough
            way.heal()
            way.rough = rough

    def roughen(self, way: Way, share: float) -> None:
        """Loses, repeats and delays messages until everything is healed."""
        if not way.rough:
            self.engine.tell("fate", f"the way of {way.name} loses {share:.0%}, repeats and delays as many")
            self.world.troubles += 1
            way.rough = share

    def fail_disk(self, station: Station, for_ms: int) -> None:
        """Nothing can be written at a station for a while."""
        if not station.disk_fails:
            self._begins(f"the disk of {station.name} fails for {for_ms} ms", for_ms)
            station.disk_fails = True
            self.engine.post(self.fate, for_ms, setattr, station, "disk_fails", False)

    def jump(self, station: Station, by_ms: int) -> None:
        """Somebody sets a station's clock."""
        self.engine.tell("fate", f"the clock of {station.name} jumps by {by_ms} ms")
        station.skew_ms += by_ms

    def forge_receipt(self, button: ButtonMachine) -> None:
        """A stolen gateway says that headquarters has an alarm."""
        alarms = [alarm for alarm in button.button.latch.alarms if alarm.stage < wire.AT_HQ] if button.running else []
        if alarms and button.session.up:
            receipt = {
                wire.KIND: wire.RECEIPT,
                wire.BOOT: alarms[0].boot,
                wire.SEQ: alarms[0].seq,
                wire.STAGE: self.chance.randrange(2, 6),
                wire.DEVICE: button.name,
            }
            self.engine.tell("fate", f"forges a receipt of stage {receipt[wire.STAGE]} for {button.name}")
            payload = wire.encode(receipt)
            if self.chance.random() < 0.5:
                payload = wire.seal(receipt, "hq", key_between(button.name, "thief"))
            self.engine.post(button, 0, self._deliver, button, payload)

    @staticmethod
    def _deliver(button: ButtonMachine, payload: bytes) -> None:
        button.button.received(f"tocsin/1/{button.name}/receipt", payload)
        button.world.looked(button)

    def forge_alarm(self, button: str) -> None:
        """A stolen gateway invents a press."""
        broker = self.world.brokers[self.world.home[button]]
        if broker.running and not broker.frozen:
            self.engine.tell("fate", f"forges an alarm of {button}")
            alarm = {wire.KIND: wire.ALARM, wire.BOOT: 9_999, wire.SEQ: 1, wire.AGE: 0, wire.CAUSE: wire.HOLD_UP}
            payload = wire.seal(alarm, button, key_between(button, "thief"))
            broker._to_station(f"tocsin/1/{button}/alarm", payload, 1)
            self.world.forged.add((button, 9_999, 1))

    def restart_with_a_late_will(self, button: ButtonMachine) -> None:
        """A button loses power for a moment, and the will of its old session comes seconds after the new one."""
        line = button.broker.lines.get(button.name)
        if line is None or line.will is None:
            return
        will = line.will
        self.cut_power(button, 0, 500)
        self.engine.post(self.fate, 8_000 + self.chance.randrange(4_000), self._late, button, will)

    def _late(self, button: ButtonMachine, will: tuple[str, bytes]) -> None:
        self.engine.tell("fate", f"an old will of {button.name} comes late")
        button.broker._to_station(*will, 1)

    def replay(self, button: ButtonMachine) -> None:
        """A stolen gateway plays a dead button's heartbeats again."""
        if not button.running and button.beats:
            recorded = self.chance.choice(button.beats)
            button.broker._to_station(f"tocsin/1/{button.name}/heartbeat", recorded, 0)
            gate = self.world.home[button.name]
            frame = {wire.KIND: wire.FRAME, wire.ENVELOPE: recorded, wire.HOPS: [[gate, self.world.hq.utc_ms()]]}
            payload = wire.seal(frame, gate, key_between(gate, "hq"))
            self.world.hq.broker._to_station(f"tocsin/1/{gate}/heartbeat", payload, 0)
            self.engine.post(self.fate, 2_000, self.replay, button)

    def press(self, button: ButtonMachine) -> None:
        """A guard presses."""
        if button.running and not button.frozen:
            self.engine.tell("fate", f"{button.name} is pressed")
            self.engine.post(button, 0, button.press)

    # ---------------------------------------------------------------------------------------- at random

    def fault(self, around_ms: int) -> None:
        """One fault: half of them within moments of `around_ms`."""
        chance, world = self.chance, self.world
        roll = chance.random()
        at = around_ms + chance.randrange(-50, 200) if chance.random() < 0.5 else chance.randrange(4_500)
        lasts = int(100 * 100 ** chance.random())  # 0.1 s to 10 s, short ones more often
        if roll < 0.22:
            self.at(at, self.cut_power, chance.choice(list(world.buttons.values())), chance.randrange(7), lasts)
        elif roll < 0.36:
            gate = world.stations[chance.choice(list(world.home.values()))]
            self._cut_power(at, gate, lasts, wipe=chance.random() < 0.3)
        elif roll < 0.46:
            self.at(at, self.cut_power, world.hq, chance.randrange(9), lasts)
        elif roll < 0.52:
            self.at(at, self.cut_power, chance.choice(list(world.stations.values())), chance.randrange(9), lasts)
        elif roll < 0.60:
            self.at(at, self.cut_power, chance.choice(list(world.brokers.values())), 0, min(lasts, 2_000))
        elif roll < 0.72:
            self.at(at, self.cut_way, chance.choice(list(world.ways.values())), lasts)
        elif roll < 0.76:
            self.at(at, self.fail_disk, chance.choice(list(world.stations.values())), lasts)
        elif roll < 0.84:
            self.at(at, self.freeze, chance.choice(world.machines), lasts)
        elif roll < 0.92:
            self.at(
                at, self.roughen, chance.choice([*world.ways.values(), *world.homes]), chance.choice((0.05, 0.15, 0.3))
            )
        elif roll < 0.94:
            self.at(
                at, self.jump, chance.choice(list(world.stations.values())), chance.randrange(-9_000_000, 9_000_000)
            )
        elif roll < 0.98:
            self.at(at, self.forge_receipt, chance.choice(list(world.buttons.values())))
        else:
            self.at(at, self.forge_alarm, chance.choice(list(world.buttons)))

    def _cut_power(self, at: int, machine: Machine, lasts: int, *, wipe: bool) -> None:
        def cut() -> None:
            self.cut_power(machine, self.chance.randrange(9), lasts, wipe=wipe)

        self.at(at, cut)


STEPS = (State.ACKNOWLEDGED, State.RESPONDING, State.ON_SCENE, State.CLOSED)


def _short(engine: Engine) -> World:
    """One or two presses, a few faults around them, then peace."""
    chance = engine.chance
    world = World(engine, 1 if chance.random() < 0.85 else 2, 1, chance.choice((0, 0, 0, 0, 0, 0, 1, 1, 2)))
    world.start()
    hazards = Hazards(engine, world)
    pressed_ms = chance.randrange(3_000)
    for number in range(1 if chance.random() < 0.6 else 2):
        at = pressed_ms + number * chance.randrange(500, 3_000)
        hazards.at(at, hazards.press, chance.choice(list(world.buttons.values())))
    for _ in range(chance.randrange(1, 4)):
        hazards.fault(pressed_ms)
    if chance.random() < 0.4:
        for _ in range(chance.randrange(1, 4)):
            hazards.at(pressed_ms + chance.randrange(4_000), world.operate, chance.choice(STEPS))
    engine.run(max(8_000 if chance.random() < 0.15 else 2_500, pressed_ms + 1_500))
    world.heal()
    _until(engine, world.delivered, HEALED_MS)
    world.check_end()
    return world


def _long(engine: Engine, times: int = 1) -> World:
    """Many presses and faults, limits that are reached, everything worked to the end."""
    chance = engine.chance
    world = World(
        engine, times * chance.randrange(1, 4), times * chance.randrange(1, 3), 2, second_ways=chance.random() < 0.5
    )
    world.start()
    hazards = Hazards(engine, world)
    end = chance.randrange(10_000, 40_000)
    for _ in range(times * chance.randrange(1, 12)):
        at = chance.randrange(end)
        hazards.at(at, hazards.press, chance.choice(list(world.buttons.values())))
        for _ in range(chance.randrange(2)):
            hazards.fault(at)
        if chance.random() < 0.5:
            hazards.at(at + chance.randrange(8_000), world.operate, chance.choice(STEPS))
    if chance.random() < 0.5:
        hazards.at(chance.randrange(end), hazards.cut_way, chance.choice(list(world.ways.values())), end // 2)
    engine.run(end)
    world.heal()
    _until(engine, world.settled, SETTLED_MS)
    world.check_settled()
    world.close_all()
    _until(engine, lambda: not any(machine.button.latch.alarms for machine in world.buttons.values()), HEALED_MS)
    if any(machine.button.latch.alarms for machine in world.buttons.values()):
        world.broken("every light comes true", "an alarm is closed, and its button does not know")
    _until(engine, world.settled, SETTLED_MS)
    world.check_settled()
    return world


def _large(engine: Engine) -> World:
    """A long schedule of up to twelve buttons behind eight gateways."""
    return _long(engine, 4)


CAUSES = ("unplugged", "replayed", "frozen", "cut", "killed", "gateway frozen", "uplink cut", "broker killed", "none")


def _watch(engine: Engine) -> World:
    """Peace, then one cause of silence: headquarters has it within 20 s, and nothing that is not so."""
    chance = engine.chance
    world = World(
        engine, chance.randrange(1, 4), chance.randrange(1, 3), chance.randrange(2), second_ways=chance.random() < 0.5
    )
    for station in world.stations.values():
        station.tick_ms = 500
    world.start()
    hazards = Hazards(engine, world)
    engine.run(chance.randrange(12_000, 16_000))
    for _ in range(chance.randrange(3)):  # what is over at once is not to be seen from headquarters
        hazards.cut_way(chance.choice([world.ways[name] for name in world.buttons]), 800)
        engine.run(engine.now + chance.randrange(1_000, 6_000))
    if chance.random() < 0.3:
        hazards.restart_with_a_late_will(chance.choice(list(world.buttons.values())))
        engine.run(engine.now + 16_000)
    button = chance.choice(list(world.buttons.values()))
    gate = world.stations[world.home[button.name]]
    cause = chance.choice(CAUSES)
    began = engine.now
    world.heard_silent.clear()
    subject = button.name if cause in {"unplugged", "replayed", "frozen", "cut"} else gate.name
    lasting = DEADLINE_MS + 2_000
    if cause == "unplugged":
        hazards.cut_power(button, 0, lasting)
    elif cause == "replayed":
        hazards.cut_power(button, 0, lasting)
        hazards.replay(button)
    elif cause == "frozen":
        hazards.freeze(button, lasting)
    elif cause == "cut":
        if chance.random() < 0.5:
            for _, way in button.ends:
                hazards.cut_way(way, lasting)
        else:
            engine.post(button, 0, button.touch, CUT, 400)
    elif cause == "killed":
        hazards.cut_power(gate, 0, lasting)
    elif cause == "gateway frozen":
        hazards.freeze(gate, lasting)
    elif cause == "uplink cut":
        hazards.cut_way(world.ways[gate.name], lasting)
    elif cause == "broker killed":
        hazards.cut_power(gate.broker, 0, lasting)
    engine.tell("fate", f"{cause}: {subject} must be reported")
    engine.run(began + DEADLINE_MS)
    if cause != "none" and world.heard_silent.get(subject, DEADLINE_MS + began + 1) > began + DEADLINE_MS:
        world.broken("silence is an event within 20 s", f"{cause}: headquarters knows nothing of {subject}")
    engine.run(engine.now + 4_000)
    world.heal()
    engine.run(engine.now + 45_000)
    for station in world.stations.values():
        left = [
            watched.id
            for watched in station.exchange.supervision.children.values()
            if watched.reported and (station.settings.role == "hq" or watched.id in station.broker.lines)
        ]  # a button that went to another gateway is silent at the one that it left
        if left:
            world.broken("who is back is no longer reported", f"{station.name} still holds {left} for silent")
    _until(engine, world.settled, SETTLED_MS)
    world.check_settled()
    return world


def _restored(engine: Engine) -> World:
    """Presses, a backup, more presses, and then the backup is put back: what came since is delivered again."""
    chance = engine.chance
    world = World(engine, chance.randrange(1, 3), chance.randrange(1, 3), chance.randrange(2))
    world.start()
    hazards = Hazards(engine, world)
    end = chance.randrange(15_000, 60_000)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(end)
        hazards.at(at, hazards.press, chance.choice(list(world.buttons.values())))
        if chance.random() < 0.3:
            hazards.at(at, hazards.cut_way, chance.choice(list(world.ways.values())), chance.randrange(100, 9_000))
        if chance.random() < 0.5:
            hazards.at(at + chance.randrange(8_000), world.operate, chance.choice(STEPS))
    station = chance.choice([world.hq, *(world.stations[above.name] for above in world.hq.above)])
    engine.run(chance.randrange(end))
    backup = station.records.copy()
    engine.tell("fate", f"{station.name} is copied")
    engine.run(end)
    for _ in range(chance.randrange(1, 3)):  # the same copy may be put back twice
        world.troubles += 1
        station.crash()
        world.restore(station, backup.copy())
        engine.run(engine.now + chance.randrange(1_000, 30_000))
        station.start()
        engine.run(engine.now + chance.randrange(1_000, 30_000))
    world.heal()
    _until(engine, world.settled, SETTLED_MS)
    world.check_settled()
    world.close_all()
    _until(engine, world.settled, SETTLED_MS)
    world.check_settled()
    return world


def _until(engine: Engine, true: Callable[[], bool], at_most_ms: int) -> None:
    end = engine.now + at_most_ms
    while not true() and engine.now < end:
        engine.run(engine.now + 250)


KINDS = {"short": _short, "long": _long, "large": _large, "watch": _watch, "restored": _restored}


def kind_of(seed: int) -> str:
    """Which sort of schedule a seed is."""
    if seed % WATCH_OF == 7:
        return "watch"
    if seed % RESTORED_OF == 58:
        return "restored"
    if seed % LARGE_OF == 1_501:
        return "large"
    return "long" if seed % LONG_OF == 23 else "short"


def real_of(seed: int) -> bool:
    """Whether a seed's schedule runs on real envelopes."""
    return seed % REAL_OF == 3


def run(seed: int, *, kind: str = "", tracing: bool = False) -> Result:
    """One schedule, from its number. The same number is the same schedule, to the letter. kind: if not the number's own."""
    gc.collect(0)  # the world before this one is full of circles, all of it young; else a process grows to a gigabyte
    engine = Engine(seed, tracing=tracing)
    kind = kind or kind_of(seed)
    result = Result(seed, kind)
    with sealing(real=real_of(seed)), small_limits(small=kind in {"long", "large", "restored"}):
        try:
            world = KINDS[kind](engine)
            result.presses = len(world.latched)
        except ViolationError as broken:
            result.violation = str(broken)
        except Exception as problem:
            if engine.story is None:
                result.violation = f"no code fails: {type(problem).__name__}: {problem}"
            else:
                result.violation = traceback.format_exc()
    result.story = engine.story or []
    return result
