"""The connection to one parent: sends what is outstanding, alarms first and at once; takes receipts.

Events that go for the first time travel several in one message; whatever must be sent again goes alone.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from firmware import wire
from gateway import batch, link
from gateway.clock import Clock
from gateway.marks import Marks
from gateway.passing import Passing
from gateway.relay import BATCH_OCTETS, Identity, Letter, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import paho.mqtt.client as mqtt

    from gateway.client import Client
    from gateway.journal import Journal
    from gateway.settings import Parent, Settings

logger = logging.getLogger(__name__)

EX_SOFTWARE = 70  # of sysexits.h
IDLE_MS = 1_000
LOOK_MS = 10_000  # so often the journal is read for what this process didn't put there, or gave up waiting for
SILENT_MS = 25_000  # a parent answers every heartbeat of the station's own
PAGE = 200  # letters read from the journal at one go
KEEPALIVE_S = 6  # a link that loses three packets in ten answers within this; 4 s ended it every minute or two
WORKS_MS = 10_000  # an answer shows for so long that the way to the parent works: two heartbeats


class Uplink:
    """Relays to one parent until it receipts.

    on_receipts(parent id, [(message, payload), …]) is called for receipts, on_command(parent id, message, payload) for each
    command, on_fault(error) when the journal can't be read.
    """

    def __init__(
        self,
        settings: Settings,
        parent: Parent,
        key: bytes,
        next_identity: Callable[[], tuple[int, int]],
        journal: Journal,
        on_receipts: Callable[[str, Sequence[tuple[dict[int, Any], bytes]]], None],
        on_command: Callable[[str, dict[int, Any], bytes], None],
        on_link: Callable[[str, bool], None],
        on_fault: Callable[[DBAPIError], None],
        clock: Clock | None = None,
        passphrase: str | None = None,
    ) -> None:
        self.parent = parent
        self.connected = False
        self.answered_ms: int | None = None  # monotonic, of the parent's last receipt
        self.beat_ms = 0  # monotonic: when the relaying thread last came round
        self.marks = Marks()  # what the parent's journal held, as it said
        self._station = settings.station
        self._identity = settings.identity
        self._key = key
        self._next_identity = next_identity
        self._journal = journal
        self._clock = clock or Clock()
        self._on_receipts = on_receipts
        self._on_command = on_command
        self._on_link = on_link
        self._on_fault = on_fault
        self._outgoing = Outgoing()
        self._passing = Passing(answers=parent.id == settings.headquarters)
        self._lock = threading.RLock()
        self._bell = threading.Event()  # there may be something to do
        self._stopping = False
        self._looked_ms = 0
        self._passphrase = passphrase
        self._read_up_to = {wire.ALARM: 0, wire.EVENT: 0}  # the last entry of the journal that was taken into memory
        self._again = 0  # how often that began from the beginning
        self._line = link.Line(
            parent.id,
            parent.ways,
            parent.return_s,
            make=self._client,
            up=self._connected,
            down=self._disconnected,
            message=self._message,
        )
        self._thread = threading.Thread(target=self._run, name=f"uplink {parent.id}", daemon=True)

    def start(self) -> None:
        """Takes what the journal still holds for the parent, and connects."""
        self.marks = Marks(self._journal.marks(self.parent.id))
        self.begin()
        self.beat_ms = self._clock.monotonic_ms()
        self._line.start()
        self._thread.start()

    def begin(self) -> None:
        """From now on takes what the journal still holds for the parent."""
        self._outgoing.alarms.more = self._outgoing.events.more = True

    def again(self) -> None:
        """The journal owes the parent something that was delivered to it before."""
        with self._lock:
            self._read_up_to = dict.fromkeys(self._read_up_to, 0)
            self._again += 1
            self.begin()
        self._bell.set()

    def stop(self) -> None:
        """Disconnects; what is outstanding stays in the journal."""
        with self._lock:
            self._stopping = True
        self._bell.set()
        self._line.stop()
        self._thread.join(5)

    def offer(self, letter: Letter) -> bool:
        """Sends a letter now if the link is up, and again until it is receipted.

        False: there is no room for it now. It is read from the journal later; offer it again once it is committed.
        """
        with self._lock:
            taken = self._outgoing.offer(letter)
            if letter.alarm and self.connected:
                self._send(self._outgoing.alarms_due(self._clock.monotonic_ms()))
            else:
                self._bell.set()
        return taken

    @property
    def address(self) -> str:
        """Which of the parent's addresses the connection goes to, or went to last."""
        return self._line.address

    def pass_on(
        self, child: str, message: dict[int, Any], envelope: bytes, hops: list[list[Any]], *, afresh: bool
    ) -> None:
        """Sends a child's heartbeat, if it says something new and the link is up; it is worth nothing later.

        afresh: the child's first after it connected, or was silent; or a station below has passed it on already.
        """
        if not self.connected:
            return
        with self._lock:
            passes = self._passing.passes(child, message, self._clock.monotonic_ms(), afresh=afresh)
        if passes:
            self._publish("heartbeat", self._frame(envelope, hops), 0)

    def works(self, now_ms: int) -> bool:
        """Whether the parent was heard so lately that the way to it can be taken to work. now_ms: monotonic."""
        return self.connected and self.answered_ms is not None and now_ms - self.answered_ms < WORKS_MS

    def heartbeat(self, fields: dict[int, Any]) -> None:
        """Sends the station's own heartbeat."""
        if self.connected:
            boot, seq = self._next_identity()
            mark = self.marks.asked
            asked = {} if mark is None else {wire.MARK: mark}
            message = {wire.KIND: wire.HEARTBEAT, wire.BOOT: boot, wire.SEQ: seq, **asked, **fields}
            self._publish("heartbeat", self._seal(message), 0)

    @property
    def link_beat_ms(self) -> int:
        """When the connection's thread last came round, monotonic."""
        return self._line.beat_ms

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
        while not self._stopping:
            self._bell.clear()
            self.beat_ms = self._clock.monotonic_ms()
            try:
                wait_ms = self.turn(self._clock.monotonic_ms())
            except DBAPIError as error:
                self._on_fault(error)
                wait_ms = 1000
            self._bell.wait(wait_ms / 1000)

    def turn(self, now_ms: int) -> int:
        """Sends what is due at `now_ms`, reads on in the journal; milliseconds until the next turn, if nothing rings."""
        with self._lock:
            if now_ms - self._looked_ms >= LOOK_MS:
                self._looked_ms = now_ms
                self.begin()
            if self.connected:
                self._send(self._outgoing.due(now_ms))
            at_ms = self._outgoing.next_ms(now_ms) if self.connected else None
            wanted = [kind for kind in (wire.ALARM, wire.EVENT) if self._wants(kind)]
        if wanted:
            self._load(wanted[0])
            return 0
        return IDLE_MS if at_ms is None else min(IDLE_MS, max(5, at_ms - now_ms))

    def _wants(self, kind: int) -> bool:
        return self._outgoing.wants_more(alarms=kind == wire.ALARM)

    def _load(self, kind: int) -> None:
        alarms = kind == wire.ALARM
        with self._lock:
            self._outgoing.reading(alarms=alarms)
            after, again = self._read_up_to[kind], self._again
        try:
            letters = self._outstanding(kind, after, PAGE)
        except DBAPIError:
            with self._lock:
                self._outgoing.read((), alarms=alarms, more=True)
            raise
        with self._lock:
            if letters and self._again == again:  # else it is to be read from the beginning
                self._read_up_to[kind] = letters[-1][0]
            self._outgoing.read((letter for _, letter in letters), alarms=alarms, more=len(letters) == PAGE)

    def _outstanding(self, kind: int, after: int, limit: int) -> list[tuple[int, Letter]]:
        return [
            (
                owed.position,
                Letter(
                    Identity(*owed.identity),
                    kind == wire.ALARM,
                    owed.envelope,
                    [*owed.hops, [self._station, owed.received_at_ms]],
                    owed.happened_at_ms,
                ),
            )
            for owed in self._journal.owed(self.parent.id, kind, after, limit)
        ]

    def _send(self, letters: list[Letter]) -> None:
        together = [letter for letter in letters if not letter.alarm and letter.tries == 1]
        several = len(together) > 1
        for letter in letters:
            if letter.alarm or letter.tries > 1 or not several:
                envelope, hops = self._contents(letter)
                payload = self._frame(envelope, hops) if hops else envelope
                self._publish("alarm" if letter.alarm else "event", payload, 1)
        if several:
            entries = (batch.letter(*self._contents(letter)) for letter in together)
            for payload in batch.packed(entries, self._station, self._key, BATCH_OCTETS):
                self._publish("event", payload, 1)

    def _contents(self, letter: Letter) -> tuple[bytes, list[list[Any]]]:
        """(envelope, hops); one of the station's own is sealed for this parent, and has none."""
        if letter.identity.source != self._station:
            return letter.envelope, letter.hops
        message = dict(wire.unseal(letter.envelope).message)
        message[wire.AGE] = max(0, self._clock.utc_ms() - letter.happened_at_ms)
        return self._seal(message), []

    def _seal(self, message: dict[int, Any]) -> bytes:
        return wire.seal(message, self._station, self._key)

    def _frame(self, envelope: bytes, hops: list[list[Any]]) -> bytes:
        return self._seal({wire.KIND: wire.FRAME, wire.ENVELOPE: envelope, wire.HOPS: hops})

    def _publish(self, lane: str, payload: bytes, qos: int) -> None:
        client = self._line.client
        if client is not None:  # else it just fell, and what is outstanding is sent again
            client.publish(f"tocsin/1/{self._station}/{lane}", payload, qos)

    # ------------------------------------------------------------------------------------- the client

    def _client(self) -> Client:
        made = link.client(
            self._station,
            self.parent.id,
            self._identity,
            keepalive_s=KEEPALIVE_S,
            keep_session=False,
            reconnect=False,
            passphrase=self._passphrase,
        )
        boot, seq = self._next_identity()
        presence = {wire.KIND: wire.PRESENCE, wire.BOOT: boot, wire.SEQ: seq}
        made.user_data_set(presence)
        gone = self._seal({**presence, wire.STATE: 0})
        made.will_set(f"tocsin/1/{self._station}/presence", gone, 1, retain=True)
        return made

    def _connected(self, client: mqtt.Client) -> None:
        client.subscribe([(f"tocsin/1/{self._station}/receipt", 1), (f"tocsin/1/{self._station}/command", 1)])
        here = self._seal({**client.user_data_get(), wire.STATE: 1})
        client.publish(f"tocsin/1/{self._station}/presence", here, 1, retain=True)
        with self._lock:
            if self._line.client is not client:  # it fell meanwhile, or another one stands
                return
            self.connected = True
            self._passing.connected()
            self._outgoing.reconnected()
        self._bell.set()
        self._on_link(self.parent.id, True)

    def _disconnected(self) -> None:
        with self._lock:
            was, self.connected = self.connected, self._line.client is not None  # the next one may stand already
        if was and not self.connected:
            self._on_link(self.parent.id, False)

    def _message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        client.ack(message.mid, message.qos)  # a receipt that gets lost is asked for again, a command comes again
        lane, payload = message.topic.rpartition("/")[2], bytes(message.payload)
        try:
            if lane == "command":
                self._on_command(self.parent.id, self._read_command(payload), payload)
                return
            receipts = [(self._read(one), one) for one in self._unpacked(payload)]
        except wire.WireError as error:
            logger.warning("parent %s sent something that is no %s: %s", self.parent.id, lane, error)
            return
        found = [(receipt, one) for receipt, one in receipts if receipt is not None]
        if not found:
            return
        now = self._clock.monotonic_ms()
        silent = self.answered_ms is None or now - self.answered_ms > SILENT_MS
        worked = self.works(now)
        self.answered_ms = now
        with self._lock:
            if not worked:
                self._passing.connected()  # it may have heard of no child what was sent to nobody
            if silent:
                self._outgoing.reconnected()  # it is back: what waits need not wait for its turn
            for receipt, _ in found:
                identity = Identity(receipt[wire.DEVICE], receipt[wire.BOOT], receipt[wire.SEQ])
                self._outgoing.receipted(identity, now)
        self._bell.set()
        self._on_receipts(self.parent.id, found)
        if silent:
            self._on_link(self.parent.id, True)  # what it was told before it was there it may not know

    def _unpacked(self, payload: bytes) -> list[bytes]:
        """The receipts of one message."""
        envelope = wire.unseal(payload, wire.MAX_BATCH)
        if envelope.message[wire.KIND] != wire.BATCH:
            return [payload]
        if envelope.kid != self.parent.id or not envelope.sealed_with(self._key):
            raise wire.WireError("a batch is not sealed by the parent")
        return [batch.unpacked(letter)[0] for letter in envelope.message[wire.LETTERS]]

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
