"""Tells systemd how the station fares: sd_notify(3), a datagram to the socket that NOTIFY_SOCKET names.

READY=1 once, when an alarm could be taken; WATCHDOG=1 at every beat at which all parts make progress, and at no other,
so that systemd ends and starts again a station that hangs; STATUS= in words, for `systemctl status`.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

MORE_TIME_US = 30_000_000  # for a start that waits, but does not hang


class ServiceManager:
    """The service manager's end, if there is one; without NOTIFY_SOCKET every call does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        if self._socket:
            self._socket.setblocking(False)
        self._ready = False
        self._status = ""

    def beat(self, *, stuck: Sequence[str], unready: Sequence[str], status: str) -> None:
        """One beat. stuck: parts without progress; unready: why no alarm could be taken; status: when all is well."""
        words = "; ".join([*stuck, *unready]) or status
        told = [] if words == self._status else [f"STATUS={' '.join(words.split())}"]
        ready = self._ready or not (stuck or unready)
        if ready and not self._ready:
            told.append("READY=1")
        if not stuck:
            told.append("WATCHDOG=1" if ready else f"EXTEND_TIMEOUT_USEC={MORE_TIME_US}")
        if told and self._send("\n".join(told)):
            self._status = words
            self._ready = ready

    def stopping(self) -> None:
        """The station ends, as it was told to."""
        self._send("STOPPING=1\nSTATUS=stopping")

    def _send(self, text: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto(text.encode(), self._address)
        except BlockingIOError:
            return False  # the next beat tells it
        except OSError as error:
            logger.warning("the service manager can't be told anything: %s", error.strerror)
            self._socket.close()
            self._socket = None
            return False
        return True
