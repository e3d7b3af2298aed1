"""Keeps one connection to a broker alive, whatever happens: brokers that die, freeze, lie, or come back.

The outbox keeps messages until a receipt; a session keeps nothing. It connects (mutual TLS, clean session), hands
packets to the socket at once, tells what arrives, pings, distrusts a link that is silent, and begins anew for ever.
The decisions about time are in vigil.py, the packets in mqtt.py, the connection itself in link.py.
"""

import asyncio
import errno
import gc
import os
import sys

import firmware
from firmware import mqtt
from firmware.clock import Clock
from firmware.link import Link, answers, context
from firmware.roll import Roll
from firmware.route import Route, is_address
from firmware.vigil import PING_MS, RESOLVE_MS, TRUST_MS, Backoff, Vigil

KEEPALIVE_S = 8
OPEN_MS = 4000  # TCP, TLS, CONNACK and SUBACK together
URGENT_OPEN_MS = 3000  # the same while an alarm is unconfirmed: the next address may be the better one
LOOK_FOR_MS = 2000  # how long the preferred station may take to accept a connection
TICK_MS = 100
_PAUSE_TICK_MS = 50


def _is_answer(number) -> bool:
    """Whether this error of a socket came from the other end: it refused, reset, or spoke TLS that was not to be believed."""
    return isinstance(number, int) and (number < 0 or number in (errno.ECONNREFUSED, errno.ECONNRESET))


async def _resolved(name: str) -> str:
    """An address in digits. What looks it up is needed seldom: its memory is given back. OSError."""
    from firmware import names

    try:
        return await names.resolved(name)
    finally:
        if sys.modules.pop("firmware.names", None):
            del firmware.names  # type: ignore[attr-defined]


class _Ended(Exception):
    """Why a session is over."""


class Session:
    """One at a time, for ever; see `run`."""

    def __init__(
        self,
        client_id,
        brokers,
        identity,
        *,
        will,
        on_message,
        on_up,
        on_down,
        log=None,
        roll=None,
        weigh=None,
        paths=None,
    ) -> None:
        """client_id: also the certificate's common name. brokers: [[address, port, server name], …], the preferred one first
        (route.py). An address in digits is best; a name is looked up while no alarm waits (names.py), and kept.

        identity: the folder with key.der, cert.der and ca.der. paths: a paths.Paths, on a board that has more than one.
        will() -> (topic, payload) of the last will is called anew for every connection, so that each can be told apart.
        on_message(topic, payload), on_up() and on_down(reason) are called from the session's tasks and must be quick.
        An exception in one of them goes to `log` and ends that session, nothing more. log(text): what went wrong.
        roll: a roll.Roll, which the session's tasks sign. weigh() is called where most of the heap is in use.
        """
        self.up = False  # connected and subscribed, and the link is not distrusted
        self.urgent = False  # set while an alarm is unconfirmed: less patience with everything
        self.refused = 0  # sessions ended because of what a broker sent
        self._sessions = 0
        self._route = Route(len(brokers))
        self._addresses = {}  # of names that were looked up
        self._looker: asyncio.Task | None = None
        self._id = client_id
        self._brokers = brokers
        self._identity = identity
        self._will = will
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._log = log
        self._weigh = weigh
        self._paths = paths
        self._clock = Clock()
        self._roll = roll or Roll(self._clock)
        self._inbox = mqtt.Inbox()  # one for all sessions: 2 KB in one piece may be hard to find later
        self._trust = None
        self._certificate = None  # that is shown in the place of the identity's
        self._packet_id = 0
        self._task: asyncio.Task | None = None  # that of `run`, while it runs
        self._closing = False
        self._begin()

    def _begin(self) -> None:
        """The state of one connection."""
        self._link = Link()
        self._serving = False
        self._verdict: str | None = None  # why it is over
        self._answered = False  # something at the other end ended it
        self._planned = False  # we wanted it to end
        self._steered = False  # in order to take another path
        self._vigil: Vigil | None = None  # from CONNACK and SUBACK on
        self._connected = False  # by CONNACK
        self._subscription = 0  # the packet id whose SUBACK we wait for
        self._began_ms = self._clock.advance()
        self._up_ms: int | None = None
        self._rest: memoryview | None = None  # what the socket has not taken yet of the packet under way
        self._flusher: asyncio.Task | None = None
        self._flushed = asyncio.Event()

    @property
    def reconnects(self) -> int:
        """Sessions since start, less one."""
        return max(0, self._sessions - 1)

    # ------------------------------------------------------------------------------------------- for the app

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> bool:
        """Hands one packet to the socket at once. False: not up, or the socket is full; nothing is kept then.

        True promises nothing either: only a receipt says that the message arrived. MqttError: longer than MAX_PACKET.
        """
        if not self.up or self._rest is not None:
            return False
        return self._write(mqtt.publish(topic, payload, qos, retain, self._next_id() if qos else 0), bool(qos))

    def renew(self, reason: str) -> None:
        """Ends the present connection, if there is one; `run` begins the next one."""
        if self._serving:
            self._planned = True
            self._end(reason)

    def now_ms(self) -> int:
        """The time by which `paths` is told."""
        return self._clock.ms()

    def show(self, certificate) -> None:
        """Shows another certificate, in DER, to brokers from now on; None: that of the identity's folder."""
        self._certificate = certificate
        self._trust = None
        self.renew("showing another certificate")

    async def close(self) -> None:
        """Ends the session in order, without the last will, and `run` with it."""
        if self.up and self._rest is None:
            self._write(mqtt.DISCONNECT, False)
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            while self._task is not None:
                await asyncio.sleep_ms(1)

    async def run(self) -> None:
        """Connects, subscribes, serves, and begins anew whatever happens. Ends only by `close` or when cancelled."""
        self._task = asyncio.current_task()
        watch = asyncio.create_task(self._watch())
        backoff = Backoff()
        try:
            while not self._closing:
                self._roll.sign("session", OPEN_MS)
                reason = await self._one(self._brokers[self._route.at])
                up_ms = 0 if self._up_ms is None else self._clock.advance() - self._up_ms
                self._ended(up_ms)
                self._say(reason)
                backoff.ended(up_ms)
                self._up_ms = None
                gc.collect()  # the next handshake needs the space of the last one in few pieces
                await self._pause(backoff)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            watch.cancel()
            self._task = None
            self._roll.leave("session")
            self._roll.leave("vigil")

    def _ended(self, up_ms: int) -> None:
        """Which address and path are next."""
        if self._steered:
            return
        self._route.ended(up_ms)
        if self._paths and not self._planned:
            # Paths and addresses change together. Where there is an even number of addresses, once around they must not.
            hold = not up_ms and not self._route.at and len(self._brokers) % 2 == 0
            self._paths.ended(up_ms, self._answered, hold, self._verdict or "")

    # ---------------------------------------------------------------------------------------- one connection

    async def _one(self, broker) -> str:
        """One connection, from the first octet to the last: why it ended."""
        self._begin()
        self._serving = True
        try:
            await self._serve(broker)
        except asyncio.CancelledError:
            if self._verdict is None:
                self._verdict = "closed"
                raise
        except mqtt.MqttError as problem:
            self.refused += 1
            self._answered = True
            self._verdict = str(problem)
        except _Ended as problem:
            self._verdict = str(problem)
        except Exception as problem:  # noqa: BLE001 - OSError, ValueError (certificates), MemoryError: all end in a new try
            self._answered = not isinstance(problem, OSError) or _is_answer(problem.errno)
            self._verdict = "%s: %s" % (type(problem).__name__, problem)
        finally:
            self._finish()
        return "%s:%s: %s" % (broker[0], broker[1], self._verdict)

    def _finish(self) -> None:
        self.up = False
        for task in (self._flusher, self._looker):
            if task is not None:
                task.cancel()
        self._looker = None
        self._roll.leave("look")
        self._link.close()
        self._serving = False
        if self._up_ms is not None:
            try:
                self._call(self._on_down, self._verdict)
            except _Ended:
                pass  # reported; there is no session left to end

    async def _serve(self, broker) -> None:
        """Connects and reads until an exception says why not any more."""
        if self._trust is None:
            self._trust = context(self._identity, self._certificate)
        link = self._link
        inbox = self._inbox
        inbox.clear()
        source = None
        if self._paths:
            self._paths.choose(self._clock.advance())
            source = self._paths.address()
        await link.open(self._trust, await self._address(broker[0]), broker[1], broker[2], source)
        topic, will = self._will()[:2]
        self._subscription = self._next_id()
        topics = ["tocsin/1/%s/%s" % (self._id, lane) for lane in ("receipt", "command")]
        # Both in one segment: section 3.1.4 lets a client go on without waiting for CONNACK, which saves a round trip.
        hello = mqtt.connect(self._id, KEEPALIVE_S, topic, will) + mqtt.subscribe(self._subscription, topics)
        sent = await link.send_first(hello, self._weigh)
        if sent < len(hello):
            self._keep_rest(hello, sent)
        while True:
            n = link.read_into(inbox.room())
            if n is None:
                await link.readable()
                continue
            self._roll.sign("session", PING_MS + TRUST_MS)
            if not n:
                self._answered = True
                raise _Ended("the broker has closed the connection")
            inbox.took(n)
            packet = inbox.packet()
            while packet is not None:
                if self._vigil is not None:
                    self._vigil.heard(self._clock.advance())  # a packet that never ends is no sign of life
                acknowledgement = self._take(packet)
                while acknowledgement and not self._write(acknowledgement, False):
                    self._check()
                    await self._flushed.wait()
                self._check()
                # A broker that sends without end must not starve the other tasks, and forty receipts in one read no press.
                await asyncio.sleep_ms(0)
                packet = inbox.packet()

    async def _address(self, name: str) -> str:
        """An address in digits. While an alarm waits, the last answer to a name must do."""
        if is_address(name):
            return name
        if name not in self._addresses or not self.urgent:
            try:
                self._addresses[name] = await _resolved(name)
            except OSError as problem:
                if name not in self._addresses:
                    raise OSError("no address for %s: %s" % (name, problem)) from None
        return self._addresses[name]

    async def _look(self, broker) -> None:
        """Whether the preferred station takes connections again; if so, on to it."""
        try:
            source = self._paths.address() if self._paths else None
            is_back = await answers(await self._address(broker[0]), broker[1], LOOK_FOR_MS, source) and not self.urgent
        except OSError:  # its name can't be looked up
            is_back = False
        self._looker = None
        self._roll.leave("look")
        self._route.looked(is_back)
        if is_back:
            self._planned = True
            self._end("the preferred station is back")

    async def _look_at(self, path: int) -> None:
        """Whether any station accepts a connection over a path, the present one first."""
        source = self._paths.paths[path].address
        answering = None
        for n in range(len(self._brokers)):
            at = (self._route.at + n) % len(self._brokers)
            broker = self._brokers[at]
            try:
                if source and await answers(await self._address(broker[0]), broker[1], LOOK_FOR_MS, source):
                    answering = at
                    break
            except OSError:
                pass  # its name can't be looked up
        self._looker = None
        self._roll.leave("look")
        self._paths.looked(path, self._clock.advance(), answering is not None)
        self._steer(answering)

    def _steer(self, address) -> None:
        """Takes the path that should carry; `address`: the one to try there first, if that is known."""
        to = self._paths.change(self._clock.advance())
        if to is None or self._verdict is not None:
            return
        self._paths.changed(to)
        if address is not None:
            self._route.at = address
        self._steered = True
        self._end("changing the path")

    def _check(self) -> None:
        if self._verdict is not None:
            raise _Ended(self._verdict)

    def _take(self, packet):
        """Acts on a packet; the octets of its acknowledgement, if it needs one."""
        kind = packet[0]
        if kind == mqtt.CONNACK:
            if self._connected:
                raise mqtt.MqttError("the broker accepts the connection twice")
            self._connected = True
            return None
        if not self._connected:
            raise mqtt.MqttError("the broker speaks before it has accepted the connection")
        if kind == mqtt.PUBLISH:
            self._call(self._on_message, packet[1], packet[2])
            return mqtt.puback(packet[3]) if packet[3] else None
        if kind == mqtt.SUBACK:
            if packet[1] != self._subscription or self._vigil is not None:
                raise mqtt.MqttError("the broker confirms a subscription that was not asked for")
            self._came_up()
        return None

    def _came_up(self) -> None:
        now_ms = self._up_ms = self._clock.advance()
        self._vigil = Vigil(now_ms)
        if self._rest is not None:
            self._vigil.stuck(now_ms)
        self._sessions += 1
        self.up = True
        if self._paths:
            self._paths.came_up(now_ms)
        self._call(self._on_up)

    # ------------------------------------------------------------------------------------------------ sending

    def _next_id(self) -> int:
        self._packet_id = self._packet_id % 65535 + 1  # never 0 (section 2.3.1)
        return self._packet_id

    def _write(self, octets: bytes, asks: bool) -> bool:
        """One packet in one write. False: another one is still under way, or there is no connection any more."""
        if self._rest is not None or not self._serving:
            return False
        try:
            sent = self._link.write(octets)
        except OSError as problem:
            self._end("sending failed: %s" % problem)
            return False
        if self._vigil is not None:
            self._vigil.said(self._clock.advance(), asks)
        if sent < len(octets):
            self._keep_rest(octets, sent)
        return True

    def _keep_rest(self, octets: bytes, sent: int) -> None:
        self._rest = memoryview(octets)[sent:]
        self._flushed = asyncio.Event()
        if self._vigil is not None:
            self._vigil.stuck(self._clock.advance())
        self._flusher = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        try:
            while self._rest:
                await self._link.writable()
                sent = self._link.write(self._rest)
                self._rest = self._rest[sent:]
        except OSError as problem:
            self._end("sending failed: %s" % problem)
            return
        self._rest = self._flusher = None
        if self._vigil is not None:
            self._vigil.stuck(None)
        self._flushed.set()

    # --------------------------------------------------------------------------------------------------- time

    async def _watch(self) -> None:
        """Beside every connection: its deadline, its pings, and the end of trust."""
        before_ms = self._clock.advance()
        while True:
            self._roll.sign("vigil", TICK_MS)
            await asyncio.sleep_ms(TICK_MS)
            now_ms = self._clock.advance()
            late_ms = now_ms - before_ms - 2 * TICK_MS
            before_ms = now_ms
            try:
                if self._serving:
                    self._judge(now_ms, late_ms)
            except Exception as problem:  # noqa: BLE001 - without this task a dead link would be trusted for ever
                self._end("%s: %s" % (type(problem).__name__, problem))

    def _judge(self, now_ms: int, late_ms: int) -> None:
        if self._verdict is not None:
            self._cancel()  # it should be gone since the last look
        elif self._vigil is None:
            open_ms = URGENT_OPEN_MS if self.urgent else OPEN_MS
            if now_ms - self._began_ms >= open_ms:
                self._end("no connection within %d ms" % open_ms)
        else:
            if late_ms > 0:
                self._vigil.excuse(late_ms)
            reason = self._vigil.verdict(now_ms, self.urgent)
            if reason is not None:
                self._end(reason)
            elif self._vigil.wants_ping(now_ms, self.urgent):
                self._write(mqtt.PINGREQ, True)
            elif self._paths and self._looker is None and self._paths.look(now_ms) is not None:
                self._roll.sign("look", len(self._brokers) * (RESOLVE_MS + LOOK_FOR_MS))
                self._looker = asyncio.create_task(self._look_at(self._paths.look(now_ms)))
            elif self._paths and self._paths.change(now_ms) is not None:
                self._steer(None)
            elif self._looker is None and self._route.wants_look(now_ms - (self._up_ms or now_ms), self.urgent):
                self._roll.sign("look", RESOLVE_MS + LOOK_FOR_MS)
                self._looker = asyncio.create_task(self._look(self._brokers[0]))

    async def _pause(self, backoff) -> None:
        """Before the next try. A press in the meantime ends the pause."""
        urgent = self.urgent
        since_ms = self._clock.advance()
        pause_ms = backoff.pause_ms(urgent, os.urandom(1)[0])
        while self._clock.advance() - since_ms < pause_ms and (urgent or not self.urgent):
            self._roll.sign("session", _PAUSE_TICK_MS)
            await asyncio.sleep_ms(_PAUSE_TICK_MS)

    # ---------------------------------------------------------------------------------------------- endings

    def _end(self, reason: str) -> None:
        """Ends this connection; from any task, also from within a callback."""
        if self._verdict is not None:
            return
        self._verdict = reason
        self.up = False
        self._cancel()

    def _cancel(self) -> None:
        """Gets `_serve` out of its wait; when it is the one that runs, it sees the verdict itself."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _call(self, callback, *args) -> None:
        try:
            callback(*args)
        except Exception as problem:  # noqa: BLE001 - the app's fault must not end the connection for ever
            what = "%s: %s" % (type(problem).__name__, problem)
            self._say("a callback failed: " + what)
            raise _Ended("a callback failed: " + what) from None

    def _say(self, text: str) -> None:
        try:
            if self._log is not None:
                self._log(text)
        except Exception:  # noqa: BLE001, S110 - a log that fails has nowhere to be reported to
            pass
