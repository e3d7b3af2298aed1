"""Silence is an event: who should have been heard, who was, and who is reported.

A child of this station is heard by its own heartbeats. One behind a station below is taken for alive as long as that
station's digest does not name it, and has signed a heartbeat itself within SIGNED_MS. What is lost at once is told as
one event. Pure: times come in as arguments, decisions go out. All times are milliseconds of one monotonic clock.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from firmware import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LATE_MS = 7_500  # one heartbeat of 5 s missed
GONE_GRACE_MS = 8_000  # between a last will and its event: time for a reconnection, also over a link that loses much
BEHIND_MS = 6_000  # a child that was silent for so long when its station is reported can't be heard because of that
NEVER_HEARD_MS = 60_000  # from enrolment, or this station's start, until a child that never spoke is an event
LAG_MS = 10_000  # a heartbeat that was held up for longer than this says nothing about now
DRIFT_PER_MS = 1e-4  # two clocks drift apart by 100 ppm at most
ROUGH_LAG_MS = 150  # a heartbeat that came so much later than the quickest shows a link that loses packets
ROUGH_FOR_MS = 600_000  # for so long after it
ROUGH_DEADLINE_MS = 18_000  # such a child may be silent: a heartbeat, the time to give up a link, and a new connection
LAST_CALL_MS = 18_500  # silence that is told however many others may join it: headquarters has to know within 20 s
SIGNED_MS = 75_000  # one signed heartbeat a minute comes verbatim; 15 s for one that got lost and its repetition
SINCE_MS = 50_000  # of the answer that it names a signed heartbeat proves so much: the usual time between two of them
LENIENT_MS = 90_000  # after a time in which this station gave no answers that heartbeats could name
ANSWERS = 4  # of a child's heartbeats, kept: it names the newest one that it got
BEAT_MS = 5_500  # between two heartbeats
GATHER_MS = 4_000  # so long an event waits for others that are late already, to tell of all of them at once
MANY, FEWEST = 5, 3  # so many at once are one event; or half of all, if that is this many
RETURN_MS = 10_000  # those who were lost together and are back within this are told together
AFTER_MS = 8_000  # after a maintenance: time for the station below to report its own child first
RSSI_KEPT = 6  # half a minute of heartbeats
FADED_DB = 8  # a signal that fell by so much before it was lost
NO_BROKER = "this station's message broker is gone"


class Verdict(Enum):
    """What a heartbeat is worth."""

    FRESH = "fresh"
    REPEATED = "an old heartbeat was sent again"
    HELD_UP = "a heartbeat was held up on its way"
    UNPROVEN = "a heartbeat that may have been recorded: it names no answer of late"


@dataclass(frozen=True, slots=True)
class Silence:
    """A child that must be reported as silent.

    behind: children that can't be heard because of it. others: children that were lost at the same time; then `why`
    is what is suspected.
    """

    child: str
    why: str
    silent_ms: int
    behind: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Return:
    """A child that was reported and is heard again; others: those that were lost with it and are back, too."""

    child: str
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class Watched:
    """One child, as supervision sees it."""

    id: str
    station: bool
    last_ms: int | None = None  # of its newest sign of life; None: not heard of since this station knows it
    signed_ms: int = 0  # until when its own heartbeats prove that it lived
    beat_ms: int | None = None  # when its own newest one came
    identity: tuple[int, int] = (0, 0)
    via: str | None = None
    session: tuple[int, int] = (0, 0)  # of its newest presence
    session_heard: bool = True  # whether it was heard in that session
    gone_ms: int | None = None
    said: int | None = None  # its state, if its station's digest names it
    uncertain: bool = False  # its station has more exceptions than it can name
    reported: bool = False
    lost: _Lost | None = None  # with whom it was reported, by this station
    known_ms: int = 0  # since when this station expects it
    base: tuple[int, float, int] | None = None  # boot, least (arrival - uptime), when that was
    rough_until_ms: int = 0  # its link loses packets, as far as its heartbeats show
    rssi: deque[int] = field(default_factory=lambda: deque(maxlen=RSSI_KEPT))
    names: bool = (
        False  # it has named an answer before; an older firmware does not, nor does a button that never got one
    )
    answers: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=ANSWERS))  # boot, seq, when

    @property
    def faded(self) -> bool:
        """Whether its signal fell before the last heartbeat."""
        return len(self.rssi) > 1 and max(self.rssi) - self.rssi[-1] >= FADED_DB


@dataclass(eq=False, slots=True)
class _Lost:
    """Children that were reported together."""

    lead: str
    away: set[str]
    back: list[str] = field(default_factory=list)
    since_ms: int = 0  # when the first of `back` was heard


@dataclass
class Supervision:
    """Every child's deadline. deadline_ms: how long a child may be silent. signed_ms: how long it may go unsigned."""

    deadline_ms: int
    signed_ms: int = SIGNED_MS
    station: str = ""  # this one
    children: dict[str, Watched] = field(default_factory=dict)
    maintained: dict[str, int] = field(default_factory=dict)  # whose silence is no event, until when
    _behind: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _returning: list[_Lost] = field(default_factory=list)
    _lenient_until_ms: int = 0
    _rough_until_ms: int = 0  # the network that this station's own buttons share, as far as the heartbeats of any show

    # ------------------------------------------------------------------------------------ who is expected

    def expect(self, child: str, *, station: bool, identity: tuple[int, int] | None = None, now_ms: int) -> None:
        """Watches `child`. identity: of its last heartbeat, if it was ever heard: then its deadline starts now."""
        watched = self.children.setdefault(child, Watched(child, station, known_ms=now_ms))
        watched.station = station
        if identity is not None and watched.last_ms is None:
            watched.last_ms = watched.signed_ms = now_ms
            watched.identity = identity
            self.lenient(now_ms)  # it names an answer that an earlier run gave

    def remember(self, child: str, *, via: str | None, reported: bool, names: bool = False) -> None:
        """What the last run knew of a child that is expected."""
        watched = self.children[child]
        watched.names = names
        self._move(watched, via)
        if reported and via is None:  # else its station tells of its return
            self._report([watched])
        watched.reported = reported

    def forget(self, known: Iterable[str]) -> None:
        """Stops watching all but `known`."""
        keep = set(known)
        self.children = {name: watched for name, watched in self.children.items() if name in keep}
        for behind in self._behind.values():
            behind.intersection_update(keep)

    def excuse(self, late_ms: int, now_ms: int) -> None:
        """This station itself stood still for `late_ms` until now: that time counts against nobody."""
        for watched in self.children.values():
            watched.known_ms += late_ms
            watched.signed_ms = min(now_ms, watched.signed_ms + late_ms)
            if watched.last_ms is not None:
                watched.last_ms = min(now_ms, watched.last_ms + late_ms)
            if watched.gone_ms is not None:
                watched.gone_ms += late_ms
            if watched.base is not None:
                watched.base = (watched.base[0], watched.base[1] + late_ms, watched.base[2] + late_ms)
        self.lenient(now_ms)

    # ------------------------------------------------------------------------------------ what is heard

    def heard(
        self,
        child: str,
        boot: int,
        seq: int,
        uptime_ms: int,
        now_ms: int,
        via: str | None = None,
        rssi: int | None = None,
        answered: int | None = None,
        *,
        proves: bool = False,
    ) -> Verdict:
        """A verified heartbeat of the child's own. Only a FRESH one shows that the child can deliver now.

        answered: seq of the newest heartbeat of the same start that this station answered, as the child says. proves:
        whether the child must say so, as a button whose headquarters this is, behind a station that may have recorded it.
        """
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
            if offset - least > ROUGH_LAG_MS:
                watched.rough_until_ms = now_ms + ROUGH_FOR_MS
                if not via and not watched.station:
                    self._rough_until_ms = watched.rough_until_ms
                if via and via in self.children:  # it came over that station's link, too
                    self.children[via].rough_until_ms = watched.rough_until_ms
        watched.beat_ms = now_ms
        watched.names |= answered is not None
        must_prove = via and proves and watched.names and watched.last_ms is not None
        proven_ms = self._proven_ms(watched, boot, answered, now_ms) if must_prove else now_ms
        if proven_ms is None and watched.reported:
            return Verdict.UNPROVEN
        watched.last_ms = now_ms
        watched.signed_ms = max(watched.signed_ms, proven_ms or 0)
        watched.gone_ms = watched.said = None
        watched.uncertain = False
        self._move(watched, via)
        bringer = self.children.get(via) if via else None
        if bringer and bringer.last_ms is None:  # it is there, so its own heartbeats are expected from now on
            bringer.last_ms = bringer.signed_ms = now_ms
        if rssi is None:
            watched.rssi.clear()
        else:
            watched.rssi.append(rssi)
        return Verdict.FRESH

    def answered(self, child: str, boot: int, seq: int, now_ms: int) -> None:
        """This station answers a heartbeat of the child's: whoever names that answer lived after it."""
        watched = self.children.get(child)
        if watched:
            watched.answers.append((boot, seq, now_ms))

    def lenient(self, now_ms: int) -> None:
        """This station gives no answers now, or gave none: so none can be asked of its children for a while."""
        self._lenient_until_ms = max(self._lenient_until_ms, now_ms + LENIENT_MS)

    def _proven_ms(self, watched: Watched, boot: int, answered: int | None, now_ms: int) -> int | None:
        """Up to when a heartbeat proves that the child lived; None: it proves nothing of now."""
        if now_ms < self._lenient_until_ms and not watched.reported:
            return now_ms
        for known_boot, seq, at_ms in watched.answers:
            if (known_boot, seq) == (boot, answered):
                return min(now_ms, at_ms + SINCE_MS) if now_ms - at_ms <= SINCE_MS + self.signed_ms else None
        return None

    def _move(self, watched: Watched, via: str | None) -> None:
        if watched.via != via:
            if watched.via:
                self._behind[watched.via].discard(watched.id)
            if via:
                self._behind[via].add(watched.id)
            watched.via = via

    def is_afresh(self, child: str) -> bool:
        """Whether the heartbeat that was just heard is the first of a connection; asked again it is not."""
        watched = self.children[child]
        was, watched.session_heard = watched.session_heard, True
        return not was

    def digested(self, station: str, named: Mapping[str, int], *, unnamed: int, now_ms: int) -> list[str]:
        """A station's digest: who behind it is not well. Returns those that are alive by its word.

        unnamed: how many more are not well. Then nobody is believed to be well for not being named.
        Its word never ends a silence that was reported: a child's own heartbeat does.
        """
        alive = []
        for child in self._behind[station]:
            watched = self.children.get(child)
            if watched is None or watched.last_ms is None:
                continue
            watched.said = named.get(child)
            watched.uncertain = watched.said is None and unnamed > 0
            if watched.uncertain or watched.said in {wire.CHILD_LATE, wire.CHILD_OFFLINE} or watched.reported:
                continue
            watched.last_ms = now_ms
            alive.append(child)
        return alive

    def back(self, child: str, now_ms: int) -> bool:
        """Whether a child that was just heard had been reported as silent; it no longer is. See `returns`."""
        watched = self.children[child]
        if not watched.reported:
            return False
        watched.reported = False
        lost, watched.lost = watched.lost, None
        if lost and child in lost.away:
            lost.away.discard(child)
            if not lost.back:
                lost.since_ms = now_ms
                self._returning.append(lost)
            lost.back.append(child)
        return True

    def returns(self, now_ms: int) -> list[Return]:
        """Whose return to report at `now_ms`: together, if they were reported together."""
        found = []
        for lost in list(self._returning):
            if lost.away and now_ms - lost.since_ms < RETURN_MS:
                continue
            self._returning.remove(lost)
            here, lost.back = sorted(lost.back, key=lambda child: (child != lost.lead, child)), []
            found.append(Return(here[0], tuple(here[1:])))
        return found

    def _is_returning(self, watched: Watched) -> bool:
        """Whether its return is not told yet: it is by the next `returns`, so that its silence is told after it."""
        for lost in self._returning:
            if watched.id in lost.back:
                lost.since_ms = -RETURN_MS
                return True
        return False

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
            watched.session_heard = False
            watched.gone_ms = None

    def reported_silent(self, children: Iterable[str], station: str, *, all_silent: bool, now_ms: int) -> None:
        """A station below already reported these children: once is enough. It will tell of their return.

        all_silent: it reported more than it could name: those behind it that were not vouched for lately.
        """
        reported = set(children)
        if all_silent:
            behind = (self.children[child] for child in self._behind[station] if child in self.children)
            reported |= {one.id for one in behind if one.last_ms is not None and now_ms - one.last_ms > BEHIND_MS}
        for child in reported:
            watched = self.children.get(child)
            if watched and watched.via == station:
                watched.reported = True
                watched.said = wire.CHILD_OFFLINE

    # ------------------------------------------------------------------------------------ how they are

    def silent_ms(self, child: str, now_ms: int) -> int | None:
        """How long it has been silent; None if it was never heard."""
        watched = self.children.get(child)
        return None if watched is None or watched.last_ms is None else now_ms - watched.last_ms

    def is_late(self, child: str, now_ms: int) -> bool:
        """A heartbeat is missing, or its connection broke; not yet an event."""
        watched = self.children.get(child)
        silent = self.silent_ms(child, now_ms)
        if watched is None or silent is None:
            return False
        return watched.gone_ms is not None or silent > LATE_MS or watched.said in {wire.CHILD_LATE, wire.CHILD_OFFLINE}

    def is_maintained(self, child: str, now_ms: int) -> bool:
        """Whether its silence is no event now."""
        return now_ms < self.maintained.get(child, 0)

    def due(self, now_ms: int, *, broker_up: bool = True) -> list[Silence]:
        """Children to report as silent at `now_ms`, each once until it is heard again. Ask for `returns` before.

        Those behind a silent station are told with it, not one by one; and what is lost at once is told at once.
        broker_up: whether this station's own broker is there, without which no child can be heard.
        """
        found = [
            Silence(watched.id, "it was never heard since it was enrolled", now_ms - watched.known_ms)
            for watched in self.children.values()
            if watched.last_ms is None
            and not watched.reported
            and now_ms - watched.known_ms > NEVER_HEARD_MS
            and not self._is_spared(watched, now_ms)
        ]
        for silence in found:
            self._report([self.children[silence.child]])
        ripe: dict[str | None, list[tuple[Watched, str, int]]] = {}
        for watched in self.children.values():
            at_ms, why = self._deadline(watched, now_ms)
            if now_ms <= at_ms or watched.reported or watched.last_ms is None or self._is_spared(watched, now_ms):
                continue
            if self._is_returning(watched):
                continue
            via = self.children.get(watched.via) if watched.via else None
            if via and not via.reported and self.is_late(via.id, now_ms) and now_ms - at_ms < GATHER_MS:
                continue  # its station is about to be reported, and this child with it
            ripe.setdefault(watched.via, []).append((watched, why, at_ms))
        for via_id, lost in sorted(ripe.items(), key=lambda pool: pool[0] is not None):
            lost = [one for one in lost if not one[0].reported]  # noqa: PLW2901 told with its station just now
            if lost:
                found += self._told(via_id, lost, now_ms, broker_up=broker_up)
        return found

    def _told(
        self, via: str | None, ripe: Sequence[tuple[Watched, str, int]], now_ms: int, *, broker_up: bool
    ) -> list[Silence]:
        """What to say of the children of one way whose deadlines have passed; nothing, while more may join them."""
        lost = [watched for watched, _, _ in ripe]
        pool = [self.children[child] for child in self._behind[via]] if via else self.children.values()
        others = [
            watched
            for watched in pool
            if watched.via == via and not watched.reported and watched.last_ms is not None and watched not in lost
        ]
        eldest = min(ripe, key=lambda one: one[2])
        last_ms = (eldest[0].last_ms or 0) + BEAT_MS  # what was lost at the same time was not heard later than this
        coming = [
            one
            for one in others
            if (one.last_ms or 0) <= last_ms
            and self.is_late(one.id, now_ms)
            and not one.uncertain
            and not self._is_spared(one, now_ms)
        ]
        if _are_many(len(lost) + len(coming), len(lost) + len(others)):
            if coming and now_ms < min(eldest[2] + GATHER_MS, (eldest[0].last_ms or 0) + LAST_CALL_MS):
                return []
            lost += coming
            others = [one for one in others if one not in coming]
        else:
            blind = via is None and not broker_up
            return [self._silence(watched, NO_BROKER if blind else why, now_ms) for watched, why, _ in ripe]
        lost.sort(key=lambda one: (not one.station, one.id))
        behind = [child for watched in lost for child in self._silent_behind(watched, now_ms)]
        self._report([*lost, *behind])
        silent_ms = max(now_ms - (watched.last_ms or 0) for watched in lost)
        told = tuple(watched.id for watched in lost)
        reasons = {why for _, why, _ in ripe}
        why = _suspected(lost, others, broker_up=broker_up) if via is None else f"behind {via}: {min(reasons)}"
        return [Silence(told[0], why, silent_ms, tuple(sorted(one.id for one in behind)), told[1:])]

    def _silence(self, watched: Watched, why: str, now_ms: int) -> Silence:
        behind = self._silent_behind(watched, now_ms)
        self._report([watched, *behind])
        silent_ms = now_ms - (watched.last_ms or 0)
        return Silence(watched.id, why, silent_ms, tuple(sorted(one.id for one in behind)))

    def _silent_behind(self, station: Watched, now_ms: int) -> list[Watched]:
        behind = [self.children[child] for child in self._behind.get(station.id, ())]
        return [
            one for one in behind if one.last_ms is not None and not one.reported and now_ms - one.last_ms > BEHIND_MS
        ]

    @staticmethod
    def _report(together: list[Watched]) -> None:
        lost = _Lost(together[0].id, {watched.id for watched in together})
        for watched in together:
            watched.reported = True
            watched.lost = lost

    def _is_spared(self, watched: Watched, now_ms: int) -> bool:
        """Under maintenance, as its station, or as this whole station is."""
        if self.is_maintained(self.station, now_ms):
            return True
        if watched.via and self.is_maintained(watched.via, now_ms):
            return True
        return now_ms < self.maintained.get(watched.id, -AFTER_MS) + (AFTER_MS if watched.via else 0)

    def _deadline(self, watched: Watched, now_ms: int) -> tuple[int, str]:
        """When the child's silence is an event, and why."""
        if watched.last_ms is None:
            return 0, ""
        unsigned_at = watched.signed_ms + self.signed_ms
        if watched.uncertain:
            return unsigned_at, "its gateway has more trouble than it can name, and it has not signed a heartbeat"
        shared = not watched.via and not watched.station
        rough = now_ms < (max(watched.rough_until_ms, self._rough_until_ms) if shared else watched.rough_until_ms)
        patience_ms = self.deadline_ms
        if watched.via:
            patience_ms += GATHER_MS + 500  # its own station may still be gathering, and has the first word
        if rough:
            patience_ms = max(patience_ms, ROUGH_DEADLINE_MS)
        silent_at = watched.last_ms + patience_ms
        if not rough and watched.gone_ms is not None and watched.gone_ms + GONE_GRACE_MS < silent_at:
            return watched.gone_ms + GONE_GRACE_MS, "its connection broke"
        if watched.via and unsigned_at < silent_at:
            seconds = self.signed_ms // 1000
            return unsigned_at, f"its gateway says that it lives, but it has not signed a heartbeat for {seconds} s"
        return silent_at, "no heartbeat came"


def _are_many(lost: int, of: int) -> bool:
    """Whether so many at once are one event."""
    return lost >= MANY or (lost >= FEWEST and 2 * lost >= of)


def _suspected(lost: Sequence[Watched], others: Sequence[Watched], *, broker_up: bool) -> str:
    """What may have taken them all at once, in a sentence."""
    if not broker_up:
        return NO_BROKER
    if all(watched.rssi for watched in lost):
        if 2 * sum(watched.faded for watched in lost) >= len(lost):
            return "jamming is suspected: they are on Wi-Fi, and their signal fell before"
        if any(not watched.rssi for watched in others):
            return "those on Wi-Fi alone: its access point, or jamming"
    if not others:
        return "all at once: the power or the network switch"
    return "several at once: a switch, a cable or power that they share"
