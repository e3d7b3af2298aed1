"""Brokers, the ways to them, and the connections of buttons and stations: what an MQTT network can do to a message.

A way that is cut holds what is under way, as TCP does: it arrives after healing, if the connection still stands at both
ends. A rough way is worse than TCP: messages get lost, come twice, or seconds late. Presence alone never gets lost on a
connection that stands: it is sent once for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firmware.vigil import Backoff, Vigil
from tests.simulation.engine import Engine, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.button import ButtonMachine

UP = {"alarm", "event", "heartbeat", "presence"}
OPEN_MS = 4_000
PAUSES_MS = (1_000, 2_000, 3_000)
BUTTON_KEEPALIVE_MS = 8_000
WATCH_MS = 500


class Way:
    """Between one client's machine and one broker."""

    def __init__(self, engine: Engine, name: str, delay_ms: int) -> None:
        self.engine = engine
        self.name = name
        self.near = delay_ms < 5
        self.cut = False
        self.delay_ms = delay_ms
        self.rough = 0.0  # of all messages, how many are lost; and as many come twice, and as many late
        self.held: list[tuple[Machine, int, Connection, Callable[..., None], tuple[Any, ...], str]] = []

    def carry(self, to: Machine, line: Connection, what: Callable[..., None], *args: Any, lane: str = "") -> None:
        """Brings something to the other end."""
        if self.cut:
            self.held.append((to, to.life, line, what, args, lane))
            return
        engine = self.engine
        at = engine.now + 1 + int(engine.random() * self.delay_ms)
        if self.rough and lane:
            roll = engine.random() / self.rough
            if roll < 1:
                if lane != "presence":
                    return
            elif roll < 2:
                engine.post(to, engine.chance.randrange(8_000), what, line, *args)
            elif roll < 3:
                engine.post(to, engine.chance.randrange(3_000), what, line, *args)
                return
        downward = to is not line.broker
        at = max(at, line.last_ms[downward])
        line.last_ms[downward] = at
        engine.post(to, at - engine.now, what, line, *args)

    def heal(self) -> None:
        """The way is whole and smooth again."""
        self.cut, self.rough = False, 0.0
        held, self.held = self.held, []
        for to, life, line, what, args, lane in held:
            if to.life == life:
                self.carry(to, line, what, *args, lane=lane)


class Connection:
    """One connection. open: the broker thinks that it stands."""

    __slots__ = ("broker", "client", "given_up", "heard_ms", "last_ms", "open", "way", "will")

    def __init__(self, client: Any, broker: Broker, way: Way) -> None:
        self.client, self.broker, self.way = client, broker, way
        self.open = self.given_up = False
        self.will: tuple[str, bytes] | None = None
        self.heard_ms = 0
        self.last_ms = [0, 0]


class Broker(Machine):
    """A mosquitto without persistence. Its station's session outlives a connection, a child's does not."""

    def __init__(self, engine: Engine, station: str) -> None:
        super().__init__(engine, f"@{station}")
        self._station = station
        self.lines: dict[str, Connection] = {}
        self.retained: dict[str, bytes] = {}
        self.queue: dict[int, tuple[str, bytes]] | None = None  # of the station's session, without PUBACK
        self._mid = 0

    def start(self) -> None:
        super().start()
        self.lines, self.retained, self.queue = {}, {}, None

    def crash(self) -> None:
        super().crash()
        for line in self.lines.values():
            line.open = False
            line.way.carry(line.client.machine, line, line.client.reset)
        self.lines = {}

    def connect(self, line: Connection, name: str, will: tuple[str, bytes] | None, keepalive_ms: int) -> None:
        if line.given_up:
            return
        old = self.lines.get(name)
        if old is not None:
            self.closed(old, name)
        self.lines[name] = line
        line.open, line.will, line.heard_ms = True, will, self.engine.now
        line.way.carry(line.client.machine, line, line.client.accepted)
        self.engine.post(self, keepalive_ms * 3 // 2, self._watch, line, name, keepalive_ms * 3 // 2)
        if name == self._station:
            if self.queue is None:
                self.queue = {}
            for mid, (topic, payload) in self.queue.items():
                line.way.carry(line.client.machine, line, line.client.message, topic, payload, 1, mid)
            for topic, payload in self.retained.items():
                self._to_station(topic, payload, 1)

    def _watch(self, line: Connection, name: str, patience_ms: int) -> None:
        if not line.open:
            return
        silent_ms = self.engine.now - line.heard_ms
        if silent_ms >= patience_ms:
            self.closed(line, name)
        else:
            self.engine.post(self, patience_ms - silent_ms, self._watch, line, name, patience_ms)

    def closed(self, line: Connection, name: str) -> None:
        """A connection ended without a word: its will is done."""
        if not line.open:
            return
        line.open = False
        if self.lines.get(name) is line:
            del self.lines[name]
        if line.will is not None:
            self._route(*line.will, 1, retain=True)

    def publish(self, line: Connection, topic: str, payload: bytes, qos: int, retain: bool, mid: int) -> None:
        if not line.open:
            return
        line.heard_ms = self.engine.now
        if qos:
            self._answer(line, mid)
        self._route(topic, payload, qos, retain=retain)

    def ping(self, line: Connection) -> None:
        if line.open:
            line.heard_ms = self.engine.now
            self._answer(line, 0)

    @staticmethod
    def _answer(line: Connection, mid: int) -> None:
        """PUBACK or PINGRESP; without a detour through the queue where nothing is in its way."""
        client = line.client
        if line.way.cut or client.machine.frozen:
            line.way.carry(client.machine, line, client.acked, mid)
        else:
            client.acked(line, mid)

    def puback(self, line: Connection, mid: int) -> None:
        if line.open and self.queue is not None:
            self.queue.pop(mid, None)

    def _route(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> None:
        if retain:
            self.retained[topic] = payload
        _, _, child, lane = topic.split("/")
        if lane in UP:
            self._to_station(topic, payload, qos)
            return
        line = self.lines.get(child)
        if line is not None:
            line.way.carry(line.client.machine, line, line.client.message, topic, payload, qos, 0, lane=lane)

    def _to_station(self, topic: str, payload: bytes, qos: int) -> None:
        if self.queue is None:
            return
        self._mid += 1
        if qos:
            self.queue[self._mid] = (topic, payload)
        line = self.lines.get(self._station)
        if line is not None:
            line.way.carry(
                line.client.machine, line, line.client.message, topic, payload, qos, self._mid, lane=topic[10:]
            )


class Message:
    """As paho-mqtt hands it over."""

    __slots__ = ("mid", "payload", "qos", "topic")

    def __init__(self, topic: str, payload: bytes, qos: int, mid: int) -> None:
        self.topic, self.payload, self.qos, self.mid = topic, payload, qos, mid


class _Reason:
    is_failure = False


class Client:
    """A station's connection to a broker, with those methods of paho-mqtt's client that stations use."""

    def __init__(self, machine: Machine, broker: Broker, way: Way, name: str, keepalive_ms: int) -> None:
        self.machine = machine
        self.on_connect: Callable[..., None] = lambda *_: None
        self.on_disconnect: Callable[..., None] = lambda *_: None
        self.on_message: Callable[..., None] = lambda *_: None
        self._broker, self._way, self._name, self._keepalive_ms = broker, way, name, keepalive_ms
        self._line: Connection | None = None  # it stands
        self._opening: Connection | None = None
        self._unacked: dict[int, tuple[str, bytes, bool]] = {}
        self._will: tuple[str, bytes] | None = None
        self._user_data: object = None
        self._mid = self._tries = self._heard_ms = self._said_ms = 0
        self.anew: Callable[[], None] = lambda: None  # before each try

    # ------------------------------------------------------------------------------ paho-mqtt's own

    def connect_async(self, *_: Any, **__: Any) -> None:
        self._open()

    def loop_start(self) -> None:
        pass

    def will_set(self, topic: str, payload: bytes, *_: Any, **__: Any) -> None:
        self._will = (topic, payload)

    def user_data_set(self, presence: object) -> None:
        self._user_data = presence

    def user_data_get(self) -> object:
        return self._user_data

    def subscribe(self, _topics: Any) -> None:
        pass

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> None:
        self.machine.burn()
        self._said_ms = self.machine.engine.now
        if qos:
            self._mid += 1
            self._unacked[self._mid] = (topic, payload, retain)
        if self._line is not None:
            self._send(self._line, topic, payload, qos, retain, self._mid)

    def ack(self, mid: int, qos: int) -> None:
        if qos and self._line is not None:
            self.machine.burn()
            if self._broker.frozen:
                self._way.carry(self._broker, self._line, self._broker.puback, mid)
            else:
                self._broker.puback(self._line, mid)

    # ------------------------------------------------------------------------------- the connection

    def _send(self, line: Connection, topic: str, payload: bytes, qos: int, retain: bool, mid: int) -> None:
        broker, way = self._broker, self._way
        if way.near and not way.rough and not broker.frozen and line.last_ms[0] <= self.machine.engine.now:
            broker.publish(line, topic, payload, qos, retain, mid)  # on the same machine: no time passes
            return
        way.carry(broker, line, broker.publish, topic, payload, qos, retain, mid, lane=topic.rpartition("/")[2])

    def _open(self) -> None:
        engine = self.machine.engine
        self.anew()
        if not self._broker.running and not self._way.cut:
            self._again()
            return
        line = self._opening = Connection(self, self._broker, self._way)
        if not self._way.cut:
            self._way.carry(self._broker, line, self._broker.connect, self._name, self._will, self._keepalive_ms)
        engine.post(self.machine, OPEN_MS, self._too_late, line)

    def _too_late(self, line: Connection) -> None:
        if self._opening is line:
            self._opening = None
            line.given_up = True
            self._close(line)
            self._again()

    def _again(self) -> None:
        pause_ms = PAUSES_MS[min(self._tries, 2)]
        self._tries += 1
        self.machine.engine.post(self.machine, pause_ms, self._open)

    def accepted(self, line: Connection) -> None:
        if self._opening is not line:
            return
        self._opening, self._line, self._tries = None, line, 0
        self._heard_ms = self.machine.engine.now
        again = list(self._unacked.items())
        self.on_connect(self, None, None, _Reason, None)
        for mid, (topic, payload, retain) in again:
            self._send(line, topic, payload, 1, retain, mid)
        self.machine.engine.post(self.machine, self._keepalive_ms // 2, self._watch, line)

    def _watch(self, line: Connection) -> None:
        if self._line is not line:
            return
        silent_ms = self.machine.engine.now - self._heard_ms
        if silent_ms >= 2 * self._keepalive_ms:
            self._close(line)
            self._ended()
            return
        if max(silent_ms, self.machine.engine.now - self._said_ms) >= self._keepalive_ms // 2:
            self._said_ms = self.machine.engine.now
            self._way.carry(self._broker, line, self._broker.ping)
        self.machine.engine.post(self.machine, self._keepalive_ms // 2, self._watch, line)

    def reset(self, line: Connection) -> None:
        if self._line is line:
            self._ended()
        elif self._opening is line:
            self._opening = None
            self._again()

    def _ended(self) -> None:
        self._line = None
        self.on_disconnect(self, None, None, None, None)
        self._again()

    def _close(self, line: Connection) -> None:
        if not self._way.cut:
            self._way.carry(self._broker, line, self._broker.closed, self._name)

    def die(self) -> None:
        """The process is killed: the machine under it closes the connection."""
        for line in (self._line, self._opening):
            if line is not None:
                line.given_up = True
                self._close(line)
        self._line = self._opening = None

    def acked(self, line: Connection, mid: int) -> None:
        if self._line is line:
            self._heard_ms = self.machine.engine.now
            self._unacked.pop(mid, None)

    def message(self, line: Connection, topic: str, payload: bytes, qos: int, mid: int) -> None:
        if self._line is line:
            self._heard_ms = self.machine.engine.now
            self.on_message(self, None, Message(topic, payload, qos, mid))


class Line:
    """In the place of link.Line: one client that connects again by itself, each time with a new will."""

    def __init__(
        self, _name: str, _ways: object, _again_s: float, *, make: Any, up: Any, down: Any, message: Any
    ) -> None:
        self.client: Client | None = None
        self.address = ""
        self._make, self._up, self._down, self._message = make, up, down, message

    def start(self) -> None:
        """Connects."""
        client: Client = self._make()
        client.machine.lines.append(client)
        client.on_connect = lambda *_: self._stands(client)
        client.on_disconnect = lambda *_: self._fell()
        client.on_message = self._message

        def anew() -> None:
            made = self._make()
            client.will_set(*made._will)
            client.user_data_set(made.user_data_get())

        client.anew = anew
        client.connect_async()

    def _stands(self, client: Client) -> None:
        self.client = client
        self._up(client)

    def _fell(self) -> None:
        self.client = None
        self._down()


class Session:
    """A button's connection: what firmware/session.py offers to the button, with its vigil and its pauses."""

    def __init__(self, machine: ButtonMachine, ends: list[tuple[Broker, Way]]) -> None:
        """ends: the brokers that are tried in turn."""
        self.machine = machine
        self._ends = ends
        self._turn = 0
        self.up = self.urgent = False
        self.reconnects = self.refused = 0
        self.up_ms = 0
        self._broker, self._way = ends[0]
        self._line: Connection | None = None
        self._vigil = Vigil(0)
        self._backoff = Backoff()
        self._looked_ms = 0

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> bool:
        if not self.up:
            return False
        self.machine.burn()
        assert self._line is not None
        lane = topic.rpartition("/")[2]
        self.machine.world.published(self.machine, lane, payload)
        self._way.carry(self._broker, self._line, self._broker.publish, topic, payload, qos, retain, 0, lane=lane)
        self._vigil.said(self.machine.ms(), bool(qos))
        return True

    def open(self) -> None:
        self._broker, self._way = self._ends[self._turn % len(self._ends)]
        will = self.machine.button.will()[:2]
        line = self._line = Connection(self, self._broker, self._way)
        if not self._broker.running and not self._way.cut:
            self._end(line)
            return
        if not self._way.cut:
            self._way.carry(self._broker, line, self._broker.connect, self.machine.name, will, BUTTON_KEEPALIVE_MS)
        self.machine.engine.post(self.machine, OPEN_MS, self._too_late, line)

    def _too_late(self, line: Connection) -> None:
        if self._line is line and not self.up:
            self._end(line)

    def accepted(self, line: Connection) -> None:
        if self._line is not line or self.up:
            return
        self.up = True
        self.up_ms = self._looked_ms = self.machine.engine.now
        self._vigil = Vigil(self.machine.ms())
        self.machine.button.connected()
        self.machine.engine.post(self.machine, WATCH_MS, self._watch, line)

    def _watch(self, line: Connection) -> None:
        if self._line is not line:
            return
        now, late_ms = self.machine.ms(), self.machine.engine.now - self._looked_ms - 2 * WATCH_MS
        self._looked_ms = self.machine.engine.now
        if late_ms > 0:
            self._vigil.excuse(late_ms)
        if self._vigil.verdict(now, self.urgent) is not None:
            self._end(line)
            return
        if self._vigil.wants_ping(now, self.urgent):
            self._vigil.said(now, True)
            self._way.carry(self._broker, line, self._broker.ping)
        self.machine.engine.post(self.machine, WATCH_MS, self._watch, line)

    def reset(self, line: Connection) -> None:
        if self._line is line:
            self._end(line)

    def _end(self, line: Connection) -> None:
        line.given_up = True
        if line.open and not self._way.cut:
            self._way.carry(self._broker, line, self._broker.closed, self.machine.name)
        self._line = None
        self._turn += 1
        was, self.up = self.up, False
        self._backoff.ended(self.machine.engine.now - self.up_ms if was else 0)
        if was:
            self.reconnects += 1
            self.machine.button.disconnected("it is over")
        pause_ms = self._backoff.pause_ms(self.urgent, self.machine.engine.chance.randrange(256))
        self.machine.engine.post(self.machine, pause_ms, self.open)

    def acked(self, line: Connection, _mid: int) -> None:
        if self._line is line:
            self._vigil.heard(self.machine.ms())

    def message(self, line: Connection, topic: str, payload: bytes, _qos: int, _mid: int) -> None:
        if self._line is line:
            self._vigil.heard(self.machine.ms())
            self.machine.button.received(topic, payload)
            self.machine.world.looked(self.machine)
