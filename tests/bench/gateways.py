"""Many gateways with many buttons behind them, in one thread: what goes up is decided by the real `passing` and `standing`.

Each gateway has its own certificate, TLS connection and last will; each button its own key and clock. Buttons beat every
5 s. `verbatim` is the design that one would build first: every heartbeat of every button goes up.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

from firmware import health, loop, mqtt, wire
from gateway.clock import monotonic_ms, utc_ms
from gateway.desk import Link
from gateway.passing import Passing
from gateway.settings import VERSION
from gateway.standing import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.world import World
    from tests.bench.fleet import Member

BEAT_MS = 5_000
AGO_MS = 200_000  # for so long the gateways seem to have run already
TURN_MS = 45_000  # about the pause between two heartbeats of a button that go up: their turns are spread over it
STEP_S = 0.02
CONNECTING = 40  # at once
KEEPALIVE_S = 60  # headquarters may be slow to let a thousand of them in
OVERHEAD = 52  # octets of IPv4 and TCP with timestamps in each segment
_TCP_INFO = struct.Struct("@120xQQII")


def beat(boot: int, seq: int, uptime_ms: int) -> dict[int, Any]:
    """A healthy button's heartbeat."""
    return health.heartbeat(
        (boot, seq), _AT_REST, uptime_ms=uptime_ms, battery_mv=5_000, mains=True, heap=90_000, heap_least=80_000, reset=1,
        firmware=VERSION, pending=0, shown=[], delay_ms=20, reconnects=0, refused=0, storage_failed=False, rssi=-60,
    )  # fmt: skip


_AT_REST = loop.Loops()


class Gateway(asyncio.Protocol):
    """One gateway's connection to headquarters, and its buttons."""

    def __init__(self, name: str, key: bytes, members: Sequence[Member], boot: int, *, verbatim: bool) -> None:
        self.name = name
        self.members = {member.id: member for member in members}
        self.ready = asyncio.Event()
        self.sent = 0  # messages up
        self.came = 0  # and down
        self._key = key
        self._boot = boot
        self._verbatim = verbatim
        self._passing = Passing()
        self._asked: dict[int, Any] = {}  # what headquarters said last that its journal holds
        self._seq = 0
        self._inbox = mqtt.Inbox()
        self._transport: asyncio.Transport | None = None
        self._began_ms = monotonic_ms() - AGO_MS
        self._beats = dict.fromkeys(self.members, 0)
        self._answered: dict[str, int] = {}  # seq of the newest heartbeat of each that headquarters answered

    # ----------------------------------------------------------------------------------------- the link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        gone = self._seal({wire.KIND: wire.PRESENCE, **self._number(), wire.STATE: 0})
        transport.write(mqtt.connect(self.name, KEEPALIVE_S, f"tocsin/1/{self.name}/presence", gone))
        transport.write(mqtt.subscribe(1, [f"tocsin/1/{self.name}/receipt", f"tocsin/1/{self.name}/command"]))

    def data_received(self, data: bytes) -> None:
        """Takes receipts, acknowledging each."""
        assert self._transport is not None
        while data:
            room = self._inbox.room()
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            self._inbox.took(taken)
            data = data[taken:]
            while packet := self._inbox.packet():
                if packet[0] == mqtt.PUBLISH:
                    self._transport.write(mqtt.puback(packet[3]))
                    self._take(packet[2])
                elif packet[0] == mqtt.SUBACK:
                    self.ready.set()

    def _take(self, payload: bytes) -> None:
        self.came += 1
        receipt = wire.unseal(payload).message
        if wire.MARK in receipt:
            self._asked = {wire.MARK: receipt[wire.MARK]}
        if receipt[wire.DEVICE] in self.members:
            self._answered[receipt[wire.DEVICE]] = receipt[wire.SEQ]

    def wire_octets(self) -> int:
        """Octets of its connection so far, both ways, IP headers included."""
        assert self._transport is not None
        opened = self._transport.get_extra_info("socket")
        told = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        acked, received, segments_out, segments_in = _TCP_INFO.unpack(told)
        return int(acked + received + OVERHEAD * (segments_out + segments_in))

    def close(self) -> None:
        """Ends it."""
        if self._transport is not None:
            self._transport.abort()

    # ---------------------------------------------------------------------------------------- what goes up

    def remember(self, now_ms: int, phase_ms: dict[str, int]) -> None:
        """As if it had run for AGO_MS, with every heartbeat that it passed on answered."""
        for name, member in self.members.items():
            for at_ms in range(now_ms - AGO_MS + phase_ms[name] % TURN_MS, now_ms, BEAT_MS):
                message = self._beat(member, at_ms)
                if self._passing.passes(name, message, at_ms, afresh=False):
                    self._answered[name] = message[wire.SEQ]

    def beat(self, member: Member, now_ms: int, *, first: bool = False) -> None:
        """A heartbeat of a button came."""
        message = self._beat(member, now_ms)
        if not (first or self._verbatim or self._passing.passes(member.id, message, now_ms, afresh=False)):
            return
        envelope = wire.seal(message, member.id, member.key)
        self._publish("heartbeat", {wire.KIND: wire.FRAME, wire.ENVELOPE: envelope, wire.HOPS: [[self.name, utc_ms()]]})

    def _beat(self, member: Member, now_ms: int) -> dict[int, Any]:
        self._beats[member.id] += 1
        message = beat(self._boot, self._beats[member.id], now_ms - self._began_ms)
        if member.id in self._answered:
            message[wire.ANSWERED] = self._answered[member.id]
        return message

    def heartbeat(self, now_ms: int) -> None:
        """Its own heartbeat, with the digest; and at first that it is here."""
        if not self.sent:
            presence = self._seal({wire.KIND: wire.PRESENCE, **self._number(), wire.STATE: 1})
            self._write(mqtt.publish(f"tocsin/1/{self.name}/presence", presence, 0, True, 0))
        states = dict.fromkeys(self.members, Link.ONLINE)
        fields = {
            **self._asked,
            wire.UPTIME: now_ms - self._began_ms,
            wire.UTC: utc_ms(),
            wire.CHILDREN: len(states),
            wire.ONLINE: len(states),
            wire.DIGEST: digest(states, 0),
            wire.REFUSED: 0,
            wire.DISK: 20_000,
            wire.FIRMWARE: VERSION,
            wire.STORAGE: 0,
        }
        self._publish("heartbeat", {wire.KIND: wire.HEARTBEAT, **self._number(), **fields})

    def _number(self) -> dict[int, Any]:
        self._seq += 1
        return {wire.BOOT: self._boot, wire.SEQ: self._seq}

    def _seal(self, message: dict[int, Any]) -> bytes:
        return wire.seal(message, self.name, self._key)

    def _publish(self, lane: str, message: dict[int, Any]) -> None:
        self.sent += 1
        self._write(mqtt.publish(f"tocsin/1/{self.name}/{lane}", self._seal(message), 0, False, 0))

    def _write(self, packet: bytes) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            raise RuntimeError(f"headquarters' broker ended the connection of {self.name}")
        self._transport.write(packet)


class Gateways:
    """All of them, in their start number `boot`. Belongs to one event loop."""

    def __init__(self, world: World, members: Sequence[Member], boot: int, *, verbatim: bool) -> None:
        self._world = world
        self.buttons = len(members)
        by_gateway: dict[str, list[Member]] = {}
        for member in members:
            by_gateway.setdefault(member.gateway, []).append(member)
        self._all = [
            Gateway(name, world.key_of(name), mine, boot, verbatim=verbatim)
            for name, mine in sorted(by_gateway.items())
        ]
        self._random = random.Random(1)

    async def connect(self) -> None:
        """Connects all, tells headquarters once of each button, and begins to beat."""
        turn = asyncio.Semaphore(CONNECTING)
        await asyncio.gather(*(self._connect(gateway, turn) for gateway in self._all))
        due: list[tuple[int, int, Gateway, Member | None]] = []
        now = monotonic_ms()
        for gateway in self._all:
            phase_ms = {name: self._random.randrange(TURN_MS) for name in gateway.members}
            gateway.remember(now, phase_ms)
            gateway.heartbeat(monotonic_ms())
            for name, member in gateway.members.items():
                gateway.beat(member, monotonic_ms(), first=True)
                due.append((now + phase_ms[name] % BEAT_MS, len(due), gateway, member))
            due.append((now + self._random.randrange(BEAT_MS), len(due), gateway, None))
            await asyncio.sleep(0)
        heapq.heapify(due)
        self._due = due

    async def _connect(self, gateway: Gateway, turn: asyncio.Semaphore) -> None:
        async with turn:
            folder = self._world.folder / "fleet" / gateway.name
            self._world.identities[gateway.name].write_pem(folder)
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            loop_ = asyncio.get_running_loop()
            await loop_.create_connection(
                lambda: gateway, "127.0.0.1", self._world.hq_port, ssl=context, server_hostname="hq"
            )
            await asyncio.wait_for(gateway.ready.wait(), 30)

    async def run(self, seconds: float) -> float:
        """Lets them beat for so long. The most that one of them was late, in seconds."""
        end, late_ms = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            now = monotonic_ms()
            while self._due and self._due[0][0] <= now:
                at_ms, number, gateway, member = heapq.heappop(self._due)
                late_ms = max(late_ms, now - at_ms)
                if member is None:
                    gateway.heartbeat(now)
                else:
                    gateway.beat(member, now)
                heapq.heappush(self._due, (at_ms + BEAT_MS, number, gateway, member))
            await asyncio.sleep(STEP_S)
        return late_ms / 1000

    def counts(self) -> tuple[int, int, int]:
        """(octets on the wire, messages up, messages down) so far."""
        return (
            sum(gateway.wire_octets() for gateway in self._all),
            sum(gateway.sent for gateway in self._all),
            sum(gateway.came for gateway in self._all),
        )

    def close(self) -> None:
        """Ends every connection."""
        for gateway in self._all:
            gateway.close()
