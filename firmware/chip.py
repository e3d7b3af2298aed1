"""What the ESP32 boards have in common: contacts through ADC1, two lamps, sounder, timer and watchdog.

A board file inherits `Board`, names its pins and what its circuit does to the voltages, and adds what it alone has.

The loops are read by a hardware timer, not by a task, so that waiting for the network can't hide a press. One limit
remains: MicroPython runs the timer's callback between two bytecodes, so not while Mbed TLS computes, 0.13 to 1.2 s in
pieces whenever a connection is opened. A press is missed if it begins and ends within one such piece; one that lasts
longer, or latches as hold-up buttons do, is read right after.
"""

import asyncio

from machine import ADC, WDT, Pin, Timer, reset_cause

from firmware import network

_WATCHDOG_MS = 8000  # a TLS handshake's arithmetic takes up to 1.2 s, and nothing else takes a second


class Board:
    """The real contacts and lamps. PINS: signal -> GPIO, by hardware/pinmap*.yaml."""

    SAMPLE_MS = 10
    PINS = {}
    REFERENCE_PERMILLE = 500  # RAIL_REF is this part of the rail
    BATTERY_PARTS = 2  # 470 k over 470 k at VBAT
    lan = None
    MAINS_MV = 1000  # EXT_PWR is near the rail with PoE or USB, and near 0 without

    def __init__(self, door, version: str) -> None:
        self.version = version
        self.reset_cause = reset_cause()
        self._door = door
        self._adc = {
            name: ADC(Pin(self.PINS[name]), atten=ADC.ATTN_11DB)
            for name in ("LOOP_A", "LOOP_B", "TAMPER", "VBAT", "RAIL_REF", "EXT_PWR")
        }
        self._red = Pin(self.PINS["LED_RED"], Pin.OUT, value=1)  # active low
        self._green = Pin(self.PINS["LED_GREEN"], Pin.OUT, value=1)  # active low
        self._sounder = Pin(self.PINS["SOUNDER"], Pin.OUT, value=0)
        self._timer = Timer(0)
        self._watchdog = WDT(timeout=_WATCHDOG_MS)
        certificates = []
        for name in ("identity/cert.der", "identity/ca.der"):
            with open(name, "rb") as file:
                certificates.append(file.read())
        network.start_clock(certificates)

    def readings(self) -> tuple:
        """Loop A, loop B and tamper loop, per mille of the rail: what the supply does cancels out."""
        rail_mv = self._mv("RAIL_REF") * 1000 // self.REFERENCE_PERMILLE or 1
        return tuple([self._mv(name) * 1000 // rail_mv for name in ("LOOP_A", "LOOP_B", "TAMPER")])

    def _mv(self, name: str) -> int:
        return self._adc[name].read_uv() // 1000

    def battery_mv(self) -> int:
        """The battery, mV."""
        return self._mv("VBAT") * self.BATTERY_PARTS

    def mains(self) -> bool:
        """Whether PoE or USB feeds the board."""
        return self._mv("EXT_PWR") > self.MAINS_MV

    def rssi(self) -> None:
        """What the radio hears; a board with a radio in use is asked elsewhere (wifi.Radio)."""
        return

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
