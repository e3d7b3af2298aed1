"""The live panel of the demo: what the guards see, and keys that do what guards, thieves and power cuts do."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.world import OPERATOR, PLACES

if TYPE_CHECKING:
    from demo.button import Button
    from demo.world import World

PRESS, CUT, PLUG = "123456789", "qwertyuio", "asdfghjkl"
_LED = {"green": "green", "amber": "yellow", "red": "red", "off": "dim"}


class Panel:
    """Shows the buttons of a world until Ctrl-C or x."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._buttons = list(world.buttons.values())

    def run(self) -> None:
        """Runs it on the terminal."""
        settings = termios.tcgetattr(sys.stdin)
        try:
            tty.setcbreak(sys.stdin)
            with Live(self._picture(), refresh_per_second=10, screen=False) as live:
                while True:
                    ready, _, _ = select.select([sys.stdin], [], [], 0.1)
                    keys = os.read(sys.stdin.fileno(), 64).decode(errors="replace") or "x" if ready else ""
                    goes_on = [self._key(key) for key in keys]  # every one, also those typed at once
                    if not all(goes_on):
                        return
                    live.update(self._picture())
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)

    def _key(self, key: str) -> bool:
        if key in {"x", "\x03"}:
            return False
        for keys, action in ((PRESS, self._press), (CUT, self._cut), (PLUG, self._plug)):
            number = keys.find(key)
            if 0 <= number < len(self._buttons):
                action(self._buttons[number])
        return True

    @staticmethod
    def _press(button: Button) -> None:
        threading.Thread(target=button.press, daemon=True).start()

    @staticmethod
    def _cut(button: Button) -> None:
        button.cut()

    @staticmethod
    def _plug(button: Button) -> None:
        # From this thread: what another one starts would end with it.
        if button.running:
            button.unplug()
        else:
            button.start()

    def _picture(self) -> Group:
        table = Table(title="Three buttons of a consulate", title_justify="left", expand=False)
        for heading in ("entrance", "light", "shows", "wire", "link", "last receipt", "press", "cut", "plug"):
            table.add_column(heading)
        for number, button in enumerate(self._buttons):
            name = PLACES.get(button.device, ("", button.device))[1]
            lamp = Text("●", style=_LED.get(button.led, "dim")) if button.running else Text("unplugged", style="dim")
            table.add_row(
                name,
                lamp,
                button.light.replace("_", " "),
                "cut" if button.is_cut else _loop(button),
                button.link,
                button.receipt,
                PRESS[number],
                CUT[number],
                PLUG[number],
            )
        foot = Text(
            f"Console {self._world.url}   sign in: {OPERATOR} / {self._world.password}   x or Ctrl-C ends", style="dim"
        )
        return Group(table, foot)


def _loop(button: Button) -> str:
    loop = button.loop
    if isinstance(loop, dict):
        told = {name: state for name, state in loop.items() if state and state != "fine"}
        return ", ".join(name if state is True else f"{name} {state}" for name, state in told.items()) or "rest"
    return str(loop)
