"""From the pin to the page and back to the light: real button, real brokers, real stations, real Chromium."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from demo.process import wait_until
from demo.world import OPERATOR, World

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.faults, pytest.mark.timeout(120)]

GATE = "clifton-gate"


def test_a_press_is_on_the_page_within_a_second_and_each_step_reaches_the_light(browser: Browser) -> None:
    with World(buttons=(GATE,)) as world:
        button = world.buttons[GATE]
        page = browser.new_page()
        page.goto(world.url)
        page.fill("[name=name]", OPERATOR)
        page.fill("[name=password]", world.password)
        page.click("form.sign-in button")
        page.wait_for_selector("#live[data-state=on]")
        for number in range(1, 4):
            since = len(button.said)
            at = time.monotonic()
            button.press()
            expect(page.locator(".card")).to_have_count(1, timeout=5_000)
            took = time.monotonic() - at
            assert took < 1, f"press {number} was on the page after {took:.2f} s"
            expect(page.locator(".card")).to_contain_text("Main gate")
            button.wait_for(lambda said: said.get("light") == "at_hq", 5, since)
            for key, light in (("a", "acknowledged"), ("r", "responding")):
                since = len(button.said)
                page.keyboard.press(key)
                button.wait_for(lambda said, light=light: said.get("light") == light, 5, since)
                page.wait_for_selector(f'.card[data-state="{light}"]')
            page.keyboard.press("c")
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Tab")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            expect(page.locator(".card")).to_have_count(0)
            wait_until(lambda: button.light == "rest", 10, "the button is at rest again")
            page.wait_for_timeout(1_000)  # keys rest for 800 ms after the chosen alarm went
        page.context.close()
