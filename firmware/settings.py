"""What a technician sets on a button: settings.json, checked so that each mistake is one clear sentence."""

import json

from firmware import wire

BOARDS = ("virtual", "olimex_esp32_poe_iso", "esp32_devkitc", "esp32s3_devkit")
MAX_WIFI = 4
MAX_BROKERS = 4

BOTH = "both"
NORMALLY_CLOSED = "normally_closed"
NORMALLY_OPEN = "normally_open"
CONTACTS = (BOTH, NORMALLY_CLOSED, NORMALLY_OPEN)

VISIBLE = "visible"
SILENT = "silent"
AUDIBLE = "audible"
SIGNALS = (VISIBLE, SILENT, AUDIBLE)

ALARMS_PER_MINUTE = 12  # nobody presses oftener to say more; a contact that chatters does


class SettingsFault(Exception):
    """What is wrong with the settings, in one sentence that says what to do."""


class Settings:
    """The settings, each of them checked.

    id: the button's. board: module in firmware/boards. brokers: [[address, port, server name], …] in the order in which
    they are tried. hq: headquarters' id. hq_message_key: its P-256 point, 65 bytes. wifi: (name, password) of each
    network, newest first. contacts: which the button has, one of CONTACTS. signal: how openly a press is confirmed, one
    of SIGNALS (indicator.py). alarms_per_minute: beyond that a press joins the newest open alarm. release_key: the P-256
    point, 65 bytes, of the key that signs releases of the firmware; without it none is believed. The last five may be
    missing.
    """

    def __init__(self, values: dict) -> None:
        if not isinstance(values, dict):
            raise SettingsFault("settings.json must hold one object with id, board, brokers, hq and hq_message_key.")
        for name in ("id", "board", "brokers", "hq", "hq_message_key"):
            if name not in values:
                raise SettingsFault("settings.json has no %s." % name)
        for name in ("id", "hq"):
            if not wire.is_id(values[name]):
                raise SettingsFault("%s must be 1 to 64 of a-z, 0-9, '-' and '.', not starting with a sign." % name)
        self.id = values["id"]
        self.hq = values["hq"]
        self.board = values["board"]
        if self.board not in BOARDS:
            raise SettingsFault("board must be one of: %s." % ", ".join(BOARDS))
        self.brokers = values["brokers"]
        if not isinstance(self.brokers, list) or not 0 < len(self.brokers) <= MAX_BROKERS:
            raise SettingsFault("brokers must be a list of 1 to %d [address, port, server name]." % MAX_BROKERS)
        for broker in self.brokers:
            if not _is_broker(broker):
                raise SettingsFault("each of brokers must be [address, port from 1 to 65535, server name].")
        self.hq_message_key = _point("hq_message_key", values["hq_message_key"])
        self.release_key = _point("release_key", values["release_key"]) if "release_key" in values else None
        self.wifi = _networks(values.get("wifi", []))
        self.contacts = _one_of(values, "contacts", CONTACTS)
        self.signal, self.alarms_per_minute = changeable(values)


def changeable(values: dict) -> tuple:
    """(signal, alarms_per_minute): what headquarters may change over the air. Raises SettingsFault."""
    rate = values.get("alarms_per_minute", ALARMS_PER_MINUTE)
    if type(rate) is not int or not 4 <= rate <= 6000:
        raise SettingsFault("alarms_per_minute must be a whole number from 4 to 6000.")
    return _one_of(values, "signal", SIGNALS), rate


def _one_of(values: dict, name: str, choices: tuple) -> str:
    """The setting `name`; the first of `choices` where it is missing."""
    chosen = values.get(name, choices[0])
    if chosen not in choices:
        raise SettingsFault("%s must be one of: %s." % (name, ", ".join(choices)))
    return chosen


def _is_broker(broker) -> bool:
    if not isinstance(broker, list) or len(broker) != 3:
        return False
    address, port, name = broker
    is_port = isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536
    return isinstance(address, str) and address != "" and is_port and isinstance(name, str) and name != ""


def network_fault(network):
    """Why `network` is not the [name, password] of a Wi-Fi network, in words that do not tell the password; else None."""
    if not isinstance(network, (list, tuple)) or len(network) != 2:
        return "a network must be [name, password]"
    name, password = network
    if not isinstance(name, str) or not 0 < len(name.encode()) <= 32 or "\0" in name:
        return "a network's name must be 1 to 32 bytes of text"
    if not isinstance(password, str) or not (password == "" or 8 <= len(password.encode()) <= 63):
        return "a network's password must be 8 to 63 bytes of text, or empty for an open network"
    if "\0" in password:
        return "a network's password must be text"
    return None


def _networks(networks) -> list:
    if not isinstance(networks, list) or len(networks) > MAX_WIFI:
        raise SettingsFault("wifi must be a list of at most %d [name, password], newest first." % MAX_WIFI)
    for network in networks:
        fault = network_fault(network)
        if fault:
            raise SettingsFault("wifi: %s." % fault)
    if len({network[0] for network in networks}) < len(networks):
        raise SettingsFault("wifi names the same network twice.")
    return [tuple(network) for network in networks]


def _point(name: str, text) -> bytes:
    try:
        point = bytes.fromhex(text)
    except (TypeError, ValueError):
        point = b""
    if len(point) != 65 or point[0] != 4:
        raise SettingsFault("%s must be 130 hexadecimal digits starting with 04: a P-256 point." % name)
    return point


def read(path: str = "settings.json") -> Settings:
    """The settings in the file. Raises SettingsFault."""
    try:
        with open(path) as file:
            values = json.load(file)
    except OSError:
        raise SettingsFault("%s is missing: enrol this button first." % path) from None
    except ValueError:
        raise SettingsFault("%s is not JSON." % path) from None
    return Settings(values)
