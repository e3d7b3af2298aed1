"""Checks a name and a password, slowly on purpose when somebody guesses."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from gateway.console.lockout import Lockout

if TYPE_CHECKING:
    from gateway.desk import Desk, Person

AT_ONCE = 2  # password checks at a time: each costs much processor time by design, and alarms come first
WAITING = 8


class LockedOutError(Exception):
    """Too many wrong tries."""

    def __init__(self, wait_ms: int) -> None:
        """wait_ms: how long to wait."""
        super().__init__(f"locked for {wait_ms} ms")
        self.wait_ms = wait_ms


class BusyError(Exception):
    """More people sign in at this moment than can be checked."""


class Signing:
    """The door. Safe from any thread; `sign_in` blocks while the password is checked."""

    def __init__(self, desk: Desk) -> None:
        """desk: knows the people."""
        self._desk = desk
        self._lockout = Lockout()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(WAITING)
        self._checking = threading.BoundedSemaphore(AT_ONCE)

    def sign_in(self, name: str, password: str, address: str) -> Person | None:
        """The person, or None if the name or the password is wrong. Raises LockedOutError, BusyError."""
        if not self._room.acquire(blocking=False):
            raise BusyError
        try:
            with self._checking:
                self._refuse_if_locked(name, address)
                person = self._desk.sign_in(name, password)
                with self._lock:
                    if person is None:
                        self._lockout.failed(name, address, self._desk.now_ms())
                    else:
                        self._lockout.succeeded(name, address)
                return person
        finally:
            self._room.release()

    def _refuse_if_locked(self, name: str, address: str) -> None:
        with self._lock:
            wait_ms = self._lockout.wait_ms(name, address, self._desk.now_ms())
        if wait_ms > 0:
            raise LockedOutError(wait_ms)
