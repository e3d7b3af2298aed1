"""A page that can't see the station says so, loudly, and comes back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from tests.browser.page import card, within
from tests.console.desk import (
    Server,
    StandInDesk,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.browser


def test_page_without_a_station_says_so_within_seconds_and_comes_back_by_itself(
    desk: StandInDesk, server: Server, opened: Callable[..., Page]
) -> None:
    page = opened()
    server.stop()
    with within(7, "saying NOT LIVE"):
        expect(page.locator("#stale")).to_be_visible()
        expect(page.locator("#live")).to_have_text("NOT LIVE")
    expect(page.locator("#stale")).to_contain_text("New alarms do not appear here.")
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    number = desk.press().id
    with serving(desk, server.port):
        page.wait_for_selector("#live[data-state=on]", timeout=10_000)
        page.wait_for_selector(card(number, "raised"))
        expect(page.locator("#stale")).to_be_hidden()


def test_page_says_so_when_the_station_behind_the_server_does_not_answer(
    desk: StandInDesk, opened: Callable[..., Page]
) -> None:
    page = opened()
    desk.broken = True
    with within(10, "saying NOT LIVE"):  # 4 s of silence, seen at the next beat
        expect(page.locator("#stale")).to_be_visible(timeout=10_000)
    desk.broken = False
    expect(page.locator("#stale")).to_be_hidden(timeout=8_000)


def test_step_that_could_not_be_sent_says_so(desk: StandInDesk, server: Server, opened: Callable[..., Page]) -> None:
    desk.press()
    page = opened()
    page.wait_for_selector(".card.selected")
    server.stop()
    page.keyboard.press("a")
    expect(page.locator("#answer.fault")).to_contain_text("NOT SENT")


def test_page_of_somebody_who_signed_out_elsewhere_asks_for_the_password(opened: Callable[..., Page]) -> None:
    page = opened("/health")
    other = page.context.new_page()
    other.goto(page.url)
    other.click("form[action='/sign-out'] button")
    page.wait_for_url("**/sign-in?*")
    expect(page.locator("[role=alert]")).to_contain_text("You were signed out")
