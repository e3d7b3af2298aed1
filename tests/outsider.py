"""A foreign MQTT client: ours to point at a broker with any certificate, any topic, any bytes."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from demo.process import wait_until
from firmware import wire
from gateway.link import _NamedContext

if TYPE_CHECKING:
    from provisioning.pki import Identity
    from demo.world import World


class Outsider:
    """Connects as `name` with its identity (or another, or none) to the broker of `server`."""

    def __init__(self, world: World, name: str, port: int, server: str, identity: Identity | None = None) -> None:
        self.name = name
        self.received: list[bytes] = []
        self.up = threading.Event()
        self.down = threading.Event()
        folder = Path(world.folder) / f"outsider-{name}-{id(self)}"
        (identity or world.identities[name]).write_pem(folder)
        context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = server
        context.load_verify_locations(cadata=world.authority.pem.decode())
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._port = port
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="anything", reconnect_on_failure=False)
        self._client.tls_set_context(context)
        self._client.on_connect = self._connected
        self._client.on_disconnect = lambda *_: self.down.set()
        self._client.on_message = lambda _client, _data, message: self.received.append(bytes(message.payload))

    def _connected(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if not reason.is_failure:
            client.subscribe(f"tocsin/1/{self.name}/receipt", 1)
            self.up.set()

    def connect(self) -> Outsider:
        self._client.connect("127.0.0.1", self._port, 30)
        self._client.loop_start()
        assert self.up.wait(10), "not connected"
        return self

    def is_let_in(self) -> bool:
        """Whether the broker takes this client."""
        try:
            self._client.connect("127.0.0.1", self._port, 30)
        except (ssl.SSLError, OSError):
            return False
        self._client.loop_start()
        wait_until(lambda: self.up.is_set() or self.down.is_set(), 10, "the broker's answer")
        let_in = self.up.is_set()
        self.close()
        return let_in

    def publish(self, lane: str, payload: bytes, child: str | None = None) -> None:
        self._client.publish(f"tocsin/1/{child or self.name}/{lane}", payload, 1).wait_for_publish(10)

    def publish_and_forget(self, lane: str, payload: bytes) -> None:
        """For what the broker will not acknowledge."""
        self._client.publish(f"tocsin/1/{self.name}/{lane}", payload, 1)

    def receipts(self, stage: int) -> set[tuple[int, int]]:
        """(boot, seq) of sealed receipts of `stage`."""
        found = set()
        for payload in list(self.received):
            try:
                message = wire.unseal(payload).message
            except wire.WireError:
                continue
            if message[wire.STAGE] == stage:
                found.add((message[wire.BOOT], message[wire.SEQ]))
        return found

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def knock_without_certificate(world: World, port: int, server: str) -> bool:
    """Whether a client that shows no certificate can talk MQTT."""
    context = ssl.create_default_context(cadata=world.authority.pem.decode())
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as raw,
            context.wrap_socket(raw, server_hostname=server) as secure,
        ):
            secure.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")
            return secure.recv(4)[:1] == b"\x20"
    except OSError:
        return False
