"""What `make simulate` and `make simulate-firmware` do: many schedules, then every planted bug; the last line is JSON.

A package of schedules has two modules: schedules, with run(seed, kind=, tracing=), and planted, with PLANTED and caught(bug).
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.schedules import Result

CHUNK = 500


def _module(package: str, name: str) -> Any:
    return importlib.import_module(f"{package}.{name}")


def _prepare() -> None:
    logging.disable(logging.CRITICAL)
    gc.freeze()
    gc.disable()  # each schedule begins with a collection of what the one before left


def chunk(package: str, first: int, count: int) -> tuple[int, int, list[Result]]:
    """Runs some schedules; how many, how many presses were latched, and those that ended in a violation."""
    _prepare()
    schedules = _module(package, "schedules")
    presses, bad = 0, []
    for seed in range(first, first + count):
        result = schedules.run(seed)
        presses += result.presses
        if result.violation:
            bad.append(result)
    return count, presses, bad


def find(package: str, number: int) -> Result | None:
    """Looks for a planted bug."""
    _prepare()
    planted = _module(package, "planted")
    found: Result | None = planted.caught(planted.PLANTED[number])
    return found


def story(package: str, seed: int) -> str:
    """One schedule in words."""
    logging.disable(logging.CRITICAL)
    result = _module(package, "schedules").run(seed, tracing=True)
    end = result.violation or "no violation"
    return "\n".join([f"schedule {seed} ({result.kind})", *result.story, f"==> {end}"])


def main(package: str, made: str) -> int:
    """Runs a package's schedules; made: what to make. Exit status 1: a violation, or a planted bug that was not found."""
    parser = argparse.ArgumentParser(prog=f"make {made}")
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first schedule")
    parser.add_argument("--story", action="store_true", help="tell the schedule of --seed, and nothing else")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    told = parser.parse_args()
    if told.story:
        print(story(package, told.seed))
        return 0
    began = time.monotonic()
    run = presses = 0
    bad: list[Result] = []
    planted = _module(package, "planted").PLANTED
    with ProcessPoolExecutor(told.processes) as pool:
        parts = [
            pool.submit(chunk, package, told.seed + at, min(CHUNK, told.schedules - at))
            for at in range(0, told.schedules, CHUNK)
        ]
        for part in parts:
            count, pressed, found = part.result()
            run, presses, bad = run + count, presses + pressed, bad + found
            print(f"\r{run} schedules, {len(bad)} violations", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if bad:
            print(story(package, bad[0].seed))
            print("violations:")
            for result in bad[:20]:
                print(f"  {result.seed} ({result.kind}): {result.violation}")
            print(f"again: make {made} STORY={bad[0].seed}")
        finds = list(pool.map(find, [package] * len(planted), range(len(planted))))
    for bug, caught in zip(planted, finds, strict=True):
        by = f"schedule {caught.seed} ({caught.kind}): {caught.violation}" if caught else "NOT CAUGHT"
        print(f"{bug.name:<30} {bug.where:<24} {by}")
    print(f"{presses} presses were latched, in {time.monotonic() - began:.0f} s")
    caught_all = sum(found is not None for found in finds)
    print(json.dumps({"schedules": run, "violations": len(bad), "planted": len(finds), "caught": caught_all}))
    return 1 if bad or caught_all < len(finds) else 0
