"""OLIMEX ESP32-POE-ISO, WROOM variant, revision M or later. Pins: hardware/pinmap.yaml, held against PINS by a test."""

from firmware import chip, network

PINS = {
    "LOOP_A": 32,
    "LOOP_B": 33,
    "TAMPER": 34,
    "VBAT": 35,
    "RAIL_REF": 36,
    "EXT_PWR": 39,
    "SOUNDER": 4,
    "LED_RED": 5,
    "LED_GREEN": 15,
    "WDT_DONE": 14,
    "SDA": 13,
    "SCL": 16,
}


class Board(chip.Board):
    """Adds Ethernet."""

    PINS = PINS
    REFERENCE_PERMILLE = 524  # hardware/loop.yaml: 1 k with the board's 10 k, over 1 k

    def __init__(self, door, version: str) -> None:
        super().__init__(door, version)
        self.lan = network.ethernet()
