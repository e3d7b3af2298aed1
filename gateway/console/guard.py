"""The outermost layer: headers that keep browsers strict, what may be sent to us, and a calm page when we fail."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY = 16 * 1024
LONGEST_LIST = 1024 * 1024
LONGEST_SITE = 64 * 1024
LISTS = "/api/v1/revocations"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
    "font-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        refuse: Callable[[Request, int, str], Response],
        fail: Callable[[Request, Exception], Response],
        secure: bool,
    ) -> None:
        """refuse: makes the page of a status and a word key; fail: that of an error; secure: the console is served over TLS."""
        self._app = app
        self._refuse = refuse
        self._fail = fail
        self._headers = dict(HEADERS)
        if secure:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._harden(MutableHeaders(scope=message), scope["path"])
            await send(message)

        request = Request(scope, receive)
        try:
            refusal = self._refusal(request)
            if refusal is not None:
                await refusal(scope, receive, sending)
            else:
                await self._app(scope, _bounded(receive, _longest(scope["path"])), sending)
        except Exception as error:
            answer = self._fail(request, error)
            if started:
                raise
            await answer(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        if request.method in SAFE_METHODS:
            return None
        if not _from_here(request.headers):
            return self._refuse(request, 403, "error.csrf")
        length = request.headers.get("content-length", "0")
        path = request.url.path
        if not length.isdecimal() or int(length) > _longest(path):
            return self._refuse(request, 413, "error.413.list" if path == LISTS else "error.413.text")
        return None

    def _harden(self, headers: MutableHeaders, path: str) -> None:
        for name, value in self._headers.items():
            headers[name] = value
        if not path.startswith("/static/"):
            headers["Cache-Control"] = "no-store"


def _from_here(headers: Headers) -> bool:
    """Whether a browser says that the request comes from our own page, or no browser says anything."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _longest(path: str) -> int:
    """How many bytes may be sent there: a list of revoked certificates outgrows a form, and a site's plans a note."""
    if path.startswith(("/sites/", "/api/v1/sites/")):
        return LONGEST_SITE
    return LONGEST_LIST if path == LISTS else LONGEST_BODY


def _bounded(receive: Receive, longest: int) -> Receive:
    """A body without a stated length ends the request when it grows too long."""
    left = longest

    async def receiving() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            return {"type": "http.disconnect"}
        return message

    return receiving
