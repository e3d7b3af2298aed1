"""A browser, a server, and pages of somebody who signed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.page import SIZES
from tests.console.desk import PASSWORD, Server, StandInDesk, furnished, serving
from tests.parts import chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT_TONES = """
  window.tones = 0;
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...when) { window.tones += 1; return start.apply(this, when); };
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def desk() -> StandInDesk:
    return furnished()


@pytest.fixture
def server(desk: StandInDesk) -> Iterator[Server]:
    with serving(desk) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens a page as somebody who signed in; at the end no page may have complained."""
    complaints: list[str] = []

    def hear(text: str) -> None:
        if not text.startswith("Failed to load resource"):  # an answer that is a refusal, or a server that stopped
            complaints.append(text)

    def open_(path: str = "/", *, name: str = "ayesha", language: str = "en", size: str = "desk", **more: Any) -> Page:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, **more)
        context.add_cookies([{"name": "tocsin-language", "value": language, "url": server.url}])
        page = context.new_page()
        page.set_default_timeout(8_000)
        page.on("console", lambda message: hear(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: hear(str(error)))
        page.on("dialog", lambda dialog: hear(f"dialog: {dialog.message}"))
        page.add_init_script(COUNT_TONES)
        page.goto(server.url + path)
        page.fill("[name=name]", name)
        page.fill("[name=password]", PASSWORD)
        page.click("form.sign-in button")
        if more.get("java_script_enabled", True):
            page.wait_for_selector("#live[data-state=on]")
        return page

    yield open_
    for context in browser.contexts:
        context.close()
    assert complaints == []
