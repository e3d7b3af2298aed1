"""Schedules of one button: what happens to it, at random, from one number; and the run of one."""

from __future__ import annotations

import contextlib
import gc
import traceback
from typing import TYPE_CHECKING

from firmware import route, wire
from tests.firmware.simulation.machine import playing
from tests.firmware.simulation.place import BUTTON, RECEIPT, Place
from tests.simulation.button import CUT, REST
from tests.simulation.engine import Engine, ViolationError
from tests.simulation.schedules import Hazards, Result, small_limits
from tests.simulation.seals import sealing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG_OF = 50  # of so many schedules one is long: many presses, limits that are reached, everything worked to the end
REAL_OF = 100  # one runs on real envelopes
HEALED_MS = 25_000  # after the last fault the button is connected, and its alarms are at headquarters
SETTLED_MS = 90_000  # and its events


class Fate(Hazards):
    """What happens to a button and the way to headquarters."""

    world: Place  # type: ignore[assignment]

    def die_at_start(self) -> None:
        """The power fails, comes, and fails again during the start."""
        button = self.world.button
        self.cut_power(button, 0, 200)
        button.boot_fuse = self.chance.randrange(8)
        self.engine.post(self.fate, 1_200, self._power, button, button.life, False)

    def _power(self, machine, life, wipe) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - as the original
        if not machine.running and machine is not self.world.lost:
            machine.start()
            self.engine.tell(machine.name, "has power again")

    def swallow(self, way: int) -> None:
        """Nothing comes through the connection that stands; a new one works."""
        station, path = self.world.stations[way], self.world.ways[way]
        line = station.lines.get(BUTTON)
        if line is not None:
            self.engine.tell("fate", f"the connection to {station.name} is dead")
            path.swallowed.add(line)

    def roughen_hops(self, share: float) -> None:
        """Between stations and headquarters messages get lost, come twice, and late."""
        self.engine.tell("fate", f"{share:.0%} get lost behind the stations, as many come twice, as many late")
        self.world.hq.rough = share

    def replay(self) -> None:
        """An old receipt comes again: of every stage that headquarters ever said, for any alarm."""
        hq = self.world.hq
        known = [number for number in hq.stages if number in self.world.pressed]
        if known and self.world.button.running:
            number = self.chance.choice(known)
            stage = self.chance.randrange(wire.AT_HQ, hq.stages[number] + 1)
            sealed = wire.seal(hq._receipt(number[1], number[2], stage), "hq", hq._key)
            self._deliver_later(sealed)

    def forge(self) -> None:
        """Somebody without the key says that headquarters has an alarm."""
        button = self.world.button
        alarms = button.button.latch.alarms if button.running else []
        if alarms:
            alarm = self.chance.choice(alarms)
            receipt = self.world.hq._receipt(alarm.boot, alarm.seq, self.chance.randrange(2, 6))
            lies = (
                lambda: wire.encode(receipt),
                lambda: wire.seal(receipt, "hq", b"thief".ljust(32)),
                lambda: wire.seal({**receipt, wire.DEVICE: "b2"}, "hq", button.key),
                lambda: wire.seal(receipt, "g1", button.key),
            )
            self.engine.tell("fate", f"forges a receipt of stage {receipt[wire.STAGE]}")
            self._deliver_later(self.chance.choice(lies)())

    def _deliver_later(self, payload: bytes) -> None:
        button = self.world.button
        self.engine.post(button, 0, button._received, RECEIPT, payload)

    def flap(self, times: int) -> None:
        """A cable is cut and whole again, several times: events."""
        button = self.world.button
        if button.running and not button.frozen:
            button.engine.post(button, 0, button.touch, CUT if times % 2 else REST, 400)
        if times > 1:
            self.at(self.engine.now + 600, self.flap, times - 1)

    def fault(self, around_ms: int) -> None:
        chance, place, button = self.chance, self.world, self.world.button
        at = around_ms + chance.randrange(-50, 200) if chance.random() < 0.5 else chance.randrange(3_500)
        lasts = int(100 * 60 ** chance.random())  # 0.1 s to 6 s, short ones more often
        roll = chance.random()
        way = chance.randrange(len(place.ways))
        if roll < 0.25:
            self.at(at, self.cut_power, button, chance.randrange(9), lasts)
        elif roll < 0.32:
            self.at(at, self.die_at_start)
        elif roll < 0.46:
            self.at(at, self.cut_power, place.stations[way], 0, lasts)
        elif roll < 0.54:
            self.at(at, self.freeze, place.stations[way], lasts)
        elif roll < 0.60:
            self.at(at, self.freeze, button, lasts)
        elif roll < 0.68:
            self.at(at, self.cut_way, place.ways[way], lasts)
        elif roll < 0.76:
            self.at(at, self.swallow, way)
        elif roll < 0.80:
            self.at(at, self.roughen, place.ways[way], chance.choice((0.1, 0.3)))
        elif roll < 0.88:
            self.at(at, self.roughen_hops, chance.choice((0.1, 0.3)))
        elif roll < 0.92:
            self.at(at, self.cut_power, place.hq, 0, lasts)
        elif roll < 0.96:
            self.at(at, self.forge)
        else:
            self.at(at, self.replay)


def _short(engine: Engine, place: Place, fate: Fate) -> None:
    chance = engine.chance
    pressed_ms = 60 + chance.randrange(2_000)
    for number in range(1 if chance.random() < 0.7 else 2):
        fate.at(pressed_ms + number * chance.randrange(450, 2_000), fate.press, place.button)
    for _ in range(chance.randrange(1, 4)):
        fate.fault(pressed_ms)
    if chance.random() < 0.3:
        fate.at(pressed_ms + chance.randrange(3_000), place.hq.step)
        fate.at(pressed_ms + chance.randrange(3_000), fate.replay)
    engine.run(pressed_ms + chance.randrange(500, 2_500))
    place.heal()
    _until(engine, place.delivered, HEALED_MS)
    place.check_delivered()


def _long(engine: Engine, place: Place, fate: Fate) -> None:
    chance = engine.chance
    end = chance.randrange(10_000, 30_000)
    for _ in range(chance.randrange(1, 14)):
        at = chance.randrange(end)
        fate.at(at, fate.press, place.button)
        if chance.random() < 0.6:
            fate.fault(at)
        if chance.random() < 0.5:
            fate.at(at + chance.randrange(8_000), place.hq.step)
    if chance.random() < 0.5:
        for way in place.ways:
            fate.at(chance.randrange(end // 2), fate.cut_way, way, end // 2)
        fate.at(chance.randrange(end // 2), fate.flap, 20)
    engine.run(end)
    place.heal()
    if place.button.running and place.button._reading is CUT:
        place.button.touch(REST, 400)
    _until(engine, place.settled, SETTLED_MS)
    place.check_settled()


def _until(engine: Engine, true: Callable[[], bool], at_most_ms: int) -> None:
    end = engine.now + at_most_ms
    while not true() and engine.now < end:
        engine.run(engine.now + 200)


KINDS = {"short": _short, "long": _long}


def kind_of(seed: int) -> str:
    """Which sort of schedule a seed is."""
    return "long" if seed % LONG_OF == 23 else "short"


@contextlib.contextmanager
def quick_looks() -> Iterator[None]:
    """The preferred station is looked at soon enough for a schedule."""
    held, route.LOOK_MS = route.LOOK_MS, 3_000
    try:
        yield
    finally:
        route.LOOK_MS = held


def run(seed: int, *, kind: str = "", tracing: bool = False) -> Result:
    """One schedule, from its number. The same number is the same schedule, to the letter. kind: if not the number's own."""
    gc.collect(0)  # the world before this one is full of circles
    engine = Engine(seed, tracing=tracing)
    kind = kind or kind_of(seed)
    result = Result(seed, kind)
    place = Place(engine, 1 if engine.chance.random() < 0.5 else engine.chance.randrange(2, 5))
    place.button.stingy = engine.chance.random() < 0.3
    with sealing(real=seed % REAL_OF == 3), small_limits(small=kind == "long"), quick_looks(), playing(place.button):
        try:
            place.start()
            if len(place.stations) > 1 and engine.chance.random() < 0.3:
                engine.post(
                    place.fate, engine.chance.randrange(3_000), place.lose, engine.chance.choice(place.stations)
                )
            KINDS[kind](engine, place, Fate(engine, place))  # type: ignore[arg-type]
            result.presses = len(place.latched)
        except ViolationError as broken:
            result.violation = str(broken)
        except Exception as problem:
            if engine.story is None:
                result.violation = f"no code fails: {type(problem).__name__}: {problem}"
            else:
                result.violation = traceback.format_exc()
        finally:
            place.button.crash()
    result.violation = place.violation or result.violation
    result.story = engine.story or []
    return result
