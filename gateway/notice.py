"""Tells whoever waits that something changed; what changed they read for themselves."""

from __future__ import annotations

import threading


class _Waiter:
    """A Subscription of the desk."""

    def __init__(self, board: NoticeBoard) -> None:
        self._board = board
        self._changed: set[str] = set()
        self._condition = threading.Condition()
        self._closed = False

    def tell(self, topic: str) -> None:
        if topic in self._changed:  # nobody took it yet; whoever does asks only afterwards what is true
            return
        with self._condition:
            self._changed.add(topic)
            self._condition.notify_all()

    def wait(self, timeout_s: float) -> set[str]:
        """Topics changed since the last call; empty after `timeout_s` or `close`."""
        with self._condition:
            if not self._changed and not self._closed:
                self._condition.wait(timeout_s)
            changed, self._changed = self._changed, set()
            return changed

    def close(self) -> None:
        """Ends it."""
        self._board.leave(self)
        with self._condition:
            self._closed = True
            self._condition.notify_all()


class NoticeBoard:
    """Everybody who waits for changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []

    def subscribe(self) -> _Waiter:
        """A new subscription."""
        waiter = _Waiter(self)
        with self._lock:
            self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: _Waiter) -> None:
        """Forgets a subscription."""
        with self._lock:
            self._waiters = [other for other in self._waiters if other is not waiter]

    def tell(self, *topics: str) -> None:
        """Something changed in `topics`."""
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            for topic in topics:
                waiter.tell(topic)
