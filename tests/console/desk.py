"""A stand-in for a station: a `gateway.desk.Desk` in memory, and a console over it in a real server.

Tests press, break and mend things on it through the methods that are not the desk's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

import uvicorn

from gateway.console.app import create_app
from gateway.desk import (
    NEXT_STEPS,
    Check,
    Child,
    Command,
    EntrancePast,
    Happening,
    Health,
    Incident,
    Link,
    MaintenanceRefusedError,
    Outcome,
    Person,
    Place,
    Refused,
    State,
    Step,
    StepRefusedError,
)
from gateway.enrolment import Enrolment, UnfitError
from gateway.sitebook import ChangedMeanwhileError
from gateway.sites import Contact, Entrance, Position, Site, SiteChange, cleaned, fields_of, site_of
from tests.parts import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECRET = b"a secret of at least 16 bytes"
ZONE = timezone(timedelta(hours=5), "PKT")
PASSWORD = "a good long password"
PEOPLE = {
    "ayesha": Person("ayesha", "Ayesha Khan", "operator"),
    "bilal": Person("bilal", "Bilal Ahmed", "operator"),
    "admin": Person("admin", "Adeela Shah", "administrator"),
    "viewer": Person("viewer", "Guest of the day", "viewer"),
}
GATE = Place(
    "clifton",
    "Consulate, Clifton",
    "قونصل خانہ، کلفٹن",
    "gate",
    "Main gate",
    "صدر دروازہ",
    "Plot 20, Block 4, Clifton",
    "021 5550 123",
)
VISA = replace(GATE, entrance="visa", entrance_name="Visa hall", entrance_name_ur="ویزا ہال")
CARS = replace(GATE, entrance="cars", entrance_name="Car park", entrance_name_ur="")
HOSTILE = replace(
    GATE, entrance="x", entrance_name="<img src=x onerror=alert(1)>", address="'\"><script>alert(2)</script>"
)
CLIFTON = Site(
    "clifton",
    "Consulate, Clifton",
    "قونصل خانہ، کلفٹن",
    "Plot 20, Block 4, Clifton",
    "پلاٹ 20، بلاک 4، کلفٹن",
    Position(24.81331, 67.03054),
    (
        Contact("Rabia Aslam", "Head of security", "021 5550 123"),
        Contact("Guard room", "Day and night", "+92 21 5550 124"),
    ),
    "Keys of the main gate: guard room.\nTwo dogs in the yard after 20:00.",
    "صدر دروازے کی چابیاں: گارڈ روم۔",
    "",
    (Entrance("gate", "Main gate", "صدر دروازہ"), Entrance("visa", "Visa hall", "ویزا ہال")),
)
NEVER = 2**62


def button(name: str, place: Place | None, **changes: object) -> Child:
    """A button in good order, with what is said otherwise."""
    child = Child(
        id=name, kind="button", place=place, link=Link.ONLINE, why="", last_heard_ms=int(time.time() * 1000), loop="rest",
        tampered=False, battery_mv=3_920, on_mains=True, rssi_dbm=-58, firmware="1.0.3", uptime_ms=86_400_000, pending=0,
        via="gw-clifton",
    )  # fmt: skip
    return replace(child, **changes)  # type: ignore[arg-type]


class StandInSubscription:
    """`gateway.desk.Subscription` over a condition."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._condition = threading.Condition()
        self._closed = False

    def tell(self, topics: set[str]) -> None:
        with self._condition:
            self._changed |= topics
            self._condition.notify()

    def wait(self, timeout_s: float) -> set[str]:
        with self._condition:
            self._condition.wait_for(lambda: self._changed or self._closed, timeout_s)
            told, self._changed = self._changed, set()
            return told

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()


class StandInDesk:
    """A `gateway.desk.Desk`. `broken`: every look at it fails."""

    station = "hq"
    role = "hq"
    name = "Diplomatic Protection, Karachi"

    def __init__(self) -> None:
        self.people = dict(PEOPLE)
        self.ahead_ms = 0
        self.broken = False
        self.refused: tuple[Refused, ...] = ()
        self.checks = (
            Check("broker", ok=True, text="Listening on port 8883; 4 stations are connected."),
            Check("journal", ok=True, text="The last commit took 2.1 ms."),
            Check("disk", ok=True, text="212 GB free."),
        )
        self.known_sites = {CLIFTON.id: CLIFTON}
        self.changes: dict[str, list[SiteChange]] = {}
        self.buttons: list[Enrolment] = []
        self._lock = threading.RLock()
        self._incidents: dict[int, Incident] = {}
        self._children: dict[str, Child] = {}
        self._happenings: list[Happening] = []
        self._subscriptions: list[StandInSubscription] = []
        self._numbers = iter(range(1, 1_000_000))
        self._started_ms = self.now_ms()

    # What happens to it

    def press(self, place: Place = GATE, device: str = "clifton-gate", **changes: object) -> Incident:
        """An alarm, as it was journaled 180 ms after the press."""
        with self._lock:
            number, now_ms = next(self._numbers), self.now_ms()
            incident = Incident(
                id=number, device=device, boot=17, seq=number, place=place, cause="hold_up", how="both",
                pressed_at_ms=now_ms - 180, pressed_at_exact=True, received_at_ms=now_ms, state=State.RAISED,
                site=self.known_sites.get(place.site),
            )  # fmt: skip
            self._incidents[number] = replace(incident, **changes)  # type: ignore[arg-type]
            self._tell("incidents")
            return self._incidents[number]

    def hear(self, *children: Child) -> None:
        """Heartbeats."""
        with self._lock:
            self._children |= {child.id: child for child in children}
            self._tell("children")

    def happen(self, code: str, device: str, place: Place | None = None, subject: str = "", detail: str = "") -> None:
        """An event."""
        with self._lock:
            now_ms = self.now_ms()
            self._happenings.insert(
                0, Happening(next(self._numbers), device, place, code, subject, detail, now_ms, now_ms)
            )
            self._tell("happenings")

    def turn_away(self, who: str, why: str, sample: str = "") -> None:
        """A refusal."""
        with self._lock:
            self.refused = (*self.refused, Refused(who, why, 1, self.now_ms(), sample))
            self._tell("health")

    def _tell(self, *topics: str) -> None:
        for subscription in self._subscriptions:
            subscription.tell(set(topics))

    def _seen(self) -> None:
        if self.broken:
            message = "the journal can't be read"
            raise OSError(message)

    # The desk

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def unreadable(self, error: Exception) -> tuple[str, int] | None:
        return None

    def open_incidents(self) -> Sequence[Incident]:
        self._seen()
        with self._lock:
            opened = [incident for incident in self._incidents.values() if incident.state is not State.CLOSED]
            return sorted(opened, key=lambda incident: (-incident.pressed_at_ms, -incident.id))

    def incident(self, number: int) -> Incident | None:
        return self._incidents.get(number)

    def history(self, before: int | None = None, limit: int = 50) -> Sequence[Incident]:
        self._seen()
        with self._lock:
            numbers = sorted((number for number in self._incidents if number < (before or NEVER)), reverse=True)
            return [self._incidents[number] for number in numbers[:limit]]

    def step(self, number: int, state: State, by: str, note: str = "", outcome: Outcome | None = None) -> Incident:
        with self._lock:
            incident = self._incidents[number]
            if state not in NEXT_STEPS[incident.state]:
                message = f"an alarm that is {incident.state} can't become {state}"
                raise StepRefusedError(message)
            steps = (*incident.steps, Step(state, self.now_ms(), by, note, outcome))
            self._incidents[number] = replace(incident, state=state, steps=steps, outcome=outcome)
            self._tell("incidents")
            return self._incidents[number]

    def children(self) -> Sequence[Child]:
        with self._lock:
            return list(self._children.values())

    def commands(self, child: str) -> Sequence[Command]:
        with self._lock:
            if child not in self._children:
                raise KeyError(child)
        return ()

    def child(self, child: str) -> Child | None:
        return self._children.get(child)

    def maintain(self, child: str, until_ms: int | None, by: str) -> None:
        if until_ms is not None and until_ms <= self.now_ms():
            raise MaintenanceRefusedError("the end of a maintenance must lie in the future")
        link = Link.ONLINE if until_ms is None else Link.MAINTENANCE
        self.hear(replace(self._children[child], link=link, maintenance_until_ms=until_ms, why=f"by {by}"))

    def happenings(self, before: int | None = None, limit: int = 100) -> Sequence[Happening]:
        with self._lock:
            return [one for one in self._happenings if one.id < (before or NEVER)][:limit]

    def sites(self) -> Sequence[Site]:
        return tuple(self.known_sites.values())

    def site_changes(self, site: str) -> Sequence[SiteChange]:
        return list(reversed(self.changes.get(site, [])))

    def change_site(self, site: str, fields: Mapping[str, str], by: str, seen: int | None = None) -> Site:
        with self._lock:
            mine = self.changes.setdefault(site, [])
            if seen is not None and seen != len(mine):
                message = f"{site} was changed by {mine[-1].by} meanwhile"
                raise ChangedMeanwhileError(message)
            good, wrong = cleaned(fields)
            if wrong:
                raise UnfitError(str(wrong))
            before = fields_of(self.known_sites[site]) if site in self.known_sites else {}
            news = tuple(
                (name, before.get(name, ""), text) for name, text in good.items() if text != before.get(name, "")
            )
            mine.append(SiteChange(len(mine) + 1, self.now_ms(), by, news))
            self.known_sites[site] = site_of(site, {name: text for name, text in (before | good).items() if text})
            return self.known_sites[site]

    def undo_site(self, site: str, number: int, by: str) -> Site:
        undone = self.changes[site][number - 1]
        return self.change_site(site, {field: before for field, before, _ in undone.fields}, by)

    def entrance_past(self, site: str, entrance: str) -> EntrancePast | None:
        of = self.known_sites.get(site)
        found = next((one for one in of.entrances if one.id == entrance), None) if of else None
        if of is None or found is None:
            return None
        at = [one for one in self.history() if (one.place.site, one.place.entrance) == (site, entrance)]
        return EntrancePast(of, found, tuple(self.buttons), tuple(at), tuple(self.happenings()))

    def health(self) -> Health:
        counters = (("alarms", len(self._incidents)), ("heartbeats", 48_210))
        return Health(self.station, self.role, "1.0", self._started_ms, self.checks, self.refused, counters)

    def sign_in(self, name: str, password: str) -> Person | None:
        return self.people.get(name) if password == PASSWORD else None

    def person(self, name: str) -> Person | None:
        return self.people.get(name)

    def subscribe(self) -> StandInSubscription:
        self._seen()
        subscription = StandInSubscription()
        self._subscriptions.append(subscription)
        return subscription


class Server:
    """A console over `desk` in a real server on loopback."""

    def __init__(self, desk: StandInDesk, port: int | None = None) -> None:
        self.desk = desk
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = create_app(desk, secret=SECRET, secure_cookies=False, zone=ZONE)
        config = uvicorn.Config(self.app, port=self.port, log_level="warning", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        """Returns when it can be reached."""
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert self._thread.is_alive(), "the console did not start"
            assert time.monotonic() < deadline, "the console did not start in 10 s"
            time.sleep(0.01)

    def stop(self) -> None:
        """Returns when its thread has ended."""
        self.app.state.console.live.stop()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive(), "the console did not stop"


@contextlib.contextmanager
def serving(desk: StandInDesk, port: int | None = None) -> Iterator[Server]:
    """A running console for the block."""
    server = Server(desk, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def furnished() -> StandInDesk:
    """A desk with a site, some of it in trouble, and a past."""
    desk = StandInDesk()
    now_ms = desk.now_ms()
    desk.hear(
        button("clifton-gate", GATE),
        button("clifton-visa", VISA, rssi_dbm=None),
        button(
            "clifton-cars", CARS, link=Link.FAULTY, why="The button's wire is cut.", loop="cut", on_mains=False,
            battery_mv=3_410, rssi_dbm=-82, pending=2,
        ),
        button(
            "airport-gate", replace(GATE, site="airport", site_name="Consular post, Airport", site_name_ur=""),
            link=Link.OFFLINE, why="Nothing heard for 14 min.", last_heard_ms=now_ms - 840_000, via="gw-airport",
        ),
        Child("gw-clifton", "station", replace(GATE, entrance="", entrance_name="", entrance_name_ur=""), Link.ONLINE,
              "", now_ms, firmware="1.0.0"),
        button("spare-1", None, link=Link.NEVER_SEEN, why="Enrolled, never heard.", last_heard_ms=None, loop=None,
               tampered=None, battery_mv=None, on_mains=None, rssi_dbm=None, firmware=None, via=None),
    )  # fmt: skip
    desk.happen("started", "gw-clifton", GATE)
    desk.happen("loop_cut", "clifton-cars", CARS, detail="3 021 mV")
    desk.happen("child_silent", "gw-airport", None, subject="airport-gate")
    desk.happen("refusal", "hq", None, subject="198.51.100.7", detail="certificate revoked")
    desk.turn_away("198.51.100.7", "The certificate is revoked.", "CN=clifton-old")
    desk.turn_away("clifton-visa", "A message that came before (boot 4, message 12).", "d28443a10105")
    past = desk.press(VISA, "clifton-visa", pressed_at_ms=now_ms - 90_000_000, received_at_ms=now_ms - 89_999_700)
    desk.step(past.id, State.ACKNOWLEDGED, "bilal")
    desk.step(past.id, State.CLOSED, "bilal", "Monthly drill with the guards.", Outcome.DRILL)
    return desk
