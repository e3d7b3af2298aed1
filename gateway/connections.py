"""Ends single connections of a running broker: mosquitto has no command for it.

The process that started the broker may take a copy of each of its sockets (pidfd_getfd, Linux 5.6) and shut the
connection down; mosquitto then sees its client leave.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIDFD_GETFD = 438  # of every architecture


def end(pid: int, is_meant: Callable[[tuple[str, int]], bool]) -> int:
    """Ends the connections of process `pid` from the addresses (host, port) that are meant; returns how many.

    Raises OSError where the kernel or the service manager does not permit it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    ended = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if not str(entry.readlink()).startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue  # closed meanwhile
            copy = libc.syscall(_PIDFD_GETFD, process, int(entry.name), 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            with socket.socket(fileno=copy) as connection:
                ended += _ended(connection, is_meant)
    finally:
        os.close(process)
    return ended


def _ended(connection: socket.socket, is_meant: Callable[[tuple[str, int]], bool]) -> bool:
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    try:
        if not is_meant(connection.getpeername()[:2]):
            return False
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False  # it listens, or has just ended
    return True
