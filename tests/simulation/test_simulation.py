"""The promises hold through 100,000 schedules of faults, and the simulator finds what breaks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.simulation import command, planted, schedules

SCHEDULES = int(os.environ.get("TOCSIN_SCHEDULES", "100000"))


@pytest.mark.timeout(1800)
def test_no_schedule_breaks_a_promise_and_every_planted_bug_is_caught() -> None:
    done = subprocess.run(
        # Nothing in it goes by the clock: tests of real processes, which do, come first.
        ["nice", "-n", "19", sys.executable, "-m", "tests.simulation", "--schedules", str(SCHEDULES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted == {
        "schedules": SCHEDULES,
        "violations": 0,
        "planted": counted["planted"],
        "caught": counted["planted"],
    }
    assert counted["planted"] >= 12


def test_a_number_is_the_same_schedule_everywhere() -> None:
    tell = "from tests.simulation.command import story; print(*(story('tests.simulation', n) for n in (1, 7, 23)))"  # one of each kind
    tellers = [
        subprocess.Popen(
            [sys.executable, "-c", tell],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hashes},
        )
        for hashes in ("1", "2")
    ]
    told = [teller.communicate()[0] for teller in tellers]
    assert told[0] == told[1]
    assert len(told[0].splitlines()) > 30


def test_a_schedule_says_which_promise_was_broken_and_how_it_came_to_that() -> None:
    bug = next(bug for bug in planted.PLANTED if bug.name == "no deduplication")
    with bug.planted():
        result = schedules.run(2, tracing=True)
        assert "exactly once" in result.violation
        assert any("is pressed" in line for line in result.story)
        assert result.violation in command.story("tests.simulation", 2)
    assert not schedules.run(2).violation, "the bug is still planted"


def test_real_envelopes_make_the_same_schedule_as_the_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(40):
        stories = []
        for real in (False, True):
            monkeypatch.setattr(schedules, "real_of", lambda _, real=real: real)
            stories.append(schedules.run(seed, tracing=True).story)
        assert stories[0] == stories[1]


def test_every_fault_and_every_step_really_happens() -> None:
    numbers = [("long", seed) for seed in range(60)] + [("short", seed) for seed in range(400)]
    told = "\n".join("\n".join(schedules.run(seed, kind=kind, tracing=True).story) for kind, seed in numbers)
    for word in (
        "loses power in the middle of it",
        "with its disk",
        "freezes",
        "the disk of",
        "is cut for",
        "loses 30%",
        "the clock of",
        "forges a receipt",
        "forges an alarm",
        "shows stage 1",
        "shows stage 2",
        "shows stage 5",
        "has lost hq",
        "moves",
    ):
        assert word in told, word
