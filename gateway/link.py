"""Connections of a station: paho-mqtt with mutual TLS and the server's id as its name, and one that seeks its address.

A Line keeps one connection to a parent, at the best of its addresses that answers. A better one is taken only when it
stands already.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from gateway.client import Client, show
from gateway.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import paho.mqtt.client as mqtt

logger = logging.getLogger(__name__)

EX_SOFTWARE = 70  # of sysexits.h
UNACKNOWLEDGED_MS = 5_000  # TCP repeats after 0.2, 0.6, 1.4, 3, 6, 13 s: a new connection is sooner there than the last
THIN_LINEAR_TIMEOUTS = 16  # of linux/tcp.h: a lost packet is repeated six times 0.2 s apart before the pauses double
TRY_S = 3.0  # for one address: TCP, TLS and the broker's word together


class _NamedContext(ssl.SSLContext):
    """Checks the server's certificate against its id, at whatever address it answers."""

    server_name: str

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        kwargs["server_hostname"] = self.server_name
        return super().wrap_socket(*args, **kwargs)


def _no_delay(_client: mqtt.Client, _data: object, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or Nagle and a delayed ACK cost 40 ms a message
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        opened.setsockopt(socket.IPPROTO_TCP, THIN_LINEAR_TIMEOUTS, 1)


def context(server: str, identity: Path, passphrase: str | None = None) -> ssl.SSLContext:
    """Mutual TLS with the files of `identity`, to a server whose certificate must be for the id `server`.

    passphrase: of its key, if that is sealed. Raises OSError for files that can't be used.
    """
    made = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    made.server_name = server
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(identity / "ca.pem")
    show(made, identity, passphrase)
    return made


def client(
    own_id: str,
    server: str,
    identity: Path,
    *,
    keepalive_s: int,
    keep_session: bool,
    reconnect: bool = True,
    passphrase: str | None = None,
) -> Client:
    """A client that is not connected yet. keep_session: the broker queues for it while it is away.

    passphrase: of its key, if that is sealed.
    """
    trust = context(server, identity, passphrase)
    made = Client(own_id, trust, keep_session=keep_session, reconnect=reconnect)
    made.max_inflight_messages_set(0)  # the relay has windows of its own
    made.max_queued_messages_set(0)
    made.connect_timeout = 4 if reconnect else TRY_S
    made.on_socket_open = _no_delay
    made.on_connect_fail = made.beat
    made.beat()
    made.keepalive = keepalive_s
    return made


class _Try:
    """One attempt to connect: decided once, by the broker's word or by the clock."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.why = f"no answer within {TRY_S:g} s"
        self.over = threading.Event()
        self.stands = False
        self.given_up = False


class Line:
    """The connection to one parent. addresses: (host, port), the preferred one first.

    make() gives a client whose will is set; up(client) and down() are called when the connection stands and when it is
    gone, message(…) is paho's on_message of the client that stands.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[tuple[str, int]],
        again_s: float,
        *,
        make: Callable[[], Client],
        up: Callable[[mqtt.Client], None],
        down: Callable[[], None],
        message: Callable[[mqtt.Client, object, mqtt.MQTTMessage], None],
    ) -> None:
        self.client: Client | None = None  # the one that stands
        self.address = ""  # where it stands, or stood last
        self._name = name
        self._addresses = addresses
        self._ways = Ways(len(addresses), int(again_s * 1000))
        self._make = make
        self._up = up
        self._down = down
        self._on_message = message
        self._lock = threading.Lock()
        self._lost: queue.SimpleQueue[mqtt.Client | None] = queue.SimpleQueue()
        self._stopping = False
        self._said: dict[int, str] = {}
        self._stepped_ms = _now_ms()
        self._thread = threading.Thread(target=self._run, name=f"line {name}", daemon=True)

    def start(self) -> None:
        """Connects, and stays connected."""
        self._thread.start()

    @property
    def beat_ms(self) -> int:
        """When the thread of the connection that stands, or of the search for one, last came round; monotonic."""
        standing = self.client
        return standing.beat_ms if standing is not None else self._stepped_ms

    def stop(self) -> None:
        """Ends the connection in order."""
        self._stopping = True
        self._lost.put(None)
        self._thread.join(TRY_S + 2)
        with self._lock:
            last, self.client = self.client, None
        if last is not None:
            _end(last)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._step()
        except BaseException:  # without this thread the link would stay down unseen
            logger.critical("seeking %s failed: stopping, to start afresh", self._name, exc_info=True)
            os._exit(EX_SOFTWARE)

    def _step(self) -> None:
        self._stepped_ms = _now_ms()
        way = self._ways.choose(_now_ms())
        if way is not None:
            self._attempt(way)
        wait_ms = self._ways.wait_ms(_now_ms())
        try:
            gone = self._lost.get(timeout=None if wait_ms is None else wait_ms / 1000)
        except queue.Empty:
            return
        if gone is not None:
            gone.loop_stop()
            if self.client is None and self._ways.on is not None:
                self._ways.lost(_now_ms())

    def _attempt(self, way: int) -> None:
        host, port = self._addresses[way]
        trying = _Try()
        threading.Thread(target=self._open, args=(trying, host, port), name=f"try {host}", daemon=True).start()
        trying.over.wait(TRY_S)
        with self._lock:
            stands = trying.stands
            trying.given_up = not stands
            before = self.client if stands else None
            if stands:
                self.client, self.address = trying.client, f"{host}:{port}"
        if not stands:
            if self._said.get(way) != trying.why:
                logger.warning("parent %s at %s:%d: %s", self._name, host, port, trying.why)
            self._said[way] = trying.why
            self._ways.failed(way, _now_ms())
            if trying.client is not None:
                trying.client.disconnect()
            return
        self._said.clear()
        self._ways.stands(way, _now_ms())
        logger.info("parent %s is connected at %s:%d", self._name, host, port)
        assert trying.client is not None
        self._up(trying.client)
        if before is not None:
            _end(before)
        if not trying.client.is_connected():  # it fell before it counted
            self._gone(trying.client)

    def _open(self, trying: _Try, host: str, port: int) -> None:
        """Connects a new client, on a thread of its own: it may hang for longer than anybody waits."""
        try:
            made = self._make()
            made.on_connect = lambda _client, _data, _flags, reason, _properties: self._answered(trying, reason)
            made.on_disconnect = lambda gone, *_: self._gone(gone)
            made.on_message = self._on_message
            trying.client = made
            made.connect(host, port, made.keepalive)
        except (OSError, ValueError) as error:
            trying.why = f"it can't be reached: {error}"
            trying.over.set()
            return
        made.loop_start()
        if trying.given_up:
            _end(made)

    def _answered(self, trying: _Try, reason: Any) -> None:
        with self._lock:
            trying.stands = not reason.is_failure and not trying.given_up
        if reason.is_failure:
            trying.why = f"it refuses the connection: {reason}"
        trying.over.set()

    def _gone(self, gone: mqtt.Client) -> None:
        with self._lock:
            was = self.client is gone
            if was:
                self.client = None
        if was:
            self._down()
            self._lost.put(gone)


def _end(old: mqtt.Client) -> None:
    old.disconnect()
    old.loop_stop()


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
