"""ECDSA on P-256 with SHA-256 (FIPS 186-4): signs the request for a button's certificate, verifies an update.

The nonce comes out of key and message (RFC 6979): a random number too little would give the private key away, and the
same request is signed alike every time.
"""

import hashlib

from firmware import der, p256
from firmware.wire import hmac_sha256


def _nonces(private: int, digest: bytes):
    """The candidates of RFC 6979, section 3.2, one after the other."""
    seed = private.to_bytes(32, "big") + (int.from_bytes(digest, "big") % p256.N).to_bytes(32, "big")
    value = b"\1" * 32
    key = hmac_sha256(bytes(32), value + b"\0" + seed)
    value = hmac_sha256(key, value)
    key = hmac_sha256(key, value + b"\1" + seed)
    value = hmac_sha256(key, value)
    while True:
        value = hmac_sha256(key, value)
        nonce = int.from_bytes(value, "big")
        if 0 < nonce < p256.N:
            yield nonce
        key = hmac_sha256(key, value + b"\0")
        value = hmac_sha256(key, value)


def sign(private: int, message: bytes) -> bytes:
    """The signature of `message`, as the DER that certificates carry it in (RFC 3279, section 2.2.3)."""
    digest = hashlib.sha256(message).digest()
    for nonce in _nonces(private, digest):
        r = int.from_bytes(p256.public(nonce)[1:33], "big") % p256.N
        s = pow(nonce, p256.N - 2, p256.N) * (int.from_bytes(digest, "big") + r * private) % p256.N
        if r and s:
            return der.element(der.SEQUENCE, der.integer(r), der.integer(s))
    raise AssertionError("the nonces do not end")


def verifying(point: bytes, digest: bytes, signature: bytes):
    """A generator that yields None between steps of some milliseconds, then whether the signature is right.

    point: the uncompressed public key. digest: SHA-256 of what is signed. signature: r and s, 32 bytes each.
    """
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < p256.N and 0 < s < p256.N) or not p256.is_point(point):
        yield False
        return
    inverse = pow(s, p256.N - 2, p256.N)
    u = int.from_bytes(digest, "big") * inverse % p256.N
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    found = None
    for found in p256.combined(u, r * inverse % p256.N, x, y):
        if found is None:
            yield None
    yield found >= 0 and found % p256.N == r
