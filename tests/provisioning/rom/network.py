# A simulated radio. What is in the air is in the chip's air.json, read anew each time:
# {"networks": [{"ssid": …, "password": …, "rssi": -60, "up": true}, …]}. No file: no networks.
import _chip

STA_IF = 0
AP_IF = 1
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
STAT_NO_AP_FOUND = 201
STAT_WRONG_PASSWORD = 210  # what 1.25 on an ESP32 really gives
_WPA2 = 3


def country(*_):
    return "PK"


def hostname(*_):
    return "tocsin"


class WLAN:
    IF_STA = STA_IF
    IF_AP = AP_IF
    PM_NONE = 0
    _radio = {"active": False, "wanted": None}  # one radio, however many objects speak for it

    def __init__(self, interface=STA_IF):
        self._interface = interface

    def active(self, on=None):
        if on is not None:
            self._radio["active"] = bool(on)
            if not on:
                self._radio["wanted"] = None
        return self._radio["active"]

    def _networks(self):
        air = _chip.load("air.json") or {}
        return [network for network in air.get("networks", []) if network.get("up", True)]

    def _found(self):
        if not self._radio["active"] or self._radio["wanted"] is None:
            return None
        for network in self._networks():
            if network["ssid"] == self._radio["wanted"][0]:
                return network
        return None

    def scan(self):
        if not self._radio["active"]:
            raise OSError("STA must be active")
        return [
            (network["ssid"].encode(), b"\x02\x00\x00\x00\x00\x01", 6, network.get("rssi", -60), _WPA2, False)
            for network in self._networks()
        ]

    def connect(self, ssid=None, key=None, **_):
        if not self._radio["active"]:
            raise OSError("Wifi Not Started")
        if ssid is not None:
            self._radio["wanted"] = (ssid, key or "")

    def disconnect(self):
        self._radio["wanted"] = None

    def isconnected(self):
        return self.status() == STAT_GOT_IP

    def status(self, what=None):
        found = self._found()
        if what == "rssi":
            if found is None:
                raise OSError("not connected")
            return found.get("rssi", -60)
        if self._radio["wanted"] is None:
            return STAT_IDLE
        if found is None:
            return STAT_NO_AP_FOUND
        return STAT_GOT_IP if found.get("password", "") == self._radio["wanted"][1] else STAT_WRONG_PASSWORD

    def config(self, what=None, **_):
        if what == "mac":
            import machine

            return machine.unique_id()
        if what in ("ssid", "essid"):
            return self._radio["wanted"][0] if self._radio["wanted"] else ""
        return None

    def ifconfig(self, *_):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1") if self.isconnected() else ("0.0.0.0",) * 4

    def ipconfig(self, *_, **__):
        return ("127.0.0.1", "255.0.0.0") if self.isconnected() else ("0.0.0.0", "0.0.0.0")
