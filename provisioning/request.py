"""An enrolment without a connection to headquarters: a file, signed by the authority, that headquarters imports later.

The file is JSON: {"body", "made_at", "expires_at", "technician", "signature"}. The signature is ECDSA with SHA-256 over
PREFIX and the canonical JSON (sorted keys, no blanks, UTF-8) of everything else, in base64. So it can be carried by
anybody, on anything; whoever alters it, or signs it with another key, is found out. It holds no secret.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from provisioning.errors import SetupFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cryptography import x509

PREFIX = b"tocsin enrolment request 1\n"  # so that no other signature of the authority can be taken for one
LIFETIME = timedelta(days=7)
LARGEST = 64 * 1024
_FIELDS = {"body", "made_at", "expires_at", "technician", "signature"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is genuine and has not expired. body: the id, and what `PUT /registry/{id}` takes."""

    body: Mapping[str, Any]
    technician: str
    made_at: datetime
    expires_at: datetime

    @property
    def expires_at_ms(self) -> int:
        """UTC milliseconds."""
        return int(self.expires_at.timestamp() * 1000)


def make(
    body: Mapping[str, Any],
    technician: str,
    sign: Callable[[bytes], bytes],
    *,
    now: datetime | None = None,
    lifetime: timedelta = LIFETIME,
) -> bytes:
    """The file for one button.

    body: {"id", "certificate", "site", "entrance", …}, as the registry takes it. sign: the authority's ECDSA signature
    with SHA-256 of what it is given, in DER.
    """
    made = (now or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    told = {
        "body": dict(body),
        "technician": technician,
        "made_at": _written(made),
        "expires_at": _written(made + lifetime),
    }
    signature = base64.b64encode(sign(_signed(told))).decode()
    return json.dumps({**told, "signature": signature}, ensure_ascii=False, indent=1).encode() + b"\n"


def read(octets: bytes, authorities: Iterable[x509.Certificate], now: datetime | None = None) -> Request:
    """What a file asks for, if one of our authorities signed it and it has not expired. Raises SetupFault."""
    told = _parsed(octets)
    if not _is_genuine(told, authorities):
        raise SetupFault(
            "The request was altered after it was signed, or was signed by another authority than those of this station "
            "(ca.pem). Nothing was changed. Ask the technician for the file again, and whose authority signed it."
        )
    now = now or datetime.now(UTC)
    try:
        made, expires = (datetime.fromisoformat(told[name]) for name in ("made_at", "expires_at"))
        has_expired = now >= expires
    except (TypeError, ValueError) as error:
        raise SetupFault(f"The request's times can't be read: {error}. Ask the technician for a new one.") from error
    if has_expired:
        raise SetupFault(
            f"The request of {told['technician']} expired on {expires:%Y-%m-%d %H:%M} UTC, and it is "
            f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC here. Nothing was changed. Ask the technician for a new one: running "
            "the same `tocsin provision` command again makes it."
        )
    return Request(told["body"], str(told["technician"]), made, expires)


def _parsed(octets: bytes) -> dict[str, Any]:
    try:
        told = json.loads(octets) if len(octets) <= LARGEST else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.keys() != _FIELDS or not isinstance(told["body"], dict):
        raise SetupFault(
            "This is no enrolment request, or only a part of one: `tocsin provision` writes it as a file that ends in "
            ".request.json. Nothing was changed. Ask the technician for the whole file."
        )
    return told


def _is_genuine(told: Mapping[str, Any], authorities: Iterable[x509.Certificate]) -> bool:
    try:
        signature = base64.b64decode(told["signature"], validate=True)
        octets = _signed({name: value for name, value in told.items() if name != "signature"})
    except (binascii.Error, TypeError, ValueError):
        return False
    for authority in authorities:
        key = authority.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            continue
        try:
            key.verify(signature, octets, ec.ECDSA(SHA256()))
        except InvalidSignature:
            continue
        return True
    return False


def _signed(told: Mapping[str, Any]) -> bytes:
    return PREFIX + json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}+00:00"
