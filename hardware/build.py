"""The build of one button: its parts and its wires, and what they draw.

Promise: `check` finds a part that nothing connects, a wire to a part that is not in the bill of materials, a signal
that is not wired as the pin map says, and a current that a pin or the transistor cannot bear.
"""

import re
from collections import Counter
from collections.abc import Iterator

from hardware import loop, pinmap
from hardware.source import FOLDER, Source, load

REF = re.compile(r"\b(?:A|BAT|BZ|CAB|C|D|ENC|J|LED|PCB|PSE|Q|R|SW|S|X)\d+\b")
PIN_MA = 10.0  # what we allow at a pin; the ESP32 datasheet's figures are 40 mA source and 28 mA sink


class Part(Source):
    """A line of the bill of materials."""

    refs: tuple[str, ...]
    what: str
    why: str
    check: str
    quantity: str = ""


class Group(Source):
    """Parts that are bought or fitted together."""

    name: str
    parts: tuple[Part, ...]


class Bom(Source):
    """The whole of `bom.yaml`."""

    groups: tuple[Group, ...]

    @property
    def refs(self) -> list[str]:
        """Every ref, in order."""
        return [ref for group in self.groups for part in group.parts for ref in part.refs]


class Light(Source):
    """A light between the rail and a pin that pulls low."""

    resistor: str
    ohm: float
    forward_v: loop.Span


class Sounder(Source):
    """The sounder and the transistor that switches it; `gain` is the least that the transistor is sold with."""

    base_ohm: float
    off_ohm: float
    base_emitter_v: float
    ma: float
    gain: float


class Power(Source):
    """What the board draws (assumed) and what of a cell can be used."""

    ma: float
    efficiency: float
    usable: float
    cell_v: float
    hours: float


class Charger(Source):
    """The board's charger and the isolated supply that feeds it."""

    ma: float
    supply_w: float
    supply_v: float


class Section(Source):
    """A part of the wiring table; a row is from, to, through, wire, note."""

    name: str
    rows: tuple[tuple[str, str, str, str, str], ...]


class Wiring(Source):
    """The whole of `wiring.yaml`."""

    lights: dict[str, Light]
    sounder: Sounder
    power: Power
    charger: Charger
    sections: tuple[Section, ...]
    not_wired: tuple[str, ...]
    assembly: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def cells(self) -> Iterator[str]:
        """Every place that a wire or part touches."""
        return (cell for section in self.sections for row in section.rows for cell in row[:3])


class Build(Source):
    """All four sources together."""

    pins: pinmap.PinMap
    loops: loop.Loops
    bom: Bom
    wiring: Wiring


def read() -> Build:
    """Read the four sources."""
    return Build(
        pins=pinmap.read(),
        loops=loop.read(),
        bom=load(Bom, FOLDER / "bom.yaml"),
        wiring=load(Wiring, FOLDER / "wiring.yaml"),
    )


def light_ma(build: Build, name: str) -> loop.Span:
    """Least and greatest current of a light over rail and forward voltage, mA."""
    light, rail = build.wiring.lights[name], build.loops.rail_v
    low, high = rail.low - light.forward_v.high, rail.high - light.forward_v.low
    return loop.Span(1000 * low / light.ohm, 1000 * high / light.ohm)


def base_ma(build: Build) -> loop.Span:
    """Least and greatest current into the base of Q1, mA, after what the off-resistor takes."""
    sounder, rail = build.wiring.sounder, build.loops.rail_v
    lost = sounder.base_emitter_v / sounder.off_ohm
    low, high = ((volts - sounder.base_emitter_v) / sounder.base_ohm - lost for volts in (rail.low, rail.high))
    return loop.Span(1000 * low, 1000 * high)


def battery_mah(build: Build) -> float:
    """Capacity that keeps the board alive for the wanted hours, as sold."""
    power = build.wiring.power
    watts = power.ma / 1000 * build.loops.rail_v.nominal / power.efficiency
    return 1000 * watts * power.hours / power.usable / power.cell_v


def check(build: Build) -> list[str]:
    """Every violation, one sentence each; empty when the four sources agree."""
    return [
        *pinmap.check(build.pins),
        *_loops_without_guard(build),
        *_loose_parts(build),
        *_loose_signals(build),
        *_currents(build),
    ]


def _loops_without_guard(build: Build) -> Iterator[str]:
    for name, kind in build.loops.loops.items():
        for threshold, guard, room in zip(kind.thresholds, kind.guard, loop.guards(build.loops, name), strict=True):
            if min(room) < guard:
                yield f"{name}: threshold {threshold} keeps only {min(room):.0f} per mille of the stated guard {guard}."


def _loose_parts(build: Build) -> Iterator[str]:
    bought, wired = build.bom.refs, {ref for cell in build.wiring.cells for ref in REF.findall(cell)}
    housed = set(build.wiring.not_wired)
    for ref, times in Counter(bought).items():
        if times > 1:
            yield f"{ref} is listed {times} times in the bill of materials."
        if ref not in wired | housed:
            yield f"{ref} is in the bill of materials, but nothing is wired to it."
    for ref in sorted((wired | housed) - set(bought)):
        yield f"{ref} is in the wiring, but not in the bill of materials."


def _loose_signals(build: Build) -> Iterator[str]:
    wired = "\n".join(build.wiring.cells)
    for name, signal in build.pins.signals.items():
        onboard = name in ("VBAT", "EXT_PWR")  # measured by parts that are already on the board
        if signal.fitted and not onboard and f"{{{name}}}" not in wired:
            yield f"{name} is fitted, but nothing is wired to {signal.header}."
        if (onboard or not signal.fitted) and f"{{{name}}}" in wired:
            yield f"{name} must stay open, but something is wired to {signal.header}."


def _currents(build: Build) -> Iterator[str]:
    for name in build.wiring.lights:
        if light_ma(build, name).high > PIN_MA:
            yield f"{name}: up to {light_ma(build, name).high:.1f} mA, and {PIN_MA:.0f} mA are allowed at a pin."
    if base_ma(build).high > PIN_MA:
        yield f"SOUNDER: up to {base_ma(build).high:.1f} mA, and {PIN_MA:.0f} mA are allowed at a pin."
    if base_ma(build).low * build.wiring.sounder.gain < build.wiring.sounder.ma:
        yield f"SOUNDER: {base_ma(build).low:.1f} mA into the base do not switch {build.wiring.sounder.ma:.0f} mA."
