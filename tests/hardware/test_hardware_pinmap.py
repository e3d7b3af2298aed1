"""The pin map forbids what chip and board forbid, and the firmware's board file follows it."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hardware import pinmap

PROJECT = Path(__file__).parents[2]
BOARDS = PROJECT / "firmware" / "boards"
BOARD_FILE = BOARDS / "olimex_esp32_poe_iso.py"
MAPS = {"olimex_esp32_poe_iso": "pinmap.yaml"} | {
    path.stem.partition("-")[2]: path.name for path in (PROJECT / "hardware").glob("pinmap-*.yaml")
}


def firmware_pins(path: Path = BOARD_FILE) -> dict[str, int]:
    """The literal `PINS = {…}` of a firmware board file, read without importing it: it imports `machine`."""
    assert path.exists(), f"{path} is missing: the firmware has no board file to check."
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["PINS"]:
            pins: dict[str, int] = ast.literal_eval(node.value)
            return pins
    pytest.fail(f"{path} has no top-level literal PINS = {{…}}.")


def changed(name: str, **fields: object) -> pinmap.PinMap:
    """The pin map with some fields of one signal changed."""
    pins = pinmap.read()
    signal = pins.signals[name].model_copy(update=fields)
    return pins.model_copy(update={"signals": {**pins.signals, name: signal}})


def test_every_real_board_has_a_pin_map_and_every_map_a_board() -> None:
    assert set(MAPS) == {path.stem for path in BOARDS.glob("*.py")} - {"__init__", "virtual"}


@pytest.mark.parametrize("board", MAPS)
def test_pin_map_is_sound_and_the_board_file_follows_it(board: str) -> None:
    pins = pinmap.read(PROJECT / "hardware" / MAPS[board])
    assert pinmap.check(pins) == []
    assert pinmap.check_board(firmware_pins(BOARDS / f"{board}.py"), pins) == []


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("LOOP_B", {"gpio": 32, "header": "EXT2.6"}, "LOOP_B: GPIO 32 is already used by LOOP_A."),
        ("SOUNDER", {"gpio": 12}, "SOUNDER: GPIO 12 is reserved (switches the Ethernet PHY on"),
        ("SDA", {"gpio": 17}, "SDA: GPIO 17 is reserved (Ethernet clock"),
        ("LOOP_A", {"header": "EXT2.5"}, "LOOP_A: EXT2.5 is not GPIO 32 but 33."),
        ("LOOP_A", {"header": "EXT2.11"}, "LOOP_A: EXT2.11 is not GPIO 32 but None."),
        ("LOOP_A", {"header": "EXT1.1"}, "LOOP_A: EXT1.1 is not GPIO 32 but +5V."),
        (
            "LOOP_A",
            {"gpio": 14, "header": "EXT2.9"},
            "LOOP_A: GPIO 14 is not on ADC1, and ADC2 is unusable with the radio.",
        ),
        ("SOUNDER", {"gpio": 34, "header": "EXT2.4"}, "SOUNDER: GPIO 34 is input only and cannot drive anything."),
        ("SOUNDER", {"active": None}, "SOUNDER: an output must say whether it is active low or high."),
        ("LED_RED", {"active": "high"}, "LED_RED: GPIO 5 must be high at reset: the part on it must be active low"),
        ("LED_RED", {"gpio": 12, "active": "low"}, "LED_RED: GPIO 12 must be low at reset, so it must be active high."),
        ("LED_RED", {"quiet_at_boot": True}, "LED_RED: GPIO 5 toggles at boot, and this signal must stay quiet."),
    ],
)
def test_each_rule_is_one_clear_sentence(name: str, fields: Mapping[str, Any], sentence: str) -> None:
    found = pinmap.check(changed(name, **fields))
    assert any(line.startswith(sentence) for line in found), found


def test_wrover_module_takes_two_pins() -> None:
    pins = pinmap.read()
    wrover = pins.model_copy(update={"board": pins.board.model_copy(update={"module": "ESP32-WROVER-E"})})
    assert pinmap.check(wrover) == ["SCL: GPIO 16 belongs to the PSRAM of ESP32-WROVER-E."]


def test_a_wrong_board_file_is_found_pin_by_pin(tmp_path: Path) -> None:
    right = {name: signal.gpio for name, signal in pinmap.read().signals.items()}

    def found(pins: dict[str, int]) -> list[str]:
        copy = tmp_path / "board.py"
        copy.write_text(f"import machine\n\nPINS = {pins}\n", encoding="utf-8")
        return pinmap.check_board(firmware_pins(copy))

    assert found(right) == []
    for name, gpio in right.items():
        assert found({**right, name: gpio + 1}) == [f"{name}: GPIO {gpio + 1}, but the pin map says GPIO {gpio}."]
        others = {other: pin for other, pin in right.items() if other != name}
        assert found(others) == [f"{name}: missing; the pin map says GPIO {gpio}."]
    assert found({**right, "BUZZER": 2}) == ["BUZZER: GPIO 2 is not in the pin map."]
