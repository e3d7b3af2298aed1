"""paho-mqtt's client with a thread of its own, which moves many packets at a turn, and tells when it last came round.

paho asks TLS for single octets, hands it single packets, and wakes its thread for each; at thousands of messages a second
that is most of what a message costs. Here records are read whole, what goes out in one turn goes out together, and the
thread is woken only from its sleep. All by what paho offers to programs with a loop of their own.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORD = 16_384  # bytes: TLS has none that is longer (RFC 8446 section 5.1)
AT_ONCE = 200  # packets read before what they led to is written
TURN_S = 1.0  # without anything to do
LAST_S = 1.0  # to write what is left when the thread is to end
RETRY_S = (1.0, 2.0, 3.0)  # between attempts to connect


class Wide(ssl.SSLSocket):
    """A TLS connection, not blocking, that is read and written by records whatever piece is asked for or given."""

    _came = b""
    _at = 0
    _unsent: bytearray | None = None
    full: Callable[[], bool] | None = None  # whether nothing more is to be read for now

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """At most `buflen` bytes; b"" at the end of the connection. Raises as ssl.SSLSocket.recv."""
        if self._at == len(self._came):
            if self.full is not None and self.full():
                raise ssl.SSLWantReadError
            self._came, self._at = super().recv(RECORD, flags), 0
        piece = self._came[self._at : self._at + buflen]
        self._at += len(piece)
        return piece

    def pending(self) -> int:
        """Bytes that `recv` gives without waiting."""
        return len(self._came) - self._at + super().pending()

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ARG002 as its parent
        """Takes all of it; `flush` sends."""
        if self._unsent is None:
            self._unsent = bytearray()
        self._unsent += data
        return len(data)

    @property
    def unsent(self) -> bool:
        """Whether something waits for `flush`."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Sends what the network takes. Raises OSError, of which ssl.SSLWantWriteError is one: there is more."""
        while self._unsent:
            # OpenSSL wants to see again at least what it could not send.
            del self._unsent[: super().send(bytes(self._unsent[:RECORD]))]

    def close(self) -> None:
        """Sends what can be sent at once, and closes."""
        with suppress(OSError, ValueError):
            self.flush()
        super().close()


class Client(mqtt.Client):
    """A client whose certificate may be renewed, and whose thread tells when it last came round.

    beat_ms: monotonic milliseconds. trust: what its connections are made with; their sockets are Wide. full(): whether
    what came last is still to be dealt with, so that nothing more is read until something was sent.
    """

    beat_ms = 0
    _gap_ms = 0

    def __init__(self, own_id: str, trust: ssl.SSLContext, *, keep_session: bool, reconnect: bool) -> None:
        """keep_session: the broker queues while it is away. reconnect: a lost connection is made again, or its thread ends."""
        super().__init__(CallbackAPIVersion.VERSION2, client_id=own_id, clean_session=not keep_session, manual_ack=True)
        trust.sslsocket_class = Wide
        self.trust = trust
        self.tls_set_context(trust)
        self.full: Callable[[], bool] = lambda: False
        self._reconnects = reconnect
        self._left = False
        self._until = 0.0
        self._stopping = threading.Event()
        self._served: threading.Thread | None = None
        self._rung, self._ring = socket.socketpair()
        self._rung.setblocking(False)
        self._ring.setblocking(False)
        self.on_socket_register_write = self._wake

    def beat(self, *_: object) -> None:
        """Its thread runs."""
        now = time.monotonic_ns() // 1_000_000
        self._gap_ms = max(self._gap_ms, now - self.beat_ms)
        self.beat_ms = now

    def gap_ms(self, now_ms: int) -> int:
        """The longest time without a beat since this was last asked."""
        gap_ms, self._gap_ms = max(self._gap_ms, now_ms - self.beat_ms), 0
        return gap_ms

    def show(self, identity: Path, passphrase: str | None = None) -> None:
        """Shows the certificate that is in the identity's folder now from the next connection on. Raises OSError."""
        show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity, passphrase)  # one that fails would spoil the other
        show(self.trust, identity, passphrase)

    # ------------------------------------------------------------------------------------- its thread

    def loop_start(self) -> MQTTErrorCode:
        """Starts the thread, which connects if `connect` was not called yet."""
        name = f"mqtt {self._client_id.decode()}"
        self._served = threading.Thread(target=self._serve, name=name, daemon=True)
        self._served.start()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def loop_stop(self) -> MQTTErrorCode:
        """Ends the thread; what can't be written within LAST_S is not."""
        self._until = time.monotonic() + LAST_S
        self._stopping.set()
        self._wake()
        if self._served is not None and self._served is not threading.current_thread():
            self._served.join()
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def disconnect(self, *args: Any, **kwargs: Any) -> MQTTErrorCode:
        """Ends the connection, for good."""
        self._left = True
        return super().disconnect(*args, **kwargs)

    def _wake(self, *_: object) -> None:
        if threading.current_thread() is not self._served:  # which looks before it sleeps
            with suppress(BlockingIOError):
                self._ring.send(b"\0")

    def _serve(self) -> None:
        tries = 0 if self.socket() is None else 1
        while not self._is_over():
            if self.socket() is not None:
                self._turn()
                tries = 1
            elif tries and not self._reconnects:
                return
            else:
                if tries and (self._stopping.wait(RETRY_S[min(tries, len(RETRY_S)) - 1]) or self._left):
                    return
                tries += 1
                try:
                    self.reconnect()
                except OSError:
                    self.beat()

    def _is_over(self) -> bool:
        if self.socket() is None:
            return self._left or self._stopping.is_set()
        return self._stopping.is_set() and (not self._has_more() or time.monotonic() > self._until)

    def _turn(self) -> None:
        """Waits until there is something to do, and does it."""
        sock: Any = self.socket()
        sock.full = self.full  # paho may read more in one go than it should
        reads = not self.full()
        try:
            wait_s = 0.0 if reads and sock.pending() else TURN_S
            heard = [self._rung, sock] if reads else [self._rung]
            ready = select.select(heard, [sock] if self._has_more() else [], [], wait_s)
        except (OSError, ValueError, AttributeError):  # it was closed
            self.loop_read()
            return
        if self._rung in ready[0]:
            self._rung.recv(RECORD)
        if (sock in ready[0] or not wait_s) and self.loop_read():
            return
        if self._has_more() and self.loop_write():
            return
        self.loop_misc()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Reads what came, AT_ONCE packets and more."""
        result = super().loop_read(max_packets)
        for _ in range(AT_ONCE):
            sock: Any = self.socket()
            if result or sock is None or not sock.pending() or self.full():
                break
            result = super().loop_read(max_packets)
        return result

    def _has_more(self) -> bool:
        # Not as `want_write`: by that paho decides whether it rings for the next packet, and it asks before the flush.
        return self.want_write() or getattr(self.socket(), "unsent", False)

    def loop_write(self) -> MQTTErrorCode:
        """Writes what waits, as far as the network takes it."""
        result = super().loop_write()
        sock = self.socket()
        if isinstance(sock, Wide):
            with suppress(OSError):  # there is more; or it broke, as the next reading shows
                sock.flush()
        return result

    def loop_misc(self) -> MQTTErrorCode:
        """Keeps the connection alive; a beat."""
        self.beat()
        return super().loop_misc()


def show(made: ssl.SSLContext, identity: Path, passphrase: str | None) -> None:
    """Shows the certificate of `identity` from the next connection on. passphrase: of its key. Raises OSError."""
    made.load_cert_chain(identity / "cert.pem", identity / "key.pem", password=passphrase or "")
