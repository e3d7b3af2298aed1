"""A stand-in for MicroPython's `network` on an ESP32, for one station: what is on the air is in ./air.json.

    {"Consulate": {"password": "…", "rssi": -61}, "cable": true}

"cable" only for a board that has Ethernet: whether the interface has its address.

It carries nothing: sockets go their own way, whether it is joined or not, unless they are bound to an address. Like the real one it says CONNECTING as long
as it may try again, and only then why it failed.
"""

import json
import time

STA_IF = 0

_IDLE, _CONNECTING, _GOT_IP = 1000, 1001, 1010
_UNKNOWN, _WRONG = 201, 210
_JOIN_MS = 300


def _air():
    with open("air.json") as file:
        return json.load(file)


def _configuration(address):
    return address, "255.0.0.0", "127.0.0.1", "127.0.0.1"


if "cable" in _air():

    class LAN:
        def ifconfig(self):
            return _configuration("127.0.0.2" if _air()["cable"] else "0.0.0.0")


class WLAN:
    def __init__(self, interface):
        assert interface == STA_IF
        self._active = False
        self._reconnects = None
        self._wanted = None
        self._since = 0

    def active(self, on=None):
        if on is not None:
            self._active = on
        return self._active

    def config(self, reconnects):
        self._reconnects = reconnects

    def connect(self, name, password):
        if not self._active:
            raise OSError("Wifi Not Started")
        self._wanted = (name, password)
        self._since = time.ticks_ms()

    def disconnect(self):
        if not self._active:
            raise OSError("Wifi Not Started")
        self._wanted = None

    def ifconfig(self):
        return _configuration("127.0.0.3" if self.isconnected() else "0.0.0.0")

    def isconnected(self):
        return self.status() == _GOT_IP

    def status(self, what=None):
        if not self._active or self._wanted is None:
            return _IDLE
        air = _air()
        name, password = self._wanted
        if what == "rssi":
            return air[name]["rssi"]
        if time.ticks_diff(time.ticks_ms(), self._since) < _JOIN_MS:
            return _CONNECTING
        if name in air and air[name]["password"] == password:
            return _GOT_IP
        if self._reconnects is None:
            return _CONNECTING
        return _WRONG if name in air else _UNKNOWN
