"""Two roads to one port, told apart by the address that a connection comes from, each of which can be cut in the kernel.

A cut road drops every segment, as a pulled cable or a jammed radio does: no connection is accepted over it, none is refused, none
ends; what was under way is repeated into the void. Nothing here needs a privilege: a socket filter does it.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading

from tests.firmware.far_ends import _Server

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_SOURCE = 0xFFF00000 + 12  # SKF_NET_OFF, and the source address in the IPv4 header behind it
_ALL = 0xFFFFFFFF


def _filter(dropped: list[str]) -> tuple[bytes, ctypes.Array[ctypes.c_char]]:
    """A classic BPF program that drops what comes from these addresses: as an option, and the memory that it points to."""
    code = [(_LOAD_WORD, 0, 0, _SOURCE)]
    for n, address in enumerate(dropped):
        code.append((_JUMP_IF_EQUAL, len(dropped) - n, 0, int.from_bytes(socket.inet_aton(address), "big")))
    code += [(_RETURN, 0, 0, _ALL), (_RETURN, 0, 0, 0)]
    octets = b"".join(struct.pack("HBBI", *line) for line in code)
    memory = ctypes.create_string_buffer(octets, len(octets))
    return struct.pack("@HP", len(code), ctypes.addressof(memory)), memory


class Roads(_Server):
    """What listens at `port` goes on to `target`, from whatever road is open."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        self._cut: list[str] = []
        self._lock = threading.Lock()
        self._ends: list[tuple[str, socket.socket, threading.Event]] = []

    def close_road(self, address: str) -> None:
        """From now on nothing passes between `address` and here, in either direction."""
        with self._lock:
            self._cut.append(address)
            self._apply()

    def open_road(self, address: str) -> None:
        """It does again; connections from before stay dead."""
        with self._lock:
            self._cut.remove(address)
            self._apply()

    def _apply(self) -> None:
        option, memory = _filter(self._cut)
        self._listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
        for address, end, dead in self._ends:
            if address in self._cut:
                dead.set()
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
        del memory

    def _serve(self, connection: socket.socket) -> None:
        dead = threading.Event()
        with self._lock:
            self._ends.append((connection.getpeername()[0], connection, dead))
        onward = socket.create_connection(("127.0.0.1", self._target))
        self._open.append(onward)
        threading.Thread(target=self._pump, args=(onward, connection, dead), daemon=True).start()
        self._pump(connection, onward, dead)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                if not dead.is_set():
                    sink.sendall(octets)
        if not dead.is_set():
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
