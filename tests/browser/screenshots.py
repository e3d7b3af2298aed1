"""`python -m tests.browser.screenshots`: the pictures of the console in docs/images, taken from the real system.

Starts the whole system, presses a button, cuts a wire, and looks at headquarters' console in Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from demo.process import wait_until
from demo.world import OPERATOR, World
from tests.parts import chromium

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SIZE = ViewportSize(width=1280, height=800)
LARGEST_BYTES = 150_000


def sign_in(page: Page, world: World) -> None:
    """Signs in as the operator and waits until the page is live."""
    page.goto(world.url)
    page.fill("[name=name]", OPERATOR)
    page.fill("[name=password]", world.password)
    page.click("form.sign-in button")
    page.wait_for_selector("#live[data-state=on]")


def take(page: Page, name: str) -> Path:
    """A picture of what is seen now. Raises ValueError when it is too large to keep."""
    page.wait_for_selector("#live[data-state=on]")
    page.evaluate("document.fonts.ready")
    path = IMAGES / name
    page.screenshot(path=path, animations="disabled")
    if path.stat().st_size > LARGEST_BYTES:
        message = f"{name} has {path.stat().st_size} octets; at most {LARGEST_BYTES} are kept"
        raise ValueError(message)
    return path


def main() -> None:
    """Takes all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with World() as world, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        sign_in(page, world)
        world.buttons["clifton-visa"].press()
        page.wait_for_selector("[data-incident]")
        page.click("[data-step=acknowledged]")
        page.wait_for_selector('[data-incident][data-state="acknowledged"]')
        page.click("#answer-dismiss")
        world.buttons["clifton-gate"].press()
        page.wait_for_selector('[data-incident][data-state="raised"] .age:has-text("0:07")')
        taken = [take(page, "alarm.png")]
        page.click('a[href^="/language/ur"]')
        taken.append(take(page, "alarm-ur.png"))
        page.click('a[href^="/language/en"]')
        page.click('nav a[href="/children"]')
        world.buttons["clifton-cars"].cut()
        page.wait_for_selector('[data-child="clifton-cars"].trouble', timeout=20_000)
        wait_until(lambda: page.locator("tr.trouble").count() == 1, 20, "one button with trouble")
        taken.append(take(page, "buttons.png"))
        browser.close()
    for path in taken:
        sys.stdout.write(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}\n")


if __name__ == "__main__":
    main()
