# The built-in one, unless the test wants a chip that hashes wrongly.
from uhashlib import *  # noqa: F403
import uhashlib as _hashlib
import uos as _os

if _os.getenv("CHIP_WRONG_HASHES") == "1":

    class sha256:
        def __init__(self, octets=b""):
            self._hash = _hashlib.sha256(octets)

        def update(self, octets):
            self._hash.update(octets)

        def digest(self):
            octets = bytearray(self._hash.digest())
            octets[0] ^= 1
            return bytes(octets)
