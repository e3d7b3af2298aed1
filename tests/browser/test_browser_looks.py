"""Every page fits, can be read, keeps red for alarms, and speaks both languages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, expect

from gateway.desk import Link, State
from tests.browser.page import SIZES, card
from tests.console.desk import (
    GATE,
    HOSTILE,
    VISA,
    StandInDesk,
    button,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser

PAGES = ("/", "/children", "/happenings", "/history", "/health")
TOO_PALE = r"""() => {
  const channel = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest(".unseen, .skip, noscript, script")) continue;
    const [above, below] = [light(numbers(style.color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (above + 0.05) / (below + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) pale.push(`${walker.currentNode.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return pale;
}"""

REDS = """() => [...document.querySelectorAll("body *")].filter((element) => {
  const style = getComputedStyle(element);
  return element.checkVisibility() && [style.backgroundColor, style.color, style.borderTopColor].some((colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return a > 0 && r > 120 && g < r / 3 && b < r / 3 && g / r < 0.25;
  });
}).length"""


@pytest.mark.parametrize("language", ["en", "ur"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_and_is_readable_in_light_and_dark(
    desk: StandInDesk, opened: Callable[..., Page], language: str, size: str
) -> None:
    desk.press(HOSTILE, "a-button-with-a-name-of-some-length")
    number = desk.press().id
    desk.step(number, State.RESPONDING, "bilal", "A note as long as notes are when somebody has the time to write one.")
    page = opened(language=language, size=size)
    assert page.evaluate("getComputedStyle(document.documentElement).direction") == (
        "rtl" if language == "ur" else "ltr"
    )
    for path in (*PAGES, f"/incidents/{number}", "/children/clifton-cars"):
        page.goto(urljoin(page.url, path))
        page.wait_for_selector("#live[data-state=on]")
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], f"{path} is {wide[0]} px wide on {wide[1]}"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate(TOO_PALE) == [], f"{path}, {scheme}"


def test_red_is_for_alarms_alone(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    desk.hear(button("clifton-gate", GATE, link=Link.TAMPERED, why="The enclosure is open.", tampered=True))
    page = opened()
    for path in ("/", "/children", "/health"):
        page.goto(urljoin(page.url, path))
        page.wait_for_selector("#live[data-state=on]")
        assert page.evaluate(REDS) == 0
    desk.press()
    page.wait_for_selector(".banner.raised")
    assert page.evaluate(REDS) > 0


def test_language_is_changed_on_the_spot(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    desk.press()
    page = opened("/history")
    page.click("a[href^='/language/ur']")
    page.wait_for_selector("html[dir=rtl] #live[data-state=on]")
    assert page.url.endswith("/history")
    expect(page.locator(".banner")).to_contain_text("صدر دروازہ")
    number = desk.press(VISA, "clifton-visa").id
    page.click("nav a[href='/']")
    expect(page.locator(card(number) + " .entrance")).to_have_text("ویزا ہال")


def test_filter_sifts_as_one_types(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened("/children")
    page.fill("#filter", "clifton faulty")
    expect(page.locator("tr[data-child]:visible")).to_have_count(1)
    expect(page.locator("#shown")).to_have_text("1 of 6 shown")
    desk.hear(button("clifton-visa", VISA, link=Link.FAULTY, why="The button's wire is cut.", loop="cut"))
    expect(page.locator("tr[data-child]:visible")).to_have_count(2)
    page.fill("#filter", "zzz")
    expect(page.locator("#no-match")).to_be_visible()
