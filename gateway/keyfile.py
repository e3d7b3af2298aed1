"""Private keys on a disk, a laptop's or a station's: PKCS#8 in PEM, sealed under a passphrase that a thief would have to guess slowly.

The cryptography package seals PKCS#8 with 2,048 rounds of PBKDF2, a third of a millisecond a guess. Here the same format
(RFC 5958, PBES2 of RFC 8018) is written with 600,000 rounds; `openssl pkey` and every other reader opens it as well.
"""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

LEAST_LENGTH = 8  # of a passphrase, in characters
_ROUNDS = 600_000
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("300c06082a864886f70d02090500")
_AES256_CBC = bytes.fromhex("060960864801650304012a")
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_SHORT = 0x80


class WrongPassphraseError(Exception):
    """The passphrase does not open the key."""


def sealed(key: ec.EllipticCurvePrivateKey, passphrase: str) -> bytes:
    """The key as ENCRYPTED PRIVATE KEY in PEM."""
    salt, nonce = os.urandom(16), os.urandom(16)
    secret = PBKDF2HMAC(hashes.SHA256(), 32, salt, _ROUNDS).derive(passphrase.encode())
    pad = padding.PKCS7(128).padder()
    plain = pad.update(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())) + pad.finalize()
    cipher = Cipher(algorithms.AES256(secret), modes.CBC(nonce)).encryptor()
    rounds = _der(_INTEGER, _ROUNDS.to_bytes(3, "big"))
    derivation = _der(_SEQUENCE, _PBKDF2, _der(_SEQUENCE, _der(_OCTETS, salt), rounds, _HMAC_SHA256))
    encryption = _der(_SEQUENCE, _AES256_CBC, _der(_OCTETS, nonce))
    scheme = _der(_SEQUENCE, _PBES2, _der(_SEQUENCE, derivation, encryption))
    whole = _der(_SEQUENCE, scheme, _der(_OCTETS, cipher.update(plain) + cipher.finalize()))
    text = base64.b64encode(whole).decode()
    rows = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(
        ["-----BEGIN ENCRYPTED PRIVATE KEY-----", *rows, "-----END ENCRYPTED PRIVATE KEY-----", ""]
    ).encode()


def opened(pem: bytes, passphrase: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in a sealed file. Raises WrongPassphraseError, and ValueError if the file holds no such key."""
    if b"BEGIN ENCRYPTED PRIVATE KEY" not in pem:
        raise ValueError("it holds no encrypted private key")
    try:
        key = load_pem_private_key(pem, passphrase.encode())
    except (
        ValueError,
        TypeError,
    ) as error:  # one wrong passphrase in 256 yields a good padding, and then a key that can't be read
        raise WrongPassphraseError from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key is not a P-256 key")  # noqa: TRY004 - what is wrong is the file
    return key


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    if length < _SHORT:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, _SHORT | len(octets)]) + octets + content
