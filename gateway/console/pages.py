"""The pages that people see, and the forms on them."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from gateway.console.filters import MINUTE_MS, SECOND_MS
from gateway.console.listing import coverage, matching, trouble_first
from gateway.console.live import HAPPENINGS_SHOWN, HISTORY_SHOWN
from gateway.console.maintaining import LONGEST_MIN, maintain
from gateway.console.parts import (
    LANGUAGE_COOKIE,
    ConsoleNow,
    FormSender,
    LanguageNow,
    Problem,
    SignedIn,
    WordsNow,
    local_path,
    page,
    plain_page,
    redirect,
    visitor_of,
)
from gateway.console.signing import BusyError, LockedOutError
from gateway.console.steps import take, taken
from gateway.console.streams import Pieces, View
from gateway.console.words import Language
from gateway.desk import Incident

LARGEST = 2**63 - 1
YEAR_S = 365 * 86_400

Number = Annotated[int, Path(ge=0, le=LARGEST)]
Before = Annotated[int | None, Query(ge=0, le=LARGEST)]

router = APIRouter(include_in_schema=False)


@router.get("/")
def alarms(request: Request, console: ConsoleNow, visitor: SignedIn) -> Response:
    """The open alarms: where an operator spends the shift."""
    stamp = console.live.board.stamp()
    last = next(iter(console.desk.history(limit=1)), None)
    return page(request, visitor, "alarms.html", view=View.ALARMS, stamp=stamp, last=last)


@router.get("/incidents/{number}")
def incident(request: Request, console: ConsoleNow, visitor: SignedIn, words: WordsNow, number: Number) -> Response:
    """One alarm and what was done about it."""
    stamp = console.live.board.stamp()
    found = console.desk.incident(number)
    if found is None:
        raise Problem(404, words.plain("error.404.text"))
    return page(request, visitor, "incident.html", view=View.INCIDENT, stamp=stamp, incident=found)


@router.post("/incidents/{number}/steps")
def step(
    request: Request,
    console: ConsoleNow,
    sender: FormSender,
    language: LanguageNow,
    number: Number,
    state: Annotated[str, Form(max_length=20)],
    note: Annotated[str, Form(max_length=4_000)] = "",
    outcome: Annotated[str, Form(max_length=20)] = "",
    back: Annotated[str, Form(max_length=200)] = "/",
) -> Response:
    """Takes a step. A script is answered in JSON with the card as it stands now, a plain form with a page."""
    face = console.looks.faces[language]
    wants_json = "application/json" in request.headers.get("accept", "")
    try:
        done = take(console, sender, face, number, state, note, outcome)
    except Problem as problem:
        if wants_json and problem.incident is not None:
            told = {"message": problem.text, "card": _card(console, sender, language, problem.incident)}
            return JSONResponse(told, problem.status)
        raise
    if wants_json:
        return JSONResponse({"message": taken(face, done), "card": _card(console, sender, language, done)})
    return redirect(back)


@router.get("/children")
def children(
    request: Request, console: ConsoleNow, visitor: SignedIn, language: LanguageNow,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:  # fmt: skip
    """Every button and station, trouble first."""
    stamp = console.live.board.stamp()
    known = trouble_first(console.desk.children())
    face = console.looks.faces[language]
    found = matching([(child, face.sought_in(child)) for child in known], q) if q else known
    return page(request, visitor, "children.html", view=View.CHILDREN, stamp=stamp, found=found, known_count=len(known),
                sought=q, covers=coverage(known))  # fmt: skip


ChildId = Annotated[str, Path(max_length=64)]


@router.post("/children/{name}/maintenance")
def maintenance(
    console: ConsoleNow,
    sender: FormSender,
    words: WordsNow,
    name: ChildId,
    minutes: Annotated[int, Form(ge=0, le=LONGEST_MIN)],
) -> Response:
    """Begins a maintenance of so many minutes from now, or ends it (0)."""
    maintain(console, sender, words, name, console.desk.now_ms() + minutes * MINUTE_MS if minutes else None)
    return redirect(f"/children/{name}")


@router.get("/happenings")
def happenings(request: Request, console: ConsoleNow, visitor: SignedIn, before: Before = None) -> Response:
    """The event log, in words."""
    stamp = console.live.board.stamp()
    told = console.desk.happenings(before, HAPPENINGS_SHOWN)
    view = View.HAPPENINGS if before is None else View.OLD
    return page(request, visitor, "happenings.html", view=view, stamp=stamp, happenings=told, before=before,
                more=len(told) == HAPPENINGS_SHOWN)  # fmt: skip


@router.get("/history")
def history(request: Request, console: ConsoleNow, visitor: SignedIn, before: Before = None) -> Response:
    """All alarms, newest first."""
    stamp = console.live.board.stamp()
    told = console.desk.history(before, HISTORY_SHOWN)
    view = View.HISTORY if before is None else View.OLD
    return page(request, visitor, "history.html", view=view, stamp=stamp, incidents=told, before=before,
                more=len(told) == HISTORY_SHOWN)  # fmt: skip


@router.get("/health")
def health(request: Request, console: ConsoleNow, visitor: SignedIn) -> Response:
    """The station's own state, and who was refused."""
    stamp = console.live.board.stamp()
    return page(request, visitor, "health.html", view=View.HEALTH, stamp=stamp, health=console.desk.health())


@router.get("/language/{language}")
def choose_language(
    language: Language, console: ConsoleNow, to: Annotated[str, Query(max_length=500)] = "/"
) -> Response:
    """Keeps the visitor's language, and goes back to the page."""
    answer = redirect(to)
    answer.set_cookie(LANGUAGE_COOKIE, language, max_age=YEAR_S, secure=console.secure, httponly=True, samesite="lax")
    return answer


@router.get("/sign-in")
def sign_in_page(
    request: Request, console: ConsoleNow, to: Annotated[str, Query(max_length=500)] = "/", ended: bool = False
) -> Response:
    """Asks who it is."""
    if visitor_of(request) is not None:
        return redirect(to)
    return _sign_in_form(request, console, "sign_in.ended" if ended else "", to=to)


@router.post("/sign-in")
def sign_in(
    request: Request,
    console: ConsoleNow,
    language: LanguageNow,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1_000)],
    csrf: Annotated[str, Form(max_length=200)] = "",
    to: Annotated[str, Form(max_length=500)] = "/",
) -> Response:
    """Opens a session, or says what was wrong."""
    now_ms = console.desk.now_ms()
    if not console.sessions.visited(request.cookies.get(console.visit_cookie, ""), csrf, now_ms):
        return _sign_in_form(request, console, "sign_in.stale", status=403, to=to, name=name)
    address = request.client.host if request.client else ""
    try:
        person = console.signing.sign_in(name.strip(), password, address)
    except LockedOutError as locked:
        wait = console.looks.faces[language].span(locked.wait_ms + SECOND_MS - 1)
        answer = _sign_in_form(request, console, "sign_in.locked", status=429, to=to, name=name, wait=wait)
        answer.headers["Retry-After"] = str(-(-locked.wait_ms // SECOND_MS))
        return answer
    except BusyError:
        return _sign_in_form(request, console, "sign_in.busy", status=503, to=to, name=name)
    if person is None:
        return _sign_in_form(request, console, "sign_in.wrong", status=401, to=to, name=name)
    _, cookie = console.sessions.begin(person.name, console.desk.now_ms())
    answer = redirect(to)
    console.keep(answer, console.session_cookie, cookie)
    console.drop(answer, console.visit_cookie)
    return answer


@router.post("/sign-out")
def sign_out(console: ConsoleNow, sender: FormSender) -> Response:
    """Ends the session."""
    console.sessions.end(sender.session, console.desk.now_ms())
    answer = redirect("/sign-in")
    console.drop(answer, console.session_cookie)
    return answer


def _sign_in_form(
    request: Request, console: ConsoleNow, message: str, *, to: str, status: int = 200, name: str = "", wait: str = ""
) -> Response:
    token = console.sessions.visit(console.desk.now_ms())
    answer = plain_page(
        request, "sign_in.html", status, message=message, wait=wait, to=local_path(to), name=name, csrf=token
    )
    console.keep(answer, console.visit_cookie, token)
    return answer


def _card(console: ConsoleNow, visitor: SignedIn, language: Language, stands: Incident) -> str:
    return Pieces(console, language, visitor.may_step, View.ALARMS, "").card(stands)
