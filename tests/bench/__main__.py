"""`python -m tests.bench`: press to headquarters and to light, beside a bridge of two mosquittos, and the floors.

One run measures everything, in blocks that take turns, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.world import HQ, PROJECT, World, micropython
from tests.bench import backlog, growth, heartbeats, journal, throughput
from tests.bench.floors import PAUSE_S, Floors
from tests.bench.peer import Peer, mosquitto
from tests.bench.pipeline import Pipeline
from tests.operator import Operator

if TYPE_CHECKING:
    from types import FrameType

PRESSES = 500
BLOCKS = 10
ONLY = ("press", "backlog", "growth", "heartbeats", "journal", "throughput")
EVENTS = {"backlog": 1_000_000, "journal": 10_000_000}
PAGE = PROJECT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by tests.bench --write -->", "<!-- end of what tests.bench writes -->"
DEVICE = "clifton-gate"
STEPS = {
    "pin_to_commit": "pin → committed at headquarters",
    "pin_to_light": "pin → receipt at the light",
    "sent_to_commit": "sent → committed at headquarters",
    "sent_to_light": "sent → receipt at the light",
    "latch_to_commit": "latched → committed at headquarters",
    "latch_to_light": "latched → receipt at the light",
}
FLOORS = {
    "commit": "one row committed, fsync'ed",
    "one_broker": "publish → subscriber, one broker",
    "two_brokers": "publish → subscriber, two brokers and a bridge",
}


def say(text: str) -> None:
    """Tells the person at the terminal; standard output is kept for the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def measure(presses: int) -> str:
    """Presses so many times through each pipeline; returns the tables in Markdown."""
    say("Starting headquarters, a site and a button, and beside them two bridged brokers and a button …")
    with World(buttons=[DEVICE]) as world, Peer(world) as peer, Floors(peer) as floors:
        tocsin = Pipeline(
            "Tocsin",
            world.buttons[DEVICE],
            world.database(HQ),
            "SELECT max(id) FROM incidents",
            "SELECT id, envelope FROM journal WHERE kind = 1 AND id > ?",
            Operator(world).sign_in().close_all,
        )
        bridge = Pipeline(
            "bridge",
            peer.button,
            peer.database(),
            "SELECT max(id) FROM messages",
            "SELECT id, payload FROM messages WHERE kind = 1 AND id > ?",
            peer.close_all,
        )
        bare: dict[str, list[float]] = {name: [] for name in FLOORS}
        began = time.monotonic()
        try:
            for block in range(BLOCKS):
                count = presses * (block + 1) // BLOCKS - presses * block // BLOCKS
                for pipeline in (tocsin, bridge) if block % 2 == 0 else (bridge, tocsin):
                    for _ in range(count):
                        pipeline.press()
                    pipeline.settle()
                for name, values in bare.items():
                    one = getattr(floors, name)
                    for number in range(count):
                        values.append(one(number))
                        time.sleep(PAUSE_S)
                say(f"  {len(tocsin.times)} of {presses} presses of each, {time.monotonic() - began:.0f} s")
        except (TimeoutError, RuntimeError, KeyboardInterrupt):
            peer_said = "\n".join(f"{peer.button.device}: {said}" for said in peer.button.said[-4:])
            say(f"{world.log_tails()}\n{peer_said}\n{len(tocsin.times)} and {len(bridge.times)} presses until then:")
            if tocsin.times and bridge.times and all(bare.values()):
                say(tables(tocsin, bridge, bare))
            raise
        return tables(tocsin, bridge, bare)


def tables(tocsin: Pipeline, bridge: Pipeline, bare: dict[str, list[float]]) -> str:
    """What was measured, in Markdown."""
    lines = [
        "| ms | Tocsin p50 | p90 | p99 | bridge p50 | p90 | p99 | medians: Tocsin ÷ bridge | Tocsin - bridge |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for field, title in STEPS.items():
        columns = [[getattr(one, field) for one in pipeline.times] for pipeline in (tocsin, bridge)]
        figures = " | ".join(_figures(values) for values in columns)
        ours, theirs = (percentile(values, 0.5) for values in columns)
        # The button says "latched" after it has sent: what is left of the way then has no meaningful ratio.
        ratio = "" if field.startswith("latch") else f"{ours / theirs:.2f}"
        lines.append(f"| {title} | {figures} | {ratio} | {ours - theirs:.2f} |")
    lines += ["", "| floor, ms | p50 | p90 | p99 |", "|---|--:|--:|--:|"]
    lines += [f"| {title} | {_figures(bare[name])} |" for name, title in FLOORS.items()]
    return "\n".join(lines)


def _figures(values: list[float]) -> str:
    return " | ".join(f"{percentile(values, share):.2f}" for share in (0.5, 0.9, 0.99))


def machine() -> str:
    """What it ran on, in one paragraph."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    debian = next((line.strip() for line in _lines("/etc/debian_version")), "?")
    mounts = [line.split() for line in _lines("/proc/mounts")]
    here = str(PROJECT)
    disk = max((mount for mount in mounts if here.startswith(mount[1])), key=lambda mount: len(mount[1]))[2]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {model}), Linux {platform.release()}, Debian {debian}, {disk}; "
        f"{_version([mosquitto(), '-h'])}; {_version([micropython(), '-c', 'import sys; print(sys.version)'])}; "
        f"Python {platform.python_version()}. Load average at the start and at the end: "
    )


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def _version(command: list[str]) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return said[0].split("; ")[-1] if said else "?"


def part(arguments: argparse.Namespace) -> dict[str, Any]:
    """What one part alone found."""
    events = arguments.events or EVENTS.get(arguments.only, 0)
    if arguments.only == "backlog":
        return backlog.measure(events, arguments.presses, say)
    if arguments.only == "journal":
        return journal.measure(events, say)
    if arguments.only == "heartbeats":
        return heartbeats.measure(arguments.heartbeats, say)
    if arguments.only == "growth":
        return growth.measure(arguments.seconds, say, arguments.buttons)
    return throughput.measure(arguments.alarms, say)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Measures, prints, and keeps the result if asked; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--presses", type=int, default=PRESSES, help=f"through each pipeline, by default {PRESSES}")
    parser.add_argument("--only", choices=ONLY, help="one part alone; its last line is JSON")
    parser.add_argument("--events", type=int, help="of the backlog, by default 1,000,000; of the journal, 10,000,000")
    parser.add_argument("--alarms", type=int, default=8_000, help="of a block of the throughput, by default 8,000")
    parser.add_argument("--heartbeats", type=int, default=50_000, help="of a block, by default 50,000")
    parser.add_argument("--seconds", type=float, default=60, help="of each slice of the growth, by default 60")
    parser.add_argument(
        "--buttons", type=int, nargs="+", default=growth.SIZES, help="of the growth, by default 100 1000 10000"
    )
    parser.add_argument("--write", action="store_true", help=f"put the result into {PAGE.relative_to(PROJECT)} too")
    arguments = parser.parse_args()
    if arguments.presses < 1:
        parser.error("--presses must be 1 or more")
    signal.signal(signal.SIGTERM, _stop)
    load = os.getloadavg()[0]
    try:
        if arguments.only not in {None, "press"}:
            said = part(arguments)
            said["machine"] = machine() + f"{load:.1f} and {os.getloadavg()[0]:.1f}"
            sys.stdout.write(json.dumps(said) + "\n")
            return 0
        measured = measure(arguments.presses)
    except (TimeoutError, RuntimeError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Stopped; every process has ended.")
        return 130
    result = (
        f"{arguments.presses} presses through each pipeline, one at a time, in {BLOCKS} blocks that take turns.\n\n"
        f"{measured}\n\n{machine()}{load:.1f} and {os.getloadavg()[0]:.1f}."
    )
    sys.stdout.write(result + "\n")
    if arguments.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{result}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
