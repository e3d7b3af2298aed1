"""paho-mqtt as it comes, with the TLS that Tocsin's own connections have: what the peers of the benchmarks are made of."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from gateway import link

if TYPE_CHECKING:
    from pathlib import Path


def bare_client(own_id: str, server: str, identity: Path, *, keep_session: bool) -> mqtt.Client:
    """A client that is not connected yet and acknowledges by hand."""
    made = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=own_id, clean_session=not keep_session, manual_ack=True)
    made.tls_set_context(link.context(server, identity))
    made.max_inflight_messages_set(0)
    made.max_queued_messages_set(0)
    made.on_socket_open = _no_delay
    return made


def _no_delay(_client: mqtt.Client, _data: object, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
