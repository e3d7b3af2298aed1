"""Message keys at a station's end: P-256 ECDH, then HKDF (firmware/wire.py). None of them is ever stored or sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from firmware import wire

if TYPE_CHECKING:
    from pathlib import Path


class KeyFileError(Exception):
    """A key or certificate file can't be used; the text says which and why."""


class SealedKeyError(KeyFileError):
    """The passphrase of a key is missing, or is another one."""


def private_key(path: Path, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
    """The P-256 private key in a PEM file; passphrase: of a sealed one, a plain one needs none. Raises KeyFileError."""
    try:
        octets = path.read_bytes()
        sealed = b"ENCRYPTED" in octets
        if sealed and passphrase is None:
            message = (
                f'{path}: the key is sealed, and no passphrase is set: name its file with key_file = "…" in the settings, or '
                "give the service the credential tocsin-key"
            )
            raise SealedKeyError(message)
        key = load_pem_private_key(octets, passphrase.encode() if sealed and passphrase else None)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, ValueError) and passphrase is not None and sealed:
            message = f"{path}: the passphrase does not open this key: it was sealed under another one, or is damaged"
            raise SealedKeyError(message) from error
        message = f"{path}: no usable private key: {error}"
        raise KeyFileError(message) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        message = f"{path}: the key is not a P-256 key"
        raise KeyFileError(message)
    return key


def certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM or DER file. Raises KeyFileError."""
    try:
        octets = path.read_bytes()
        pem = octets.startswith(b"-----")
        return x509.load_pem_x509_certificate(octets) if pem else x509.load_der_x509_certificate(octets)
    except (OSError, ValueError) as error:
        message = f"{path}: no usable certificate: {error}"
        raise KeyFileError(message) from error


def certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file. Raises KeyFileError."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"{path}: no usable certificate: {error}"
        raise KeyFileError(message) from error


def token(path: Path) -> str:
    """The secret word in a file: one line, 16 characters or more. Raises KeyFileError."""
    try:
        word = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        message = f"{path}: no usable token: {error}"
        raise KeyFileError(message) from error
    if len(word) < 16 or not word.isprintable() or " " in word:
        message = (
            f"{path}: no usable token: it is one line of 16 characters or more, such as `openssl rand -hex 24` makes"
        )
        raise KeyFileError(message)
    return word


def point(key: object) -> bytes:
    """A P-256 public key as 65 bytes: 04, x, y (SEC 1 2.3.3). Raises KeyFileError for any other key."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        message = "the certificate's key is not a P-256 key"
        raise KeyFileError(message)
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def between(own: ec.EllipticCurvePrivateKey, other: bytes, *, child: str, parent: str) -> bytes:
    """The 32-byte MAC key between `child` and `parent`. other: the other end's public key, 65 bytes."""
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), other)
    return wire.message_key(own.exchange(ec.ECDH(), public), child, parent)
