"""What monitoring asks of a station, on the console's port: `/healthz`, `/readyz`, `/metrics`.

The first two answer anybody with 200, or with 503 and what is wrong; they tell nothing that a stranger could use. Metrics
are for who shows the token of the settings; without one in the settings, for this machine alone, and then not for what a
proxy on this machine passes on.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


@dataclass(frozen=True)
class Probes:
    """Where the answers come from. stuck, unready: see gateway/vitals.py; metrics: the exposition's text."""

    stuck: Callable[[], list[str]] = list
    unready: Callable[[], list[str]] = list
    metrics: Callable[[], bytes] = bytes
    token: str | None = None

    def router(self) -> APIRouter:
        """The three endpoints."""
        router = APIRouter(include_in_schema=False)

        @router.get("/healthz")
        async def healthz() -> Response:
            return _told(self.stuck())

        @router.get("/readyz")
        async def readyz() -> Response:
            return _told([*self.stuck(), *self.unready()])

        @router.get("/metrics")
        def metrics(request: Request) -> Response:
            refusal = self._refusal(request)
            return refusal or Response(self.metrics(), media_type=CONTENT_TYPE_LATEST)

        return router

    def _refusal(self, request: Request) -> Response | None:
        if self.token is not None:
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), self.token.encode()):
                return None
            words = "metrics need the token of this station: Authorization: Bearer <what console.metrics_token names>"
            return JSONResponse({"error": words}, 401, headers={"WWW-Authenticate": "Bearer"})
        near = request.client is not None and request.client.host in _LOOPBACK
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
        if near and host in _LOCAL_NAMES and not any(name in request.headers for name in _FORWARDED):
            return None
        words = (
            "metrics are for this machine alone, until console.metrics_token of the settings names a file with a token"
        )
        return JSONResponse({"error": words}, 403)


def _told(wrong: list[str]) -> Response:
    return JSONResponse({"ok": not wrong, **({"wrong": wrong} if wrong else {})}, 503 if wrong else 200)
