"""Somebody at the console without a browser: signs in through the form, as a page would."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from gateway.console.app import create_app
from tests.console.desk import PASSWORD, SECRET, ZONE, StandInDesk

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it should use a younger httpx
    from starlette.testclient import TestClient

if TYPE_CHECKING:
    from fastapi import FastAPI
    from httpx import Response


def console(desk: StandInDesk, *, secure: bool = False) -> FastAPI:
    return create_app(desk, secret=SECRET, secure_cookies=secure, zone=ZONE)


class Visitor:
    """One browser's worth of cookies."""

    def __init__(self, desk: StandInDesk, *, secure: bool = False) -> None:
        scheme = "https" if secure else "http"
        self.http = TestClient(
            console(desk, secure=secure),
            base_url=f"{scheme}://hq",
            follow_redirects=False,
            raise_server_exceptions=False,
        )
        self.csrf = ""

    def sign_in(self, name: str = "ayesha", password: str = PASSWORD, to: str = "/") -> Response:
        """Fills in the form and sends it; signed in, the token of the session's own forms is kept."""
        form = self.http.get("/sign-in", params={"to": to})
        values = {"name": name, "password": password, "csrf": hidden(form.text, "csrf"), "to": hidden(form.text, "to")}
        answer: Response = self.http.post("/sign-in", data=values)
        if answer.status_code == 303:
            self.csrf = hidden(self.http.get("/").text, "csrf")
        return answer

    def step(self, number: int, **values: str) -> Response:
        """Presses a step's button as the page's script does."""
        headers = {"accept": "application/json", "x-csrf-token": self.csrf}
        answer: Response = self.http.post(f"/incidents/{number}/steps", data=values, headers=headers)
        return answer


def hidden(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', html)
    assert found, f"no hidden field {name}"
    return found[1]
