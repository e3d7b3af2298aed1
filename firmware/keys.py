"""The button's keys: its private key as a file, and the message key that it shares with headquarters alone."""

import hashlib

from firmware import der, p256, wire

_CACHE = "message-key"


def private_number(octets: bytes) -> int:
    """The private scalar of a P-256 key in DER: SEC 1 (RFC 5915), or PKCS #8 (RFC 5958) around it. Raises KeyFault."""
    try:
        key = der.Der(octets).take(der.SEQUENCE)
        version = key.take(der.INTEGER).octets
        if version == b"\0":
            key.take(der.SEQUENCE)
            key = der.Der(key.take(der.OCTETS).octets).take(der.SEQUENCE)
            version = key.take(der.INTEGER).octets
        number = key.take(der.OCTETS).octets
    except der.DerFault:
        version = number = b""
    if version != b"\1" or len(number) != 32:
        raise p256.KeyFault("the private key is not a P-256 key in DER")
    return int.from_bytes(number, "big")


def message_key(flash, private: bytes, child: str, parent: str, parent_key: bytes) -> bytes:
    """The 32-byte MAC key of `child` and `parent`: from the cache in flash, or computed (about half a second) and kept.

    private: the private key in DER. The cache names what it was computed from, so that a new identity or a new
    headquarters never meets an old key. Raises p256.KeyFault.
    """
    origin = hashlib.sha256(b"\0".join((private, parent_key, child.encode(), parent.encode()))).digest()
    cached = flash.read(_CACHE)
    if cached is not None and len(cached) == 64 and cached[:32] == origin:
        return cached[32:]
    key = wire.message_key(p256.shared(private_number(private), parent_key), child, parent)
    flash.write(_CACHE, origin + key)
    return key
