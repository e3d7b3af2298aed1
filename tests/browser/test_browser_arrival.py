"""An alarm comes: on every page, in the title, in the ear."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from demo.process import wait_until
from gateway.desk import State
from tests.browser.page import card
from tests.console.desk import (
    GATE,
    HOSTILE,
    VISA,
    StandInDesk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser


def test_alarm_is_on_the_page_within_a_second_of_being_known(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened()
    expect(page.locator(".calm .none")).to_have_text("No open alarms")
    took = []
    for place in (GATE, HOSTILE, VISA):
        before = time.monotonic()
        number = desk.press(place).id
        page.wait_for_selector(card(number, "raised"))
        took.append(time.monotonic() - before)
    assert sorted(took)[1] < 1, f"alarms took {took} s"
    expect(page).to_have_title(re.compile(r"^\(3\) Alarms"))
    expect(page.locator("[data-count=open]")).to_have_text("3")
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("icon-alarm"))
    expect(page.locator("#announce")).to_contain_text("New alarm")
    expect(page.locator(".calm")).to_have_count(0)
    assert page.locator("main img, main script").count() == 0, "a name is text, whatever it looks like"


@pytest.mark.parametrize("path", ["/children", "/happenings", "/history", "/health"])
def test_alarm_is_on_every_other_page_too(desk: StandInDesk, opened: Callable[..., Page], path: str) -> None:
    page = opened(path)
    desk.press()
    page.wait_for_selector(".banner.raised")
    expect(page.locator(".banner")).to_contain_text("Main gate")
    page.click(".banner")
    page.wait_for_selector(".card.raised")


def test_alarm_from_before_the_page_was_opened_is_there_and_counts_its_age(
    desk: StandInDesk, opened: Callable[..., Page]
) -> None:
    desk.press(pressed_at_ms=desk.now_ms() - 59_000)
    page = opened()
    age = page.locator(".card .age [data-age]")
    expect(age).to_have_text(re.compile(r"^1:0\d$"), timeout=3_000)


def test_alarm_sounds_until_it_is_acknowledged(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened()
    page.click("#sound")
    tones = page.evaluate("window.tones")
    number = desk.press().id
    wait_until(lambda: page.evaluate("window.tones") > tones, 1.5, "the alarm's sound")
    heard = page.evaluate("window.tones")
    wait_until(lambda: page.evaluate("window.tones") > heard, 3, "the sound's repetition")
    page.keyboard.press("m")
    expect(page.locator("#sound")).to_have_attribute("data-state", "muted")
    expect(page.locator("#sound")).to_contain_text("MUTED")
    other = desk.press(VISA).id
    expect(page.locator("#sound")).to_have_attribute("data-state", "sounding")
    for one in (number, other):
        desk.step(one, State.ACKNOWLEDGED, "bilal")
    expect(page.locator("#sound")).to_have_attribute("data-state", "on")
    silent = page.evaluate("window.tones")
    page.wait_for_timeout(2_500)
    assert page.evaluate("window.tones") == silent


def test_page_that_may_not_sound_says_so_until_it_may(opened: Callable[..., Page]) -> None:
    page = opened()
    page.goto(page.url)  # nobody touched the page since
    sound = page.locator("#sound")
    expect(sound).to_have_attribute("data-state", "blocked")
    expect(sound).to_have_text("NO SOUND: press here to enable it")
    sound.click()
    expect(sound).to_have_attribute("data-state", "on")
