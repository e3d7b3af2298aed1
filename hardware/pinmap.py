"""The pin map: which signal is on which pin, and every reason why it could not be.

Promise: `check` finds each way in which `pinmap.yaml` contradicts the chip or the board, and `check_board` each
difference between the firmware's board file and `pinmap.yaml`. Both return one sentence for each violation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from hardware.source import FOLDER, Source, load

Level = Literal["low", "high"]


class Board(Source):
    """The board that everything is built on."""

    name: str
    module: str
    revision: str


class Chip(Source):
    """What the ESP32 itself forbids (Espressif, ESP32 datasheet: pin definitions, strapping pins)."""

    adc1: tuple[int, ...]
    input_only: tuple[int, ...]
    toggles_at_boot: tuple[int, ...]
    strapping: dict[int, Level]


class Signal(Source):
    """One signal of the button at one pin. `onboard` is what the vendor already connected there."""

    gpio: int
    kind: Literal["adc", "out", "i2c"]
    header: str
    use: str
    onboard: str
    active: Level | None = None
    quiet_at_boot: bool = False
    fitted: bool = True


class PinMap(Source):
    """The whole of `pinmap.yaml`."""

    board: Board
    chip: Chip
    headers: dict[str, tuple[int | str, ...]]
    reserved: dict[int, str]
    signals: dict[str, Signal]

    def at(self, header: str) -> int | str | None:
        """GPIO number or rail at a header pin such as `EXT2.6`; None when there is no such pin."""
        name, _, number = header.partition(".")
        pins = self.headers.get(name, ())
        return pins[int(number) - 1] if number.isdecimal() and 1 <= int(number) <= len(pins) else None


def read(path: Path = FOLDER / "pinmap.yaml") -> PinMap:
    """Read the pin map."""
    return load(PinMap, path)


def check(pins: PinMap) -> list[str]:
    """Every violation of the chip's and the board's rules, one sentence each; empty when the pin map is sound."""
    found: list[str] = []
    holder: dict[int, str] = {}
    for name, signal in pins.signals.items():
        if signal.gpio in holder:
            found.append(f"{name}: GPIO {signal.gpio} is already used by {holder[signal.gpio]}.")
        holder.setdefault(signal.gpio, name)
        found += [f"{name}: {fault}" for fault in _faults(signal, pins)]
    return found


def _faults(signal: Signal, pins: PinMap) -> list[str]:
    gpio, chip = signal.gpio, pins.chip
    strap = chip.strapping.get(gpio)
    rules = (
        (gpio in pins.reserved, f"GPIO {gpio} is reserved ({pins.reserved.get(gpio)})."),
        (
            gpio in (16, 17) and "WROVER" in pins.board.module,
            f"GPIO {gpio} belongs to the PSRAM of {pins.board.module}.",
        ),
        (pins.at(signal.header) != gpio, f"{signal.header} is not GPIO {gpio} but {pins.at(signal.header)}."),
        (
            signal.kind == "adc" and gpio not in chip.adc1,
            f"GPIO {gpio} is not on ADC1, and ADC2 is unusable with the radio.",
        ),
        (signal.kind != "adc" and gpio in chip.input_only, f"GPIO {gpio} is input only and cannot drive anything."),
        (signal.kind == "out" and signal.active is None, "an output must say whether it is active low or high."),
        (
            strap == "high" and signal.active != "low",
            f"GPIO {gpio} must be high at reset: the part on it must be active low, and the map must say so.",
        ),
        (strap == "low" and signal.active != "high", f"GPIO {gpio} must be low at reset, so it must be active high."),
        (
            signal.quiet_at_boot and gpio in chip.toggles_at_boot,
            f"GPIO {gpio} toggles at boot, and this signal must stay quiet.",
        ),
    )
    return [sentence for broken, sentence in rules if broken]


def check_board(constants: Mapping[str, int], pins: PinMap | None = None) -> list[str]:
    """Each difference between a firmware board file's pins (`{"LOOP_A": 32, …}`) and the map, one sentence each."""
    signals = (pins or read()).signals
    missing = [
        f"{name}: missing; the pin map says GPIO {signals[name].gpio}." for name in signals if name not in constants
    ]
    extra = [f"{name}: GPIO {gpio} is not in the pin map." for name, gpio in constants.items() if name not in signals]
    different = [
        f"{name}: GPIO {constants[name]}, but the pin map says GPIO {signal.gpio}."
        for name, signal in signals.items()
        if name in constants and constants[name] != signal.gpio
    ]
    return missing + extra + different
