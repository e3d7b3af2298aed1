"""What every page and every API call is given: the console's parts, the visitor, the language, and how to refuse."""

import json
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Form, Header, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.requests import HTTPConnection

from gateway.console.listing import apart, readiness, troubled, urgent_first
from gateway.console.live import Live, Watchers
from gateway.console.looks import Looks
from gateway.console.sessions import Session, Sessions
from gateway.console.signing import Signing
from gateway.console.words import IN, Language, Words
from gateway.desk import Desk, Incident, Person

LANGUAGE_COOKIE = "tocsin-language"


@dataclass(frozen=True, slots=True)
class Console:
    """The parts that `create_app` put together."""

    desk: Desk
    sessions: Sessions
    signing: Signing
    live: Live
    watchers: Watchers
    looks: Looks
    secure: bool

    @property
    def session_cookie(self) -> str:
        """Its name. With TLS the browser itself refuses one that another host or path tries to plant."""
        return "__Host-tocsin" if self.secure else "tocsin"

    @property
    def visit_cookie(self) -> str:
        """The name of the cookie that belongs to the sign-in form."""
        return "__Host-tocsin-visit" if self.secure else "tocsin-visit"

    def keep(self, answer: Response, cookie: str, value: str, *, seconds: int | None = None) -> None:
        """Sets a cookie that no script can read and that no other site's page can make the browser send."""
        answer.set_cookie(cookie, value, max_age=seconds, secure=self.secure, httponly=True, samesite="strict")

    def drop(self, answer: Response, cookie: str) -> None:
        """Deletes a cookie."""
        answer.delete_cookie(cookie, secure=self.secure, httponly=True, samesite="strict")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who is signed in."""

    session: Session
    person: Person
    token: str  # what their POSTs carry

    @property
    def may_step(self) -> bool:
        """Whether they may work alarms."""
        return self.person.role in {"operator", "administrator"}

    @property
    def may_administer(self) -> bool:
        """Whether they may change what is known of sites."""
        return self.person.role == "administrator"


class Problem(Exception):  # noqa: N818
    """An answer that is not what was asked for, told in one sentence of the visitor's language."""

    def __init__(
        self,
        status: int,
        text: str,
        *,
        incident: Incident | None = None,
        headers: dict[str, str] | None = None,
        title: str = "",
    ) -> None:
        """status: HTTP's; incident: the one that it is about, to be shown as it stands now; title: a word key, if not that of
        the status.
        """
        super().__init__(text)
        self.status = status
        self.text = text
        self.incident = incident
        self.headers = headers or {}
        self.title = title


class NotSignedIn(Exception):  # noqa: N818
    """A page for signed-in people was asked for by somebody who is not."""


def console_of(connection: HTTPConnection) -> Console:
    """The console that serves this request."""
    console: Console = connection.app.state.console
    return console


def language_of(connection: HTTPConnection) -> Language:
    """The visitor's choice, else what their browser prefers, else English."""
    chosen = connection.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in tuple(Language):
        return Language(chosen)
    preferred = connection.headers.get("accept-language", "").strip().casefold()
    return Language.UR if preferred.startswith("ur") else Language.EN


def words_of(connection: HTTPConnection) -> Words:
    """The words of the visitor's language."""
    return IN[language_of(connection)]


def visitor_of(connection: HTTPConnection) -> Visitor | None:
    """Who asks, if their session holds and the desk still knows them."""
    console = console_of(connection)
    cookie = connection.cookies.get(console.session_cookie, "")
    session = console.sessions.read(cookie, console.desk.now_ms())
    person = console.desk.person(session.name) if session else None
    return Visitor(session, person, console.sessions.token(session)) if session and person else None


def signed_in(request: Request) -> Visitor:
    """The visitor; raises NotSignedIn."""
    visitor = visitor_of(request)
    if visitor is None:
        raise NotSignedIn
    return visitor


ConsoleNow = Annotated[Console, Depends(console_of)]
LanguageNow = Annotated[Language, Depends(language_of)]
WordsNow = Annotated[Words, Depends(words_of)]
SignedIn = Annotated[Visitor, Depends(signed_in)]


def form_sender(
    console: ConsoleNow,
    visitor: SignedIn,
    words: WordsNow,
    csrf: Annotated[str, Form(max_length=200)] = "",
    x_csrf_token: Annotated[str, Header(max_length=200)] = "",
) -> Visitor:
    """The visitor, if the form is one that we gave them: it carries their session's token."""
    return _genuine(console, visitor, words, csrf or x_csrf_token)


def header_sender(
    console: ConsoleNow, visitor: SignedIn, words: WordsNow, x_csrf_token: Annotated[str, Header(max_length=200)] = ""
) -> Visitor:
    """The visitor, if the call carries their session's token in the header X-CSRF-Token."""
    return _genuine(console, visitor, words, x_csrf_token)


def _genuine(console: Console, visitor: Visitor, words: Words, token: str) -> Visitor:
    if not console.sessions.genuine(visitor.session, token):
        raise Problem(403, words.plain("error.csrf"))
    return visitor


FormSender = Annotated[Visitor, Depends(form_sender)]
HeaderSender = Annotated[Visitor, Depends(header_sender)]


def page(
    request: Request, visitor: Visitor, template: str, *, view: str, stamp: str, status: int = 200, **values: object
) -> HTMLResponse:
    """A page inside the frame that every signed-in page has."""
    console, language = console_of(request), language_of(request)
    children = console.desk.children()
    incidents = urgent_first(console.desk.open_incidents())
    opened = apart(incidents)
    html = console.looks.render(
        template,
        language,
        view=view,
        stamp=stamp,
        visitor=visitor,
        csrf=visitor.token,
        may_step=visitor.may_step,
        may_administer=visitor.may_administer,
        desk=console.desk,
        now_ms=console.desk.now_ms(),
        ready=readiness(children),
        troubled=troubled(children),
        incidents_open=incidents,
        opened=opened,
        mark=console.looks.faces[language].mark(opened),
        here=_here(request),
        script_words=Words.for_script(IN[language]),
        **values,
    )
    return HTMLResponse(html, status_code=status)


def plain_page(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """A page for somebody who is not signed in, or whose request went wrong."""
    console = console_of(request)
    html = console.looks.render(template, language_of(request), here=_here(request), desk=console.desk, **values)
    return HTMLResponse(html, status_code=status)


def local_path(text: str) -> str:
    """A path on this console, or "/": a link in an e-mail must not use us as a springboard to another site."""
    good = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if good else "/"


def redirect(path: str) -> Response:
    """Sends the browser to a page of ours, with GET."""
    return RedirectResponse(local_path(path), status_code=303)


def cleaned(text: str, longest: int) -> str:
    """What a person typed, without control characters and blanks around."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()[:longest]


def to_json(value: object) -> str:
    """Compact, in the letters of every language."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _here(request: Request) -> str:
    """The path to come back to after a change of language."""
    if request.method != "GET":
        return "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
