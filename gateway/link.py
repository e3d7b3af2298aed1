"""A paho-mqtt client set up the way every connection of a station is: mutual TLS, and the server's id as its name."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from pathlib import Path


class _NamedContext(ssl.SSLContext):
    """Checks the server's certificate against its id, at whatever address it answers."""

    server_name: str

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        kwargs["server_hostname"] = self.server_name
        return super().wrap_socket(*args, **kwargs)


UNACKNOWLEDGED_MS = 5_000  # TCP repeats after 0.2, 0.6, 1.4, 3, 6, 13 s: a new connection is sooner there than the last


def _no_delay(_client: mqtt.Client, _data: object, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or Nagle and a delayed ACK cost 40 ms a message
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)


def client(own_id: str, server: str, identity: Path, *, keepalive_s: int, keep_session: bool) -> mqtt.Client:
    """A client that is not connected yet. keep_session: the broker queues for it while it is away."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = server
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(identity / "ca.pem")
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    made = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=own_id,
        clean_session=not keep_session,
        manual_ack=True,
        reconnect_on_failure=True,
    )
    made.tls_set_context(context)
    made.max_inflight_messages_set(0)  # the relay has windows of its own
    made.max_queued_messages_set(0)
    made.reconnect_delay_set(min_delay=1, max_delay=3)
    made.connect_timeout = 4
    made.on_socket_open = _no_delay
    made.keepalive = keepalive_s
    return made
