"""A virtual button: the real firmware in a process of its own, and the door to its pins and lights."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from demo.process import Process

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

REST = {"loop_a": 340, "loop_b": 610}
PRESSED = {"loop_a": 610, "loop_b": 340}
CUT = {"loop_a": 1000, "loop_b": 1000}
HOLD_S = 0.25
APART_S = 0.15  # between two presses: what follows sooner is one press to the firmware


class Button(Process):
    """One button. Everything it says is kept in `said`, as (what it said, when this process read it)."""

    def __init__(self, device: str, folder: Path, project: Path, micropython: str) -> None:
        super().__init__(
            device,
            [micropython, "-X", "heapsize=2m", str(project / "firmware" / "main.py")],
            cwd=folder,
            env={"MICROPYPATH": f"{project}:.frozen"},
            log=folder.parent / f"{device}.log",
            piped=True,
        )
        self.device = device
        self.light = "dark"
        self.led = "off"
        self.loop = "rest"
        self.link = "down"
        self.receipt = ""
        self.is_cut = False
        self.said: list[dict[str, Any]] = []
        self.heard: Callable[[Button, dict[str, Any]], None] = lambda _button, _line: None
        self._news = threading.Condition()

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """Reads what it says, in a thread of its own."""
        if self.is_cut:
            self.pins(**CUT)
        threading.Thread(target=self._read, args=(process,), name=f"button {self.device}", daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            with self._news:
                self._take(said)
                self.said.append(said)
                self._news.notify_all()
            self.heard(self, said)
        with self._news:
            self.light, self.led, self.link = "dark", "off", "down"

    def _take(self, said: dict[str, Any]) -> None:
        self.light = said.get("light", self.light)
        self.led = said.get("led", self.led)
        self.loop = said.get("loop", self.loop)
        self.link = said.get("link", self.link)
        if "stage" in said:
            self.receipt = f"{said['alarm']} stage {said['stage']}"

    def pins(self, **readings: float) -> None:
        """Sets what its pins read."""
        if self.stdin:
            try:
                self.stdin.write(json.dumps(readings).encode() + b"\n")
                self.stdin.flush()
            except OSError:
                return  # it is unplugged: nothing reads its pins

    def press(self, hold_s: float = HOLD_S) -> int:
        """Presses and releases; returns when it was pressed, in ns of UTC."""
        at = time.time_ns()
        self.pins(**PRESSED)
        time.sleep(hold_s)
        self.pins(**(CUT if self.is_cut else REST))
        time.sleep(APART_S)
        return at

    def cut(self) -> None:
        """Cuts the wire, or mends it."""
        self.is_cut = not self.is_cut
        self.pins(**(CUT if self.is_cut else REST))

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does: silence without a word."""
        if self.pid:
            os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen one go on."""
        if self.pid:
            os.kill(self.pid, signal.SIGCONT)

    def unplug(self) -> None:
        """Takes its power away."""
        self.stop(kill=True)

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float, since: int = 0) -> dict[str, Any]:
        """The first thing said at or after number `since` for which `condition` is true. Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        with self._news:
            while True:
                for said in self.said[since:]:
                    if condition(said):
                        return said
                since = len(self.said)
                left = end - time.monotonic()
                if left <= 0:
                    message = f"{self.device} did not say it within {timeout_s:g} s; last: {self.said[-3:]}"
                    raise TimeoutError(message)
                self._news.wait(left)
