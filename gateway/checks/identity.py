"""The files that say who the station is: key, certificate, authority, message key, revocation list."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway import keys, revocation, sealing
from gateway.enrolment import RegistryRefusedError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from gateway.checks.look import Finding, Look

SOON = timedelta(days=30)


def passphrase(look: Look) -> Iterator[Finding]:
    """What the keys are sealed under, where something is set."""
    what, where = "passphrase of the keys", ("key_file",) if look.settings.key_file else ()
    try:
        secret_word = sealing.passphrase(look.settings)
    except keys.KeyFileError as error:
        yield look.say("mistake", what, str(error), *where)
        return
    if secret_word is not None:
        yield look.say("good", what, "can be read, by this user alone", *where)


def identity(look: Look) -> Iterator[Finding]:
    """Key, certificate and authority: whole, private, in date, and of one another."""
    folder, station = look.settings.identity, look.settings.station
    key_path, path, authority_path = folder / "key.pem", folder / "cert.pem", folder / "ca.pem"
    key = yield from _key(look, key_path, "key", "identity")
    yield from secret(look, key_path, "key", "identity")
    try:
        chain = keys.certificates(path)
        certificate = chain[0]
    except keys.KeyFileError as error:
        yield look.say("mistake", "certificate", f"{error}; the authority issues it (docs/provisioning.md)", "identity")
        return
    try:
        authorities = keys.certificates(authority_path)
    except keys.KeyFileError as error:
        yield look.say("mistake", "authority", f"{error}; copy the authority's ca.pem there", "identity")
        return
    name = _common_name(certificate)
    if name != station:
        text = f"{path} is for {name!r}, but the station is {station!r}: correct `station`, or have it issued anew"
        yield look.say("mistake", "certificate", text, "station")
    if key is not None and keys.point(key.public_key()) != _point(certificate):
        text = f"{key_path} is not the key of {path.name}: put the two together that were made together"
        yield look.say("mistake", "key", text, "identity")
    yield from _usable(look, certificate, path, station)
    if not _leads_to(chain, authorities):
        text = f"{path} is not signed by an authority of {authority_path.name}: one of the two is another system's"
        yield look.say("mistake", "certificate", text, "identity")
    else:
        yield from dates(look, "certificate", path, certificate, "identity")
    for authority in authorities:
        yield from dates(look, f"authority {_common_name(authority)}", authority_path, authority, "identity")


def _usable(look: Look, certificate: x509.Certificate, path: Path, station: str) -> Iterator[Finding]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        known = []
    if station not in known:
        text = f"{path} has no DNS name {station!r}: children check the broker against it; have it issued as a server's"
        yield look.say("mistake", "certificate", text, "identity")
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.SERVER_AUTH not in uses:
        text = f"{path} is not good for a server: children would not talk to the broker; have it issued as a server's"
        yield look.say("mistake", "certificate", text, "identity")


def dates(look: Look, what: str, path: Path, certificate: x509.Certificate, *where: str) -> Iterator[Finding]:
    """Whether a certificate is valid now, and for long enough."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins > look.now:
        text = f"{path} is valid from {begins:%Y-%m-%d %H:%M} UTC only: set this machine's clock, or wait"
        yield look.say("mistake", what, text, *where)
    elif ends <= look.now:
        yield look.say("mistake", what, f"{path} ended on {ends:%Y-%m-%d}: have a new one issued", *where)
    elif ends - look.now < SOON:
        days = (ends - look.now).days
        yield look.say("warning", what, f"{path} ends in {days} days: have a new one issued now", *where)
    else:
        yield look.say("good", what, f"valid until {ends:%Y-%m-%d}", *where)


def _key(look: Look, path: Path, what: str, *where: str) -> Generator[Finding, None, EllipticCurvePrivateKey | None]:
    """Yields what is wrong; returns the key."""
    try:
        return keys.private_key(path, look.passphrase)
    except keys.SealedKeyError as error:
        yield look.say("mistake", what, str(error), *where)
        return None
    except keys.KeyFileError as error:
        yield look.say("mistake", what, f"{error}; it is a P-256 key in PEM that this user may read", *where)
        return None


def secret(look: Look, path: Path, what: str, *where: str) -> Iterator[Finding]:
    """A file that others on this machine could read."""
    try:
        state = path.stat()
    except OSError:
        return  # told already
    if state.st_mode & 0o077:
        text = f"{path} can be read by others (mode {state.st_mode & 0o777:o}): chmod 600 {path}"
        yield look.say("mistake", what, text, *where)
    else:
        yield look.say("good", what, f"{path} is private", *where)


def message_key(look: Look) -> Iterator[Finding]:
    """Headquarters' message key; its public half is told, for children's settings."""
    path = look.settings.message_key
    if path is None:
        return
    key = yield from _key(look, path, "message key", "message_key")
    if key is None:
        return
    yield from secret(look, path, "message key", "message_key")
    point = keys.point(key.public_key()).hex()
    yield look.say("good", "message key", f"for children's settings: {point}", "message_key")


def revoked(look: Look) -> Iterator[Finding]:
    """The revocation list: without a good one the broker turns everybody away."""
    path, what = look.settings.revoked, "revocation list"
    if path is None:
        text = "`revoked` names none: a stolen button could not be locked out; ask for it where the authority is"
        yield look.say("warning", what, text)
        return
    try:
        octets = path.read_bytes()
        authorities = keys.certificates(look.settings.identity / "ca.pem")
        revocation.merged(octets, b"", authorities, look.now)
    except OSError as error:
        text = f"{path}: {error.strerror}: the broker would not start; put the authority's list there"
        yield look.say("mistake", what, text, "revoked")
        return
    except keys.KeyFileError:
        return  # told already
    except RegistryRefusedError as error:
        yield look.say("mistake", what, f"{path}: {error}; else the broker turns everybody away", "revoked")
        return
    ends = revocation.ends(path)
    own = _own_serial(look)
    if own is not None and own in revocation.serials(octets, authorities):
        text = f"{path} has this station's own certificate on it: nobody will talk to it; have a new one issued"
        yield look.say("mistake", what, text, "revoked")
    elif ends is not None and ends - look.now < SOON:
        yield look.say("warning", what, f"{path} ends in {(ends - look.now).days} days: get a new one now", "revoked")
    else:
        yield look.say("good", what, f"valid until {ends:%Y-%m-%d}" if ends else "in place", "revoked")


def _own_serial(look: Look) -> int | None:
    try:
        return keys.certificate(look.settings.identity / "cert.pem").serial_number
    except keys.KeyFileError:
        return None


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()


def _point(certificate: x509.Certificate) -> bytes:
    try:
        return keys.point(certificate.public_key())
    except keys.KeyFileError:
        return b""


def _leads_to(chain: list[x509.Certificate], authorities: list[x509.Certificate]) -> bool:
    """Whether the first certificate is signed by an authority, maybe through the others of its file."""
    last, rest = chain[0], chain[1:]
    for _ in range(len(chain)):
        if any(_signed(last, authority) for authority in authorities):
            return True
        above = next((one for one in rest if _signed(last, one)), None)
        if above is None:
            return False
        last = above
    return False


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
