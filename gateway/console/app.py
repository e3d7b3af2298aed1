"""Composition root of the console: every part, built and joined on this page."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import tzinfo
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from gateway.console import api, child_page, command_api, pages, registry_api, site_pages, streams
from gateway.console.guard import Guard
from gateway.console.live import Live, Watchers
from gateway.console.looks import STATIC, Looks
from gateway.console.parts import Console, NotSignedIn, Problem, console_of, language_of, plain_page, redirect, words_of
from gateway.console.probes import Probes
from gateway.console.sessions import Sessions
from gateway.console.signing import Signing
from gateway.console.words import WORDS
from gateway.desk import Desk, StorageError
from gateway.enrolment import RegistryRefusedError

_log = logging.getLogger(__name__)


def create_app(
    desk: Desk, *, secret: bytes, secure_cookies: bool, zone: tzinfo | None = None, probes: Probes | None = None
) -> FastAPI:
    """The console of a station.

    secret: 16 bytes or more that only this station knows. secure_cookies: True wherever browsers come over TLS, False
    only for a demo on localhost. zone: in which times are shown; None: the machine's. probes: what monitoring is told; None: all is well. Before stopping the server call
    `app.state.console.live.stop()`, or open pages keep it waiting.
    """
    console = Console(
        desk=desk,
        sessions=Sessions(secret),
        signing=Signing(desk),
        live=Live(desk),
        watchers=Watchers(),
        looks=Looks(zone),
        secure=secure_cookies,
    )
    app = FastAPI(title="Tocsin", version="1", lifespan=_lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.console = console
    app.include_router(pages.router)
    app.include_router(site_pages.router)
    app.include_router(streams.router)
    app.include_router(streams.api_router)
    app.include_router(api.router)
    app.include_router(registry_api.router)
    app.include_router(command_api.router)
    app.include_router(child_page.router)
    app.include_router((probes or Probes()).router())
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(NotSignedIn, _not_signed_in)
    app.add_exception_handler(RegistryRefusedError, _registry_refused)
    app.add_exception_handler(StorageError, _not_stored)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_middleware(Guard, refuse=_refuse, fail=_fail, secure=secure_cookies)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    live: Live = app.state.console.live
    live.start()
    yield
    live.stop()
    live.join()


def _answer(request: Request, problem: Problem) -> Response:
    """Every refusal: JSON for programs, a page in the visitor's language for people."""
    if request.url.path.startswith("/api/") or "application/json" in request.headers.get("accept", ""):
        error: dict[str, object] = {"error": {"status": problem.status, "message": problem.text}}
        if problem.incident is not None:
            error["incident"] = asdict(problem.incident)
        return JSONResponse(error, problem.status, headers=problem.headers)
    title = problem.title or f"error.{problem.status}"
    answer = plain_page(
        request,
        "error.html",
        problem.status,
        title=title if title in WORDS else "error.422",
        text=problem.text,
        incident=problem.incident,
        now_ms=console_of(request).desk.now_ms(),
    )
    answer.headers.update(problem.headers)
    return answer


def _refuse(request: Request, status: int, key: str) -> Response:
    return _answer(request, Problem(status, words_of(request).plain(key)))


def _fail(request: Request, error: Exception) -> Response:
    desk = console_of(request).desk
    found = desk.unreadable(error)
    if found is None:
        _log.error("the console failed at %s %s", request.method, request.url.path, exc_info=error)
        return _refuse(request, 500, "error.500.text")
    why, since_ms = found
    _log.error("the database can't be read for %s %s: %s", request.method, request.url.path, why)
    since = console_of(request).looks.faces[language_of(request)].moment_text(since_ms, desk.now_ms())
    text = words_of(request).plain("error.unreadable.text", since=since)
    return _answer(request, Problem(503, text, title="error.unreadable"))


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(request, error)


def _not_signed_in(request: Request, _: Exception) -> Response:
    wants_page = request.method == "GET" and not request.url.path.startswith(("/api/", "/live"))
    if not wants_page:
        return _refuse(request, 401, "error.401.text")
    where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return redirect("/sign-in" if where == "/" else f"/sign-in?to={quote(where, safe='/')}")


def _registry_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryRefusedError)
    return _answer(request, registry_api.problem(error))


def _not_stored(request: Request, error: Exception) -> Response:
    return _answer(request, Problem(503, str(error)))


def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    in_path = any(mistake["loc"][0] == "path" for mistake in error.errors())
    if not in_path and request.url.path.startswith(registry_api.REGISTRY):
        return _answer(request, Problem(422, registry_api.mistakes(error)))
    return _refuse(request, *((404, "error.404.text") if in_path else (422, "error.422.text")))


def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code if f"error.{error.status_code}.text" in WORDS else 422
    return _refuse(request, status, f"error.{status}.text")
