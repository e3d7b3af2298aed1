"""The floors: what one durable commit and the bare brokers cost here, without a button and without a station."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Self

from demo.process import wait_until
from tests.bench.bare import bare_client
from tests.bench.peer import PROBE

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

    from tests.bench.peer import Peer

OCTETS = 300
PAUSE_S = 0.005


class Floors:
    """Commits rows, and publishes over one broker and over two of the peer's."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._database = sqlite3.connect(peer.folder / "floor.db", isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE rows (octets BLOB)"):
            self._database.execute(statement)
        identity = peer.folder / "probe"
        self._listener = bare_client("listener", "localhost", identity, keep_session=False)
        self._listener.manual_ack_set(False)
        self._listener.on_connect = lambda client, *_: client.subscribe(PROBE, 1) and None
        self._listener.on_message = self._heard
        self._near = bare_client("near", "localhost", identity, keep_session=False)
        self._far = bare_client("far", "peer-site", identity, keep_session=False)
        self._came = threading.Event()
        self._payload = b""
        self._came_ns = 0

    def _heard(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.payload == self._payload:
            self._came_ns = time.perf_counter_ns()
            self._came.set()

    def __enter__(self) -> Self:
        """Connects."""
        ports = ((self._listener, self._peer.hq_port), (self._near, self._peer.hq_port))
        for client, port in (*ports, (self._far, self._peer.site_port)):
            client.connect("127.0.0.1", port, 30)
            client.loop_start()
        for client in (self._near, self._far):
            wait_until(client.is_connected, 10, "a probe's connection")
        wait_until(lambda: self._arrives(self._far), 20, "a probe through the bridge")
        return self

    def _arrives(self, client: mqtt.Client) -> bool:
        try:
            self._round(client, 0, timeout_s=1)
        except TimeoutError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        """Disconnects."""
        for client in (self._listener, self._near, self._far):
            client.disconnect()
            client.loop_stop()
        self._database.close()

    def commit(self, _number: int) -> float:
        """One row, on the disk when it returns: ms."""
        began = time.perf_counter_ns()
        self._database.execute("INSERT INTO rows (octets) VALUES (?)", (bytes(OCTETS),))
        return (time.perf_counter_ns() - began) / 1e6

    def one_broker(self, number: int) -> float:
        """Publish to subscriber over one broker: ms."""
        return self._round(self._near, number)

    def two_brokers(self, number: int) -> float:
        """Publish to subscriber over two brokers and the bridge between them: ms."""
        return self._round(self._far, number)

    def _round(self, client: mqtt.Client, number: int, timeout_s: float = 10) -> float:
        self._came.clear()
        self._payload = f"{number} {time.time_ns()} ".encode().ljust(OCTETS, b".")
        began = time.perf_counter_ns()
        client.publish(PROBE, self._payload, 1)
        if not self._came.wait(timeout_s):
            message = "a probe did not arrive"
            raise TimeoutError(message)
        return (self._came_ns - began) / 1e6
