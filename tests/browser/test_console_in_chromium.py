"""The console as an operator meets it: a real Chromium on a real server, over a stand-in for the station."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.process import wait_until
from gateway.desk import Link, Outcome, State
from tests.console.desk import CARS, GATE, HOSTILE, PASSWORD, VISA, Server, StandInDesk, button, furnished, serving
from tests.parts import chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.browser

PAGES = ("/", "/children", "/happenings", "/history", "/health", "/incidents/10")
SIZES = {"desk": (1280, 800), "wall": (1920, 1080), "phone": (390, 844)}
COUNT_TONES = """
  window.tones = 0;
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...when) { window.tones += 1; return start.apply(this, when); };
"""
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


def card(number: int, state: str = "") -> str:
    return f'.card[data-incident="{number}"]' + (f'[data-state="{state}"]' if state else "")


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds, f"{what} took {took:.2f} s"


# ------------------------------------------------------------------------------------------ an alarm comes


def test_alarm_is_on_the_page_within_a_second_of_being_known(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    page = opened()
    expect(page.locator(".calm .none")).to_have_text("No open alarms")
    for place in (GATE, HOSTILE, VISA):
        with within(1, "an alarm"):
            number = desk.press(place).id
            page.wait_for_selector(card(number, "raised"))
    expect(page).to_have_title(re.compile(r"^\(3\) Alarms"))
    expect(page.locator("[data-count=open]")).to_have_text("3")
    expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("icon-alarm"))
    expect(page.locator("#announce")).to_contain_text("New alarm")
    expect(page.locator(".calm")).to_have_count(0)
    assert page.locator("main img, main script").count() == 0, "a name is text, whatever it looks like"


@pytest.mark.parametrize("path", ["/children", "/happenings", "/history", "/health"])
def test_alarm_is_on_every_other_page_too(desk: StandInDesk, opened: Callable[..., Page], path: str) -> None:
    page = opened(path)
    with within(1, "an alarm"):
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


# ------------------------------------------------------------------------------------------ an operator works it


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


# ------------------------------------------------------------------------------------------ a page that can't see


def test_page_without_a_station_says_so_within_seconds_and_comes_back_by_itself(
    desk: StandInDesk, server: Server, opened: Callable[..., Page]
) -> None:
    page = opened()
    server.stop()
    with within(6, "saying NOT LIVE"):
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
    with within(8, "saying NOT LIVE"):  # 4 s of silence, seen at the next beat
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


# ------------------------------------------------------------------------------------------ how it looks


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
    for path in (*PAGES[:-1], f"/incidents/{number}"):
        page.goto(urljoin(page.url, path))
        page.wait_for_selector("#live[data-state=on]")
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], f"{path} is {wide[0]} px wide on {wide[1]}"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate(TOO_PALE) == [], f"{path}, {scheme}"


def test_red_is_for_alarms_alone(desk: StandInDesk, opened: Callable[..., Page]) -> None:
    reds = """() => [...document.querySelectorAll("body *")].filter((element) => {
      const style = getComputedStyle(element);
      return element.checkVisibility() && [style.backgroundColor, style.color, style.borderTopColor].some((colour) => {
        const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
        return a > 0 && r > 120 && g < r / 3 && b < r / 3 && g / r < 0.25;
      });
    }).length"""
    desk.hear(button("clifton-gate", GATE, link=Link.TAMPERED, why="The enclosure is open.", tampered=True))
    page = opened()
    for path in ("/", "/children", "/health"):
        page.goto(urljoin(page.url, path))
        page.wait_for_selector("#live[data-state=on]")
        assert page.evaluate(reds) == 0
    desk.press()
    page.wait_for_selector(".banner.raised")
    assert page.evaluate(reds) > 0


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
