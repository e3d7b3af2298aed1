"""The station's own way to read and write its connections: nothing is lost, torn or left lying, however it comes."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from demo.process import wait_until
from demo.world import free_ports
from gateway import link
from gateway.client import RECORD, Wide
from provisioning.pki import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Wide, ssl.SSLSocket]]:
    """(the station's end, which does not block; the broker's end, which does)."""
    authority = Authority.create()
    authority.issue("gw", server=True).write_pem(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    client = link.context("gw", tmp_path)
    client.sslsocket_class = Wide
    near, far = socket.socketpair()
    ends: list[ssl.SSLSocket] = []
    shaking = threading.Thread(target=lambda: ends.append(server.wrap_socket(far, server_side=True)))
    shaking.start()
    station = client.wrap_socket(near)
    shaking.join(20)
    assert isinstance(station, Wide)
    station.setblocking(False)
    yield station, ends[0]
    station.close()
    ends[0].close()


def pieces(station: Wide, count: int, of: int) -> bytes:
    """`count` octets, asked for as paho asks."""
    read = b""
    while len(read) < count:
        if not station.pending():
            assert select.select([station], [], [], 20)[0], f"{len(read)} of {count} came"
        try:
            read += station.recv(min(of, count - len(read)))
        except ssl.SSLWantReadError:
            continue
    return read


def test_what_comes_in_records_of_any_length_is_read_in_pieces_of_any_length(
    pair: tuple[Wide, ssl.SSLSocket],
) -> None:
    station, broker = pair
    octets = bytes(number % 251 for number in range(3 * RECORD))
    sending = threading.Thread(target=lambda: [broker.sendall(octets[at : at + 700]) for at in range(0, 21_000, 700)])
    sending.start()
    assert pieces(station, 1_000, 1) + pieces(station, 20_000, 300) == octets[:21_000]
    sending.join(20)
    with pytest.raises(ssl.SSLWantReadError):
        station.recv(1)
    broker.sendall(octets)
    assert pieces(station, len(octets), 5_000) == octets


def test_what_the_network_does_not_take_at_once_is_sent_later_in_order(pair: tuple[Wide, ssl.SSLSocket]) -> None:
    station, broker = pair
    octets = bytes(number % 241 for number in range(50 * RECORD))
    with pytest.raises(ssl.SSLWantWriteError):
        for at in range(0, len(octets), 3_000):
            station.send(octets[at : at + 3_000])
            station.flush()
    sent = at + 3_000
    assert station.unsent
    station.send(octets[sent:])
    read = b""
    broker.settimeout(20)
    while len(read) < len(octets):
        try:
            station.flush()
        except ssl.SSLWantWriteError:
            pass
        read += broker.recv(65_536)
    assert read == octets
    assert not station.unsent


def test_nothing_more_is_read_while_it_is_full(pair: tuple[Wide, ssl.SSLSocket]) -> None:
    station, broker = pair
    full = [True]
    station.full = lambda: full[0]
    broker.sendall(b"one")
    with pytest.raises(ssl.SSLWantReadError):
        pieces_now = station.recv(1)
        pytest.fail(f"{pieces_now!r} was read")
    full[0] = False
    assert pieces(station, 3, 1) == b"one"


def test_its_thread_is_woken_for_every_packet_that_comes_after_a_flush(
    pair: tuple[Wide, ssl.SSLSocket], tmp_path: Path
) -> None:
    station, broker = pair
    client = link.client("gw", "gw", tmp_path, keepalive_s=10, keep_session=True)
    client._sock = station
    for _ in range(3):
        client.publish("topic", b"octets", 1)
        assert select.select([client._rung], [], [], 0)[0], "it would sleep on for a second"
        client._rung.recv(100)
        client.loop_write()
        assert broker.recv(1_000)


def test_a_client_that_never_reached_anybody_ends_when_told(tmp_path: Path) -> None:
    Authority.create().issue("gw").write_pem(tmp_path)
    client = link.client("gw", "gw", tmp_path, keepalive_s=10, keep_session=True)
    client.connect_async("127.0.0.1", free_ports(1)[0])
    client.loop_start()
    wait_until(lambda: client.beat_ms > 0, 20, "a try")
    client.loop_stop()
    assert client._served is not None
    assert not client._served.is_alive()
