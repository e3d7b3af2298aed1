"""The button's keys: its private key as a file, and the message key that it shares with headquarters alone."""

import hashlib

from firmware import p256, wire

_CACHE = "message-key"


class _Der:
    """A cursor over DER (X.690): just enough to walk into a private key."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def take(self, tag: int) -> "_Der":
        """The content of the next element, which must have this tag."""
        octets = self.octets
        if len(octets) < 2 or octets[0] != tag:
            raise p256.KeyFault("the private key is not a P-256 key in DER")
        length = octets[1]
        at = 2
        if length & 0x80:
            width = length & 0x7F
            length = int.from_bytes(octets[2 : 2 + width], "big")
            at += width
        if at + length > len(octets):
            raise p256.KeyFault("the private key file is cut off")
        self.octets = octets[at + length :]
        return _Der(octets[at : at + length])


def private_number(der: bytes) -> int:
    """The private scalar of a P-256 key in DER: SEC 1 (RFC 5915), or PKCS #8 (RFC 5958) around it."""
    key = _Der(der).take(0x30)
    version = key.take(0x02).octets
    if version == b"\0":
        key.take(0x30)
        key = _Der(key.take(0x04).octets).take(0x30)
        version = key.take(0x02).octets
    number = key.take(0x04).octets
    if version != b"\1" or len(number) != 32:
        raise p256.KeyFault("the private key is not a P-256 key in DER")
    return int.from_bytes(number, "big")


def message_key(flash, der: bytes, child: str, parent: str, parent_key: bytes) -> bytes:
    """The 32-byte MAC key of `child` and `parent`: from the cache in flash, or computed (about half a second) and kept.

    The cache names what it was computed from, so a new identity or a new headquarters never meets an old key.
    Raises p256.KeyFault.
    """
    origin = hashlib.sha256(b"\0".join((der, parent_key, child.encode(), parent.encode()))).digest()
    cached = flash.read(_CACHE)
    if cached is not None and len(cached) == 64 and cached[:32] == origin:
        return cached[32:]
    key = wire.message_key(p256.shared(private_number(der), parent_key), child, parent)
    flash.write(_CACHE, origin + key)
    return key
