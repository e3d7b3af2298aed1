"""A TCP line between two parts of a world, for a test to cut."""

from __future__ import annotations

import contextlib
import socket
import threading


def hang_up(*ends: socket.socket) -> None:
    """Closes sockets for both sides, and for a thread that still waits on them."""
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


class Line:
    """A TCP line that can be cut: refuses and drops, or swallows everything without a word."""

    def __init__(self, port: int, to: int) -> None:
        self.swallows = False
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", port))
        self._pairs: list[socket.socket] = []
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to), 2)
            except OSError:
                near.close()
                continue
            far.settimeout(None)  # the one for connecting would cut a line that is only quiet
            self._pairs += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while octets := source.recv(65536):
                if not self.swallows:
                    sink.sendall(octets)
        except OSError:
            pass
        hang_up(source, sink)

    def close(self) -> None:
        self._listener.close()
        hang_up(*self._pairs)
