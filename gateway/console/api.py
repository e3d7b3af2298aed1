"""The same as the pages, for programs: JSON under /api/v1, described at /api/v1/openapi.json.

A program signs in with POST /api/v1/session, keeps the cookie, and sends the answer's `csrf` in the header
X-CSRF-Token with everything that is not a GET. Times are UTC milliseconds. Mistakes are {"error": {"status", "message"}}.
"""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from gateway.console import listing
from gateway.console.listing import SiteCover
from gateway.console.maintaining import maintain
from gateway.console.pages import Before, ChildId, Number
from gateway.console.parts import ConsoleNow, HeaderSender, LanguageNow, Problem, SignedIn, Visitor, WordsNow
from gateway.console.signing import BusyError, LockedOutError
from gateway.console.steps import LONGEST_NOTE, take
from gateway.desk import Child, Happening, Health, Incident, Outcome, State
from gateway.sites import Site, SiteChange
from gateway.tomlfile import Id

router = APIRouter(prefix="/api/v1")


class Credentials(BaseModel):
    """Who signs in."""

    name: str = Field(max_length=200)
    password: str = Field(max_length=1_000)


class SignedInAs(BaseModel):
    """A session."""

    name: str
    full_name: str
    role: str
    csrf: str
    ends_ms: int


class StationNow(BaseModel):
    """Which station this is, and its time."""

    id: str
    name: str
    role: str
    now_ms: int


class StepTaken(BaseModel):
    """A step to take; `outcome` when closing."""

    state: State
    note: str = Field(default="", max_length=LONGEST_NOTE)
    outcome: Outcome | None = None


@router.post("/session", tags=["session"])
def begin(
    request: Request, answer: Response, console: ConsoleNow, words: WordsNow, credentials: Credentials
) -> SignedInAs:
    """Signs in and sets the session's cookie."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Problem(422, words.plain("error.422.text"))  # a form of another site can't send JSON
    address = request.client.host if request.client else ""
    try:
        person = console.signing.sign_in(credentials.name.strip(), credentials.password, address)
    except LockedOutError as locked:
        wait_s = -(-locked.wait_ms // 1000)
        text = words.plain("sign_in.locked", wait=words.raw("span.s").format(n=wait_s))
        raise Problem(429, text, headers={"Retry-After": str(wait_s)}) from None
    except BusyError:
        raise Problem(503, words.plain("sign_in.busy")) from None
    if person is None:
        raise Problem(401, words.plain("sign_in.wrong"))
    session, cookie = console.sessions.begin(person.name, console.desk.now_ms())
    console.keep(answer, console.session_cookie, cookie)
    return _signed_in_as(Visitor(session, person, console.sessions.token(session)))


@router.get("/session", tags=["session"])
def current(visitor: SignedIn) -> SignedInAs:
    """Who is signed in."""
    return _signed_in_as(visitor)


@router.delete("/session", tags=["session"], status_code=204)
def end(answer: Response, console: ConsoleNow, sender: HeaderSender) -> None:
    """Signs out."""
    console.sessions.end(sender.session, console.desk.now_ms())
    console.drop(answer, console.session_cookie)


@router.get("/station", tags=["station"])
def station(console: ConsoleNow, _: SignedIn) -> StationNow:
    """Which station this is."""
    desk = console.desk
    return StationNow(id=desk.station, name=desk.name, role=desk.role, now_ms=desk.now_ms())


@router.get("/incidents", tags=["incidents"])
def open_incidents(console: ConsoleNow, _: SignedIn) -> list[Incident]:
    """The open incidents, newest first."""
    return list(console.desk.open_incidents())


@router.get("/incidents/{number}", tags=["incidents"])
def incident(console: ConsoleNow, _: SignedIn, words: WordsNow, number: Number) -> Incident:
    """One incident."""
    found = console.desk.incident(number)
    if found is None:
        raise Problem(404, words.plain("error.404.text"))
    return found


@router.post("/incidents/{number}/steps", tags=["incidents"])
def step(
    console: ConsoleNow, sender: HeaderSender, language: LanguageNow, number: Number, wanted: StepTaken
) -> Incident:
    """Takes a step; 409 with the incident as it stands when it can't follow on that."""
    face = console.looks.faces[language]
    return take(console, sender, face, number, wanted.state, wanted.note, wanted.outcome or "")


@router.get("/history", tags=["incidents"])
def history(
    console: ConsoleNow, _: SignedIn, before: Before = None, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> list[Incident]:
    """All incidents, newest first, with an id less than `before`; each without its site."""
    return [replace(incident, site=None) for incident in console.desk.history(before, limit)]


@router.get("/children", tags=["station"])
def children(console: ConsoleNow, _: SignedIn) -> list[Child]:
    """Every child, by site and entrance."""
    return list(console.desk.children())


@router.get("/coverage", tags=["station"])
def coverage(console: ConsoleNow, _: SignedIn) -> list[SiteCover]:
    """How many entrances of each site could deliver a press now, the least covered site first."""
    return listing.coverage(console.desk.children())


class MaintenanceWanted(BaseModel):
    """When a maintenance ends, UTC milliseconds."""

    until_ms: int = Field(ge=0, le=1 << 43)


@router.get("/children/{name}", tags=["station"])
def child(console: ConsoleNow, _: SignedIn, words: WordsNow, name: ChildId) -> Child:
    """One child, a retired one included."""
    found = console.desk.child(name)
    if found is None:
        raise Problem(404, words.plain("error.404.text"))
    return found


@router.put("/children/{name}/maintenance", tags=["station"])
def begin_maintenance(
    console: ConsoleNow, sender: HeaderSender, words: WordsNow, name: ChildId, wanted: MaintenanceWanted
) -> Child:
    """Puts a child under maintenance: until then its silence is no event, a press is an alarm all the same."""
    maintain(console, sender, words, name, wanted.until_ms)
    return child(console, sender, words, name)


@router.delete("/children/{name}/maintenance", tags=["station"])
def end_maintenance(console: ConsoleNow, sender: HeaderSender, words: WordsNow, name: ChildId) -> Child:
    """Ends it."""
    maintain(console, sender, words, name, None)
    return child(console, sender, words, name)


@router.get("/happenings", tags=["station"])
def happenings(
    console: ConsoleNow, _: SignedIn, before: Before = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> list[Happening]:
    """Events, newest first, with an id less than `before`."""
    return list(console.desk.happenings(before, limit))


@router.get("/health", tags=["station"])
def health(console: ConsoleNow, _: SignedIn) -> Health:
    """The station's own state."""
    return console.desk.health()


@router.get("/sites", tags=["sites"])
def sites(console: ConsoleNow, _: SignedIn) -> list[Site]:
    """Every site, by id."""
    return list(console.desk.sites())


@router.get("/sites/{site}/changes", tags=["sites"])
def site_changes(console: ConsoleNow, _: SignedIn, site: str) -> list[SiteChange]:
    """Who changed what of a site, newest first."""
    return list(console.desk.site_changes(site))


@router.put("/sites/{site}", tags=["sites"])
def change_site(
    console: ConsoleNow,
    sender: HeaderSender,
    words: WordsNow,
    site: Id,
    fields: dict[str, str],
    seen: int | None = None,
) -> Site:
    """Gives fields of a site, which may be new, other texts. seen: the last change that the caller knows of; 409 else."""
    if not sender.may_administer:
        raise Problem(403, words.plain("sites.not_administrator"))
    return console.desk.change_site(site, fields, sender.person.name, seen)


@router.get("/openapi.json", include_in_schema=False)
def description(request: Request, _: SignedIn) -> dict[str, Any]:
    """This interface, described."""
    described: dict[str, Any] = request.app.openapi()
    return described


def _signed_in_as(visitor: Visitor) -> SignedInAs:
    person, session = visitor.person, visitor.session
    return SignedInAs(
        name=person.name, full_name=person.full_name, role=person.role, csrf=visitor.token, ends_ms=session.ends_ms
    )
