# Non-volatile storage as a chip has it: 32-bit integers and blobs, and nothing is kept before commit().
import binascii
import json

import _chip

_NOT_FOUND = -4354
_KEY_TOO_LONG = -4361
_SHORT = -4364
_FILE = "nvs.json"


class NVS:
    def __init__(self, namespace):
        self._namespace = self._key(namespace)
        self._values = (_chip.load(_FILE) or {}).get(namespace, {})

    def _key(self, key):
        if len(key) > 15:
            raise OSError(_KEY_TOO_LONG)
        return key

    def _get(self, key, kind):
        value = self._values.get(self._key(key))
        if value is None or value[0] != kind:
            raise OSError(_NOT_FOUND)
        return value[1]

    def set_i32(self, key, value):
        self._values[self._key(key)] = ["i32", value]

    def get_i32(self, key):
        return self._get(key, "i32")

    def set_blob(self, key, octets):
        self._values[self._key(key)] = ["blob", binascii.hexlify(octets).decode()]

    def get_blob(self, key, room):
        octets = binascii.unhexlify(self._get(key, "blob"))
        if len(octets) > len(room):
            raise OSError(_SHORT)
        room[: len(octets)] = octets
        return len(octets)

    def erase_key(self, key):
        if self._key(key) not in self._values:
            raise OSError(_NOT_FOUND)
        del self._values[key]

    def commit(self):
        everything = _chip.load(_FILE) or {}
        everything[self._namespace] = self._values
        _chip.write(_FILE, json.dumps(everything).encode())
