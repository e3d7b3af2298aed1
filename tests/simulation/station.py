"""A station: the real exchange, judge, supervision, relay and uplinks over a simulated journal, clock and network."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway import link
from gateway import uplink as uplink_module
from gateway.desk import Link
from gateway.exchange import Exchange
from gateway.marks import Marks
from gateway.refusals import Refusals
from gateway.standing import digest, standing
from gateway.uplink import Uplink
from tests.simulation.engine import Engine, Machine
from tests.simulation.network import Broker, Client, Line, Message, Way
from tests.simulation.records import Journal, Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.world import World

BEAT_MS = 5_000
STOOD_STILL_MS = 3_000
NEVER_MS = 1 << 60
EPOCH_MS = 1_700_000_000_000


class Registry:
    """Who is enrolled at a station, with which key; voucher: the station that it believes for everybody else."""

    def __init__(self, keys: dict[str, bytes], stations: set[str], voucher: str = "") -> None:
        self._keys, self._stations = keys, stations
        self.key_of = self.receipt_key_of = keys.get
        self.is_vouched = lambda source, child: child == voucher and source not in keys
        self.is_station = stations.__contains__

    def absence(self, _child: str) -> str:
        return "it is not enrolled here"

    def children(self) -> dict[str, bytes]:
        """Whoever has a key."""
        return self._keys

    def is_retired(self, _child: str) -> bool:
        return False

    def is_pending(self, _child: str) -> bool:
        return False

    def working(self) -> dict[str, bool]:
        """Children with a key: whether each is a station."""
        return {child: child in self._stations for child in self._keys}


class Notices:
    """Nobody looks at pages here."""

    def tell(self, *_: str) -> None:
        pass


class NoThreads:
    """In the place of threading, whose locks and threads cost time and are of no use here."""

    RLock = contextlib.nullcontext
    Event = Thread = staticmethod(lambda **_: None)


class Bell:
    """In the place of the uplink's threading.Event: lets its next turn come."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.set = ring


class Above:
    """One parent: its broker, the way to it, and the key shared with it."""

    def __init__(self, name: str, broker: Broker, way: Way, key: bytes) -> None:
        self.name, self.broker, self.way, self.key = name, broker, way, key


class Station(Machine):
    """A station's process. What is in `records` survives it."""

    def __init__(
        self, engine: Engine, world: World, name: str, role: str, broker: Broker, registry: Registry, above: list[Above]
    ) -> None:
        super().__init__(engine, name)
        self.world = world
        self.broker = broker
        self.registry = registry
        self.above = above
        self.records = Records()
        self.tick_ms = 2_000
        self.slow_ms = 15  # how long a commit takes, at most
        self.skew_ms = 0  # of its UTC
        self.disk_fails = False  # and nothing can be committed
        self.unwritten = 0  # a boot number that could not be; here none is given again within the same second
        self.reported: set[str] = set()  # silent children that this life told of
        self.settings = SimpleNamespace(
            station=name,
            role=role,
            identity=None,
            headquarters=above[0].name if above and role == "site" else None,
            supervision=SimpleNamespace(deadline_s=14.0, signed_s=75.0),
        )
        self.home = Way(engine, f"{name} at home", 2)  # to its own broker
        self._refused = False
        self.exchange: Exchange
        self.journal: Journal
        self.uplinks: list[Uplink] = []
        self._clients: list[Client] = []

    # ------------------------------------------------------------------------------------------ clock

    def utc_ms(self) -> int:
        return EPOCH_MS + self.engine.now + self.skew_ms

    def monotonic_ms(self) -> int:
        return self.engine.now

    def commit_ms(self) -> int:
        """How long the commit takes that begins now."""
        return 1 + int(self.engine.chance.random() * self.slow_ms)

    # ------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        super().start()
        try:
            self._begin()
        except BaseException:
            self.running = False
            raise

    def _begin(self) -> None:
        settings: Any = self.settings
        self._clients = self.lines = []
        self._turns: dict[str, int] = {}  # by parent: when its uplink's next turn is
        self.reported = set()
        self._started_ms = self._ticked_ms = self.engine.now
        self._beats = 0
        self._broker_up = self._broker_seen = False
        self.journal = Journal(self, self.records, [above.name for above in self.above])
        self.journal.on_trouble = lambda _why: self._tell_parents()
        self.journal.on_recovered = self._recovered
        registry: Any = self.registry
        self._refusals = Refusals()
        journal: Any = self.journal
        exchange = self.exchange = Exchange(
            settings,
            journal,
            registry,
            self._refusals,
            Notices(),
            self.journal.next_boot(),
            self,  # type: ignore[arg-type]
        )
        exchange.send_down = self._send_down
        exchange.marking.beat = self._beat_to
        exchange.commands.remember = lambda: None  # type: ignore[method-assign]  # nobody gives commands here
        refuse = exchange.refuse

        def refused(who: str, why: str, sample: bytes | str, count: int = 1) -> None:
            self._refused = True
            self.engine.tell(self.name, f"refuses {who}: {why}")
            refuse(who, why, sample, count)

        exchange.refuse = refused  # type: ignore[method-assign]
        self.uplinks = [self._uplink(above) for above in self.above]
        exchange.uplinks = exchange.marking.uplinks = self.uplinks
        exchange.remember()
        for child, station in self.registry.working().items():
            exchange.supervision.expect(child, station=station, now_ms=self.engine.now)
        exchange.event(wire.STATION_STARTED, self.name)
        for uplink in self.uplinks:
            uplink.marks = Marks(self.journal.marks(uplink.parent.id))
            uplink.begin()
            uplink._line.start()
            self._turn_in(uplink, 0)
        client = Client(self, self.broker, self.home, self.name, 10_000)
        client.on_connect, client.on_disconnect, client.on_message = self._connected, self._disconnected, self._message
        self._clients.append(client)
        self._client = client
        client.connect_async()
        self.engine.post(self, self.tick_ms, self._tick)
        self.engine.post(self, BEAT_MS, self._beat)

    def _uplink(self, above: Above) -> Uplink:
        real, link.Line = link.Line, Line  # type: ignore[assignment]
        threads, uplink_module.threading = uplink_module.threading, NoThreads  # type: ignore[assignment]
        try:
            parent: Any = SimpleNamespace(id=above.name, ways=[], return_s=60)
            uplink = Uplink(
                self.settings,  # type: ignore[arg-type]
                parent,
                above.key,
                self.exchange.next_identity,
                self.journal,  # type: ignore[arg-type]
                self.exchange.receipted,
                self.exchange.commanded,
                self._parent_link,
                self._unreadable,
                self,  # type: ignore[arg-type]
            )
        finally:
            link.Line, uplink_module.threading = real, threads

        def client() -> Any:
            held, link.client = link.client, lambda *_, **__: Client(self, above.broker, above.way, self.name, 4_000)
            try:
                return make()
            finally:
                link.client = held

        make, uplink._line._make = uplink._line._make, client
        uplink._bell = Bell(lambda: self._turn_in(uplink, 0))  # type: ignore[assignment]
        self._turns[above.name] = NEVER_MS
        return uplink

    def _turn_in(self, uplink: Uplink, wait_ms: int) -> None:
        at = self.engine.now + wait_ms
        if at < self._turns[uplink.parent.id]:
            self._turns[uplink.parent.id] = at
            self.engine.post(self, wait_ms, self._turn, uplink, at)

    def _turn(self, uplink: Uplink, at: int) -> None:
        """What the uplink's own thread does."""
        if at != self._turns[uplink.parent.id]:
            return
        self._turns[uplink.parent.id] = NEVER_MS
        wait_ms = uplink.turn(self.engine.now)
        alarms, events = uplink.outstanding()
        self.world.few(self, alarms, events)
        if not wait_ms or (uplink.connected and (alarms or events)):
            self._turn_in(uplink, wait_ms)

    def crash(self) -> None:
        super().crash()
        for client in self._clients:
            client.die()

    # -------------------------------------------------------------------------------- as station.py does

    def _tick(self) -> None:
        now, supervision = self.engine.now, self.exchange.supervision
        self.engine.post(self, self.tick_ms, self._tick)
        stood_still_ms, self._ticked_ms = now - self._ticked_ms, now
        if stood_still_ms > STOOD_STILL_MS:
            supervision.excuse(stood_still_ms, now)
        self.exchange.relieve()
        back = supervision.returns(now)
        if back:
            self.exchange.returned(back)
        found = supervision.due(now, broker_up=self._broker_up)
        if found:
            self.exchange.silent(found)

    def _beat(self) -> None:
        self.engine.post(self, BEAT_MS, self._beat)
        self._tell_parents()
        if self.journal.trouble is None:
            self.exchange.save()

    def _tell_parents(self) -> None:
        if self.uplinks:
            fields = self._health()
            for uplink in self.uplinks:
                uplink.heartbeat(fields)

    def _health(self) -> dict[int, Any]:
        exchange, now = self.exchange, self.engine.now
        states = {}
        for name, watched in exchange.supervision.children.items():
            report = exchange.reports.get(name)
            states[name], _ = standing(exchange.supervision, watched, report.message if report else None, now)
        self._beats += 1
        return {
            wire.UPTIME: now - self._started_ms,
            wire.UTC: self.utc_ms(),
            wire.CHILDREN: len(states),
            wire.ONLINE: sum(link is Link.ONLINE for link in states.values()),
            wire.DIGEST: digest(states, self._beats),
            wire.REFUSED: self._refusals.total,
            wire.STORAGE: int(self.journal.trouble is not None),
        }

    def _recovered(self, why: str, _lasted_s: float) -> None:
        self._tell_parents()
        self.exchange.event(wire.STORAGE_RESTORED, self.name, why)

    def _unreadable(self, error: Exception) -> None:
        self.world.broken("no code fails", f"{self.name}: {error}")

    def _parent_link(self, parent: str, up: bool) -> None:
        self.engine.tell(self.name, f"{'is connected to' if up else 'has lost'} {parent}")
        if up:
            self._beat_to(parent)

    def _beat_to(self, parent: str) -> None:
        for uplink in self.uplinks:
            if uplink.parent.id == parent:
                uplink.heartbeat(self._health())

    def _send_down(self, topic: str, payload: bytes) -> None:
        self.world.sent_down(self, topic, payload)
        if self._broker_up:
            self._client.publish(topic, payload, 1)

    def _connected(self, *_: Any) -> None:
        self._broker_up = True
        if self._broker_seen:
            self.exchange.event(wire.BROKER_BACK, self.name)
        self._broker_seen = True

    def _disconnected(self, *_: Any) -> None:
        self._broker_up = False
        self.exchange.event(wire.BROKER_LOST, self.name)

    def _message(self, client: Client, _data: object, message: Message) -> None:
        done_with = False

        def done() -> None:
            nonlocal done_with
            if not done_with and message.qos:
                self.world.acknowledged(self, message, self._refused)
            done_with = True
            client.ack(message.mid, message.qos)

        self._refused = False
        self.exchange.arrived(message.topic, message.payload, done)
