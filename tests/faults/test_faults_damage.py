"""A gateway whose database is damaged begins anew by itself: alarms pass, and headquarters is told."""

from __future__ import annotations

import subprocess

import pytest

from demo.process import wait_until
from demo.world import PROJECT, SITE, World
from tests.faults.drill import Drill
from tests.gateway.test_journal_storage import damage
from tests.operator import Operator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.mark.parametrize("table", ["journal", "station", "alembic_version"])
def test_a_gateway_with_a_damaged_database_passes_alarms_after_its_next_start(table: str) -> None:
    """alembic_version: nothing of it can even be opened as a database of Tocsin's."""
    with World(buttons=("clifton-gate",)) as world:
        drill = Drill(world)
        [gate] = world.buttons.values()
        operator = Operator(world).sign_in()
        station = world.processes[f"station {SITE}"]
        gate.press()
        gate.wait_for(lambda said: said.get("stage") == 2, 10)
        station.stop(kill=True)
        damage(world.folder / SITE / "state" / "station.db", table)
        ended = subprocess.run(station._command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 74, ended.stderr
        assert "begins a new one" in ended.stderr
        station.start()  # as systemd does
        wait_until(lambda: _told(operator), 30, "headquarters is told")
        since = len(gate.said)
        gate.press()
        wait_until(lambda: len(drill.rows()) == 2, 20, "the second press at headquarters")
        gate.wait_for(lambda said: said.get("stage") == 2, 10, since)
        assert drill.lies == []
        aside = [one.name for one in (world.folder / SITE / "state").iterdir() if "damaged-" in one.name]
        assert aside


def _told(operator: Operator) -> bool:
    lacks = [one for one in operator.get("happenings") if one["code"] == "journal_lacks"]
    return any("damaged" in one["detail"] and one["subject"] == SITE for one in lacks)
