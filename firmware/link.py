"""One mutual TLS connection on MicroPython's asyncio that never blocks the event loop.

The TLS stream itself is never given to the loop's poller: it has no file descriptor, and one such object makes the
poller look at everything in slices of a millisecond or more. The TCP socket below it is polled instead. TLS may hold
octets that the socket has already delivered, so whoever reads must read until `read_into` returns None before it waits.
"""

import asyncio
import errno
import socket
import sys

import tls


def context(identity: str, certificate=None):
    """A TLS context for the folder with key.der, cert.der and ca.der; ValueError or OSError if it cannot be made.

    certificate: in DER, in the place of cert.der.
    """
    made = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    made.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]  # the stubs have it in ssl only
    made.load_cert_chain(certificate or _octets(identity + "/cert.der"), _octets(identity + "/key.der"))
    made.load_verify_locations(_octets(identity + "/ca.der"))
    return made


def _octets(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _set_nodelay(tcp) -> None:
    """A receipt's PUBACK must not wait for the broker's delayed TCP acknowledgement of the packet before it."""
    nodelay = getattr(socket, "TCP_NODELAY", 1 if sys.platform == "linux" else None)
    if nodelay is not None:
        tcp.setsockopt(6, nodelay, 1)  # 6: IPPROTO_TCP


def resolved(name: str) -> str:
    """An address in digits for a host's name. Blocks until a name server answers. OSError."""
    where = socket.getaddrinfo(name, 0, 0, socket.SOCK_STREAM)[0]
    if isinstance(where[-1], tuple):
        return where[-1][0]
    return socket.inet_ntop(where[0], socket.sockaddr(where[-1])[1])  # type: ignore[attr-defined]  # the unix port's form


async def answers(address: str, port: int, within_ms: int, source=None) -> bool:
    """Whether something at an address in digits accepts a connection, which is closed again at once. source: as in `open`."""
    tcp = None
    try:
        where = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)[0]
        tcp = socket.socket(where[0], socket.SOCK_STREAM)
        tcp.setblocking(False)
        _bind(tcp, source)
        try:
            tcp.connect(where[-1])
        except OSError as problem:
            if problem.errno != errno.EINPROGRESS:
                return False
        await asyncio.wait_for_ms(_writable(tcp), within_ms)
        tcp.send(b"")  # a connection that was refused says so here
        return True
    except (OSError, asyncio.TimeoutError):  # on MicroPython the latter is no built-in
        return False
    finally:
        if tcp is not None:
            tcp.close()


def _bind(tcp, source) -> None:
    """The connection leaves by the interface whose address `source` is; None: by whichever the system takes."""
    if source:
        tcp.bind(socket.getaddrinfo(source, 0, 0, socket.SOCK_STREAM)[0][-1])


def _writable(tcp):
    yield asyncio.core._io_queue.queue_write(tcp)  # type: ignore[attr-defined]


class Link:
    """A connection; `open` it first, `close` it in any case."""

    def __init__(self) -> None:
        self._tcp: socket.socket = None  # type: ignore[assignment]  # made by `open`
        self._tls: socket.socket = None  # type: ignore[assignment]  # a stream like it

    async def open(self, trust, address: str, port: int, name: str, source=None) -> None:
        """TCP, and what is needed to begin TLS with a server that can prove to be `name`. OSError.

        address: an IP literal; looking up a name would block the loop. source: the address of the interface to leave by;
        None: any. The handshake itself happens in `send_first`.
        """
        where = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)[0]
        self._tcp = socket.socket(where[0], socket.SOCK_STREAM)
        self._tcp.setblocking(False)
        _bind(self._tcp, source)
        try:
            self._tcp.connect(where[-1])
        except OSError as problem:
            if problem.errno != errno.EINPROGRESS:
                raise
        await self.writable()
        _set_nodelay(self._tcp)
        self._tls = trust.wrap_socket(self._tcp, server_hostname=name, do_handshake_on_connect=False)

    async def send_first(self, octets: bytes, weigh=None) -> int:
        """The TLS handshake and the first octets after it: how many of them went. ValueError: a wrong certificate.

        weigh() is called after each of its steps: never is more of the heap in use.
        """
        while True:
            sent = self._tls.write(octets)
            if weigh is not None:
                weigh()
            if sent is not None:
                return sent
            await self.readable()

    def write(self, octets) -> int:
        """How many of `octets` the connection took at once.

        The rest, all of it and nothing else, must be written next: TLS has already encrypted its beginning.
        """
        return self._tls.write(octets) or 0

    def read_into(self, room):
        """How many octets were there; 0: the other side has closed; None: nothing now."""
        return self._tls.readinto(room)

    # These two are generators as asyncio's own streams have them; there is no public way to wait for a socket.

    def readable(self):
        """Waits until the socket has something, or failed."""
        yield asyncio.core._io_queue.queue_read(self._tcp)  # type: ignore[attr-defined]

    def writable(self):
        """Waits until the socket takes something, or failed."""
        yield asyncio.core._io_queue.queue_write(self._tcp)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Gives everything back. No task may be waiting for the socket any more."""
        for stream in (self._tls, self._tcp):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # closing a broken connection: there is nothing left to lose
        self._tls = self._tcp = None  # type: ignore[assignment]
