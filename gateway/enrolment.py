"""The life of a button's entry in the registry: pending, enrolled, retired; who may be taken in, and when.

An entry is made pending, for an hour. The first message that is believed makes it enrolled, and retires the button that
it replaces; a pending entry that nothing was heard of is forgotten. An id is never used twice, so that whatever is told
of it stays true. Pure; the tables are written in gateway/entries.py, and gateway/registrar.py joins the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from firmware.wire import is_id
from gateway import dates, keys
from gateway.tomlfile import Id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gateway.revocation import InPlace

PENDING_MS = 3_600_000
RESERVED = "station"  # /registry/station is this station itself
_BOARD = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class RegistryRefusedError(Exception):
    """What is in the registry stands against it; the text says why and what to do."""


class UnfitError(RegistryRefusedError):
    """What was sent is wrong in itself."""


class UnknownChildError(RegistryRefusedError):
    """Nobody of that id is in the registry."""


class TokenRefusedError(RegistryRefusedError):
    """Whoever sent it is not, or no longer, a technician."""


class Standing(StrEnum):
    """Where an entry stands."""

    PENDING = "pending"
    ENROLLED = "enrolled"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An entry of the registry. Times are UTC milliseconds. point: the public key, 65 bytes in hex."""

    id: str
    kind: str
    site: str
    site_name: str
    site_name_ur: str
    entrance: str
    entrance_name: str
    entrance_name_ur: str
    address: str
    phone: str
    point: str
    state: Standing
    mac: str
    by: str
    replaces: str | None
    enrolled_at_ms: int | None
    expires_at_ms: int | None
    retired_at_ms: int | None
    why: str
    certified_until_ms: int | None = None  # when its certificate ends; None: not known


def printable(text: str) -> str:
    """The text as every database takes it: without control characters and the like."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _mac(text: str) -> str:
    text = text.lower()
    if text and not _BOARD.fullmatch(text):
        message = "must be six pairs of hex digits with colons between: 24:0a:c4:00:01:10"
        raise ValueError(message)
    return text


Name = Annotated[str, Field(max_length=120), AfterValidator(printable)]


class NewButton(BaseModel):
    """What a technician asks the registry to take in. certificate: PEM."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Annotated[str, Field(max_length=8_000)]
    site: Id
    entrance: Id
    site_name: Name = ""
    site_name_ur: Name = ""
    entrance_name: Name = ""
    entrance_name_ur: Name = ""
    address: Annotated[str, Field(max_length=300), AfterValidator(printable)] = ""
    phone: Name = ""
    mac: Annotated[str, AfterValidator(_mac)] = ""
    replaces: Id | None = None

    @property
    def names(self) -> dict[str, str]:
        """What it says of its site and entrance; empty: nothing."""
        names = "site_name", "site_name_ur", "entrance_name", "entrance_name_ur", "address", "phone"
        return {name: getattr(self, name) for name in names}


class NewCertificate(BaseModel):
    """A certificate for the key that a button has already. certificate: PEM."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Annotated[str, Field(max_length=8_000)]


def from_request(body: Mapping[str, Any]) -> tuple[str, NewButton]:
    """The id and the rest of an offline request. Raises UnfitError."""
    rest = dict(body)
    child = rest.pop("id", None)
    try:
        return str(child), NewButton.model_validate(rest)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UnfitError(f"the request is not understood: {wrong}") from error


class Registrar(Protocol):
    """The registry as technicians' programs reach it. Every call may raise RegistryRefusedError: at a site all do."""

    @property
    def message_key(self) -> str:
        """Headquarters' public message key, 65 bytes in hex."""

    def technician(self, token: str, address: str) -> str:
        """The name that goes with a token. address: of whoever sent it. Raises TokenRefusedError."""

    def entries(self, site: str | None = None) -> list[Enrolment]:
        """Every entry, or those of a site, by site and id."""

    def entry(self, child: str) -> Enrolment:
        """The entry of a child."""

    def enrol(self, child: str, wanted: NewButton, by: str) -> tuple[Enrolment, bool]:
        """Makes a pending entry, or leaves the one that is there. True: it is new."""

    def renew(self, child: str, wanted: NewCertificate, by: str) -> Enrolment:
        """Sends a button a new certificate for the key that it has."""

    def retire(self, child: str, reason: str, by: str) -> Enrolment:
        """Believes a button no more, from now on."""

    def revoke(self, pem: bytes, address: str) -> InPlace:
        """Puts a newer revocation list into place; believed for the authority's signature. address: who sent it."""


# ------------------------------------------------------------------------------------------------ rules


class Move(Enum):
    """What a technician's wish comes to."""

    ENTER = auto()  # a new entry
    RENEW = auto()  # the pending entry, for another hour
    KEEP = auto()  # it is in use already


def certified_point(pem: str, child: str, authorities: Iterable[x509.Certificate], now: datetime) -> bytes:
    """The public key of a certificate that is `child`'s, valid at `now` and signed by one of ours. Raises UnfitError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        key = certificate.public_key()
        name = certificate.subject.rfc4514_string()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnfitError(f"the certificate can't be read: {error}") from error
    try:
        point = keys.point(key)
    except keys.KeyFileError as error:
        raise UnfitError(str(error)) from error
    if name != f"CN={child}":
        raise UnfitError(f"the certificate is for {name}, not for CN={child}")
    if not any(_issued_by(certificate, authority) for authority in authorities):
        raise UnfitError(
            "the certificate is not signed by an authority of this station (ca.pem): sign it with the authority that "
            "signed headquarters' own"
        )
    if now < certificate.not_valid_before_utc:
        raise UnfitError(
            f"the certificate is valid from {moment(certificate.not_valid_before_utc)} only, and it is {moment(now)} here: "
            "one of the two clocks is wrong"
        )
    if now >= certificate.not_valid_after_utc:
        raise UnfitError(f"the certificate expired on {moment(certificate.not_valid_after_utc)}: sign a new one")
    return point


def ends_at_ms(pem: str) -> int:
    """When a certificate that was read before ends, UTC milliseconds."""
    return int(x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp() * 1000)


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def decide(known: Enrolment | None, wanted: NewButton, point: bytes) -> Move:
    """What to do when `wanted`, with that key, is asked for and `known` is there. Raises RegistryRefusedError."""
    if known is None:
        return Move.ENTER
    if known.kind != "button":
        raise RegistryRefusedError(f"{known.id} is a station, which an administrator enrols: choose another id")
    if known.state is Standing.RETIRED:
        raise RegistryRefusedError(
            f"{known.id} {retired_on(known.retired_at_ms)}, and ids are never used twice: choose another id"
        )
    same_key = known.point == point.hex()
    if known.state is Standing.PENDING:
        if same_key or (wanted.mac and wanted.mac == known.mac):  # the same board, which was erased and began again
            return Move.RENEW
        raise RegistryRefusedError(
            f"{known.id} is being enrolled by {known.by} with another key, on board {known.mac or 'unknown'}, until "
            f"{moment(known.expires_at_ms or 0)}: use that board, choose another id, or wait until then"
        )
    if not same_key:
        raise RegistryRefusedError(
            f"{known.id} is in use with another key: choose another id, and name {known.id} as the one that it replaces"
        )
    stays = known.site in {"", wanted.site} and known.entrance in {"", wanted.entrance}
    if not stays:
        raise RegistryRefusedError(
            f"{known.id} is at {known.site}, {known.entrance}: a button that moves gets a new id, so that its history "
            "stays with the entrance"
        )
    return Move.KEEP


def check_newcomer(child: str, taken: Collection[str], wanted: NewButton) -> None:
    """Raises RegistryRefusedError if `child` can't be an id here. taken: ids that are no button's."""
    if not is_id(child) or child == RESERVED:
        raise UnfitError(f"{child!r} can't be an id: use 1 to 64 of a-z, 0-9, '-' and '.', and not {RESERVED!r}")
    if child in taken:
        raise RegistryRefusedError(f"{child} is the id of a station: choose another id")
    if wanted.replaces == child:
        raise UnfitError(f"{child} can't replace itself: give the new button an id of its own")


def absence(retired_at_ms: int | None) -> str:
    """Why a child is not believed. None: nobody knows it."""
    return "it is not enrolled here" if retired_at_ms is None else f"it {retired_on(retired_at_ms)}"


def retired_on(at_ms: int | None) -> str:
    """ "was retired on 2026-11-24 14:05 UTC"."""
    return f"was retired on {moment(at_ms or 0)}"


def moment(at: datetime | int) -> str:
    """A time as it is told: "2026-11-24 14:05 UTC". at: UTC milliseconds, or a time of any zone."""
    when = dates.utc(at) if isinstance(at, int) else at.astimezone(UTC)
    return f"{when:%Y-%m-%d %H:%M} UTC"
