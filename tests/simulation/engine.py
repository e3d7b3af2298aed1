"""Simulated time: what happens when, on which machine, and what a power cut does to it.

Everything random comes from one generator, and nothing else is asked for the time: a seed is a schedule.
"""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class PowerCutError(BaseException):
    """The machine is gone in the middle of what it does. Not an Exception: no code under test may catch it."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.name)
        self.machine = machine


class ViolationError(Exception):
    """A promise was broken; the text names the invariant."""


class Machine:
    """Something that can die at any moment and start again from what it has on disk.

    What was posted to a machine is for its present life only; what reaches it while it is frozen waits.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.life = 0
        self.running = False
        self.frozen = False
        self.fuse: int | None = None  # how many more operations the power lasts
        self._missed: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []

    def burn(self) -> None:
        """One operation that others can see the middle of: a write, a packet. The power may end here."""
        if self.fuse is not None:
            if self.fuse <= 0:
                self.fuse = None
                raise PowerCutError(self)
            self.fuse -= 1

    def start(self) -> None:
        """Begins a life. Machines extend it."""
        self.life += 1
        self.running = True
        self.fuse = None

    def crash(self) -> None:
        """Ends the life at once. Machines extend it."""
        self.life += 1
        self.running = self.frozen = False
        self.fuse = None
        self._missed = []

    def miss(self, life: int, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Keeps what reaches a frozen machine."""
        self._missed.append((life, what, args))

    def thaw(self) -> None:
        """Goes on after a freeze, with everything that came meanwhile."""
        self.frozen = False
        missed, self._missed = self._missed, []
        for life, what, args in missed:
            if life == self.life:
                self.engine.post(self, 0, what, *args)


class Engine:
    """The queue of everything that will happen, in simulated milliseconds."""

    def __init__(self, seed: int, *, tracing: bool) -> None:
        self.now = 0
        self.chance = random.Random(seed)
        self.random = self.chance.random
        self.story: list[str] | None = [] if tracing else None
        self._queue: list[tuple[int, int, Machine, int, Callable[..., None], tuple[Any, ...]]] = []
        self._posted = 0

    def post(self, machine: Machine, delay_ms: int, what: Callable[..., None], *args: Any) -> None:
        """Lets something happen on a machine, unless that dies before."""
        self._posted += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._posted, machine, machine.life, what, args))

    def tell(self, who: str, what: str) -> None:
        """Adds to the story, if somebody wants to read it."""
        if self.story is not None:
            self.story.append(f"{self.now:>7} ms  {who:<8} {what}")

    def run(self, until_ms: int) -> None:
        """Everything up to a moment. A machine whose power is cut in the middle of something dies there."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until_ms:
            self.now, _, machine, life, what, args = pop(queue)
            if machine.life != life or not machine.running:
                continue
            if machine.frozen:
                machine.miss(life, what, args)
                continue
            try:
                what(*args)
            except PowerCutError as cut:
                self.tell(cut.machine.name, "loses power in the middle of it")
                cut.machine.crash()
        self.now = until_ms
