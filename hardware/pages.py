"""The pages that a builder reads, BOM.md and WIRING.md, made from the four sources.

Promise: every pin, resistance, current, ratio and voltage of our circuit is looked up or computed here, never typed.
"""

from collections.abc import Iterable
from math import floor
from textwrap import fill
from typing import NamedTuple

from hardware import build as building
from hardware import loop

KILO = 1000
NOTE = "<!-- Made by `python -m hardware` from the YAML files in this folder: change those, not this page. -->"
NOT_BUILT = (
    "**Nothing here was built or measured on real hardware yet.** Values are computed from the parts' tolerances; the "
    "first person to build one should write down what the meter says."
)


def pages(build: building.Build) -> dict[str, str]:
    """File name → contents of every generated page."""
    return {"BOM.md": _bom(build), "WIRING.md": _wiring(build)}


def ohms(value: float) -> str:
    """A resistance as on a drawing: `2.2 kΩ`."""
    return f"{value / KILO:g} kΩ" if value >= KILO else f"{value:g} Ω"


def words(build: building.Build) -> dict[str, str]:
    """What the words in braces of `bom.yaml` and `wiring.yaml` become."""
    loops, wiring = build.loops, build.wiring
    button, tamper = loops.loops["button"], loops.loops["tamper"]
    low, high = button.states_ohm["LOW"] or 0, button.states_ohm["HIGH"] or 0
    rest = {name: button.states_ohm[contact.rest] or 0 for name, contact in loops.contacts.items()}
    contact_ma, contact_v = loop.wetting(loops, "button", "LOW", "HIGH")
    tamper_ma, _ = loop.wetting(loops, "tamper", "NORMAL", "OPEN")
    light = building.light_ma(build, "LED_RED")
    forward = wiring.lights["LED_RED"].forward_v
    rails = {
        rail: f"{name}.{at + 1} ({rail})" for name, pins in build.pins.headers.items() for at, rail in enumerate(pins)
    }
    signals = {name: f"{signal.header} ({name})" for name, signal in build.pins.signals.items()}
    return {
        **{name: where for name, where in rails.items() if isinstance(name, str)},
        **signals,
        "bias": ohms(button.bias.ohm),
        "series": ohms(button.series.ohm),
        "low": ohms(low),
        "across": ohms(high - low),
        "tamper_end": ohms(tamper.states_ohm["NORMAL"] or 0),
        "tamper_series": ohms(tamper.series.ohm),
        "ref_top": ohms(loops.reference.top.ohm),
        "a_rest_ohm": ohms(rest["A"]),
        "b_rest_ohm": ohms(rest["B"]),
        "cable_ohm": f"{loops.service.cable_ohm.high:g}",
        "contact_ma": f"{contact_ma:.1f}",
        "contact_v": f"{contact_v:.1f}",
        "film_ohm": f"{loop.contact_film_ohm(loops):.0f}",
        "tamper_ma": f"{tamper_ma:.2f}",
        "led_ohm": ohms(wiring.lights["LED_RED"].ohm),
        "led_ma": f"{light.low:.1f} to {light.high:.1f}",
        "led_v": f"{forward.low:g} to {forward.high:g}",
        "base": ohms(wiring.sounder.base_ohm),
        "base_off": ohms(wiring.sounder.off_ohm),
        "base_ma": f"{building.base_ma(build).low:.1f} to {building.base_ma(build).high:.1f}",
        "sounder_ma": f"{wiring.sounder.ma:g}",
        "board_ma": f"{wiring.power.ma:g}",
        "hours": f"{wiring.power.hours:g}",
        "battery_mah": f"{round(building.battery_mah(build), -2):.0f}",
        "charger_ma": f"{wiring.charger.ma:g}",
        "charger_w": f"{wiring.charger.ma / 1000 * wiring.charger.supply_v:.1f}",
        "supply_w": f"{wiring.charger.supply_w:g}",
    }


def _bom(build: building.Build) -> str:
    said = words(build)
    groups = [
        f"## {group.name}\n\n"
        + _table(
            ("Qty", "Ref", "What", "Why", "Check when buying"),
            (
                (part.quantity or str(len(part.refs)), ", ".join(part.refs), part.what, part.why, part.check)
                for part in group.parts
            ),
            said,
        )
        for group in build.bom.groups
    ]
    contacts = f"""\
        The contacts of S1 switch {said["contact_ma"]} mA when closed and hold back {said["contact_v"]} V when open.
        That is less than the smallest load that the makers we read name (5 V and 1 mA: Schneider Harmony, IDEC XA and
        XW, Omron micro-load types), so a film can form that so little voltage does not break. What the design does
        about it: two contacts that confirm each other; a film on the closed contact of loop A raises an alarm instead
        of hiding one; up to {said["film_ohm"]} Ω of film in a closed contact changes nothing even with the longest
        cable. What the buyer does: take gold-plated contacts where they are offered, and press each button in the
        regular drill."""
    left_out = f"""\
        External watchdog and secure element: their pins are kept ({_open_pins(build)}), they come with the printed
        carrier board. Prices: we have no source that we would stand behind."""
    title = (
        f"{NOTE}\n\n# Bill of materials: one button from bought parts\n\n{NOT_BUILT} Wiring: [WIRING.md](WIRING.md)."
    )
    last = ["## Contacts", _paragraph(contacts), "## Left out on purpose", _paragraph(left_out)]
    return "\n\n".join([title, *groups, *last]) + "\n"


def _wiring(build: building.Build) -> str:
    said, board = words(build), build.pins.board
    wires = [
        f"### {section.name}\n\n" + _table(("From", "To", "Through", "Wire", "Note"), section.rows, said)
        for section in build.wiring.sections
    ]
    return (
        "\n\n".join(
            [
                f"{NOTE}\n\n# Wiring of one button\n\n{NOT_BUILT} Parts: [BOM.md](BOM.md).",
                "## Warnings\n\n" + "\n".join(f"- {text.format_map(said)}" for text in build.wiring.warnings),
                f"## Pin map\n\n{board.name}, {board.module}, revision {board.revision}.",
                _pin_table(build),
                f"Reserved: {_reserved(build)}.",
                "## The loops\n\n" + _picture(build, said),
                "## Connections\n\nV strip and G strip are two strips of the stripboard.",
                *wires,
                f"Left open: {_open_pins(build)}, UEXT, microSD slot.",
                "## Assembly\n\n"
                + "\n".join(f"{n}. {text.format_map(said)}" for n, text in enumerate(build.wiring.assembly, 1)),
                "## First power-on\n\n" + _first_power_on(build),
                "## What the firmware reads\n\n" + _bands(build),
            ]
        )
        + "\n"
    )


def _paragraph(text: str) -> str:
    return fill(" ".join(text.split()), 120)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], said: dict[str, str]) -> str:
    columns = tuple(head)
    lines = (columns, ("---",) * len(columns), *(tuple(cell.format_map(said) for cell in row) for row in rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _range(span: loop.Span, least: float, most: float, form: str) -> str:
    """A range in words; an end that lies at or beyond what a loop can show is left out."""
    if span.low <= least:
        return f"{form.format(span.high)} or less"
    if span.high >= most:
        return f"{form.format(span.low)} or more"
    return f"{form.format(span.low)} to {form.format(span.high)}"


def _reserved(build: building.Build) -> str:
    reasons: dict[str, list[str]] = {}
    for gpio, why in build.pins.reserved.items():
        reasons.setdefault(why, []).append(str(gpio))
    return "; ".join(f"{', '.join(gpios)} {why}" for why, gpios in reasons.items())


def _open_pins(build: building.Build) -> str:
    return ", ".join(f"{s.header} ({name})" for name, s in build.pins.signals.items() if not s.fitted)


def _pin_table(build: building.Build) -> str:
    return _table(
        ("Signal", "GPIO", "Kind", "Header", "Active", "For", "Already on the board"),
        (
            (name, str(s.gpio), s.kind, s.header, s.active or "-", s.use + ("" if s.fitted else " (later)"), s.onboard)
            for name, s in build.pins.signals.items()
        ),
        {},
    )


class Drawn(NamedTuple):
    """What is written on the drawing of one button loop."""

    name: str
    bias: str
    series: str
    end: str
    across: str
    capacitor: str
    there: int
    back: int
    colour: str


DRAWN = (
    Drawn("A", "R1", "R3", "R11", "R12", "C1", 1, 2, "blue"),
    Drawn("B", "R2", "R4", "R13", "R14", "C2", 3, 4, "orange"),
)


def _picture(build: building.Build, said: dict[str, str]) -> str:
    tamper_bias = ohms(build.loops.loops["tamper"].bias.ohm)
    tamper = _under(
        f"V ──[{tamper_bias} on the board]──●──[R5 {said['tamper_series']}]── SW2 lid ── X1.5 ── green ── X2.5"
        f" ── SW3 housing ──[R15 {said['tamper_end']}]── X2.6 ── white-green ── X1.6 ── G",
        {"●": f"└── {said['TAMPER']}, clamped to V and G, C3 to G"},
    )
    drawings = [_button_loop(build, said, drawn) for drawn in DRAWN]
    drawings.append(f"Tamper loop: two switches in series, both held closed\n\n{tamper}")
    return "```text\n" + "\n\n".join(drawings) + "\n```"


def _button_loop(build: building.Build, said: dict[str, str], d: Drawn) -> str:
    contact = build.loops.contacts[d.name]
    across = f"└─[{d.across} {said['across']}]─┘"
    switch = f" S1 {'NC' if contact.contact == 'normally closed' else 'NO'} ".center(len(across) - 2, "─")
    drawing = _under(
        f"V ──[{d.bias} {said['bias']}]──●── X1.{d.there} ── {d.colour} ── X2.{d.there} ──[{d.end} {said['low']}]──"
        f"┬{switch}┬── X2.{d.back} ── white-{d.colour} ── X1.{d.back} ── G",
        {
            "●": f"└──[{d.series} {said['series']}]── {said['LOOP_' + d.name]}, clamped to V and G, {d.capacitor} to G",
            "┬": across,
        },
    )
    return (
        f"Loop {d.name}, the {contact.contact} contact: at rest {contact.rest}, pressed {contact.pressed}\n\n{drawing}"
    )


def _under(line: str, branches: dict[str, str]) -> str:
    """Draw each branch under the first place of its sign in `line`, the rightmost branch first."""
    rows = [line]
    waiting = sorted(((line.index(sign), branch) for sign, branch in branches.items()), reverse=True)
    for n, (at, branch) in enumerate(waiting):
        stems = "".join("│" if column in {left for left, _ in waiting[n + 1 :]} else " " for column in range(at))
        rows.append(stems + branch)
    return "\n".join("  " + row for row in rows)


def _first_power_on(build: building.Build) -> str:
    loops, signals = build.loops, build.pins.signals
    rail = loops.rail_v.nominal

    def row(what: str, name: str, middle: float, span: loop.Span) -> tuple[str, ...]:
        share = f"{middle:.3f}", _range(span, 0, 1, "{:.3f}")
        return (what, f"{signals[name].header} ({name})", *share, f"{middle * rail:.2f} V")

    def loop_row(what: str, name: str, kind: str, state: str) -> tuple[str, ...]:
        span = loop.on_the_bench(loops, kind, state)
        middle = loop.nominal(loops, kind, state) / loop.PER_MILLE
        return row(f"{what}: {state}", name, middle, loop.Span(*(x / loop.PER_MILLE for x in span)))

    a, b = loops.contacts["A"], loops.contacts["B"]
    rows = [
        row("Reference", "RAIL_REF", loops.reference.ratio, loop.reference_span(loops, loops.bench)),
        loop_row("Loop A at rest", "LOOP_A", "button", a.rest),
        loop_row("Loop B at rest", "LOOP_B", "button", b.rest),
        loop_row("Loop A, S1 pressed", "LOOP_A", "button", a.pressed),
        loop_row("Loop B, S1 pressed", "LOOP_B", "button", b.pressed),
        loop_row("Loop A, blue wire off X1", "LOOP_A", "button", "OPEN"),
        loop_row("Loop A, X1.1 to X1.2 bridged", "LOOP_A", "button", "SHORT"),
        loop_row("Tamper, lid and housing shut", "TAMPER", "tamper", "NORMAL"),
        loop_row("Tamper, lid open", "TAMPER", "tamper", "OPEN"),
    ]
    battery, external = loop.onboard_ratio(loops, "VBAT"), loop.onboard_ratio(loops, "EXT_PWR")
    supply_v, cell_v = build.wiring.charger.supply_v, build.wiring.power.cell_v
    said = words(build)
    before = f"""\
        Board in the stripboard, cable on, USB power, one meter ({loops.meter_ohm / 1e6:g} MΩ) in one range against the
        G strip. Rail first: {said["+3V3"]} must show {loops.rail_v.low:.2f} to {loops.rail_v.high:.2f} V. Every other
        row is a share of what the rail shows; the last column is for a rail of exactly {rail:.2f} V."""
    after = f"""\
        Further: {said["EXT_PWR"]} shows {external:.2f} of the {supply_v:g} V supply, about {external * supply_v:.1f} V
        with PoE or USB and 0 V on battery. That is above what the ADC can read: present or absent, no measurement.
        {said["VBAT"]} shows {battery:.2f} of the battery voltage ({battery * cell_v:.2f} V at {cell_v:g} V), a little
        under half because of the meter's own load. {said["SOUNDER"]} stays near 0 V through a reset: no chirp. The
        lights may flicker for a moment at reset, because GPIO 5 and 15 toggle then."""
    table = _table(("What", "Pin", "Share of the rail", "Accept", f"At {rail:.2f} V"), rows, {})
    return f"{_paragraph(before)}\n\n{table}\n\n{_paragraph(after)}"


def _bands(build: building.Build) -> str:
    loops, service = build.loops, build.loops.service
    rows = []
    for kind in loops.loops:
        thresholds = [*(str(t) for t in loops.loops[kind].thresholds), "-"]
        rooms = [*(str(floor(min(g))) for g in loop.guards(loops, kind)), "-"]
        for (state, band), threshold, room in zip(loop.bands(loops, kind).items(), thresholds, rooms, strict=True):
            rows.append((kind, state, _range(band, 0, loop.PER_MILLE, "{:.0f}"), threshold, room))
    table = _table(
        ("Loop", "State", "Worst-case reading", "Threshold above it", "Guard on each side, at least"), rows, {}
    )
    cable, cold_hot, adc, rail = service.cable_ohm, service.temperature_c, service.adc, loops.rail_v
    text = f"""\
        Per mille of the rail, x = V(loop) / V(rail), with V(rail) = V(RAIL_REF) / {loops.reference.ratio:.4f}.
        Everything wrong at once in the worst way: cable {cable.low:g} to {cable.high:g} Ω, insulation down to
        {ohms(service.insulation_ohm.low)}, {cold_hot.low:g} to {cold_hot.high:g} °C with leaking clamps, rail
        {rail.low:.2f} to {rail.high:.2f} V, uncalibrated ADC (gain ±{adc.gain * 100:g} %, ±{adc.common_mv:g} mV common
        and ±{adc.own_mv:g} mV own error), resistors at the end of their tolerance."""
    return f"{_paragraph(text)}\n\n{table}"
