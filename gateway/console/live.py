"""What is true now, kept for every open page, and the bell that tells them that it changed.

One thread waits on the desk's subscription, for all pages together, and asks the desk; the event loop never does. An
alarm is handed over at once, at most a tenth of a second later while many come; everything else at most once a second. If the
desk stops answering, `fresh` becomes false and the pages say that they are not live: a console that can't see must not
look calm.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from gateway.console.listing import Readiness, readiness, trouble_first, troubled, urgent_first
from gateway.console.roll import NOTHING, Roll

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.desk import Child, Desk, Happening, Health, Incident, Subscription

TOPICS = ("incidents", "children", "happenings", "health")
PACE_S = 1.0  # between two looks at everything that is not an alarm
CHILDREN_REST = 19  # times as long as a look at the children took until the next: a twentieth of the time, however many
CHILDREN_REST_S = 10.0  # at most
LOOK_REST = 19  # the same of a look at the alarms
LOOK_REST_S = 0.1  # at most
LOOK_S = 1.0  # a look at the alarms even if nothing was said: a lost word costs a second, not an alarm
FRESH_S = 4.0  # the desk has answered within this, or pages are told that they are not live
HISTORY_SHOWN = 50
HAPPENINGS_SHOWN = 100

_log = logging.getLogger(__name__)


class Board:
    """What is true now, in lists whose changes can be told. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.epoch = secrets.token_hex(4)  # versions of another process mean nothing here
        self.incidents: Roll[Incident] = Roll()
        self.history: Roll[Incident] = Roll()
        self.children: Roll[Child] = Roll()  # without what changes at every heartbeat
        self.heard: Roll[int | None] = Roll()
        self.happenings: Roll[Happening] = Roll()
        self.health: Roll[Health] = Roll()
        self.known = False  # True from the first full look at the desk on
        self.readiness = Readiness(0, 0, ())
        self.troubled = 0

    def take_incidents(self, opened: list[Incident], history: list[Incident]) -> bool:
        """The open incidents and the newest of all; True if anything changed."""
        changed = self.incidents.update((str(incident.id), incident) for incident in urgent_first(opened))
        return self.history.update((str(incident.id), incident) for incident in history) or changed

    def take_children(self, children: list[Child]) -> bool:
        """Every child; True if anything changed."""
        sorted_children = trouble_first(children)
        self.readiness, self.troubled = readiness(children), troubled(children)
        changed = self.children.update((child.id, steady(child)) for child in sorted_children)
        return self.heard.update((child.id, child.last_heard_ms) for child in sorted_children) or changed

    def take_happenings(self, happenings: list[Happening]) -> bool:
        """The newest events; True if anything changed."""
        return self.happenings.update((str(happening.id), happening) for happening in happenings)

    def take_health(self, health: Health) -> bool:
        """The station's state; True if anything changed. Asked for last, so from here on everything is known."""
        first, self.known = not self.known, True
        return self.health.update([("health", health)]) or first

    def stamp(self) -> str:
        """Names what is true now, for a page to say later what it has seen."""
        rolls = (self.incidents, self.history, self.children, self.heard, self.happenings, self.health)
        return "-".join((self.epoch, *(str(roll.version) for roll in rolls)))

    def seen(self, stamp: str) -> list[int]:
        """The versions of a stamp; NOTHING for each if it isn't one of this process."""
        epoch, *versions = stamp.split("-")
        known = epoch == self.epoch and len(versions) == 6 and all(v.isdecimal() for v in versions)
        return [int(version) for version in versions] if known else [NOTHING] * 6


def steady(child: Child) -> Child:
    """A child without what changes at every heartbeat, so that a healthy row stays still."""
    return replace(
        child,
        last_heard_ms=None,
        uptime_ms=None,
        rssi_dbm=None if child.rssi_dbm is None else 5 * round(child.rssi_dbm / 5),
        battery_mv=None if child.battery_mv is None else 100 * round(child.battery_mv / 100),
    )


class Live:
    """The thread that follows the desk, and the bell. `start` and `stop` are called on the event loop."""

    def __init__(self, desk: Desk) -> None:
        """desk: what to follow."""
        self.board = Board()
        self.failures = 0
        self._failing = ""  # what was told, until the station is seen again
        self._desk = desk
        self._answered = -FRESH_S
        self._stopping = threading.Event()
        self._subscription: Subscription | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()

    @property
    def fresh(self) -> bool:
        """Whether the desk answered lately, so that "no alarms" means no alarms."""
        return time.monotonic() - self._answered < FRESH_S and not self._stopping.is_set()

    @property
    def stopped(self) -> bool:
        """Whether open pages should be let go."""
        return self._stopping.is_set()

    @property
    def bell(self) -> asyncio.Event:
        """Rings once, at the next change. Take it before looking at the board, and no change is missed."""
        return self._bell

    def start(self) -> None:
        """Begins to follow the desk."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._follow, name="console-live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends every open page's stream and the thread. Safe from any thread, and twice."""
        self._stopping.set()
        if self._subscription is not None:
            self._subscription.close()
        self._hand_over(lambda: True)

    def join(self, timeout_s: float = 2.0) -> None:
        """Waits for the thread to end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._subscription = self._desk.subscribe()
                try:
                    self._follow_subscription(self._subscription)
                finally:
                    self._subscription.close()
            except Exception as error:  # noqa: BLE001 whatever it was, it is told and tried again
                self.failures += 1
                self._tell_of(error)
                self._stopping.wait(PACE_S)

    def _tell_of(self, error: Exception) -> None:
        """Once, until the station is seen again or something else is wrong. What passes needs no traceback."""
        found = self._desk.unreadable(error)
        what = "unreadable" if found else type(error).__name__
        if what == self._failing:
            return
        self._failing = what
        if found:
            _log.error("the console can't see the station, and goes on trying: %s", found[0])
        else:
            _log.exception("the console can't see the station, and goes on trying")

    def _follow_subscription(self, subscription: Subscription) -> None:
        waiting = set(TOPICS)
        pace_due = look_due = children_due = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            if "incidents" in waiting or now >= look_due:
                waiting.discard("incidents")
                self._look_at_incidents()
                self._stopping.wait(min(LOOK_REST_S, LOOK_REST * (time.monotonic() - now)))
                look_due = now + LOOK_S
            if waiting and now >= pace_due:
                told = waiting if now >= children_due else waiting - {"children"}
                took_s = self._look_at_rest(told)
                waiting = waiting - told
                pace_due = now + PACE_S
                if "children" in told:
                    children_due = time.monotonic() + min(took_s * CHILDREN_REST, CHILDREN_REST_S)
            self._answered = time.monotonic()
            if self._failing:
                self._failing = ""
                _log.warning("the console sees the station again")
            due = min(look_due, pace_due) if waiting else look_due
            waiting |= subscription.wait(max(0.01, due - time.monotonic()))

    def _look_at_incidents(self) -> None:
        opened = list(self._desk.open_incidents())
        history = list(self._desk.history(limit=HISTORY_SHOWN))
        self._hand_over(partial(self.board.take_incidents, opened, history))

    def _look_at_rest(self, topics: set[str]) -> float:
        """How long it took to look at the children, in seconds."""
        took_s = 0.0
        if "children" in topics:
            began = time.monotonic()
            self._hand_over(partial(self.board.take_children, list(self._desk.children())))
            took_s = time.monotonic() - began
        if "happenings" in topics:
            happenings = list(self._desk.happenings(limit=HAPPENINGS_SHOWN))
            self._hand_over(partial(self.board.take_happenings, happenings))
        if "health" in topics:
            self._hand_over(partial(self.board.take_health, self._desk.health()))
        return took_s

    def _hand_over(self, take: Callable[[], bool]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring_if, take)

    def _ring_if(self, take: Callable[[], bool]) -> None:
        if take() or self._stopping.is_set():
            bell, self._bell = self._bell, asyncio.Event()
            bell.set()


class Watchers:
    """How many streams each session holds. The newest few win, so that a forgotten tab can't block a new one."""

    MOST_A_SESSION = 4  # a browser opens six connections to a host; two are left for pages and steps
    MOST = 400

    def __init__(self) -> None:
        """Nobody watches."""
        self._by_session: dict[str, list[object]] = {}

    def __len__(self) -> int:
        """How many streams are open."""
        return sum(map(len, self._by_session.values()))

    def enter(self, session: str) -> object | None:
        """A mark for a new stream, or None when the console has as many as it can serve."""
        mine = self._by_session.setdefault(session, [])
        if len(self) >= self.MOST and not mine:
            del self._by_session[session]
            return None
        mark = object()
        mine.append(mark)
        del mine[: -self.MOST_A_SESSION]
        return mark

    def stays(self, session: str, mark: object) -> bool:
        """False once newer streams of the session took its place."""
        return any(mark is other for other in self._by_session.get(session, ()))

    def leave(self, session: str, mark: object) -> None:
        """The stream ended."""
        left = [other for other in self._by_session.get(session, ()) if other is not mark]
        if left:
            self._by_session[session] = left
        else:
            self._by_session.pop(session, None)
