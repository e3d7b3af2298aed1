"""What a session may find at the other end of its link: mosquitto, a path that swallows everything, a liar."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Self

from tests.parts import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from provisioning.pki import Authority

    Act = Callable[[ssl.SSLSocket, bytes], None]
    Weather = Callable[[bytes, socket.socket], None]

NAME = "khi-cn"
DEADLINE_S = 15.0


class Broker:
    """A mosquitto with mutual TLS on a port of its own; `start` it when the test wants it."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.port = free_port()
        self._ca = authority.pem
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.show(authority)

    def show(self, authority: Authority) -> None:
        """From the next start on, the server's certificate is one of `authority`; clients are checked as before."""
        authority.issue(NAME, server=True).write_pem(self._folder)
        (self._folder / "clients.pem").write_bytes(self._ca)

    def start(self) -> None:
        """Starts it and waits until it listens."""
        folder = self._folder
        config = folder / "mosquitto.conf"
        config.write_text(self._settings(), encoding="utf-8")
        with (folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(["mosquitto", "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            assert self._process.poll() is None, (folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _settings(self) -> str:
        folder = self._folder
        return (
            f"listener {self.port} 127.0.0.1\ncafile {folder}/clients.pem\ncertfile {folder}/cert.pem\n"
            f"keyfile {folder}/key.pem\nrequire_certificate true\nuse_identity_as_username true\n"
            "allow_anonymous false\nuser root\n"
        )

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class _Server:
    """Accepts on a port of its own until the block ends; each connection has a thread."""

    def __init__(self, receive_buffer: int | None = None) -> None:
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def cut(self) -> None:
        """Ends all connections."""
        doomed, self._open = self._open, []  # at once: a client that sees its end may be back before this is done
        for connection in doomed:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


class Way(_Server):
    """A path to a port that can be told to swallow everything on the connections that it has now, or to get worse otherwise."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._swallowing: list[threading.Event] = []
        self._down: Weather | None = None
        self._up: Weather | None = None

    def bend(self, down: Weather | None = None, up: Weather | None = None) -> None:
        """What from now on becomes of octets to the client and from it, on all connections; None: they go straight on."""
        self._down, self._up = down, up

    def swallow(self) -> None:
        """From now on nothing comes through on today's connections, which stay open; later ones work."""
        for event in self._swallowing:
            event.set()

    def _serve(self, connection: socket.socket) -> None:
        swallowing = threading.Event()
        self._swallowing.append(swallowing)
        try:
            onward = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            connection.close()
            return
        self._open.append(onward)
        threading.Thread(
            target=self._pump, args=(onward, connection, swallowing, lambda: self._down), daemon=True
        ).start()
        self._pump(connection, onward, swallowing, lambda: self._up)

    @staticmethod
    def _pump(
        source: socket.socket, sink: socket.socket, swallowing: threading.Event, weather: Callable[[], Weather | None]
    ) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                if not swallowing.is_set():
                    (weather() or straight)(octets, sink)
        if not swallowing.is_set():
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)


def straight(octets: bytes, sink: socket.socket) -> None:
    """Good weather."""
    sink.sendall(octets)


def late(seconds: float) -> Weather:
    """Everything comes, but late."""

    def weather(octets: bytes, sink: socket.socket) -> None:
        time.sleep(seconds)
        sink.sendall(octets)

    return weather


def trickling(octets: bytes, sink: socket.socket) -> None:
    """One octet a second."""
    for octet in octets:
        time.sleep(1)
        sink.sendall(bytes((octet,)))


def truncated(octets: bytes, sink: socket.socket) -> None:
    """Half of it, and the connection is gone."""
    sink.sendall(octets[: len(octets) // 2])
    raise ConnectionAbortedError


def half_closed(_octets: bytes, sink: socket.socket) -> None:
    """This direction ends in order, and the other one goes on."""
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def lost(seed: int) -> Weather:
    """The first piece and a third of the later ones never come."""
    draw = random.Random(seed)
    began = False

    def weather(octets: bytes, sink: socket.socket) -> None:
        nonlocal began
        if began and draw.randrange(3):
            sink.sendall(octets)
        began = True

    return weather


def garbled(octets: bytes, sink: socket.socket) -> None:
    """One bit of each piece is wrong."""
    made = bytearray(octets)
    made[len(made) // 2] ^= 1
    sink.sendall(made)


def deaf(_octets: bytes, _sink: socket.socket) -> None:
    """Takes nothing any more, until the client gives up."""
    time.sleep(20)
    raise ConnectionAbortedError


def accepted(hello: bytes) -> bytes:
    """CONNACK, and the SUBACK for the SUBSCRIBE that follows the CONNECT in `hello`."""
    at = 2 + hello[1]
    assert hello[0] == 0x10
    assert hello[1] < 128
    assert hello[at] == 0x82
    return bytes.fromhex("20020000 9004") + hello[at + 2 : at + 4] + b"\x01\x01"


class Liar(_Server):
    """Speaks TLS with a right certificate, and then what the test says: one act for each connection, the last for all.

    An act gets the connection and the octets of the client's CONNECT and SUBSCRIBE. None: nothing but noise, not even TLS.
    """

    def __init__(
        self, authority: Authority, folder: Path, acts: Sequence[Act | None], receive_buffer: int | None = None
    ) -> None:
        super().__init__(receive_buffer)
        authority.issue(NAME, server=True).write_pem(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._acts = list(acts)

    def _serve(self, connection: socket.socket) -> None:
        act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
        with contextlib.suppress(OSError):
            if act is None:
                connection.sendall(b"\x00\xff" * 4000)
                connection.recv(65536)
            else:
                with self._context.wrap_socket(connection, server_side=True) as secured:
                    self._open.append(secured)
                    act(secured, secured.recv(4096))
        connection.close()
