"""Revocation lists: whether a new one is believed, and how it comes into place.

A list needs nobody's permission: it is signed by an authority of this station and newer than the one in place. A station
with two authorities (while one follows on the other) has a list of each in one file. One that has run out, or is not
valid yet, would make the broker turn everybody away: it is refused.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.enrolment import RegistryRefusedError, UnfitError, moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

MOST_LISTS = 8
HOLDER = x509.ObjectIdentifier("2.25.68678826576902429363513006469949368619")  # of an entry: whose certificate it was
_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OneList:
    """A list of one authority."""

    authority: str
    number: int
    revoked: int


@dataclass(frozen=True, slots=True)
class InPlace:
    """The lists that are in place now. changed: whether this call changed them."""

    lists: tuple[OneList, ...]
    changed: bool


def merged(
    sent: bytes, in_place: bytes, authorities: Sequence[x509.Certificate], now: datetime
) -> tuple[bytes, InPlace]:
    """The file that `sent`, one list or several in PEM, makes of the one in place.

    Raises UnfitError if a list is damaged, foreign, unnumbered or not valid at `now`, and RegistryRefusedError if it is
    not newer than the one in place.
    """
    known = {_owner(one, authorities): one for one in _tolerant(in_place)}
    known.pop(None, None)
    new = dict(known)
    for one in _lists(sent):
        owner = _owner(one, authorities)
        if owner is None:
            raise UnfitError(
                f"the list of {_name(one)} is not signed by an authority of this station: its ca.pem comes first"
            )
        _check(one, now)
        number, old = _number(one), new.get(owner)
        if number is None:
            raise UnfitError(
                f"the list of {_name(one)} has no number (RFC 5280 5.2.3): it can't be told which is newer"
            )
        there = _number(old) if old is not None else None
        if old is not None and there is not None and number <= there and _der(old) != _der(one):
            raise RegistryRefusedError(
                f"the list of {_name(one)} has number {number}, and number {there} is in place: send the newest one"
            )
        new[owner] = one
    order = sorted(new.values(), key=_name)
    octets = b"".join(one.public_bytes(Encoding.PEM) for one in order)
    lists = tuple(OneList(_name(one), _number(one) or 0, len(one)) for one in order)
    return octets, InPlace(lists, changed=[_der(one) for one in order] != [_der(one) for one in _tolerant(in_place)])


def serials(pem: bytes, authorities: Sequence[x509.Certificate]) -> set[int]:
    """The serial numbers on the lists of a file."""
    return {revoked.serial_number for one in _tolerant(pem) if _owner(one, authorities) is not None for revoked in one}


def entry(serial: int, at: datetime, holder: str) -> x509.RevokedCertificate:
    """An entry of a list. holder: the id that the certificate was for, so that a broker knows whose connection to end."""
    name = holder.encode()
    made = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at)
    utf8 = bytes((0x0C, len(name))) + name  # DER; an id has 64 octets at most
    return made.add_extension(x509.UnrecognizedExtension(HOLDER, utf8), critical=False).build()


def revoked(pem: bytes, authorities: Sequence[x509.Certificate], now: datetime) -> dict[int, str | None]:
    """Serial numbers on a file's lists, and whose certificates they were (None: the list does not say).

    Raises UnfitError if a list is damaged, foreign or not valid at `now`: a broker would let nobody in with it.
    """
    found: dict[int, str | None] = {}
    for one in _lists(pem):
        if _owner(one, authorities) is None:
            raise UnfitError(f"the list of {_name(one)} is not signed by an authority of this station")
        _check(one, now)
        found.update({each.serial_number: _holder(each) for each in one})
    return found


def _holder(entry: x509.RevokedCertificate) -> str | None:
    for extension in entry.extensions:
        value = extension.value
        if extension.oid == HOLDER and isinstance(value, x509.UnrecognizedExtension):
            return value.value[2:].decode(errors="replace")
    return None


def ends(path: Path) -> datetime | None:
    """When the first of a file's lists runs out; None if there is no list that can be read, or none that ends."""
    try:
        found = [one.next_update_utc for one in _tolerant(path.read_bytes())]
    except OSError:
        return None
    return min((moment for moment in found if moment is not None), default=None)


def put(path: Path, octets: bytes) -> None:
    """Writes a file whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> bytes:
    """The file in place; nothing, if there is none yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _lists(pem: bytes) -> list[x509.CertificateRevocationList]:
    found = _PEM.findall(pem)
    if not 0 < len(found) <= MOST_LISTS:
        raise UnfitError("this is no revocation list in PEM: it starts with -----BEGIN X509 CRL-----")
    try:
        return [x509.load_pem_x509_crl(one) for one in found]
    except ValueError as error:
        raise UnfitError(f"the revocation list can't be read: {error}") from error


def _tolerant(pem: bytes) -> Iterable[x509.CertificateRevocationList]:
    try:
        return _lists(pem)
    except UnfitError:
        return []  # what is damaged or missing is no reason to refuse a good one


def _owner(one: x509.CertificateRevocationList, authorities: Iterable[x509.Certificate]) -> bytes | None:
    """The key of the authority that signed a list; None: none of ours."""
    for authority in authorities:
        key = authority.public_key()
        if authority.subject != one.issuer or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            continue
        if one.is_signature_valid(key):
            return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return None


def _check(one: x509.CertificateRevocationList, now: datetime) -> None:
    if one.last_update_utc > now:
        raise UnfitError(
            f"the list of {_name(one)} is valid from {moment(one.last_update_utc)} only, and it is {moment(now)} here: "
            "one of the two clocks is wrong"
        )
    if one.next_update_utc is None or one.next_update_utc <= now:
        raise UnfitError(f"the list of {_name(one)} has run out: make a new one with the authority")


def _number(one: x509.CertificateRevocationList) -> int | None:
    try:
        return one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        return None


def _der(one: x509.CertificateRevocationList) -> bytes:
    return one.public_bytes(Encoding.DER)


def _name(one: x509.CertificateRevocationList) -> str:
    return one.issuer.rfc4514_string().removeprefix("CN=")[:80]
