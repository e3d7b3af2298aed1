"""A paho-mqtt client set up the way every connection of a station is: mutual TLS, and the server's id as its name."""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

if TYPE_CHECKING:
    from pathlib import Path


class _NamedContext(ssl.SSLContext):
    """Checks the server's certificate against its id, at whatever address it answers."""

    server_name: str

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        kwargs["server_hostname"] = self.server_name
        return super().wrap_socket(*args, **kwargs)


class Client(mqtt.Client):
    """A client that tells when its thread last came round, monotonic milliseconds."""

    beat_ms = 0

    def beat(self, *_: object) -> None:
        """Its thread runs."""
        self.beat_ms = time.monotonic_ns() // 1_000_000

    def loop_misc(self) -> MQTTErrorCode:
        """What paho's thread does once a second while it is connected, and a beat."""
        self.beat()
        return super().loop_misc()


def _no_delay(_client: mqtt.Client, _data: object, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or Nagle and a delayed ACK cost 40 ms a message


def context(server: str, identity: Path) -> ssl.SSLContext:
    """Mutual TLS with the files of `identity`, to a server whose certificate must be for the id `server`.

    Raises OSError for files that can't be used.
    """
    made = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    made.server_name = server
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(identity / "ca.pem")
    made.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    return made


def client(own_id: str, server: str, identity: Path, *, keepalive_s: int, keep_session: bool) -> Client:
    """A client that is not connected yet. keep_session: the broker queues for it while it is away."""
    made = Client(
        CallbackAPIVersion.VERSION2,
        client_id=own_id,
        clean_session=not keep_session,
        manual_ack=True,
        reconnect_on_failure=True,
    )
    made.tls_set_context(context(server, identity))
    made.max_inflight_messages_set(0)  # the relay has windows of its own
    made.max_queued_messages_set(0)
    made.reconnect_delay_set(min_delay=1, max_delay=3)
    made.connect_timeout = 4
    made.on_socket_open = _no_delay
    made.on_connect_fail = made.beat
    made.beat()
    made.keepalive = keepalive_s
    return made
