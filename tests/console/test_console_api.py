"""The same for programs: shapes that they can rely on."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from gateway.desk import Child, Happening, Health, Incident, Outcome, Place, State
from tests.console.desk import PASSWORD, StandInDesk, furnished
from tests.console.visitor import Visitor


@pytest.fixture
def program() -> tuple[StandInDesk, Visitor, str]:
    desk = furnished()
    visitor = Visitor(desk)
    answer = visitor.http.post("/api/v1/session", json={"name": "ayesha", "password": PASSWORD})
    assert answer.status_code == 200
    return desk, visitor, answer.json()["csrf"]


def _names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def test_healthz_needs_nobody(visitor: Visitor) -> None:
    answer = visitor.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})


def test_session_tells_who_and_until_when(program: tuple[StandInDesk, Visitor, str]) -> None:
    desk, visitor, csrf = program
    session = visitor.http.get("/api/v1/session").json()
    assert session.pop("ends_ms") > desk.now_ms()
    assert session == {"name": "ayesha", "full_name": "Ayesha Khan", "role": "operator", "csrf": csrf}
    assert visitor.http.delete("/api/v1/session").status_code == 403
    assert visitor.http.delete("/api/v1/session", headers={"x-csrf-token": csrf}).status_code == 204
    assert visitor.http.get("/api/v1/session").status_code == 401


def test_wrong_password_is_json(visitor: Visitor) -> None:
    answer = visitor.http.post("/api/v1/session", json={"name": "ayesha", "password": "no"})
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, 401)
    assert "set-cookie" not in answer.headers


def test_shapes_are_the_desks(program: tuple[StandInDesk, Visitor, str]) -> None:
    desk, visitor, _ = program
    incident = desk.press()
    opened = visitor.http.get("/api/v1/incidents").json()
    assert [one["id"] for one in opened] == [incident.id]
    assert opened[0].keys() == _names(Incident)
    assert opened[0]["place"].keys() == _names(Place)
    assert (opened[0]["state"], opened[0]["pressed_at_ms"]) == ("raised", incident.pressed_at_ms)
    assert visitor.http.get(f"/api/v1/incidents/{incident.id}").json() == opened[0]
    history = visitor.http.get("/api/v1/history", params={"before": incident.id}).json()
    assert [(one["state"], one["outcome"]) for one in history] == [("closed", "drill")]
    children = visitor.http.get("/api/v1/children").json()
    assert len(children) == 6
    assert all(child.keys() == _names(Child) for child in children)
    assert all(one.keys() == _names(Happening) for one in visitor.http.get("/api/v1/happenings").json())
    assert visitor.http.get("/api/v1/health").json().keys() == _names(Health)
    station = visitor.http.get("/api/v1/station").json()
    assert (station["id"], station["role"], station["name"]) == ("hq", "hq", desk.name)


def test_program_works_an_alarm(program: tuple[StandInDesk, Visitor, str]) -> None:
    desk, visitor, csrf = program
    number = desk.press().id
    path, headers = f"/api/v1/incidents/{number}/steps", {"x-csrf-token": csrf}

    def step(**body: Any) -> Any:
        return visitor.http.post(path, json=body, headers=headers)

    taken = step(state="acknowledged", note="seen")
    assert taken.status_code == 200
    assert taken.json()["steps"][0] | {"at_ms": 0} == {
        "state": "acknowledged", "at_ms": 0, "by": "ayesha", "note": "seen", "outcome": None,
    }  # fmt: skip
    again = step(state="acknowledged")
    assert again.status_code == 409
    assert again.json()["incident"]["state"] == "acknowledged"
    assert step(state="closed").status_code == 422
    assert step(state="closed", outcome="genuine").json()["outcome"] == "genuine"
    incident = desk.incident(number)
    assert incident
    assert (incident.state, incident.outcome) == (State.CLOSED, Outcome.GENUINE)


@pytest.mark.parametrize("path", ["incidents/99", "incidents/x", "nothing", f"incidents/{2**70}"])
def test_what_is_not_there_is_json_too(program: tuple[StandInDesk, Visitor, str], path: str) -> None:
    answer = program[1].http.get(f"/api/v1/{path}")
    assert (answer.status_code, answer.json()["error"]["status"]) == (404, 404)


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "before=-1", "before=x", "limit=x"])
def test_queries_out_of_bounds_are_refused(program: tuple[StandInDesk, Visitor, str], query: str) -> None:
    assert program[1].http.get(f"/api/v1/history?{query}").status_code == 422


def test_interface_describes_itself(program: tuple[StandInDesk, Visitor, str]) -> None:
    described = program[1].http.get("/api/v1/openapi.json").json()
    assert "/api/v1/incidents/{number}/steps" in described["paths"]
    assert all(path.startswith(("/api/v1/",)) for path in described["paths"])
