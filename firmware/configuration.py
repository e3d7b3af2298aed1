"""Settings that headquarters may change over the air: kept in flash as a whole, over those of settings.json.

All of a change counts or nothing. A technician who has since changed one of them in settings.json has the last word.
"""

import hashlib

from firmware import settings, wire

_FILE = "configuration"
_ORIGIN = 0
_FIELDS = ((1, "signal"), (2, "alarms_per_minute"))  # on the wire and in flash


def packed(changes: dict) -> bytes:
    """Changes, by the names of settings.json, as the detail of a command. Raises SettingsFault."""
    _check(changes)
    return wire.encode({field: changes[name] for field, name in _FIELDS if name in changes})


def unpacked(octets) -> dict:
    """The changes in the detail of a command. Raises WireError, SettingsFault."""
    if not isinstance(octets, bytes):
        raise wire.WireError("it names no settings")
    fields = wire.decode(octets)
    if not isinstance(fields, dict):
        raise wire.WireError("it names no settings")
    known = dict(_FIELDS)
    for field in fields:
        if field not in known:
            raise wire.WireError("this firmware does not know the setting %s" % field)
    changes = {known[field]: value for field, value in fields.items()}
    _check(changes)
    return changes


def _check(changes: dict) -> None:
    if not changes:
        raise settings.SettingsFault("no setting is to be changed.")
    settings.changeable(changes)


def told(changes: dict) -> str:
    """Changes in words: "signal silent, alarms_per_minute 12"."""
    return ", ".join(["%s %s" % (name, changes[name]) for _, name in _FIELDS if name in changes])


class Configuration:
    """What was changed over the air, applied to the button's settings (settings.Settings)."""

    def __init__(self, chosen, flash, complain) -> None:
        self._settings = chosen
        self._flash = flash
        values = [getattr(chosen, name) for _, name in _FIELDS]
        self._origin = hashlib.sha256(wire.encode(values)).digest()[:8]
        self._changes = {}
        octets = flash.read(_FILE)
        if octets is None:
            return
        try:
            kept = wire.decode(octets)
            if kept.pop(_ORIGIN) == self._origin:
                self._apply(unpacked(wire.encode(kept)))
        except (wire.WireError, settings.SettingsFault, AttributeError, KeyError):
            complain("state/configuration is damaged: what settings.json says is used")

    def change(self, changes: dict) -> None:
        """Keeps changes beside those before, then applies them. Raises OSError, and nothing is changed then."""
        whole = dict(self._changes)
        whole.update(changes)
        kept = {field: whole[name] for field, name in _FIELDS if name in whole}
        kept[_ORIGIN] = self._origin
        self._flash.write(_FILE, wire.encode(kept))
        self._apply(whole)

    def _apply(self, changes: dict) -> None:
        self._changes = changes
        for name, value in changes.items():
            setattr(self._settings, name, value)
