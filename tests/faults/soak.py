"""`make soak`: the real processes under random kills, freezes, power cuts and cut lines, with random presses.

The last line is JSON: presses, losses, duplicates, lies of a light, faults, and the delays from the contact to
headquarters' disk. Exit status 1 when anything was lost, doubled or untrue.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx

from demo.world import HQ, SITE, World, free_ports
from tests.faults.drill import Drill
from tests.faults.line import Line
from tests.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.button import Button

LONGEST_S = 8  # of a freeze or a cut
SETTLE_S = 180
CLOSE_EVERY_S = 20
SLOW_MS, SLOWEST = 3_000, 5  # of these many presses, if they took longer, all is told
STATIONS = (f"station {SITE}", f"station {HQ}")


class Soak:
    """A world, its line, what is wrong with it now, and what was pressed."""

    def __init__(self, world: World, line: Line, seed: int) -> None:
        self.world, self.line = world, line
        self.chance = random.Random(seed)
        self.drill = Drill(world)
        self.pressed_ms: dict[tuple[str, int, int], float] = {}
        self.faults: dict[str, int] = {}
        self.history: list[tuple[float, str]] = []  # of faults: when, in ms of UTC, and which
        self._mend: list[tuple[float, Callable[[], None]]] = []
        self._ending = threading.Event()
        self._hear = self.drill._heard
        for button in world.buttons.values():
            button.heard = self._heard

    def _heard(self, button: Button, said: dict[str, Any]) -> None:
        if "latched" in said:
            told = said["latched"]
            self.pressed_ms[button.device, told["boot"], told["seq"]] = told["pin_at"] / 1e6
        self._hear(button, said)

    # ------------------------------------------------------------------------------------------- faults

    def fault(self) -> None:
        """Something breaks; what does not mend itself is mended within LONGEST_S."""
        chance = self.chance
        what = chance.choice(
            ("kill station", "kill broker", "power cut", "freeze station", "freeze button", "cut line")
        )
        self.faults[what] = self.faults.get(what, 0) + 1
        lasts_s = chance.uniform(0.3, LONGEST_S)
        button = chance.choice(list(self.world.buttons.values()))
        name = chance.choice(STATIONS)
        of = name if "station" in what else button.device if what in {"power cut", "freeze button"} else ""
        self.history.append((time.time() * 1000, f"{what} {of} {f'{lasts_s:.1f} s' if 'kill' not in what else ''}"))
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if what == "kill station":
                self.world.processes[name].kill()
            elif what == "kill broker":
                os.kill(self.world.mosquitto_pid(chance.choice((SITE, HQ))), signal.SIGKILL)
            elif what == "power cut":
                button.kill()
            elif what == "freeze station":
                self._freeze(self.world.processes[name].pid, lasts_s)
            elif what == "freeze button":
                self._freeze(button.pid, lasts_s)
            else:
                self.line.swallows = True
                self._later(lasts_s, self._restore_line)

    def _freeze(self, pid: int | None, lasts_s: float) -> None:
        if pid is None:
            return

        def thaw() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        os.kill(pid, signal.SIGSTOP)
        self._later(lasts_s, thaw)

    def _restore_line(self) -> None:
        self.line.swallows = False

    def _later(self, after_s: float, what: Callable[[], None]) -> None:
        self._mend.append((time.monotonic() + after_s, what))

    def mend(self, *, everything: bool = False) -> None:
        """Ends the faults whose time is over."""
        now = time.monotonic()
        due = [one for one in self._mend if everything or one[0] <= now]
        self._mend = [one for one in self._mend if one not in due]
        for _, what in due:
            what()

    # --------------------------------------------------------------------------------------------- run

    def run(self, for_s: float) -> None:
        """Presses and breaks for so long, then lets everything settle."""
        chance, now = self.chance, time.monotonic()
        end, told = now + for_s, now
        press, fault = now + 1, now + 3
        threading.Thread(target=self._close_alarms, daemon=True).start()
        while (now := time.monotonic()) < end:
            self.mend()
            if now >= press:
                chance.choice(list(self.world.buttons.values())).press()
                press = now + chance.uniform(0.6, 3)
            if now >= fault:
                self.fault()
                fault = now + chance.uniform(1, 8)
            if now - told >= 10:
                told = now
                print(f"{end - now:5.0f} s left: {len(self.drill.latched)} presses, faults {self.faults}", flush=True)
            time.sleep(0.05)
        self._ending.set()
        self.mend(everything=True)
        self.drill.settle(SETTLE_S)

    def _close_alarms(self) -> None:
        """On a thread of its own: who waits here for a frozen console can't thaw it."""
        while not self._ending.wait(CLOSE_EVERY_S):
            with contextlib.suppress(httpx.HTTPError, AssertionError, TimeoutError):
                Operator(self.world).sign_in().close_all()

    def verdict(self) -> dict[str, Any]:
        """What became of every press. Milliseconds from the contact to headquarters' journal."""
        database = self.world.database()
        rows = database.execute("SELECT source, boot, seq, received_at_ms FROM journal WHERE kind = 1").fetchall()
        database.close()
        arrived = {tuple(row[:3]): row[3] for row in rows}
        took = {number: arrived[number] - self.pressed_ms[number] for number in self.drill.latched if number in arrived}
        delays = sorted(took.values())
        for number in sorted(took, key=lambda number: -took[number])[:SLOWEST]:
            if took[number] > SLOW_MS:
                self._explain(number, took[number])
        return {
            "presses": len(self.drill.latched),
            "losses": len(self.drill.latched - arrived.keys()),
            "duplicates": len(rows) - len(arrived),
            "lies": len(self.drill.lies),
            "faults": sum(self.faults.values()),
            "median_ms": round(statistics.median(delays)) if delays else None,
            "worst_ms": round(delays[-1]) if delays else None,
        }

    def _explain(self, number: tuple[str, int, int], took_ms: float) -> None:
        """Prints what went on while a press was on its way, and what the stations logged of it."""
        began = self.pressed_ms[number]
        name = "/".join(map(str, number))
        print(f"{name}: {took_ms / 1000:.1f} s from the contact to headquarters' disk")
        for at, what in self.history:
            if began - 1000 * LONGEST_S < at < began + took_ms:
                print(f"  {(at - began) / 1000:+.1f} s: {what}")
        for log in sorted(self.world.folder.glob("station-*.log")):
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                if f"id={name} " in line:
                    print(f"  {log.stem}: {line}")


def soak(for_s: float, seed: int) -> dict[str, Any]:
    """A world of its own, soaked for so long; its verdict."""
    (port,) = free_ports(1)
    world = World(uplink_port=port)
    line = Line(port, world.hq_port)
    try:
        world.start()
        soaked = Soak(world, line, seed)
        try:
            soaked.run(for_s)
        except TimeoutError as late:
            print(late)
            return {**soaked.verdict(), "unsettled": 1}
        for lie in soaked.drill.lies:
            print(lie)
        return soaked.verdict()
    finally:
        world.close()
        line.close()


def main() -> int:
    """Exit status 1: something was lost, doubled or untrue."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    told = parser.parse_args()
    print(f"make soak SEED={told.seed}: the same faults in the same order (processes keep their own time)", flush=True)
    verdict = soak(60 * told.minutes, told.seed)
    print(json.dumps(verdict))
    return (
        1
        if not verdict["presses"] or any(verdict.get(bad) for bad in ("losses", "duplicates", "lies", "unsettled"))
        else 0
    )


if __name__ == "__main__":
    sys.exit(main())
