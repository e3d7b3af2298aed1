"""What a message from below is, and whether it is believed.

Pure: bytes and times in, an Arrival or a RefusedError out. The broker has already checked that the topic is the sender's
own. Headquarters believes an enrolled child's MAC and nothing else; a site has no keys of its buttons and takes what
their TLS certificates let through: headquarters judges it again. An agency above headquarters, which has no keys of the
buttons, believes a station that is enrolled as vouching for those whom it does not know itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway import batch

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = {"alarm": wire.ALARM, "event": wire.EVENT, "heartbeat": wire.HEARTBEAT, "presence": wire.PRESENCE}
MAX_HOPS = 8


class RefusedError(Exception):
    """A message that is turned away. about: the identity inside a station's frame, so that it stops sending it."""

    def __init__(self, who: str, why: str, about: tuple[str, int, int] | None = None) -> None:
        super().__init__(why)
        self.who = who
        self.why = why
        self.about = about


@dataclass(frozen=True, slots=True)
class Arrival:
    """A believed message. child: whose connection brought it; source: whose message it is."""

    kind: int
    child: str
    source: str
    message: dict[int, Any]
    envelope: bytes
    hops: list[list[Any]]
    vouched: bool = False  # believed on the word of the station that brought it: this one does not know its source

    @property
    def framed(self) -> bool:
        """Whether a station brought it, rather than its source itself."""
        return self.child != self.source

    @property
    def identity(self) -> tuple[str, int, int]:
        """(source, boot, seq)."""
        return self.source, self.message[wire.BOOT], self.message[wire.SEQ]


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges messages for one station. key_of: the MAC key shared with a child; None: it is not enrolled here."""

    station: str
    strict: bool  # True at headquarters: no key, no belief
    key_of: Callable[[str], bytes | None]
    is_station: Callable[[str], bool]  # whether a child is enrolled here as a station: it alone may speak for others
    absence: Callable[[str], str] = lambda _: "it is not enrolled here"  # why a child has no key
    is_vouched: Callable[[str, str], bool] = lambda _source, _child: False  # whether a child is believed for a source

    def open(self, topic: str, payload: bytes) -> list[Arrival | RefusedError]:
        """What came on `topic`, one by one. What is not believed of a batch spoils nothing of the rest."""
        try:
            child, lane = self._place(topic)
            outer = self._outer(child, payload, wire.MAX_BATCH)
            if outer.message[wire.KIND] != wire.BATCH:
                return [self._alone(lane, child, outer, payload)]
        except RefusedError as error:
            return [error]
        if not self.is_station(child) or lane != wire.EVENT:
            return [RefusedError(child, "only a station may send several messages in one, and events alone")]
        if not outer.message[wire.LETTERS]:
            return [RefusedError(child, "a batch is empty")]
        return [self._letter(lane, child, letter) for letter in outer.message[wire.LETTERS]]

    def _letter(self, lane: int, child: str, octets: bytes) -> Arrival | RefusedError:
        try:
            envelope, hops = batch.unpacked(octets)
            if hops:
                return self._framed(lane, child, envelope, hops)
            return self._arrival(lane, child, self._outer(child, envelope, wire.MAX_ENVELOPE), envelope, [])
        except wire.WireError as error:
            return RefusedError(child, f"in a batch: {error}")
        except RefusedError as error:
            return error

    def _alone(self, lane: int, child: str, outer: wire.Envelope, payload: bytes) -> Arrival:
        framed = outer.message[wire.KIND] == wire.FRAME
        longest = wire.MAX_FRAME if framed else wire.MAX_ENVELOPE
        if len(payload) > longest:
            raise RefusedError(child, f"the {'frame' if framed else 'envelope'} is longer than {longest} bytes")
        if not framed:
            return self._arrival(lane, child, outer, payload, [])
        if not self.is_station(child):
            raise RefusedError(child, "it is not enrolled as a station and may not speak for others")
        return self._framed(lane, child, outer.message[wire.ENVELOPE], outer.message[wire.HOPS])

    def _place(self, topic: str) -> tuple[str, int]:
        """(child, lane) of a topic."""
        parts = topic.split("/")
        if len(parts) != 4 or parts[3] not in LANES:
            raise RefusedError("?", "the topic is not one of the protocol")
        return parts[2], LANES[parts[3]]

    def _outer(self, child: str, payload: bytes, longest: int) -> wire.Envelope:
        """The child's own envelope, believed."""
        try:
            outer = wire.unseal(payload, longest)
        except wire.WireError as error:
            raise RefusedError(child, str(error)) from error
        if outer.kid != child:
            raise RefusedError(child, f"a message of {outer.kid} came under another name")
        self._believe(outer, child)
        return outer

    def _framed(self, lane: int, child: str, envelope: bytes, hops: list[list[Any]]) -> Arrival:
        """What a station passes on, judged as if its source were here."""
        if not 0 < len(hops) <= MAX_HOPS or hops[-1][0] != child:
            raise RefusedError(child, "a frame's last hop is not the station that sent it")
        if len(envelope) > wire.MAX_ENVELOPE:
            raise RefusedError(child, f"a framed envelope is longer than {wire.MAX_ENVELOPE} bytes")
        try:
            inner = wire.unseal(envelope)
        except wire.WireError as error:
            raise RefusedError(child, f"in a frame: {error}") from error
        about = inner.kid, inner.message.get(wire.BOOT, 0), inner.message.get(wire.SEQ, 0)
        if inner.kid == self.station:
            raise RefusedError(child, "it passed on a message in this station's own name", about)
        try:
            vouched = self.is_vouched(inner.kid, child)
            if not vouched:
                self._believe(inner, f"{inner.kid} through {child}")
            return self._arrival(lane, child, inner, envelope, hops, vouched=vouched)
        except RefusedError as error:
            raise RefusedError(error.who, error.why, about) from error

    def _believe(self, envelope: wire.Envelope, who: str) -> None:
        key = self.key_of(envelope.kid)
        if key is None:
            if self.strict:
                raise RefusedError(who, self.absence(envelope.kid))
        elif not envelope.sealed_with(key):
            raise RefusedError(who, "the MAC is wrong: forged, damaged, or enrolled with another key")

    def _arrival(
        self,
        lane: int,
        child: str,
        envelope: wire.Envelope,
        octets: bytes,
        hops: list[list[Any]],
        *,
        vouched: bool = False,
    ) -> Arrival:
        kind = envelope.message[wire.KIND]
        if kind != lane or (hops and kind == wire.PRESENCE):
            raise RefusedError(child, "the kind of the message is not that of its topic")
        if (
            wire.CHILD_SILENT <= envelope.message.get(wire.CODE, 0) < wire.PATH_CHANGED
            and not vouched
            and not self.is_station(envelope.kid)
        ):
            raise RefusedError(envelope.kid, "only a station may tell such an event")
        return Arrival(kind, child, envelope.kid, envelope.message, bytes(octets), hops, vouched)
