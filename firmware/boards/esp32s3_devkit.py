"""Espressif ESP32-S3-DevKitC-1. Pins: hardware/pinmap-esp32s3_devkit.yaml, held against PINS by a test."""

from firmware import chip

PINS = {
    "LOOP_A": 4,
    "LOOP_B": 5,
    "TAMPER": 6,
    "VBAT": 7,
    "RAIL_REF": 1,
    "EXT_PWR": 2,
    "SOUNDER": 15,
    "LED_RED": 16,
    "LED_GREEN": 17,
    "WDT_DONE": 10,
    "SDA": 8,
    "SCL": 9,
}


class Board(chip.Board):
    """Its network is the radio alone."""

    PINS = PINS
