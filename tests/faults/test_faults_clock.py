"""Somebody sets the clock of a running station, forward or back: alarms come, nobody is called silent, and it is told."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from demo.process import wait_until
from demo.world import HQ, SITE, World
from tests.faults.drill import Drill
from tests.operator import Operator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

HOURS = 3_600


@pytest.mark.parametrize("whose", [SITE, HQ])
def test_a_clock_that_is_set_changes_nothing_but_the_times_that_people_read(whose: str) -> None:
    world = World(buttons=("clifton-gate", "clifton-visa"))
    clock = world.folder / "clock"
    clock.write_text("0")
    command = world.processes[f"station {whose}"]._command
    at = command.index("gateway.cli")
    command[at : at + 1] = ["tests.faults.set_clock", str(clock)]
    assert command[0] == sys.executable
    with world:
        drill = Drill(world)
        operator = Operator(world).sign_in()
        gate = world.buttons["clifton-gate"]
        ahead_s, expected = 0, 0
        for jump_s in (0, 5 * HOURS, -9 * HOURS):
            ahead_s += jump_s
            clock.write_text(str(ahead_s))
            if jump_s:
                if whose == HQ:
                    operator = Operator(world).sign_in()  # a session ends by the clock
                wait_until(lambda jump=jump_s: _jumped(operator, whose, jump), 20, "headquarters is told of the jump")  # type: ignore[misc]
                apart_s = ahead_s if whose == HQ else -ahead_s
                wait_until(lambda apart=apart_s: abs(_apart_s(operator) - apart) < 2, 20, "headquarters follows")  # type: ignore[misc]
            since = len(gate.said)
            began_s = time.time()
            gate.press()
            gate.wait_for(lambda said: said.get("stage") == 2, 10, since)
            expected += 1
            newest = operator.get("incidents")[0]
            there_s = began_s + (ahead_s if whose == HQ else 0)
            assert abs(newest["pressed_at_ms"] / 1000 - there_s) < 5, "when it was pressed, by headquarters' clock"
            operator.close_all()
        assert len(drill.rows()) == expected
        assert drill.lies == []
        told = {one["code"] for one in operator.get("happenings")}
        assert not told & {"child_silent", "many_silent", "storage_failed"}, told


def _apart_s(operator: Operator) -> float:
    """How far headquarters' clock is ahead of the gateway's, as its health page says."""
    checks = {one["name"]: one["text"] for one in operator.get("health")["checks"]}
    return float(checks[f"clock of {SITE}"].partition(" ")[0])


def _jumped(operator: Operator, whose: str, by_s: int) -> bool:
    told: list[dict[str, Any]] = operator.get("happenings")
    found = [one for one in told if one["code"] == "clock_jumped" and one["device"] == whose]
    return any(f"{by_s:+.1f} s" in one["detail"] or f"{by_s - 0.1:+.1f} s" in one["detail"] for one in found)
