"""An operator works alarms by mouse, by keyboard and without a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from gateway.desk import Outcome, State
from tests.browser.page import card
from tests.console.desk import (
    CARS,
    VISA,
    StandInDesk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser


def test_whole_alarm_is_worked_from_the_keyboard(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened()
    number = desk.press().id
    page.wait_for_selector(card(number) + ".selected")
    for key, state in (("a", "acknowledged"), ("r", "responding"), ("o", "on_scene")):
        page.keyboard.press(key)
        page.wait_for_selector(card(number, state))
    page.keyboard.press("c")
    expect(page.locator("#close-dialog")).to_be_visible()
    expect(page.locator("#close-where")).to_have_text("Consulate, Clifton, Main gate")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("A child pressed it; c, a, r.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".calm .none")).to_be_visible()
    incident = desk.incident(number)
    assert incident
    assert [(step.state, step.by) for step in incident.steps] == [
        (state, "ayesha") for state in (State.ACKNOWLEDGED, State.RESPONDING, State.ON_SCENE, State.CLOSED)
    ]
    assert incident.steps[-1].note == "A child pressed it; c, a, r."
    assert incident.outcome is Outcome.FALSE_ALARM


@pytest.mark.parametrize("keys", [("ArrowDown", "ArrowUp"), ("j", "k")])
def test_keys_choose_an_alarm_and_a_newcomer_does_not_take_its_place(
    desk: StandInDesk, opened: Callable[..., Page], keys: tuple[str, str]
) -> None:
    down, up = keys
    first, second = desk.press().id, desk.press(VISA, "clifton-visa").id
    page = opened()
    page.wait_for_selector(card(second) + ".selected")
    page.keyboard.press(down)
    page.wait_for_selector(card(first) + ".selected")
    third = desk.press(CARS, "clifton-cars").id
    page.wait_for_selector(card(third))
    page.keyboard.press("a")
    page.wait_for_selector(card(first, "acknowledged"))
    assert [one.state for number in (second, third) if (one := desk.incident(number))] == [State.RAISED, State.RAISED]
    page.keyboard.press(up)
    page.keyboard.press("Enter")
    page.wait_for_url("**/incidents/*")


def test_closing_needs_an_outcome(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    number = desk.press().id
    page = opened()
    page.click(card(number) + " [data-step=closed]")
    page.click("#close-do")
    expect(page.locator("#close-mistake")).to_have_text("Choose how it ended before closing.")
    expect(page.locator("#close-dialog")).to_be_visible()
    page.click("#close-cancel")
    expect(page.locator("#close-dialog")).to_be_hidden()
    incident = desk.incident(number)
    assert incident
    assert incident.state is State.RAISED
    page.click(card(number) + " [data-step=closed]")
    page.click("#close-dialog .choice:has([value=drill])")
    page.click("#close-do")
    expect(page.locator(card(number))).to_have_count(0)
    incident = desk.incident(number)
    assert incident
    assert incident.outcome is Outcome.DRILL


def test_step_that_a_colleague_took_first_is_refused_in_words(
    desk: StandInDesk, opened: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = desk.press().id
    page = opened()
    real = desk.step

    def late(number: int, state: State, by: str, note: str = "", outcome: Outcome | None = None) -> Any:
        monkeypatch.undo()
        real(number, State.RESPONDING, "bilal")
        return real(number, state, by, note, outcome)

    monkeypatch.setattr(desk, "step", late)
    page.keyboard.press("a")
    answer = page.locator("#answer.fault")
    expect(answer).to_contain_text("Not done.")
    expect(answer).to_contain_text("bilal")
    page.wait_for_selector(card(number, "responding"))


def test_typing_is_not_working_alarms(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    number = desk.press().id
    page = opened(f"/incidents/{number}")
    page.click("#step-note")
    page.keyboard.type("arc or ??? m")
    desk.step(number, State.ACKNOWLEDGED, "bilal")
    page.wait_for_selector("[data-done=acknowledged]")
    expect(page.locator("#step-note")).to_have_value("arc or ??? m")
    expect(page.locator("#step-note")).to_be_focused()
    page.click("[data-step=responding]")
    page.wait_for_selector("[data-done=responding]")
    incident = desk.incident(number)
    assert incident
    assert [(step.by, step.note) for step in incident.steps] == [("bilal", ""), ("ayesha", "arc or ??? m")]


def test_viewer_can_press_every_key_and_do_nothing(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    number = desk.press().id
    page = opened(name="viewer")
    page.wait_for_selector(card(number))
    for key in "arosc":
        page.keyboard.press(key)
    page.keyboard.press("?")
    expect(page.locator("#help-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    incident = desk.incident(number)
    assert incident
    assert incident.state is State.RAISED


def test_console_works_without_a_script(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    number = desk.press().id
    page = opened(java_script_enabled=False)
    page.click(card(number) + " [data-step=acknowledged]")
    page.wait_for_selector(card(number, "acknowledged"))
    page.click(card(number) + " [data-step=closed]")
    page.check("[name=outcome][value=test]")
    page.click("[data-step=closed]")
    page.wait_for_selector(card(number, "closed"))
