"""Several envelopes in one message between two stations: each keeps its own MAC and hops, and is judged by itself.

A batch is sealed by the station that sends it. Each of its letters is the map {envelope, hops} of a frame, in bytes;
without hops it is an envelope of the sender's own, or a receipt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmware import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SEALED = 160  # octets that a batch has at most besides its letters: tag, header with a 64-byte kid, MAC
_HEAD = 3  # octets before each letter


def letter(envelope: bytes, hops: list[list[Any]] | None = None) -> bytes:
    """An envelope as an entry of a batch."""
    return wire.encode({wire.ENVELOPE: envelope, wire.HOPS: hops} if hops else {wire.ENVELOPE: envelope})


def unpacked(octets: bytes) -> tuple[bytes, list[list[Any]]]:
    """(envelope, hops) of an entry; no hops: it came as it is. Raises WireError."""
    found = wire.decode(octets)
    if not isinstance(found, dict) or found.get(wire.HOPS) == []:
        raise wire.WireError("an entry of a batch is not an envelope with its hops")
    wire.check({wire.HOPS: [], **found, wire.KIND: wire.FRAME})
    return found[wire.ENVELOPE], found.get(wire.HOPS, [])


def packed(letters: Iterable[bytes], kid: str, key: bytes, longest: int = wire.MAX_BATCH) -> Iterator[bytes]:
    """Batches of at most `longest` bytes, but for a single longer letter, sealed by `kid` with `key`."""
    together: list[bytes] = []
    octets = _SEALED
    for one in letters:
        if together and (octets + len(one) + _HEAD > longest or len(together) == wire.MAX_ITEMS):
            yield wire.seal({wire.KIND: wire.BATCH, wire.LETTERS: together}, kid, key)
            together, octets = [], _SEALED
        together.append(one)
        octets += len(one) + _HEAD
    if together:
        yield wire.seal({wire.KIND: wire.BATCH, wire.LETTERS: together}, kid, key)
