"""What a technician sets on a button: settings.json, checked so that each mistake is one clear sentence."""

import json

from firmware import wire

BOARDS = ("virtual", "olimex_esp32_poe_iso")


class SettingsFault(Exception):
    """What is wrong with the settings, in one sentence that says what to do."""


class Settings:
    """The settings, each of them checked.

    id: the button's. board: module in firmware/boards. brokers: [[address, port, server name], …] in the order in which
    they are tried. hq: headquarters' id. hq_message_key: its P-256 point, 65 bytes.
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
        if not isinstance(self.brokers, list) or not self.brokers:
            raise SettingsFault("brokers must be a list with at least one [address, port, server name].")
        for broker in self.brokers:
            if not _is_broker(broker):
                raise SettingsFault("each of brokers must be [address, port from 1 to 65535, server name].")
        self.hq_message_key = _point(values["hq_message_key"])


def _is_broker(broker) -> bool:
    if not isinstance(broker, list) or len(broker) != 3:
        return False
    address, port, name = broker
    is_port = isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536
    return isinstance(address, str) and address != "" and is_port and isinstance(name, str) and name != ""


def _point(text) -> bytes:
    try:
        point = bytes.fromhex(text)
    except (TypeError, ValueError):
        point = b""
    if len(point) != 65 or point[0] != 4:
        raise SettingsFault("hq_message_key must be 130 hexadecimal digits starting with 04: a P-256 point.")
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
