"""Espressif ESP32-DevKitC V4 with WROOM-32E. Pins: hardware/pinmap-esp32_devkitc.yaml, held against PINS by a test."""

from firmware import chip

PINS = {
    "LOOP_A": 32,
    "LOOP_B": 33,
    "TAMPER": 34,
    "VBAT": 35,
    "RAIL_REF": 36,
    "EXT_PWR": 39,
    "SOUNDER": 4,
    "LED_RED": 25,
    "LED_GREEN": 26,
    "WDT_DONE": 27,
    "SDA": 21,
    "SCL": 22,
}


class Board(chip.Board):
    """Its network is the radio alone."""

    PINS = PINS
