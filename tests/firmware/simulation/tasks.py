"""MicroPython's asyncio, as far as firmware/session.py uses it, in simulated time: a machine's tasks die with it."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from tests.simulation.engine import Machine


class CancelledError(BaseException):
    """As on MicroPython it is no Exception."""


class Task:
    """A coroutine on its way."""

    __slots__ = ("cancelled", "coroutine", "done", "loop", "turn")

    def __init__(self, loop: Loop, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.loop, self.coroutine = loop, coroutine
        self.turn = 0  # each wait has a number: what wakes an earlier one does nothing
        self.done = self.cancelled = False

    def cancel(self) -> None:
        """Raises CancelledError in it, where it waits."""
        if self.done:
            return
        if self.loop.current is self:
            raise RuntimeError("a task can't cancel itself")
        self.cancelled = True
        self.loop.wake(self, self.turn)


class Event:
    """Set or not; `loop` is asked who waits."""

    __slots__ = ("_loop", "_set", "_waiting")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._set = False
        self._waiting: list[tuple[Task, int]] = []

    def set(self) -> None:
        """Wakes whoever waits."""
        self._set = True
        waiting, self._waiting = self._waiting, []
        for task, turn in waiting:
            self._loop.wake(task, turn)

    def clear(self) -> None:
        """As if nothing had happened."""
        self._set = False

    async def wait(self) -> None:
        """Until it is set."""
        while not self._set:
            await _paused(self._waiting)


@types.coroutine
def _paused(how: object) -> Generator[object]:
    yield how


class Loop:
    """All tasks of one machine's present life; it stands in the place of the module `asyncio`."""

    CancelledError = CancelledError

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.current: Task | None = None
        self._tasks: list[Task] = []

    def Event(self) -> Event:
        return Event(self)

    def current_task(self) -> Task | None:
        return self.current

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        task = Task(self, coroutine)
        self._tasks.append(task)
        self.wake(task, 0)
        return task

    async def sleep_ms(self, ms: int) -> None:
        await _paused(ms)

    def wake(self, task: Task, turn: int) -> None:
        """Lets a task go on, unless it has done so since."""
        self.machine.engine.post(self.machine, 0, self._step, task, turn)

    def _step(self, task: Task, turn: int) -> None:
        if turn != task.turn or task.done:
            return
        task.turn += 1
        self.current = task
        try:
            if task.cancelled:
                task.cancelled = False
                how = task.coroutine.throw(CancelledError())
            else:
                how = task.coroutine.send(None)
        except (StopIteration, CancelledError):
            task.done = True
            self._tasks.remove(task)
            return
        finally:
            self.current = None
        if isinstance(how, int):
            self.machine.engine.post(self.machine, how, self._step, task, task.turn)
        else:
            how.append((task, task.turn))

    def die(self) -> None:
        """The machine's life is over: no task does anything any more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.done = True
        for task in tasks:
            if task is not self.current:
                task.coroutine.close()
