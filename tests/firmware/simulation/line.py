"""In the place of firmware/link.py: a connection that carries a button's octets to a simulated broker, and back.

What comes from the broker's side may arrive in pieces, and the socket may take only a part of what is written. Whoever
writes anything but whole packets, one after the other, breaks the protocol, which is noticed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmware import mqtt
from tests.simulation.network import Broker, Connection, Way

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.firmware.simulation.machine import FirmwareMachine
    from tests.simulation.engine import Engine, Machine

REFUSED, RESET = 111, 104
MORE_MS = 40  # until a full socket takes something again
LONGEST_TRY_MS = 5_500  # session.OPEN_MS, and three looks at it


class Path(Way):
    """A way between a button and a station. swallowed: connections that nothing comes through any more, though they stand."""

    def __init__(self, engine: Engine, name: str, delay_ms: int) -> None:
        super().__init__(engine, name, delay_ms)
        self.swallowed: set[Connection] = set()

    def carry(self, to: Machine, line: Connection, what: Callable[..., None], *args: Any, lane: str = "") -> None:
        if line not in self.swallowed:
            super().carry(to, line, what, *args, lane=lane)


class Station(Broker):
    """A broker that hands everything to the gateway beside it."""

    gateway: Any

    def greet(self, line: Connection) -> None:
        """The server's side of a TLS handshake."""
        line.way.carry(line.client.machine, line, line.client.greeted)

    def _to_station(self, topic: str, payload: bytes, qos: int) -> None:
        self.gateway.took(self, topic, payload)

    def down(self, topic: str, payload: bytes) -> None:
        """A message of the gateway to its button."""
        self._route(topic, payload, 1, retain=False)


class Link:
    """One connection of a button, with what session.py asks of link.Link; and the client that a Broker knows."""

    def __init__(self, machine: FirmwareMachine) -> None:
        self.machine = machine
        self._loop = machine.loop
        self._may_read, self._may_write = self._loop.Event(), self._loop.Event()
        self._line: Connection | None = None
        self._greeted = self._over = self._full = False
        self._problem = 0
        self._in = bytearray()
        self._out = bytearray()  # of a packet that is not whole yet
        self._suback = b""
        self._id = 0
        self._began_ms = 0
        self._accepted = False

    # -------------------------------------------------------------------------------- for the session

    async def open(self, _trust: object, _address: str, port: int, _name: str, _source: str | None = None) -> None:
        broker, way = self.machine.ends[port]
        engine = self.machine.engine
        self._began_ms = engine.now
        if not broker.running and not way.cut:
            raise OSError(REFUSED, "refused")
        self._line = Connection(self, broker, way)
        await self._loop.sleep_ms(1 + engine.chance.randrange(way.delay_ms))

    async def send_first(self, octets: bytes, _weigh: object = None) -> int:
        line = self._line
        assert line is not None
        line.way.carry(line.broker, line, line.broker.greet)
        while not self._greeted:
            self._may_read.clear()
            await self._may_read.wait()
            self._fail()
        return self.write(octets)

    def write(self, octets: bytes) -> int:
        self._fail()
        if self._full:
            return 0
        machine = self.machine
        machine.burn()
        taken = len(octets)
        if machine.stingy and machine.engine.random() < 0.2:
            taken = machine.engine.chance.randrange(taken)
            self._full = True
            machine.engine.post(machine, MORE_MS, self._more)
        self._out += octets[:taken]
        while self._packet():
            pass
        return taken

    def read_into(self, room: memoryview) -> int | None:
        n = min(len(room), len(self._in))
        if not n:
            self._fail()
            return 0 if self._over else None
        if n > 1 and self.machine.stingy:
            n = 1 + self.machine.engine.chance.randrange(n)
        room[:n] = self._in[:n]
        del self._in[:n]
        return n

    async def readable(self) -> None:
        if self._in or self._over or self._problem:
            return
        self._may_read.clear()
        await self._may_read.wait()

    async def writable(self) -> None:
        self._may_write.clear()
        if self._full and not self._problem:
            await self._may_write.wait()

    def close(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        line.given_up = True
        took_ms = self.machine.engine.now - self._began_ms
        if not self._accepted and took_ms > LONGEST_TRY_MS and self.machine.thawed_ms < self._began_ms:
            self.machine.world.broken("a try ends within its bound", f"{took_ms} ms for one")
        if line.open and not line.way.cut:
            line.way.carry(line.broker, line, line.broker.closed, self.machine.name)

    def _fail(self) -> None:
        if self._problem:
            raise OSError(self._problem, "the connection is gone")

    def _more(self) -> None:
        self._full = False
        self._may_write.set()

    # ----------------------------------------------------------------------- from octets to the broker

    def _packet(self) -> bool:
        """Hands the first whole packet on; False when there is none."""
        out = self._out
        length = shift = 0
        at = 1
        while True:
            if at >= len(out):
                return False
            length |= (out[at] & 127) << shift
            shift += 7
            at += 1
            if out[at - 1] < 128:
                break
        if at + length > len(out):
            return False
        first, body = out[0], bytes(out[at : at + length])
        del out[: at + length]
        self._say(first, body)
        return True

    def _say(self, first: int, body: bytes) -> None:
        line, machine = self._line, self.machine
        assert line is not None
        broker, way = line.broker, line.way
        kind = first >> 4
        if kind == 3 and first in {0x30, 0x31, 0x32, 0x33}:
            topic, rest = _text(body)
            qos = first >> 1 & 3
            number = 0
            if qos:
                number, rest = rest[0] << 8 | rest[1], rest[2:]
            lane = topic.rpartition("/")[2]
            machine.world.published(machine, lane, rest)
            way.carry(broker, line, broker.publish, topic, rest, qos, bool(first & 1), number, lane=lane)
        elif first == 0x10:
            name, rest = _text(body[10:])
            topic, rest = _text(rest)
            self._hello = (name, (topic, rest[2:]), (body[8] << 8 | body[9]) * 1000)
        elif first == 0x82:
            self._suback = b"\x90\x04" + body[:2] + b"\x01\x01"
            way.carry(broker, line, broker.connect, *self._hello)
        elif first == 0xC0 and not body:
            way.carry(broker, line, broker.ping)
        elif (first != 0x40 or len(body) != 2) and first != 0xE0:
            machine.world.broken("what is sent is MQTT", f"a packet that begins with {first:#x}")

    # ----------------------------------------------------------------------------------- for the broker

    def greeted(self, line: Connection) -> None:
        if line is self._line:
            self._greeted = True
            self._may_read.set()

    def accepted(self, line: Connection) -> None:
        self._accepted = True
        self._came(line, b"\x20\x02\0\0" + self._suback)

    def acked(self, line: Connection, number: int) -> None:
        self._came(line, b"\x40\x02" + number.to_bytes(2, "big") if number else b"\xd0\x00")

    def message(self, line: Connection, topic: str, payload: bytes, _qos: int, _number: int) -> None:
        self._id += 1
        self._came(line, mqtt.publish(topic, payload, 1, False, self._id))

    def reset(self, line: Connection) -> None:
        if line is self._line:
            if self.machine.engine.random() < 0.5:
                self._over = True
            else:
                self._problem = RESET
            self._may_read.set()
            self._may_write.set()

    def _came(self, line: Connection, octets: bytes) -> None:
        if line is self._line:
            self._in += octets
            self._may_read.set()


class Dead:
    """In the place of a link once its button has no power."""

    def close(self) -> None:
        pass


def _text(octets: bytes) -> tuple[str, bytes]:
    end = 2 + (octets[0] << 8 | octets[1])
    return octets[2:end].decode(), octets[end:]
