"""Parts, wires and pages agree with each other."""

from pathlib import Path

import pytest

from hardware import build as building
from hardware.__main__ import main

BUILD = building.read()


def without_row(text: str) -> building.Build:
    """The build without the wires that mention `text`."""
    sections = tuple(
        section.model_copy(update={"rows": tuple(row for row in section.rows if text not in " ".join(row))})
        for section in BUILD.wiring.sections
    )
    return BUILD.model_copy(update={"wiring": BUILD.wiring.model_copy(update={"sections": sections})})


def test_the_four_sources_agree() -> None:
    assert building.check(BUILD) == []


@pytest.mark.parametrize("ref", ["R12", "D5", "Q1", "SW3", "BAT1", "C4"])
def test_a_part_that_nothing_is_wired_to_is_found(ref: str) -> None:
    assert f"{ref} is in the bill of materials, but nothing is wired to it." in building.check(without_row(ref))


def test_a_wire_to_a_part_that_was_not_bought_is_found() -> None:
    first = BUILD.bom.groups[0]
    bom = BUILD.bom.model_copy(update={"groups": (first.model_copy(update={"parts": ()}), *BUILD.bom.groups[1:])})
    found = building.check(BUILD.model_copy(update={"bom": bom}))
    assert "BAT1 is in the wiring, but not in the bill of materials." in found


def test_a_part_listed_twice_is_found() -> None:
    bom = BUILD.bom.model_copy(update={"groups": (*BUILD.bom.groups, BUILD.bom.groups[-1])})
    assert "SW2 is listed 2 times in the bill of materials." in building.check(BUILD.model_copy(update={"bom": bom}))


def test_a_signal_without_a_wire_is_found() -> None:
    assert "SOUNDER is fitted, but nothing is wired to EXT1.9." in building.check(without_row("{SOUNDER}"))


def test_a_wire_on_a_pin_that_must_stay_open_is_found() -> None:
    section = building.Section(name="wrong", rows=(("V strip", "{VBAT}", "", "", ""),))
    wiring = BUILD.wiring.model_copy(update={"sections": (*BUILD.wiring.sections, section)})
    found = building.check(BUILD.model_copy(update={"wiring": wiring}))
    assert found == ["VBAT must stay open, but something is wired to EXT2.3."]


def test_currents_that_a_pin_or_the_transistor_cannot_bear_are_found() -> None:
    light = BUILD.wiring.lights["LED_RED"].model_copy(update={"ohm": 100})
    sounder = BUILD.wiring.sounder.model_copy(update={"base_ohm": 10_000})
    wiring = BUILD.wiring.model_copy(update={"lights": {"LED_RED": light}, "sounder": sounder})
    assert building.check(BUILD.model_copy(update={"wiring": wiring})) == [
        "LED_RED: up to 16.0 mA, and 10 mA are allowed at a pin.",
        "SOUNDER: 0.1 mA into the base do not switch 30 mA.",
    ]


def test_committed_pages_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out + "run `python -m hardware`"


def test_stale_or_missing_pages_fail_with_a_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], tmp_path) == 1
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    page = tmp_path / "WIRING.md"
    page.write_text(page.read_text(encoding="utf-8").replace("EXT2.6 (LOOP_A)", "EXT2.7 (LOOP_A)"), encoding="utf-8")
    capsys.readouterr()
    assert main(["--check"], tmp_path) == 1
    assert "-| X1.1 | EXT2.7 (LOOP_A) | R3 |  |  |\n" in capsys.readouterr().out
