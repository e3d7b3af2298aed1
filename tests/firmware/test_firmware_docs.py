"""docs/firmware.md against the code: every light, every sound, every parameter."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from firmware import indicator, settings

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "firmware.md").read_text(encoding="utf-8")
DARK = {"off": "dark"}


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading, without its head."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def constants(module: str) -> dict[str, str]:
    """Names and literal values at the top of a module of the firmware, some of which can be imported on the chip only."""
    found = {}
    for node in ast.parse((PROJECT / "firmware" / f"{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                found[node.targets[0].id] = str(ast.literal_eval(node.value))
    return found


def light(steps: Sequence[tuple[str, int]]) -> str:
    """A pattern as the page writes it."""
    if len(steps) == 1:
        return f"{DARK.get(steps[0][0], steps[0][0])}, steady"
    return ", ".join(f"{DARK.get(colour, colour)} {ms}" for colour, ms in steps)


def tones(steps: Sequence[tuple[bool, int]]) -> str:
    """A sound as the page writes it: the tones alone."""
    on = [ms for sounds, ms in steps if sounds]
    return f"{len(on)} × {on[0]}" if on else "none"


def test_every_light_and_sound_is_on_the_page_as_it_is_shown() -> None:
    rows = {row[0]: row[2:] for row in table("Lights and sounds")}
    names = [*indicator.PATTERNS, "unconfirmed for 10 s"]
    assert list(rows) == names
    for name in names:
        state, waits = (name, 0) if name in indicator.PATTERNS else ("unconfirmed", indicator.NOBODY_MS)
        sound = tones(indicator.sound(state, settings.AUDIBLE))
        if indicator.calls(state, waits, settings.AUDIBLE):
            sound = f"{tones(indicator.CALL)} every {indicator.NOBODY_EVERY_MS // 1000} s"
        if indicator.chirps(state):
            sound = f"{tones(indicator.CHIRP)} every {indicator.CHIRP_EVERY_MS // 1000} s, in every manner"
        silent = indicator.steps(state, waits, settings.SILENT)
        expected = [
            light(indicator.steps(state, waits)),
            "the same" if silent == indicator.steps(state, waits) else light(silent),
            sound,
        ]
        assert rows[name] == expected, name


def test_silent_shows_no_colour_that_rest_does_not_until_nobody_has_it_and_never_green_before_headquarters() -> None:
    for name in ("unconfirmed", "at_gateway"):
        assert {colour for colour, _ in indicator.steps(name, 0, settings.SILENT)} == {"off"}
    for name in ("at_hq", "acknowledged", "responding"):
        steps = indicator.steps(name, 0, settings.SILENT)
        assert {colour for colour, _ in steps} == {"green", "off"}
        assert sum(ms for _, ms in steps) == sum(ms for _, ms in indicator.PATTERNS["rest"])
        assert sum(ms for colour, ms in steps if colour == "green") <= 320
    shown = [indicator.steps(name, 0, settings.SILENT) for name in ("rest", "at_hq", "acknowledged", "responding")]
    assert len(set(shown)) == 4


def test_every_parameter_has_the_value_that_the_page_says_and_a_source() -> None:
    rows = table("Parameters")
    assert len(rows) >= 20
    for name, value, meaning, source in rows:
        module, _, constant = name.strip("`").rpartition(".")
        assert constants(module)[constant] == value, name
        assert meaning, name
        assert source, name
