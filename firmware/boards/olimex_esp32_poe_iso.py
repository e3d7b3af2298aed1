"""OLIMEX ESP32-POE-ISO, WROOM variant, revision M or later. Pins: hardware/pinmap.yaml, held against PINS by a test.

The loops are read by a hardware timer, not by a task, so that waiting for the network can't hide a press. One limit
remains: MicroPython runs the timer's callback between two bytecodes, so not while Mbed TLS computes, 0.13 to 1.2 s in
pieces whenever a connection is opened. A press is missed if it begins and ends within one such piece; one that lasts
longer, or latches as hold-up buttons do, is read right after.
"""

import asyncio

from machine import ADC, WDT, Pin, Timer, reset_cause

from firmware import network

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

_REFERENCE_PERMILLE = 524  # RAIL_REF is this part of the rail (hardware/loop.yaml: 1 k with the board's 10 k, over 1 k)
_BATTERY_PARTS = 2  # 470 k over 470 k at VBAT
_MAINS_MV = 1000  # EXT_PWR is near the rail with PoE or USB, and near 0 without
_WATCHDOG_MS = 8000  # a TLS handshake's arithmetic takes up to 1.2 s, and nothing else takes a second


class Board:
    """The real contacts and lamps."""

    SAMPLE_MS = 10

    def __init__(self, door, version: str) -> None:
        self.version = version
        self.reset_cause = reset_cause()
        self._door = door
        self._adc = {
            name: ADC(Pin(PINS[name]), atten=ADC.ATTN_11DB)
            for name in ("LOOP_A", "LOOP_B", "TAMPER", "VBAT", "RAIL_REF", "EXT_PWR")
        }
        self._red = Pin(PINS["LED_RED"], Pin.OUT, value=1)  # active low
        self._green = Pin(PINS["LED_GREEN"], Pin.OUT, value=1)  # active low
        self._sounder = Pin(PINS["SOUNDER"], Pin.OUT, value=0)
        self._timer = Timer(0)
        self._watchdog = WDT(timeout=_WATCHDOG_MS)
        certificates = []
        for name in ("identity/cert.der", "identity/ca.der"):
            with open(name, "rb") as file:
                certificates.append(file.read())
        network.start_clock(certificates)
        self._lan = network.ethernet()

    def readings(self) -> tuple:
        """Loop A, loop B and tamper loop, per mille of the rail: what the supply does cancels out."""
        rail_mv = self._mv("RAIL_REF") * 1000 // _REFERENCE_PERMILLE or 1
        return tuple([self._mv(name) * 1000 // rail_mv for name in ("LOOP_A", "LOOP_B", "TAMPER")])

    def _mv(self, name: str) -> int:
        return self._adc[name].read_uv() // 1000

    def battery_mv(self) -> int:
        """The battery, mV."""
        return self._mv("VBAT") * _BATTERY_PARTS

    def mains(self) -> bool:
        """Whether PoE or USB feeds the board."""
        return self._mv("EXT_PWR") > _MAINS_MV

    def rssi(self) -> None:
        """A cable has none."""
        return

    def cable(self, on: bool) -> None:
        """Switches Ethernet: off while a Wi-Fi network must prove itself or stand in."""
        if self._lan.active() != on:
            self._lan.active(on)

    def flag(self) -> asyncio.ThreadSafeFlag:
        """What wakes the watching task from the timer's callback."""
        return asyncio.ThreadSafeFlag()

    def sample_with(self, call) -> None:
        """`call` is called every SAMPLE_MS from now on, by the timer; None: nothing is any more."""
        if call is None:
            self._timer.deinit()
            return
        self._timer.init(period=self.SAMPLE_MS, mode=Timer.PERIODIC, callback=lambda _: call())

    def light(self, colour: str) -> None:
        """Switches the two lamps; amber is both."""
        self._red(0 if colour in ("red", "amber") else 1)
        self._green(0 if colour in ("green", "amber") else 1)

    def sound(self, on: bool) -> None:
        """Switches the sounder."""
        self._sounder(1 if on else 0)

    def feed(self) -> None:
        """Tells the watchdog that the tasks run."""
        self._watchdog.feed()

    def tell(self, name: str, value, **more) -> None:
        """A line on the USB console. Lights have lamps here and need none."""
        self._door.tell(name, value, **more)

    async def run(self) -> None:
        """Everything else is the timer's."""
        await asyncio.Event().wait()
