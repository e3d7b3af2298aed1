"""Envelopes for a schedule: the real ones, or stand-ins that cost next to nothing.

Most of a schedule's time would go into CBOR and HMAC, which tests/firmware holds against other libraries. So in most
schedules an envelope is a number, and whoever has the number has what was sealed; one schedule in REAL_OF runs on the
real octets.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway import batch, exchange, voice

if TYPE_CHECKING:
    from collections.abc import Iterator

REAL_OF = 20

_unseal, _message_of = wire.unseal, wire.message_of


class _Sealed:
    """An envelope of this schedule: what unseal gives for it."""

    __slots__ = ("key", "kid", "message")

    def __init__(self, kid: str, message: dict[int, Any], key: bytes) -> None:
        self.kid, self.message, self.key = kid, message, key

    def sealed_with(self, key: bytes) -> bool:
        return self.key == key


class Cheap:
    """Gives out numbers for envelopes."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Sealed] = {}
        self._letters: dict[bytes, tuple[bytes, list[list[Any]]]] = {}
        self._bare: dict[bytes, dict[int, Any]] = {}

    def seal(self, message: dict[int, Any], kid: str, key: bytes) -> bytes:
        octets = b"\xd1\x84%98d" % len(self._known)
        self._known[octets] = _Sealed(kid, dict(message), key)
        return octets

    def unseal(self, octets: bytes, longest: int = wire.MAX_FRAME) -> Any:
        return self._known.get(octets) or _unseal(octets, longest)

    def letter(self, envelope: bytes, hops: list[list[Any]] | None = None) -> bytes:
        octets = (b"%d" % len(self._letters)).rjust(len(envelope) + 20)
        self._letters[octets] = envelope, hops or []
        return octets

    def unpacked(self, octets: bytes) -> tuple[bytes, list[list[Any]]]:
        return self._letters[octets]

    def bare(self, message: dict[int, Any]) -> bytes:
        octets = b"\xa5%d" % len(self._bare)
        self._bare[octets] = message
        return octets

    def message_of(self, octets: bytes) -> dict[int, Any]:
        known = self._bare.get(octets)
        if known is None:
            known = self._bare[octets] = _message_of(octets)
        return known


class _Remembered:
    """Real envelopes, each taken apart once: it passes through many hands."""

    def __init__(self) -> None:
        self._known: dict[bytes, wire.Envelope] = {}

    def unseal(self, octets: bytes, longest: int = wire.MAX_FRAME) -> wire.Envelope:
        known = self._known.get(octets)
        if known is None:
            known = self._known[octets] = _unseal(octets, longest)
        return known


@contextlib.contextmanager
def sealing(*, real: bool) -> Iterator[None]:
    """Puts the envelopes of one schedule into place."""
    seal, letter, unpacked = wire.seal, batch.letter, batch.unpacked
    if real:
        wire.unseal = _Remembered().unseal
    else:
        cheap = Cheap()
        wire.seal, wire.unseal, wire.message_of = cheap.seal, cheap.unseal, cheap.message_of
        batch.letter, batch.unpacked = cheap.letter, cheap.unpacked
        exchange.wire = voice.wire = SimpleNamespace(**{**vars(wire), "encode": cheap.bare})  # type: ignore[assignment]
    try:
        yield
    finally:
        wire.seal, wire.unseal, wire.message_of = seal, _unseal, _message_of
        batch.letter, batch.unpacked, exchange.wire, voice.wire = letter, unpacked, wire, wire
