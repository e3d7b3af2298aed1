"""A technician's test alarm in a real browser: seen, silent, never red, and never in a real alarm's way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, expect

from demo.process import wait_until
from gateway.desk import Outcome, State
from tests.browser.page import SIZES, card
from tests.browser.test_browser_looks import REDS, TOO_PALE
from tests.console.desk import CARS, VISA, StandInDesk

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser

SETTLED_MS = 900  # the keys rest for 800 ms when the choice moved by itself


def test_a_test_is_seen_and_silent_and_nothing_is_red(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened()
    page.click("#sound")
    page.wait_for_timeout(500)
    tones = page.evaluate("window.tones")
    number = desk.press(cause="test").id
    page.wait_for_selector(card(number, "raised"))
    expect(page.locator(card(number) + " .test-mark")).to_have_text("TEST, no emergency")
    expect(page).to_have_title(re.compile(r"^\(1 test\) Alarms"))
    expect(page.locator("[data-count=tests]")).to_have_text("1")
    expect(page.locator("[data-count=open]")).to_be_hidden()
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("/icon.svg"))
    expect(page.locator("#announce-test")).to_contain_text("Test alarm, no emergency")
    expect(page.locator("#announce")).to_have_text("")
    expect(page.locator("#sound")).to_have_attribute("data-state", "on")
    page.wait_for_timeout(2_500)
    assert page.evaluate("window.tones") == tones
    assert page.evaluate(REDS) == 0
    for path in ("/children", "/history", "/health", f"/incidents/{number}"):
        page.goto(urljoin(page.url, path))
        page.wait_for_selector("#live[data-state=on]")
        expect(page.locator(".banner.test")).to_contain_text("TEST, no emergency")
        assert page.evaluate(REDS) == 0, path


def test_an_alarm_among_tests_sounds_and_is_red_and_first(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened()
    page.click("#sound")
    tests = [desk.press(cause="test").id for _ in range(3)]
    page.wait_for_selector(card(tests[-1], "raised") + ".selected")
    page.wait_for_timeout(500)
    tones = page.evaluate("window.tones")
    alarm = desk.press(VISA).id
    wait_until(lambda: page.evaluate("window.tones") > tones, 1.5, "the alarm's sound")
    expect(page.locator(".card").first).to_have_attribute("data-incident", str(alarm))
    expect(page).to_have_title(re.compile(r"^\(1\) \(3 test\) Alarms"))
    assert page.evaluate(REDS) > 0
    page.wait_for_selector(card(alarm) + ".selected")
    page.wait_for_timeout(SETTLED_MS)
    page.keyboard.press("a")
    page.wait_for_selector(card(alarm, "acknowledged"))
    assert [one.state for number in tests if (one := desk.incident(number))] == [State.RAISED] * 3
    page.goto(urljoin(page.url, "/health"))
    expect(page.locator(".banner")).to_contain_text("Visa hall")
    expect(page.locator(".banner.test")).to_have_count(0)


def test_a_key_meant_for_a_test_does_not_meet_the_alarm_that_takes_its_place(
    desk: StandInDesk, opened: Callable[..., Page]
) -> None:
    page = opened()
    test = desk.press(cause="test").id
    page.wait_for_selector(card(test) + ".selected")
    page.evaluate(
        "document.addEventListener('tocsin:changed', function press() {"
        " if (document.querySelectorAll('.card').length < 2) return;"
        " document.removeEventListener('tocsin:changed', press);"
        " document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'a', bubbles: true })) })"
    )
    alarm = desk.press(CARS).id
    page.wait_for_selector(card(alarm) + ".selected")
    page.wait_for_timeout(300)
    assert [one.state for number in (test, alarm) if (one := desk.incident(number))] == [State.RAISED] * 2


def test_whoever_goes_back_to_a_test_stays_there(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    test, alarm = desk.press(cause="test").id, desk.press(VISA).id
    page = opened()
    page.wait_for_selector(card(alarm) + ".selected")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(card(test) + ".selected")
    desk.step(alarm, State.ACKNOWLEDGED, "bilal")
    page.wait_for_selector(card(alarm, "acknowledged"))
    page.wait_for_selector(card(test) + ".selected")
    page.keyboard.press("c")
    expect(page.locator("#close-dialog [name=outcome]:checked")).to_have_value("test")
    page.click("#close-do")
    page.wait_for_selector(card(test), state="detached")
    closed = desk.incident(test)
    assert closed
    assert closed.outcome is Outcome.TEST
    page.wait_for_timeout(SETTLED_MS)
    page.keyboard.press("c")
    expect(page.locator("#close-dialog")).to_be_visible()
    expect(page.locator("#close-dialog [name=outcome]:checked")).to_have_count(0)


@pytest.mark.parametrize("language", ["en", "ur"])
@pytest.mark.parametrize("size", SIZES)
def test_tests_fit_and_are_readable(desk: StandInDesk, opened: Callable[..., Page], language: str, size: str) -> None:
    number = desk.press(cause="test").id
    desk.step(desk.press(VISA, cause="test").id, State.RESPONDING, "bilal")
    page = opened(language=language, size=size)
    for path in ("/", "/history", "/health", f"/incidents/{number}"):
        page.goto(urljoin(page.url, path))
        page.wait_for_selector("#live[data-state=on]")
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], path
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate(TOO_PALE) == [], f"{path}, {scheme}"
