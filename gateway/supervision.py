"""Silence is an event: who should have been heard, who was, and who is reported.

Pure: times come in as arguments, decisions go out. All times are milliseconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LATE_MS = 7_500  # one heartbeat of 5 s missed
GONE_GRACE_MS = 4_000  # between a last will and its event: time for a quick reconnection
STATION_AHEAD_MS = 2_000  # a station's deadline is shorter, so that it is reported before those behind it
BEHIND_MS = 6_000  # a child that was silent for so long when its station is reported can't be heard because of that
NEVER_HEARD_MS = 60_000  # from enrolment, or this station's start, until a child that never spoke is an event
LAG_MS = 10_000  # a heartbeat that was held up for longer than this says nothing about now
DRIFT_PER_MS = 1e-4  # two clocks drift apart by 100 ppm at most


class Verdict(Enum):
    """What a heartbeat is worth."""

    FRESH = "fresh"
    REPEATED = "an old heartbeat was sent again"
    HELD_UP = "a heartbeat was held up on its way"


@dataclass(frozen=True, slots=True)
class Silence:
    """A child that must be reported as silent. behind: children that can't be heard because of it."""

    child: str
    why: str
    silent_ms: int
    behind: tuple[str, ...] = ()


@dataclass(slots=True)
class Watched:
    """One child, as supervision sees it."""

    id: str
    station: bool
    last_ms: int | None = None  # None: not heard of since this station knows it
    identity: tuple[int, int] = (0, 0)
    via: str | None = None
    session: tuple[int, int] = (0, 0)  # of its newest presence
    gone_ms: int | None = None
    reported: bool = False
    known_ms: int = 0  # since when this station expects it
    base: tuple[int, float, int] | None = None  # boot, least (arrival - uptime), when that was


@dataclass
class Supervision:
    """Every child's deadline. deadline_ms: how long a child may be silent."""

    deadline_ms: int
    children: dict[str, Watched] = field(default_factory=dict)

    def expect(self, child: str, *, station: bool, identity: tuple[int, int] | None = None, now_ms: int) -> None:
        """Watches `child`. identity: of its last heartbeat, if it was ever heard: then its deadline starts now."""
        watched = self.children.setdefault(child, Watched(child, station, known_ms=now_ms))
        watched.station = station
        if identity is not None and watched.last_ms is None:
            watched.last_ms = now_ms
            watched.identity = identity

    def forget(self, known: Iterable[str]) -> None:
        """Stops watching all but `known`."""
        keep = set(known)
        self.children = {name: watched for name, watched in self.children.items() if name in keep}

    def heard(self, child: str, boot: int, seq: int, uptime_ms: int, now_ms: int, via: str | None = None) -> Verdict:
        """A verified heartbeat. Only a FRESH one shows that the child can deliver now."""
        watched = self.children.setdefault(child, Watched(child, station=False))
        if (boot, seq) <= watched.identity:
            return Verdict.REPEATED
        watched.identity = (boot, seq)
        offset = now_ms - uptime_ms
        if watched.base is None or watched.base[0] != boot:
            watched.base = (boot, offset, now_ms)
        else:
            _, least, since = watched.base
            least += (now_ms - since) * DRIFT_PER_MS
            watched.base = (boot, min(least, offset), now_ms)
            if offset - least > LAG_MS:
                return Verdict.HELD_UP
        watched.last_ms = now_ms
        watched.via = via
        watched.gone_ms = None
        return Verdict.FRESH

    def back(self, child: str) -> bool:
        """Whether a child that was just heard had been reported as silent; it no longer is."""
        watched = self.children[child]
        was = watched.reported
        watched.reported = False
        return was

    def gone(self, child: str, boot: int, seq: int, now_ms: int) -> None:
        """A last will. One that an earlier session left behind says nothing."""
        watched = self.children.get(child)
        if watched and (boot, seq) >= watched.session and watched.last_ms is not None and watched.gone_ms is None:
            watched.gone_ms = now_ms

    def here(self, child: str, boot: int, seq: int) -> None:
        """A new session of the child: the will of the last one no longer counts."""
        watched = self.children.get(child)
        if watched and (boot, seq) > watched.session:
            watched.session = (boot, seq)
            watched.gone_ms = None

    def reported_silent(self, child: str) -> None:
        """A station below already reported this child: once is enough."""
        watched = self.children.get(child)
        if watched:
            watched.reported = True

    def silent_ms(self, child: str, now_ms: int) -> int | None:
        """How long it has been silent; None if it was never heard."""
        watched = self.children.get(child)
        return None if watched is None or watched.last_ms is None else now_ms - watched.last_ms

    def is_late(self, child: str, now_ms: int) -> bool:
        """A heartbeat is missing, or its connection broke; not yet an event."""
        watched = self.children.get(child)
        silent = self.silent_ms(child, now_ms)
        return watched is not None and (watched.gone_ms is not None or (silent is not None and silent > LATE_MS))

    def due(self, now_ms: int) -> list[Silence]:
        """Children to report as silent at `now_ms`, each once until it is heard again.

        Those behind a silent station are told with it, not one by one.
        """
        found = [
            Silence(watched.id, "it was never heard since it was enrolled", now_ms - watched.known_ms)
            for watched in self.children.values()
            if watched.last_ms is None and not watched.reported and now_ms - watched.known_ms > NEVER_HEARD_MS
        ]
        for silence in found:
            self.children[silence.child].reported = True
        stations_first = sorted(self.children.values(), key=lambda watched: not watched.station)
        for watched in stations_first:
            why = self._overdue(watched, now_ms)
            if why is None or watched.reported or watched.last_ms is None:
                continue
            via = self.children.get(watched.via) if watched.via else None
            silent = now_ms - watched.last_ms
            if via and not via.reported and self.is_late(via.id, now_ms) and silent < self.deadline_ms + GONE_GRACE_MS:
                continue  # its station is about to be reported, and this child with it
            watched.reported = True
            behind: list[str] = []
            if watched.station:
                for other in self.children.values():
                    silent_too = other.last_ms is not None and now_ms - other.last_ms > BEHIND_MS
                    if other.via == watched.id and not other.reported and silent_too:
                        other.reported = True
                        behind.append(other.id)
            found.append(Silence(watched.id, why, silent, tuple(sorted(behind))))
        return found

    def _overdue(self, watched: Watched, now_ms: int) -> str | None:
        if watched.last_ms is None:
            return None
        if watched.gone_ms is not None and now_ms - watched.gone_ms > GONE_GRACE_MS:
            return "its connection broke"
        if now_ms - watched.last_ms > self.deadline_ms - (STATION_AHEAD_MS if watched.station else 0):
            return "no heartbeat came"
        return None
