"""What a station shows to people and takes from them: the one door between the console and everything behind it.

Times are UTC milliseconds. Everything here is immutable: what a page holds can't change under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from gateway.enrolment import Enrolment
from gateway.sites import Entrance, Site, SiteChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.enrolment import Registrar


class State(StrEnum):
    """Where an incident stands."""

    RAISED = "raised"
    ACKNOWLEDGED = "acknowledged"
    RESPONDING = "responding"
    ON_SCENE = "on_scene"
    CLOSED = "closed"


OPEN = tuple(state for state in State if state is not State.CLOSED)

NEXT_STEPS: dict[State, tuple[State, ...]] = {
    State.RAISED: (State.ACKNOWLEDGED, State.RESPONDING, State.ON_SCENE, State.CLOSED),
    State.ACKNOWLEDGED: (State.RESPONDING, State.ON_SCENE, State.CLOSED),
    State.RESPONDING: (State.ON_SCENE, State.CLOSED),
    State.ON_SCENE: (State.CLOSED,),
    State.CLOSED: (),
}
"""The steps that may follow on each state: what the console offers and `Desk.step` accepts."""


TEST_CAUSE = "test"


class Outcome(StrEnum):
    """How an incident ended."""

    GENUINE = "genuine"
    FALSE_ALARM = "false_alarm"
    DRILL = "drill"
    TEST = "test"
    FAULT = "fault"


class Link(StrEnum):
    """Whether a child can be relied on to deliver."""

    NEVER_SEEN = "never_seen"
    ONLINE = "online"
    LATE = "late"
    OFFLINE = "offline"
    FAULTY = "faulty"
    TAMPERED = "tampered"
    MAINTENANCE = "maintenance"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Place:
    """An entrance of a site. Names are in English and in Urdu (empty when nobody entered one)."""

    site: str
    site_name: str
    site_name_ur: str
    entrance: str
    entrance_name: str
    entrance_name_ur: str
    address: str = ""
    phone: str = ""  # of the first contact
    address_ur: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One move of an incident, by one person."""

    state: State
    at_ms: int
    by: str
    note: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """An alarm and what was done about it. `id` is its position in the journal."""

    id: int
    device: str
    boot: int
    seq: int
    place: Place
    cause: str  # "hold_up", "duress", "medical", "test"
    how: str  # "both", "contact_a", "contact_b": which contacts of the button said so
    pressed_at_ms: int
    pressed_at_exact: bool  # False: the button lost power since, so it was at this time or earlier
    received_at_ms: int
    state: State
    steps: tuple[Step, ...] = ()
    outcome: Outcome | None = None
    vouched_by: str = ""  # the station whose word alone it is believed on: the button is not known here
    site: Site | None = None  # as it is now; None: not entered
    more: int = 0  # so many older open alarms of this button the list leaves out behind this one

    @property
    def is_test(self) -> bool:
        """A technician's test: worked like an alarm, and never taken for one. A cause that is unknown is an alarm."""
        return self.cause == TEST_CAUSE


@dataclass(frozen=True, slots=True)
class Child:
    """A button or a station below, as its last verified heartbeat left it. None: not known."""

    id: str
    kind: str  # "button", "station"
    place: Place | None
    link: Link
    why: str  # one sentence when link is not online, else ""
    last_heard_ms: int | None
    loop: str | None = None  # "rest", "pressed", "cut", "shorted", "faulty"
    tampered: bool | None = None
    battery_mv: int | None = None
    on_mains: bool | None = None
    rssi_dbm: int | None = None  # None on a cable
    path: str | None = None  # "cable", "wifi": which carries, where the button says so
    spare: str | None = None  # "none", "ready", "dead": its other path, likewise
    testing: str | None = None  # "granted": presses may become tests; "on": they are; None: they are alarms
    firmware: str | None = None
    uptime_ms: int | None = None
    pending: int | None = None
    via: str | None = None  # the station that it was last heard through
    enrolling_until_ms: int | None = None  # its enrolment ends then, if nothing is heard of it
    maintenance_until_ms: int | None = None  # its silence is no event until then; a press is an alarm all the same


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of the journal, told in words by the page that shows it."""

    id: int
    device: str
    place: Place | None
    code: str  # "started", "loop_cut", "child_silent", "refusal", … : names in gateway/vocabulary.py
    subject: str
    detail: str
    happened_at_ms: int
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class EntrancePast:
    """Everything that an entrance had and that happened there, whichever button it was; newest first."""

    site: Site
    entrance: Entrance
    buttons: tuple[Enrolment, ...]
    incidents: tuple[Incident, ...]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What headquarters told a button to do, and what became of it."""

    id: int
    child: str
    command: str  # "identify", "test", "reboot", "configuration", "wifi", "certificate"
    about: str  # the name of the network, with "wifi"; until when the certificate holds
    state: str  # "waiting", "done", "failed", "expired", "replaced" by a newer one
    made_at_ms: int
    expires_at_ms: int
    by: str
    answered_at_ms: int | None = None
    answer: str = ""  # the button's, in one sentence


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that was turned away: who (id or address), why, how often, last when and what it looked like."""

    who: str
    why: str
    count: int
    last_ms: int
    sample: str


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the health page."""

    name: str  # "broker", "journal", "parent hq", "disk", "clock" …
    ok: bool
    text: str  # one sentence, with figures


@dataclass(frozen=True, slots=True)
class Health:
    """The station's own state."""

    station: str
    role: str
    version: str
    started_ms: int
    checks: tuple[Check, ...]
    refused: tuple[Refused, ...]
    counters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign in. `role`: "operator" works alarms, "administrator" changes sites too, "viewer" only sees."""

    name: str
    full_name: str
    role: str


class StepRefusedError(Exception):
    """The step can't follow on where the incident stands now; the text says why."""


class MaintenanceRefusedError(Exception):
    """The maintenance can't be set; the text says why."""


class CommandRefusedError(Exception):
    """The command can't be given; the text says why."""


class StorageError(Exception):
    """The journal can't be written or opened now: nothing was changed; the text says why and what to do."""


class Subscription(Protocol):
    """Tells that something changed. Made by `Desk.subscribe`; safe to use from any thread."""

    def wait(self, timeout_s: float) -> set[str]:
        """Topics changed since the last call: of "incidents", "children", "happenings", "health". Empty: time-out."""

    def close(self) -> None:
        """Ends it; a waiting `wait` returns."""


class Desk(Protocol):
    """The console's view of a station. Every call is quick and safe from any thread."""

    @property
    def station(self) -> str:
        """The station's id."""

    @property
    def role(self) -> str:
        """ "site" or "hq"."""

    @property
    def name(self) -> str:
        """What people call the station."""

    def now_ms(self) -> int:
        """UTC milliseconds by the clock that all times here are told by."""

    def unreadable(self, error: Exception) -> tuple[str, int] | None:
        """Why the station's database can't be read at present and since when, UTC ms, if that is what `error` says."""

    def open_incidents(self) -> Sequence[Incident]:
        """Not closed, the newest to come first, each button's fair share of them."""

    def incident(self, number: int) -> Incident | None:
        """The incident of that id."""

    def history(self, before: int | None = None, limit: int = 50) -> Sequence[Incident]:
        """All incidents, newest first, with an id less than `before`."""

    def step(self, number: int, state: State, by: str, note: str = "", outcome: Outcome | None = None) -> Incident:
        """Moves an incident and returns it; durable when this returns. Raises StepRefusedError, KeyError."""

    def children(self) -> Sequence[Child]:
        """Every child that is known and not retired, by site and entrance."""

    def child(self, child: str) -> Child | None:
        """One child, a retired one included."""

    def maintain(self, child: str, until_ms: int | None, by: str) -> None:
        """Puts a child under maintenance until then, UTC, or ends it (None); durable when this returns.

        Raises KeyError, MaintenanceRefusedError.
        """

    def happenings(self, before: int | None = None, limit: int = 100) -> Sequence[Happening]:
        """Events, newest first."""

    def command(
        self,
        child: str,
        command: str,
        by: str,
        network: tuple[str, str] | None = None,
        lasts_s: int | None = None,
        changes: Mapping[str, str | int] | None = None,
    ) -> Command:
        """Gives a button a command; durable when this returns. Raises CommandRefusedError, KeyError.

        command: "identify", "test", "reboot"; "wifi" with the network's (name, password); "configuration" with changes,
        by the names of the button's settings. lasts_s: how long it is repeated.
        """

    def commands(self, child: str) -> Sequence[Command]:
        """The commands that were given to a button, newest first. Raises KeyError."""

    def sites(self) -> Sequence[Site]:
        """Every site, by id."""

    def site_changes(self, site: str) -> Sequence[SiteChange]:
        """Who changed what of a site, newest first."""

    def change_site(self, site: str, fields: Mapping[str, str], by: str, seen: int | None = None) -> Site:
        """Gives fields of a site, which may be new, other texts; durable when this returns. Raises RegistryRefusedError.

        seen: the number of the last change that the person knew of; a later one of somebody else is not overwritten.
        """

    def undo_site(self, site: str, number: int, by: str) -> Site:
        """Takes a change back, by another. Raises RegistryRefusedError."""

    def entrance_past(self, site: str, entrance: str) -> EntrancePast | None:
        """What an entrance had and what happened there; None: there is no such entrance."""

    def health(self) -> Health:
        """The station's own state."""

    def sign_in(self, name: str, password: str) -> Person | None:
        """The person, or None if the name or the password is wrong."""

    def person(self, name: str) -> Person | None:
        """The person of that name, if they may still sign in."""

    @property
    def registrar(self) -> Registrar:
        """The registry, for technicians' programs."""

    def subscribe(self) -> Subscription:
        """Tells of changes from now on."""
