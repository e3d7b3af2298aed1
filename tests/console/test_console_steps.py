"""What an operator does to an alarm, and what is refused in words."""

from __future__ import annotations

import pytest

from gateway.desk import NEXT_STEPS, Outcome, State
from tests.console.desk import StandInDesk
from tests.console.visitor import Visitor


def test_steps_are_taken_in_the_operators_name_and_answered_with_the_card(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press().id
    for state in (State.ACKNOWLEDGED, State.RESPONDING, State.ON_SCENE):
        answer = operator.step(number, state=state, note="  two units\x00 \x1b[31m ")
        assert answer.status_code == 200
        assert f'data-state="{state}"' in answer.json()["card"]
    assert operator.step(number, state="closed", outcome="false_alarm").status_code == 200
    incident = desk.incident(number)
    assert incident
    assert [step.state for step in incident.steps] == ["acknowledged", "responding", "on_scene", "closed"]
    assert {step.by for step in incident.steps} == {"ayesha"}
    assert incident.steps[0].note == "two units   [31m"
    assert incident.outcome is Outcome.FALSE_ALARM


def test_steps_work_without_a_script(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press().id
    values = {"csrf": operator.csrf, "state": "acknowledged", "back": f"/incidents/{number}"}
    answer = operator.http.post(f"/incidents/{number}/steps", data=values)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/incidents/{number}")
    assert "Acknowledged" in operator.http.get(f"/incidents/{number}").text


def test_second_operator_is_told_who_was_first(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press().id
    desk.step(number, State.RESPONDING, "bilal")
    answer = operator.step(number, state="acknowledged")
    assert answer.status_code == 409
    told = answer.json()["message"].translate({0x2068: "", 0x2069: ""})
    assert told.startswith("Not done. Consulate, Clifton, Main gate is now: Unit responding by bilal at ")
    assert told.endswith("The station says: an alarm that is responding can't become acknowledged")
    assert 'data-state="responding"' in answer.json()["card"]
    page = operator.http.post(f"/incidents/{number}/steps", data={"csrf": operator.csrf, "state": "acknowledged"})
    assert page.status_code == 409
    assert "<h1>Not done</h1>" in page.text


@pytest.mark.parametrize("token", ["", "made up", "م"])
def test_step_without_the_sessions_token_is_refused(desk: StandInDesk, operator: Visitor, token: str) -> None:
    number = desk.press().id
    operator.csrf = token
    values = {"state": "acknowledged", "csrf": token}
    assert operator.http.post(f"/incidents/{number}/steps", data=values).status_code == 403
    api = operator.http.post(f"/api/v1/incidents/{number}/steps", json=values)
    assert api.status_code == 403
    assert "did not come from a page of this console" in api.json()["error"]["message"]
    assert desk.open_incidents()[0].state is State.RAISED


@pytest.mark.parametrize(
    "headers", [{"origin": "https://elsewhere.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_step_from_another_site_is_refused_even_with_the_token(
    desk: StandInDesk, operator: Visitor, headers: dict[str, str]
) -> None:
    number = desk.press().id
    values = {"state": "acknowledged", "csrf": operator.csrf}
    assert operator.http.post(f"/incidents/{number}/steps", data=values, headers=headers).status_code == 403
    assert desk.open_incidents()[0].state is State.RAISED


def test_viewer_sees_and_does_nothing(desk: StandInDesk, viewer: Visitor) -> None:
    number = desk.press().id
    for path in ("/", f"/incidents/{number}"):
        page = viewer.http.get(path).text
        assert "Main gate" in page
        assert "data-step" not in page
    answer = viewer.step(number, state="acknowledged")
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == "Your account may only look. An operator has to do this."
    api = viewer.http.post(
        f"/api/v1/incidents/{number}/steps",
        json={"state": "closed", "outcome": "drill"},
        headers={"x-csrf-token": viewer.csrf},
    )
    assert api.status_code == 403
    assert desk.open_incidents()[0].state is State.RAISED


def test_closing_needs_an_outcome(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press().id
    answer = operator.step(number, state="closed")
    assert answer.status_code == 422
    assert answer.json()["message"] == "Choose how it ended before closing."
    assert desk.open_incidents()[0].state is State.RAISED


@pytest.mark.parametrize(
    "values",
    [{"state": "raised"}, {"state": "gone"}, {"state": ""}, {}, {"state": "closed", "outcome": "weather"},
     {"state": "acknowledged", "note": "x" * 4_001}],
)  # fmt: skip
def test_step_that_makes_no_sense_is_refused(desk: StandInDesk, operator: Visitor, values: dict[str, str]) -> None:
    number = desk.press().id
    assert operator.step(number, **values).status_code == 422
    assert desk.open_incidents()[0].state is State.RAISED


def test_step_on_an_alarm_that_is_not_there(operator: Visitor) -> None:
    assert operator.step(4_711, state="acknowledged").status_code == 404


def test_outcome_is_kept_for_closing_only(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press().id
    assert operator.step(number, state="acknowledged", outcome="drill").status_code == 200
    incident = desk.incident(number)
    assert incident
    assert incident.outcome is None


@pytest.mark.parametrize("state", list(State))
def test_page_offers_the_steps_that_may_follow(desk: StandInDesk, operator: Visitor, state: State) -> None:
    number = desk.press(state=state).id
    page = operator.http.get(f"/incidents/{number}").text
    assert [step for step in State if f'data-step="{step}"' in page] == list(NEXT_STEPS[state])
