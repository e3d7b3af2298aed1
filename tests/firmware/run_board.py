"""Runs the board file that its argument names on a stand-in for the chip's modules; for real MicroPython.

Only pins, converters and the timer are played; prints "passed" when the board did what its circuit needs.
"""

import os
import sys


class Pin:
    """A pin that remembers its level."""

    OUT = 1
    levels = {}

    def __init__(self, number, mode=None, value=None):
        self.number = number
        if value is not None:
            Pin.levels[number] = value

    def __call__(self, level):
        Pin.levels[self.number] = level


class ADC:
    """A converter that reads what the test says, µV."""

    ATTN_11DB = 3
    uv = {}

    def __init__(self, pin, atten):
        self.pin = pin

    def read_uv(self):
        return ADC.uv[self.pin.number]


class Timer:
    """A timer that fires when the test says."""

    PERIODIC = 1

    def __init__(self, number):
        pass

    def init(self, period, mode, callback):
        Timer.period = period
        Timer.fire = lambda: callback(None)


class WDT:
    """A watchdog that counts."""

    fed = 0

    def __init__(self, timeout):
        pass

    def feed(self):
        WDT.fed += 1


class RTC:
    """A clock that remembers what it was set to."""

    set = None

    def datetime(self, when):
        RTC.set = when


class LAN:
    """The Ethernet driver's arguments."""

    def __init__(self, **wires):
        LAN.wires = {name: getattr(wire, "number", wire) for name, wire in wires.items()}

    def active(self, on=None):
        if on is not None:
            LAN.on = on
        return LAN.on


class Module:
    """A module made of attributes."""

    def __init__(self, **names):
        for name in names:
            setattr(self, name, names[name])


sys.modules["machine"] = Module(Pin=Pin, ADC=ADC, Timer=Timer, WDT=WDT, RTC=RTC, reset_cause=lambda: 3)
sys.modules["network"] = Module(LAN=LAN, PHY_LAN8720=0)

NAME = sys.argv[1]
REFERENCE = {"olimex_esp32_poe_iso": 524}.get(NAME, 500)  # RAIL_REF's part of the rail, per mille

module = __import__("firmware.boards." + NAME, None, None, ["Board"])
pins = module.PINS
board = module.Board(Module(tell=lambda *_, **__: None), "0.1.0")
assert board.reset_cause == 3
if board.lan:
    assert {"mdc": 23, "mdio": 18, "power": 12, "phy_type": 0, "phy_addr": 0} == LAN.wires and LAN.on
    from firmware import paths

    LAN.ifconfig = lambda self: (LAN.address, "255.255.255.0", "10.0.0.1", "10.0.0.1")
    for LAN.address, known in (("0.0.0.0", None), ("10.0.0.7", "10.0.0.7")):
        assert paths.address_of(board.lan) == known
else:
    assert not hasattr(LAN, "wires")
for rail_mv in (2900, 3300, 3400):
    for signal, permille in (("LOOP_A", 340), ("LOOP_B", 610), ("TAMPER", 324), ("RAIL_REF", REFERENCE)):
        ADC.uv[pins[signal]] = rail_mv * permille
    readings = board.readings()
    assert all([abs(read - nominal) <= 2 for read, nominal in zip(readings, (340, 610, 324))]), readings
ADC.uv[pins["RAIL_REF"]] = 0
board.readings()
ADC.uv[pins["VBAT"]], ADC.uv[pins["EXT_PWR"]] = 2025000, 2200000
assert board.battery_mv() == 4050 and board.mains()
ADC.uv[pins["EXT_PWR"]] = 150000
assert not board.mains()
for colour, red, green in (("off", 1, 1), ("red", 0, 1), ("green", 1, 0), ("amber", 0, 0)):
    board.light(colour)
    assert (Pin.levels[pins["LED_RED"]], Pin.levels[pins["LED_GREEN"]]) == (red, green), colour
assert Pin.levels[pins["SOUNDER"]] == 0, "the sounder must be quiet at start"
board.sound(True)
assert Pin.levels[pins["SOUNDER"]] == 1
calls = []
board.sample_with(lambda: calls.append(1))
Timer.fire()
assert calls == [1] and Timer.period == board.SAMPLE_MS == 10
board.feed()
assert WDT.fed == 1
assert "identity" in os.listdir() and (RTC.set is None or RTC.set[0] >= 2024)
print("passed")
