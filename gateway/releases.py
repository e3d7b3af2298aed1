"""A release of the firmware as headquarters takes it in: checked in full, as a button will (docs/firmware.md, Update)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from firmware import release, wire


@dataclass(frozen=True)
class Release:
    """A release whose signature was checked. octets: all of it; head: how many of them are the head."""

    version: str
    boards: tuple[str, ...]
    octets: bytes
    head: int

    @property
    def digest(self) -> bytes:
        """SHA-256 of the head, by which buttons name it."""
        return hashlib.sha256(self.octets[: self.head]).digest()

    @property
    def offer(self) -> bytes:
        """The detail of the command that offers it."""
        return release.offer(self.version, self.head, len(self.octets), self.digest)


def read(octets: bytes, key: bytes) -> Release:
    """A release, taken apart and checked in full as a button does. key: the public point. Raises WireError."""
    head = _head(octets)
    body = octets[release.SIGNATURE : head]
    r, s = (int.from_bytes(octets[at : at + 32], "big") for at in (0, 32))
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
    try:
        public.verify(utils.encode_dss_signature(r, s), release.SIGNED + body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise wire.WireError("the release is not signed with the key of releases") from None
    manifest = release.Manifest(body)
    release.offered(release.offer(manifest.version, head, len(octets), bytes(32)))  # its limits
    if head + manifest.size != len(octets):
        raise wire.WireError("the release is cut off, or something follows it")
    at = head
    for path, size, digest in manifest.files:
        if hashlib.sha256(octets[at : at + size]).digest() != digest:
            raise wire.WireError(f"the release's {path} is not the file that was signed")
        at += size
    return Release(manifest.version, tuple(manifest.boards), octets, head)


def _head(octets: bytes) -> int:
    """Where the files begin: after the manifest, one CBOR item."""
    try:
        return wire.end_of(octets, release.SIGNATURE)
    except wire.WireError as problem:
        raise wire.WireError(f"this is not a release: {problem}") from None
