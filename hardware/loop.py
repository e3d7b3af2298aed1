"""The supervised loops: what a reading can be in each state, in the worst case, and how far that is from a threshold.

The worst case is exact for the model, not sampled: while the others stand still, the reading only rises or only falls
with each uncertain quantity (every step is a sum, or a quotient that is linear in it above and below the line), so its
extremes over the box of tolerances lie at corners of the box, and all corners are tried. The one exception, the top of
OPEN where the converter saturates, bounds nothing. A reading is x = V(loop) / V(rail), in per mille; see `loop.yaml`.
"""

import random
from itertools import pairwise, product
from math import inf
from pathlib import Path
from typing import Literal, NamedTuple

from hardware.source import FOLDER, Source, load

PER_MILLE = 1000.0
ROOM_C = 25.0


class Span(NamedTuple):
    """The least and the greatest value of something uncertain."""

    low: float
    high: float


class Tolerance(Source):
    """How wrong a resistor may be: as bought (a fraction), and with temperature (ppm for each °C)."""

    tolerance: float
    ppm: float


class Resistor(Tolerance):
    """A resistor as bought."""

    ohm: float


class Rail(Source):
    """The 3.3 V rail, in volts."""

    nominal: float
    low: float
    high: float


class Reference(Source):
    """The divider at RAIL_REF."""

    top: Resistor
    onboard_pullup: Resistor
    bottom: Resistor

    @property
    def ratio(self) -> float:
        """V(RAIL_REF) / V(rail) with nominal resistors."""
        return divided(self.top.ohm, self.onboard_pullup.ohm, self.bottom.ohm)


class Loop(Source):
    """One kind of loop. `states_ohm` goes from short to open; None is an open circuit."""

    bias: Resistor
    series: Resistor
    bias_at: Literal["terminal", "pin"]
    end: Tolerance
    states_ohm: dict[str, float | None]
    thresholds: tuple[int, ...]
    guard: tuple[int, ...]


class Contact(Source):
    """What one contact of the button does to its loop."""

    contact: str
    rest: str
    pressed: str


class Adc(Source):
    """Errors of the converter: gain (a fraction), an offset that all channels share, one of each channel's own."""

    gain: float
    common_mv: float
    own_mv: float
    full_scale_mv: float


class Conditions(Source):
    """What a loop must bear, or what a bench is like."""

    cable_ohm: Span
    contact_ohm: Span
    insulation_ohm: Span
    leakage_ua_at_25c: Span
    leakage_doubles_every_c: float
    temperature_c: Span
    adc: Adc

    def spread(self, part: Tolerance) -> float:
        """Greatest deviation of a resistor over tolerance and temperature, as a fraction."""
        return part.tolerance + part.ppm * 1e-6 * max(abs(t - ROOM_C) for t in self.temperature_c)

    @property
    def leakage_a(self) -> Span:
        """Leakage into the pin's node at the hottest."""
        growth = 2 ** ((self.temperature_c.high - ROOM_C) / self.leakage_doubles_every_c)
        return Span(*(microampere * 1e-6 * growth for microampere in self.leakage_ua_at_25c))


class Divider(Source):
    """A divider that is already on the board."""

    top_ohm: float
    bottom_ohm: float


class Loops(Source):
    """The whole of `loop.yaml`."""

    rail_v: Rail
    reference: Reference
    onboard: dict[str, Divider]
    meter_ohm: float
    loops: dict[str, Loop]
    contacts: dict[str, Contact]
    service: Conditions
    bench: Conditions


class Box(NamedTuple):
    """Every uncertain quantity of one reading."""

    rail: Span
    bias: Span
    series: Span
    outside: Span
    insulation: Span
    leakage: Span
    reference: Span
    gain: Span
    common: Span
    own_loop: Span
    own_reference: Span


def read(path: Path = FOLDER / "loop.yaml") -> Loops:
    """Read the loops."""
    return load(Loops, path)


def parallel(a: float, b: float) -> float:
    """Two resistors in parallel; either may be infinite."""
    return a if b == inf else b if a == inf else a * b / (a + b)


def divided(top: float, pullup: float, bottom: float) -> float:
    """Ratio of the reference divider: top and the board's pull-up against bottom."""
    return bottom / (bottom + parallel(top, pullup))


def bands(loops: Loops, name: str) -> dict[str, Span]:
    """Least and greatest reading of each state in service, per mille."""
    loop = loops.loops[name]
    return {state: _extremes(loops, loop, state, loops.service) for state in loop.states_ohm}


def guards(loops: Loops, name: str) -> list[Span]:
    """For each threshold: what is left to the band below and to the band above it, per mille."""
    edges = pairwise(bands(loops, name).values())
    thresholds = loops.loops[name].thresholds
    return [Span(t - below.high, above.low - t) for t, (below, above) in zip(thresholds, edges, strict=True)]


def nominal(loops: Loops, name: str, state: str) -> float:
    """The reading of a state with perfect parts and no cable, per mille."""
    loop = loops.loops[name]
    ohm = loop.states_ohm[state]
    outside = inf if ohm is None else ohm + (loop.series.ohm if loop.bias_at == "pin" else 0)
    return PER_MILLE if outside == inf else PER_MILLE * outside / (outside + loop.bias.ohm)


def on_the_bench(loops: Loops, name: str, state: str) -> Span:
    """What a meter may show at the pin on the bench, as per mille of the rail that the same meter shows."""
    return _extremes(loops, loops.loops[name], state, loops.bench)


def reference_span(loops: Loops, conditions: Conditions) -> Span:
    """Least and greatest V(RAIL_REF) / V(rail)."""
    parts = (loops.reference.top, loops.reference.onboard_pullup, loops.reference.bottom)
    top, pullup, bottom = (_around(part, conditions) for part in parts)
    return Span(divided(top.high, pullup.high, bottom.low), divided(top.low, pullup.low, bottom.high))


def onboard_ratio(loops: Loops, name: str) -> float:
    """What of the voltage above a divider on the board a meter shows at the pin, with the meter's own load."""
    divider = loops.onboard[name]
    bottom = parallel(divider.bottom_ohm, loops.meter_ohm)
    return bottom / (bottom + divider.top_ohm)


def sample(loops: Loops, name: str, state: str, rng: random.Random) -> float:
    """One reading with every uncertain quantity drawn uniformly: for tests of the corners."""
    box = _box(loops, loops.loops[name], state, loops.service)
    return _reading(
        loops, loops.loops[name], loops.service, tuple(s.low if s.low == s.high else rng.uniform(*s) for s in box)
    )


def wetting(loops: Loops, name: str, closed: str, opened: str) -> tuple[float, float]:
    """What a contact must switch at the nominal rail: current when closed (mA), voltage across it when open (V)."""
    loop, rail = loops.loops[name], loops.rail_v.nominal
    low, high = (nominal(loops, name, state) / PER_MILLE for state in (closed, opened))
    across = 1 if high == 1 else high * (1 - (loop.states_ohm[closed] or 0) / (loop.states_ohm[opened] or inf))
    return 1000 * rail * (1 - low) / loop.bias.ohm, rail * across


def contact_film_ohm(loops: Loops) -> float:
    """How much a poor contact may add to loop LOW before it is no longer read as LOW: worst cable, nominal parts."""
    loop = loops.loops["button"]
    x = loop.thresholds[1] / PER_MILLE
    return loop.bias.ohm * x / (1 - x) - (loop.states_ohm["LOW"] or 0) - loops.service.cable_ohm.high


def _extremes(loops: Loops, loop: Loop, state: str, conditions: Conditions) -> Span:
    readings = [_reading(loops, loop, conditions, corner) for corner in product(*_box(loops, loop, state, conditions))]
    return Span(min(readings), max(readings))


def _around(part: Resistor, conditions: Conditions) -> Span:
    spread = conditions.spread(part)
    return Span(part.ohm * (1 - spread), part.ohm * (1 + spread))


def _box(loops: Loops, loop: Loop, state: str, conditions: Conditions) -> Box:
    ohm, end, adc = loop.states_ohm[state], conditions.spread(loop.end), conditions.adc
    wire = Span(
        conditions.cable_ohm.low + conditions.contact_ohm.low, conditions.cable_ohm.high + conditions.contact_ohm.high
    )
    return Box(
        rail=Span(loops.rail_v.low, loops.rail_v.high),
        bias=_around(loop.bias, conditions),
        series=_around(loop.series, conditions),
        outside=Span(inf, inf) if ohm is None else Span(ohm * (1 - end) + wire.low, ohm * (1 + end) + wire.high),
        insulation=conditions.insulation_ohm,
        leakage=conditions.leakage_a,
        reference=reference_span(loops, conditions),
        gain=Span(-adc.gain, adc.gain),
        common=Span(-adc.common_mv / 1000, adc.common_mv / 1000),
        own_loop=Span(-adc.own_mv / 1000, adc.own_mv / 1000),
        own_reference=Span(-adc.own_mv / 1000, adc.own_mv / 1000),
    )


def _reading(loops: Loops, loop: Loop, conditions: Conditions, corner: tuple[float, ...]) -> float:
    rail, bias, series, outside, insulation, leakage, reference, gain, common, own_loop, own_reference = corner
    at_terminal = loop.bias_at == "terminal"
    load_ohm = parallel(outside, insulation) + (0 if at_terminal else series)
    source_ohm = parallel(load_ohm, bias) + (series if at_terminal else 0)
    volts = rail * load_ohm / (load_ohm + bias) + leakage * source_ohm
    seen = min(max(volts * (1 + gain) + common + own_loop, 0.0), conditions.adc.full_scale_mv / 1000)
    seen_reference = rail * reference * (1 + gain) + common + own_reference
    return PER_MILLE * seen * loops.reference.ratio / seen_reference
