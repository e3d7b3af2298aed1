"""The connection to one parent: sends what is outstanding, alarms first and at once; takes receipts."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from firmware import wire
from gateway import link, schema
from gateway.passing import Passing
from gateway.relay import IN_MEMORY, Identity, Letter, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    import paho.mqtt.client as mqtt
    from sqlalchemy import Connection, Engine

    from gateway.settings import Parent, Settings

logger = logging.getLogger(__name__)

EX_SOFTWARE = 70  # of sysexits.h
SILENT_MS = 25_000  # a parent answers every heartbeat of the station's own
KEEPALIVE_S = 6  # a link that loses three packets in ten answers within this; 4 s ended it every minute or two
WORKS_MS = 10_000  # an answer shows for so long that the way to the parent works: two heartbeats


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Uplink:
    """Relays to one parent until it receipts.

    on_receipt(parent id, message, payload) is called for each receipt, on_command(message, payload) for each command.
    """

    def __init__(
        self,
        settings: Settings,
        parent: Parent,
        key: bytes,
        next_identity: Callable[[], tuple[int, int]],
        readers: Engine,
        on_receipt: Callable[[str, dict[int, Any], bytes], None],
        on_command: Callable[[dict[int, Any], bytes], None],
        on_link: Callable[[str, bool], None],
    ) -> None:
        self.parent = parent
        self.connected = False
        self.answered_ms: int | None = None  # monotonic, of the parent's last receipt
        self._station = settings.station
        self._key = key
        self._next_identity = next_identity
        self._readers = readers
        self._on_receipt = on_receipt
        self._on_command = on_command
        self._on_link = on_link
        self._outgoing = Outgoing()
        self._passing = Passing()
        self._lock = threading.Condition()
        self._stopping = False
        self._loaded = 0  # the last event of the journal that was taken into memory
        self._client = link.client(
            settings.station, parent.id, settings.identity, keepalive_s=KEEPALIVE_S, keep_session=False
        )
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._message
        self._thread = threading.Thread(target=self._run, name=f"uplink {parent.id}", daemon=True)

    def start(self) -> None:
        """Takes what the journal still holds for the parent, and connects."""
        with self._readers.connect() as connection:
            for _, letter in self._outstanding(connection, wire.ALARM, 0, 1_000_000):
                self._outgoing.offer(letter)
        self._outgoing.more = True
        self._set_will()
        self._client.connect_async(self.parent.address, self.parent.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()
        self._thread.start()

    def stop(self) -> None:
        """Disconnects; what is outstanding stays in the journal."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        self._client.disconnect()
        self._client.loop_stop()
        self._thread.join(5)

    def offer(self, letter: Letter) -> None:
        """Sends a letter now if the link is up, and again until it is receipted."""
        with self._lock:
            self._outgoing.offer(letter)
            if letter.alarm and self.connected:
                self._send(self._outgoing.due(_now_ms()))
            else:
                self._lock.notify()

    def pass_on(
        self, child: str, message: dict[int, Any], envelope: bytes, hops: list[list[Any]], *, afresh: bool
    ) -> None:
        """Sends a child's heartbeat, if it says something new and the link is up; it is worth nothing later.

        afresh: the child's first after it connected, or was silent.
        """
        if not self.connected:
            return
        with self._lock:
            passes = self._passing.passes(child, message, _now_ms(), afresh=afresh)
        if passes:
            self._publish("heartbeat", self._frame(envelope, hops), 0)

    def works(self, now_ms: int) -> bool:
        """Whether the parent was heard so lately that the way to it can be taken to work. now_ms: monotonic."""
        return self.connected and self.answered_ms is not None and now_ms - self.answered_ms < WORKS_MS

    def heartbeat(self, fields: dict[int, Any]) -> None:
        """Sends the station's own heartbeat."""
        if self.connected:
            boot, seq = self._next_identity()
            self._publish(
                "heartbeat", self._seal({wire.KIND: wire.HEARTBEAT, wire.BOOT: boot, wire.SEQ: seq, **fields}), 0
            )

    def outstanding(self) -> tuple[int, int]:
        """(alarms, events) in memory that the parent has not receipted."""
        with self._lock:
            return len(self._outgoing.alarms), len(self._outgoing.events)

    # ---------------------------------------------------------------------------------------- sending

    def _run(self) -> None:
        try:
            self._relay()
        except BaseException:  # without this thread events would wait unseen
            logger.critical("relaying to %s failed: stopping, to start afresh", self.parent.id, exc_info=True)
            os._exit(EX_SOFTWARE)

    def _relay(self) -> None:
        while True:
            with self._lock:
                if self._stopping:
                    return
                now = _now_ms()
                if self.connected:
                    self._send(self._outgoing.due(now))
                at = self._outgoing.next_ms(now) if self.connected else None
                wants = self._outgoing.wants_more()
                if not wants:
                    self._lock.wait(1 if at is None else min(1, max(0.005, (at - now) / 1000)))
                    continue
            self._load()

    def _load(self) -> None:
        with self._lock:
            self._outgoing.more = False  # before reading: what is committed from now on is offered
        with self._readers.connect() as connection:
            letters = self._outstanding(connection, wire.EVENT, self._loaded, IN_MEMORY // 2)
        with self._lock:
            for number, letter in letters:
                self._loaded = number
                self._outgoing.events[letter.identity] = letter
            self._outgoing.more |= len(letters) == IN_MEMORY // 2

    def _outstanding(self, connection: Connection, kind: int, after: int, limit: int) -> list[tuple[int, Letter]]:
        deliveries, journal = schema.deliveries.c, schema.journal.c
        rows = connection.execute(
            select(
                journal.id,
                journal.source,
                journal.boot,
                journal.seq,
                journal.envelope,
                journal.hops,
                journal.received_at_ms,
                journal.happened_at_ms,
            )
            .join(schema.deliveries, deliveries.entry == journal.id)
            .where(
                deliveries.parent == self.parent.id,
                deliveries.kind == kind,
                deliveries.stage.is_(None),
                deliveries.entry > after,
            )
            .order_by(journal.id)
            .limit(limit)
        ).all()
        return [
            (
                row.id,
                Letter(
                    Identity(row.source, row.boot, row.seq),
                    kind == wire.ALARM,
                    row.envelope,
                    [*wire.decode(row.hops), [self._station, row.received_at_ms]],
                    row.happened_at_ms,
                ),
            )
            for row in rows
        ]

    def _send(self, letters: list[Letter]) -> None:
        for letter in letters:
            if letter.identity.source == self._station:
                message = dict(wire.unseal(letter.envelope).message)
                message[wire.AGE] = max(0, time.time_ns() // 1_000_000 - letter.happened_at_ms)
                payload = self._seal(message)
            else:
                payload = self._frame(letter.envelope, letter.hops)
            self._publish("alarm" if letter.alarm else "event", payload, 1)

    def _seal(self, message: dict[int, Any]) -> bytes:
        return wire.seal(message, self._station, self._key)

    def _frame(self, envelope: bytes, hops: list[list[Any]]) -> bytes:
        return self._seal({wire.KIND: wire.FRAME, wire.ENVELOPE: envelope, wire.HOPS: hops})

    def _publish(self, lane: str, payload: bytes, qos: int) -> None:
        self._client.publish(f"tocsin/1/{self._station}/{lane}", payload, qos)

    # ------------------------------------------------------------------------------------- the client

    def _set_will(self) -> None:
        boot, seq = self._next_identity()
        self._presence = {wire.KIND: wire.PRESENCE, wire.BOOT: boot, wire.SEQ: seq}
        gone = self._seal({**self._presence, wire.STATE: 0})
        self._client.will_set(f"tocsin/1/{self._station}/presence", gone, 1, retain=True)

    def _connected(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            logger.warning("parent %s refuses the connection: %s", self.parent.id, reason)
            return
        client.subscribe([(f"tocsin/1/{self._station}/receipt", 1), (f"tocsin/1/{self._station}/command", 1)])
        here = self._seal({**self._presence, wire.STATE: 1})
        client.publish(f"tocsin/1/{self._station}/presence", here, 1, retain=True)
        with self._lock:
            self.connected = True
            self._passing.connected()
            self._outgoing.reconnected()
            self._lock.notify()
        self._on_link(self.parent.id, True)

    def _disconnected(self, *_: object) -> None:
        with self._lock:
            was, self.connected = self.connected, False
        if not self._stopping:
            self._set_will()
        if was:
            self._on_link(self.parent.id, False)

    def _message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        client.ack(message.mid, message.qos)  # a receipt that gets lost is asked for again, a command comes again
        lane = message.topic.rpartition("/")[2]
        try:
            if lane == "command":
                self._on_command(self._read_command(bytes(message.payload)), bytes(message.payload))
                return
            receipt = self._read(bytes(message.payload))
        except wire.WireError as error:
            logger.warning("parent %s sent something that is no %s: %s", self.parent.id, lane, error)
            return
        if receipt is None:
            return
        now = _now_ms()
        silent = self.answered_ms is None or now - self.answered_ms > SILENT_MS
        worked = self.works(now)
        self.answered_ms = now
        with self._lock:
            if not worked:
                self._passing.connected()  # it may have heard of no child what was sent to nobody
            if silent:
                self._outgoing.reconnected()  # it is back: what waits need not wait for its turn
            self._passing.answered(receipt[wire.DEVICE], (receipt[wire.BOOT], receipt[wire.SEQ]))
            self._outgoing.receipted(Identity(receipt[wire.DEVICE], receipt[wire.BOOT], receipt[wire.SEQ]))
            self._lock.notify()
        self._on_receipt(self.parent.id, receipt, bytes(message.payload))

    def _read_command(self, payload: bytes) -> dict[int, Any]:
        """A command for a child below. Its MAC is between the parent and that child: only the child can judge it."""
        envelope = wire.unseal(payload)
        command = envelope.message
        if len(payload) > wire.MAX_ENVELOPE or command[wire.KIND] != wire.COMMAND or envelope.kid != self.parent.id:
            raise wire.WireError("a command is not from the parent")
        if command[wire.DEVICE] == self._station:
            raise wire.WireError("a command is for this station, which takes none")
        return command

    def _read(self, payload: bytes) -> dict[int, Any] | None:
        envelope = wire.unseal(payload)
        receipt = envelope.message
        if receipt[wire.KIND] != wire.RECEIPT:
            return None
        mine = receipt[wire.DEVICE] == self._station or receipt[wire.STAGE] == 0
        if envelope.kid != self.parent.id or (mine and not envelope.sealed_with(self._key)):
            message = "a receipt is not sealed by the parent"
            raise wire.WireError(message)
        if not mine and receipt[wire.STAGE] < wire.AT_HQ:
            return None
        return receipt
