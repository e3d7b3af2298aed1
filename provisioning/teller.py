"""How a run tells a person what it does: one step after the other, progress within a step, and what to do now."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
from contextlib import contextmanager


@dataclass
class Told:
    """One step that ended. outcome: "done", "kept" (nothing had to be done), "failed" or "skipped"."""

    step: str
    outcome: str
    text: str
    seconds: float


@dataclass
class Teller:
    """Keeps what was told; what a person sees is added by who inherits (screen.py), and tests look at `told`."""

    told: list[Told] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Told]:
        """A step while it is done. Whoever does it sets `text` and `outcome` of what this gives."""
        now = Told(name, "done", doing, 0.0)
        began = time.monotonic()
        self.begins(now)
        try:
            yield now
        except BaseException as error:
            now.outcome, now.text = "failed", str(error) or type(error).__name__
            raise
        finally:
            now.seconds = time.monotonic() - began
            self.told.append(now)
            self.ended(now)

    def begins(self, now: Told) -> None:
        """A step begins."""

    def progress(self, done: int, of: int) -> None:
        """How far the present step is: octets done, of how many."""

    def ended(self, now: Told) -> None:
        """A step ended."""

    def ask(self, text: str) -> None:
        """Something that the person must do now; whether they did is seen at the board."""
        self.asked.append(text)

    def warn(self, text: str) -> None:
        """Something that the person should know, and that stops nothing."""
        self.warned.append(text)
