"""The firmware keeps the promise through 100,000 schedules of faults, and its simulator finds what breaks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.firmware.simulation import planted, schedules
from tests.simulation import command

SCHEDULES = int(os.environ.get("TOCSIN_SCHEDULES", "100000"))
PACKAGE = "tests.firmware.simulation"


@pytest.mark.timeout(1800)
def test_no_schedule_breaks_a_promise_and_every_planted_bug_is_caught() -> None:
    done = subprocess.run(
        # Nothing in it goes by the clock: tests of real processes, which do, come first.
        ["nice", "-n", "19", sys.executable, "-m", PACKAGE, "--schedules", str(SCHEDULES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    counted = json.loads(done.stdout.splitlines()[-1])
    bugs = len(planted.PLANTED)
    assert counted == {"schedules": SCHEDULES, "violations": 0, "planted": bugs, "caught": bugs}
    assert bugs >= 8


def test_a_number_is_the_same_schedule_everywhere() -> None:
    tell = f"from tests.simulation.command import story; print(*(story({PACKAGE!r}, n) for n in (1, 3, 23)))"
    told = [
        subprocess.run(
            [sys.executable, "-c", tell],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hashes},
        ).stdout
        for hashes in ("1", "2")
    ]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) > 20


def test_a_schedule_says_which_promise_was_broken_and_how_it_came_to_that() -> None:
    bug = next(bug for bug in planted.PLANTED if bug.name == "trust without end")
    found = planted.caught(bug)
    assert found is not None
    with bug.planted():
        again = schedules.run(found.seed, kind=found.kind, tracing=True)
    assert again.violation == found.violation
    assert any("b1 is pressed" in line for line in again.story)
    assert not schedules.run(found.seed, kind=found.kind).violation, "the bug is still planted"
    assert "==> no violation" in command.story(PACKAGE, found.seed)


def test_every_fault_really_happens() -> None:
    numbers = [("long", seed) for seed in range(60)] + [("short", seed) for seed in range(400)]
    told = "\n".join("\n".join(schedules.run(seed, kind=kind, tracing=True).story) for kind, seed in numbers)
    for word in (
        "loses power in the middle of it",
        "has power again",
        "@g2 dies",
        "@g1 freezes",
        "b1 freezes",
        "is cut for",
        "is dead",
        "is gone for ever",
        "the way of b1 to @g1 loses",
        "get lost behind the stations",
        "hq dies",
        "forges a receipt",
        "moves",
        "shows stage 1",
        "shows stage 5",
        "no connection within 3000 ms",
        "no connection within 4000 ms",
        "has not answered for",
        "has closed the connection",
        "the preferred station is back",
    ):
        assert word in told, word
