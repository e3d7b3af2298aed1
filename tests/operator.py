"""An operator at headquarters, through the console's public API."""

from __future__ import annotations

from typing import Any

import httpx

from demo.process import wait_until
from demo.world import OPERATOR, World


class Operator:
    """Signs in to a world's console and works alarms there."""

    def __init__(self, world: World, url: str | None = None) -> None:
        self._world = world
        self._http = httpx.Client(base_url=url or world.url, timeout=10)
        self._csrf = ""

    def sign_in(self) -> Operator:
        wait_until(self._signed_in, 60, "signing in", every_s=0.2)
        return self

    def _signed_in(self) -> bool:
        try:
            answer = self._http.post("/api/v1/session", json={"name": OPERATOR, "password": self._world.password})
        except httpx.TransportError:
            return False
        assert answer.status_code == 200, answer.text
        self._csrf = answer.json()["csrf"]
        return True

    def answer(self, what: str) -> httpx.Response:
        """Of the API, or of a page: /…"""
        return self._http.get(what if what.startswith("/") else f"/api/v1/{what}")

    def get(self, what: str) -> Any:
        answer = self.answer(what)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def page(self, path: str) -> str:
        answer = self._http.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        return answer.text

    def step(self, number: int, state: str, outcome: str | None = None, note: str = "") -> httpx.Response:
        body = {"state": state, "note": note, **({"outcome": outcome} if outcome else {})}
        return self._http.post(f"/api/v1/incidents/{number}/steps", json=body, headers={"X-CSRF-Token": self._csrf})

    def close_all(self) -> None:
        for incident in self.get("incidents"):
            answer = self.step(incident["id"], "closed", "test")
            assert answer.status_code == 200, answer.text
