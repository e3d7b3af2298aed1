"""What a station says itself: events of its own to its parents, what it turned away, and receipts down to its children."""

from __future__ import annotations

import itertools
import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway import batch, logs
from gateway.clock import Clock
from gateway.journal import Journal
from gateway.relay import Identity, Letter
from gateway.rows import Entry, Kept, own_entry
from gateway.vocabulary import CAUSES, CODES, MANY_COUNT, MANY_NAMED, MANY_WHY, REFUSAL_COUNT, REFUSAL_WHY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.notice import NoticeBoard
    from gateway.refusals import Refusals
    from gateway.registry import Registry
    from gateway.settings import Settings
    from gateway.supervision import Return, Silence
    from gateway.uplink import Uplink

NAMED_ROOM = 640  # bytes of the ids in one event
MOST_WAITING = (
    20_000  # writes, while the journal can't be written; what comes from children is bounded by their brokers
)


def said(message: dict[int, Any]) -> str | None:
    """What an alarm or an event says, in a word."""
    return CAUSES.get(message[wire.CAUSE]) if wire.CAUSE in message else CODES.get(message.get(wire.CODE, 0))


class Voice:
    """The station's own words. Safe from any thread. uplinks: to the parents; send_down(topic, payload): to the own broker."""

    uplinks: Sequence[Uplink]
    send_down: Callable[[str, bytes], None]

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        registry: Registry,
        refusals: Refusals,
        notices: NoticeBoard,
        boot: int,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.counters: dict[str, int] = defaultdict(int)
        self._journal = journal
        self._registry = registry
        self._refusals = refusals
        self._notices = notices
        self._boot = boot
        self._seq = itertools.count(1)
        self._own_key = secrets.token_bytes(32)  # own entries are sealed anew for each parent
        self._routes: dict[str, str] = {}  # through which child each source is reached
        self._dirty: set[str] = set()  # children of whom there is something new to write down

    def next_identity(self) -> tuple[int, int]:
        """(boot, seq) for a message of the station's own."""
        return self._boot, next(self._seq)

    def offer(self, entry: Entry) -> bool:
        """Hands an entry to every parent. False: one had no room; offer an entry again that was not committed yet."""
        taken = [
            uplink.offer(
                Letter(
                    Identity(*entry.identity),
                    entry.kind == wire.ALARM,
                    entry.envelope,
                    [*entry.hops, [self.settings.station, entry.received_at_ms]],
                    entry.happened_at_ms,
                )
            )
            for uplink in self.uplinks
        ]
        for uplink in self.uplinks:
            logs.hop("offered", entry.identity, alarm=entry.kind == wire.ALARM, parent=uplink.parent.id)
        return all(taken)

    # ------------------------------------------------------------------------------------- own events

    def event(self, code: int, subject: str = "", detail: object = None) -> None:
        """Journals an event of the station's own and relays it."""
        if self._journal.backlog > MOST_WAITING and self._journal.trouble:
            self.counters["own events not kept"] += 1
            return
        entry = self.own(code, subject, detail)

        def committed(kept: Kept) -> None:
            logs.hop("committed", entry.identity, says=said(entry.message), about=subject, number=kept.id)
            self.offer(entry)
            self._notices.tell("happenings", "children")

        self._journal.put(entry, committed)

    def own(self, code: int, subject: str, detail: object) -> Entry:
        """An event of the station's own, to be journaled and offered."""
        now = self.clock.utc_ms()
        return own_entry(self.settings.station, self.next_identity(), code, subject, detail, now, self._own_key)

    def changed(self) -> None:
        """Tells open pages that the registry is another."""
        self._notices.tell("happenings", "children")

    def refuse(self, who: str, why: str, sample: bytes | str, count: int = 1) -> None:
        """Counts something that was turned away, and makes an event of it now and then."""
        total = self._refusals.note(who, why, self.clock.utc_ms(), sample, count, at_ms=self.clock.monotonic_ms())
        logs.hop("refused", None, who=who, why=why, count=count)
        self._notices.tell("health")
        if total is not None:
            self.event(wire.REFUSAL, who[:64], {REFUSAL_WHY: why[:200], REFUSAL_COUNT: total})

    def silent(self, found: Sequence[Silence]) -> None:
        """Makes events of silent children."""
        for silence in found:
            lost = (silence.child, *silence.others)
            self._dirty.update((*lost, *silence.behind))
            why = f"{silence.why}, silent for {silence.silent_ms / 1000:.0f} s"
            if silence.others:
                self.event(wire.MANY_SILENT, self.settings.station, _many((*lost, *silence.behind), why))
                continue
            told = _many(silence.behind, f"{why}; behind it") if silence.behind else why
            self.event(wire.CHILD_SILENT, silence.child, told)

    def returned(self, found: Sequence[Return]) -> None:
        """Makes events of children that are heard again."""
        for one in found:
            if one.others:
                self.event(wire.MANY_BACK, self.settings.station, _many((one.child, *one.others), ""))
            else:
                self.event(wire.CHILD_BACK, one.child)

    # --------------------------------------------------------------------------------------- receipts

    def receipt(
        self, identity: tuple[str, int, int], stage: int, via: str | None = None, more: dict[int, Any] | None = None
    ) -> None:
        """Tells a child how far its message came. Only with a committed message, or a heartbeat.

        via: the child whose connection brought the message, if it is an answer; else the way its source takes now.
        """
        child = via or self._route(identity[0])
        self.send_down(f"tocsin/1/{child}/receipt", self._sealed_receipt(identity, stage, child, more))

    def _receipts(self, station: str, receipts: list[tuple[tuple[str, int, int], int]]) -> None:
        """Answers a batch of a station's with one: each receipt in it is what it would be alone."""
        entries = (batch.letter(self._sealed_receipt(identity, stage, station)) for identity, stage in receipts)
        key = self._registry.key_of(station)
        if key is None:  # it was retired meanwhile, or this is a site, whose stations below share no key with it
            for identity, stage in receipts:
                self.receipt(identity, stage, station)
            return
        for payload in batch.packed(entries, self.settings.station, key):
            self.send_down(f"tocsin/1/{station}/receipt", payload)

    def _sealed_receipt(
        self, identity: tuple[str, int, int], stage: int, via: str, more: dict[int, Any] | None = None
    ) -> bytes:
        """For the source; where it shares no key with this station, for the one that vouches for it, else bare."""
        source, boot, seq = identity
        message = {wire.KIND: wire.RECEIPT, wire.BOOT: boot, wire.SEQ: seq, wire.STAGE: stage, wire.DEVICE: source}
        message |= more or {}
        key = self._registry.receipt_key_of(source)
        if key is None and self._registry.is_vouched(source, via):
            key = self._registry.key_of(via)
        return wire.encode(message) if key is None else wire.seal(message, self.settings.station, key)

    def _dismiss(self, topic: str, about: tuple[str, int, int] | None) -> None:
        """Tells a station below that what it framed will never be believed, so that it stops sending it."""
        station = topic.split("/")[2] if topic.count("/") > 1 else ""
        key = self._registry.key_of(station)
        if about is None or key is None:
            return
        source, boot, seq = about
        message = {wire.KIND: wire.RECEIPT, wire.BOOT: boot, wire.SEQ: seq, wire.STAGE: 0, wire.DEVICE: source}
        self.send_down(f"tocsin/1/{station}/receipt", wire.seal(message, self.settings.station, key))

    def _route(self, child: str) -> str:
        return self._routes.get(child, child)


def _many(children: Sequence[str], why: str) -> dict[int, Any]:
    """The detail of an event about several children: as many as fit by name, and how many there are."""
    named, room = [], NAMED_ROOM
    for child in children[: wire.MAX_ITEMS]:
        room -= len(child) + 2
        if room >= 0:
            named.append(child)
    return {MANY_WHY: why[:200], MANY_NAMED: named, MANY_COUNT: len(children)}
