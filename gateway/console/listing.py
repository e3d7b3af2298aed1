"""What comes first, what counts as trouble, and which entrances could deliver a press now. Pure.

An entrance is *ready* when at least one of its buttons is online. Late, faulty and tampered buttons do not count, nor
those under maintenance: they may deliver, and headquarters must not rely on it. A button that is being enrolled is
expected of nobody yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.desk import Child, Incident, Link, Place, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORST_FIRST = (
    Link.TAMPERED,
    Link.OFFLINE,
    Link.FAULTY,
    Link.LATE,
    Link.NEVER_SEEN,
    Link.MAINTENANCE,
    Link.ONLINE,
    Link.RETIRED,
)
WELL = {Link.ONLINE, Link.MAINTENANCE, Link.RETIRED}
"""States in which nothing is wrong: they have no colour, and nobody need look."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """How many entrances there are, how many could deliver a press now, and one button of each that could not."""

    ready: int
    entrances: int
    unable: tuple[Child, ...]


def readiness(children: Iterable[Child]) -> Readiness:
    """Counts entrances. A button without a place counts as an entrance of its own."""
    entrances: dict[tuple[str, str], list[Child]] = {}
    for child in children:
        if child.kind == "button" and child.enrolling_until_ms is None:
            key = (child.place.site, child.place.entrance) if child.place else ("", child.id)
            entrances.setdefault(key, []).append(child)
    unable = [
        min(buttons, key=lambda button: WORST_FIRST.index(button.link))
        for buttons in entrances.values()
        if all(button.link is not Link.ONLINE for button in buttons)
    ]
    return Readiness(len(entrances) - len(unable), len(entrances), tuple(unable))


@dataclass(frozen=True, slots=True)
class SiteCover:
    """A site, and how many of its entrances could deliver a press now. place: of one of them, for the site's name."""

    site: str
    place: Place | None
    ready: int
    entrances: int
    unable: tuple[Child, ...]


def coverage(children: Iterable[Child]) -> list[SiteCover]:
    """The same by site, worst first: the least share of entrances that are ready."""
    by_site: dict[str, list[Child]] = {}
    for child in children:
        by_site.setdefault(child.place.site if child.place else "", []).append(child)
    found = [
        SiteCover(site, mine[0].place, counted.ready, counted.entrances, counted.unable)
        for site, mine in by_site.items()
        if (counted := readiness(mine)).entrances
    ]
    return sorted(found, key=lambda cover: (cover.ready / cover.entrances, cover.site))


def trouble_first(children: Iterable[Child]) -> list[Child]:
    """Children, worst first, otherwise in the order given (site and entrance)."""
    return sorted(children, key=lambda child: WORST_FIRST.index(child.link))


def troubled(children: Iterable[Child]) -> int:
    """How many are not well, of those that should be."""
    return sum(child.link not in WELL and child.enrolling_until_ms is None for child in children)


def urgent_first(incidents: Iterable[Incident]) -> list[Incident]:
    """Alarms that nobody acknowledged first, tests last, otherwise in the order given (newest first)."""
    return sorted(incidents, key=lambda incident: (incident.is_test, incident.state is not State.RAISED))


@dataclass(frozen=True, slots=True)
class Opened:
    """The open alarms, and apart from them the open tests, each in the order given."""

    alarms: tuple[Incident, ...]
    tests: tuple[Incident, ...]

    @property
    def raised(self) -> list[Incident]:
        """Alarms that nobody acknowledged."""
        return [incident for incident in self.alarms if incident.state is State.RAISED]

    @property
    def raised_tests(self) -> list[Incident]:
        """Tests that nobody acknowledged."""
        return [incident for incident in self.tests if incident.state is State.RAISED]


def apart(incidents: Iterable[Incident]) -> Opened:
    """Alarms and tests, told apart: nothing that counts, sounds or is red may count a test."""
    incidents = tuple(incidents)
    return Opened(
        tuple(incident for incident in incidents if not incident.is_test),
        tuple(incident for incident in incidents if incident.is_test),
    )


def matching(children: Sequence[tuple[Child, str]], sought: str) -> list[Child]:
    """Children whose text holds every word of `sought`, whatever the case."""
    terms = sought.casefold().split()
    return [child for child, text in children if all(term in text.casefold() for term in terms)]
