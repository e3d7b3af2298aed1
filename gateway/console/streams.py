"""Server-sent events: what an open page, or another program, is told as it happens.

Both streams begin with everything (or with what changed since the stamp that the client shows), go on with changes,
and beat every 2 s. While the station does not answer they say `silent` instead, and the page says that it is not live.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import asdict, replace
from enum import StrEnum
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from gateway.console.listing import apart, coverage
from gateway.console.live import Board
from gateway.console.parts import Console, ConsoleNow, Problem, SignedIn, Visitor, to_json, words_of
from gateway.console.roll import Changes
from gateway.console.words import Language
from gateway.desk import Child, Incident

BEAT_S = 2.0
RETRY_S = 0.5  # while the station does not answer

Item = TypeVar("Item", bound=Hashable)
Event = tuple[str, object]
Tell = Callable[[list[int]], list[Event]]


class View(StrEnum):
    """What an open page shows."""

    ALARMS = "alarms"
    INCIDENT = "incident"
    CHILDREN = "children"
    HAPPENINGS = "happenings"
    HISTORY = "history"
    HEALTH = "health"
    OLD = "old"  # an older page of a list: only the frame around it lives


class Topic(StrEnum):
    """What a program may follow."""

    INCIDENTS = "incidents"
    CHILDREN = "children"
    HAPPENINGS = "happenings"
    HEALTH = "health"


router = APIRouter(include_in_schema=False)
api_router = APIRouter(prefix="/api/v1", tags=["live"])


@router.get("/live")
async def page_stream(
    request: Request,
    console: ConsoleNow,
    visitor: SignedIn,
    view: View,
    lang: Language,
    number: int = 0,
    since: Annotated[str, Query(max_length=200)] = "",
) -> StreamingResponse:
    """Pieces of HTML for the page that shows `view`."""
    pieces = Pieces(console, lang, visitor.may_step, view, str(number))
    return _stream(request, console, visitor, pieces.changed, since)


@api_router.get("/live", response_class=StreamingResponse)
async def program_stream(
    request: Request,
    console: ConsoleNow,
    visitor: SignedIn,
    topics: Annotated[list[Topic], Query(max_length=4)] = list(Topic),  # noqa: B006 FastAPI copies it
) -> StreamingResponse:
    """Server-sent events in JSON: `incidents` (all open, at each change), `children` and `happenings` (those that
    changed; all at first), `health`, `beat` every 2 s, `silent` instead while the station does not answer, `ended`
    (why) before the stream is closed.
    """
    board = console.live.board
    return _stream(request, console, visitor, lambda seen: _program_events(board, topics, seen), "")


def _stream(request: Request, console: Console, visitor: Visitor, tell: Tell, since: str) -> StreamingResponse:
    mark = console.watchers.enter(visitor.session.id)
    if mark is None:
        raise Problem(503, words_of(request).plain("error.503.text"))
    return StreamingResponse(
        _follow(console, visitor, mark, tell, since),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _follow(console: Console, visitor: Visitor, mark: object, tell: Tell, since: str) -> AsyncIterator[str]:
    live, board = console.live, console.live.board
    seen, beat_due = board.seen(since), 0.0
    try:
        yield ": tocsin\n\n"
        while not live.stopped:
            bell = live.bell
            if board.known:
                stamp, events = board.stamp(), tell(seen)
                seen = board.seen(stamp)
                for name, body in events:
                    yield f"id: {stamp}\nevent: {name}\ndata: {to_json(body)}\n\n"
            if time.monotonic() >= beat_due:
                why = await run_in_threadpool(_over, console, visitor, mark) if live.fresh else ""
                if why:
                    yield f"event: ended\ndata: {to_json({'why': why})}\n\n"
                    return
                if live.fresh and board.known:
                    yield f"event: beat\ndata: {to_json({'now_ms': console.desk.now_ms()})}\n\n"
                    beat_due = time.monotonic() + BEAT_S
                else:
                    yield "event: silent\ndata: {}\n\n"
                    beat_due = time.monotonic() + RETRY_S
            try:
                await asyncio.wait_for(bell.wait(), max(0.0, beat_due - time.monotonic()))
            except TimeoutError:
                continue
    finally:
        console.watchers.leave(visitor.session.id, mark)


def _over(console: Console, visitor: Visitor, mark: object) -> str:
    if not console.sessions.lasts(visitor.session, console.desk.now_ms()):
        return "signed_out"
    person = console.desk.person(visitor.person.name)
    if person is None or person.role != visitor.person.role:
        return "signed_out"
    return "" if console.watchers.stays(visitor.session.id, mark) else "elsewhere"


class Pieces:
    """The HTML of one kind of page, piece by piece as it changes."""

    def __init__(self, console: Console, language: Language, may_step: bool, view: View, number: str) -> None:
        """number: of the incident, for View.INCIDENT."""
        self._desk, self._looks, self._board = console.desk, console.looks, console.live.board
        self._language, self._may_step, self._view, self._number = language, may_step, view, number

    def changed(self, seen: list[int]) -> list[Event]:
        """What the page has to be told, alarms first."""
        board = self._board
        incidents, history, children, heard, happenings, health = seen
        events: list[Event] = []
        news = board.incidents.since(incidents)
        if self._view is View.ALARMS and news:
            events.append(self._list(news, self.card))
        if news or board.history.since(history) or board.children.since(children):
            events.append(("summary", self._summary()))
        match self._view:
            case View.INCIDENT:
                events += self._incident(incidents, history)
            case View.CHILDREN:
                events += self._children(board.children.since(children), board.heard.since(heard))
            case View.HAPPENINGS:
                events += self._rows(board.happenings.since(happenings), "_happening.html", "happening")
            case View.HISTORY:
                events += self._rows(board.history.since(history), "_history.html", "incident")
            case View.HEALTH if board.health.since(health):
                events.append(("parts", {"health": self._piece("_health.html", health=board.health.items["health"])}))
            case _:
                pass
        return events

    def card(self, incident: Incident) -> str:
        """The card of one alarm."""
        kept = (incident, self._may_step)
        return self._piece("_card.html", *kept, incident=incident, may_step=self._may_step, csrf="")

    def _summary(self) -> dict[str, object]:
        board, face = self._board, self._looks.faces[self._language]
        opened = apart(board.incidents.items.values())
        values = {"opened": opened, "ready": board.readiness}
        summary: dict[str, object] = {
            "mark": face.mark(opened),
            "open": len(opened.alarms),
            "raised": [self._said(incident, "alarms.new") for incident in opened.raised],
            "tests": len(opened.tests),
            "raised_tests": [self._said(incident, "alarms.new_test") for incident in opened.raised_tests],
            "troubled": board.troubled,
            "parts": {"banner": self._piece("_banner.html", **values), "ready": self._piece("_ready.html", **values)},
        }
        if self._view is View.ALARMS:
            last = next(iter(board.history.items.values()), None)
            summary["parts"] = {
                "ready": self._piece("_ready.html", **values),
                "heading": self._piece("_heading.html", **values),
                "calm": self._piece("_calm.html", last=last, **values),
            }
        return summary

    def _said(self, incident: Incident, key: str) -> dict[str, object]:
        """What a page reads out when it first meets the incident."""
        face = self._looks.faces[self._language]
        where, cause = face.where(incident.place, incident.device), face.words.known("cause", incident.cause)
        return {"id": incident.id, "say": face.words.plain(key, where=where, cause=cause)}

    def _incident(self, incidents: int, history: int) -> list[Event]:
        board = self._board
        news = {**board.history.since(history).items, **board.incidents.since(incidents).items}
        incident = news.get(self._number)
        if incident is None:
            return []
        values = {"incident": incident, "may_step": self._may_step, "csrf": ""}
        return [("parts", {name: self._piece(f"_{name}.html", **values) for name in ("incident", "steps")})]

    def _children(self, news: Changes[Child], heard: Changes[int | None]) -> list[Event]:
        events = [self._list(news, lambda child: self._kept("_child.html", "child", child))] if news else []
        if news:
            covers = coverage(self._board.children.items.values())
            events.append(("parts", {"sites": self._piece("_coverage.html", covers=covers)}))
        if heard.items:
            events.append(("heard", heard.items))
        return events

    def _rows(self, news: Changes[Item], template: str, name: str) -> list[Event]:
        return [self._list(news, lambda item: self._kept(template, name, item))] if news else []

    def _piece(self, template: str, *of: Hashable, **values: object) -> str:
        now_ms = self._desk.now_ms()
        if of:
            return self._looks.piece(template, self._language, now_ms, *of, **values)
        return self._looks.render(template, self._language, now_ms=now_ms, desk=self._desk, **values)

    def _kept(self, template: str, name: str, item: Hashable) -> str:
        return self._piece(template, item, **{name: item})

    @staticmethod
    def _list(news: Changes[Item], look: Callable[[Item], str]) -> Event:
        return "list", {"order": news.order, "items": {key: look(item) for key, item in news.items.items()}}


def _program_events(board: Board, topics: list[Topic], seen: list[int]) -> list[Event]:
    incidents, _, children, heard, happenings, health = seen
    events: list[Event] = []
    if Topic.INCIDENTS in topics and board.incidents.since(incidents):
        events.append(("incidents", {"incidents": [asdict(incident) for incident in board.incidents.items.values()]}))
    if Topic.CHILDREN in topics:
        changed = board.children.since(children).items.keys() | board.heard.since(heard).items.keys()
        told = [
            asdict(replace(child, last_heard_ms=board.heard.items[key]))
            for key, child in board.children.items.items()
            if key in changed
        ]
        events += [("children", {"children": told})] if told else []
    if Topic.HAPPENINGS in topics:
        new = board.happenings.since(happenings).items.values()
        events += [("happenings", {"happenings": [asdict(happening) for happening in new]})] if new else []
    if Topic.HEALTH in topics:
        events += [("health", asdict(state)) for state in board.health.since(health).items.values()]
    return events
