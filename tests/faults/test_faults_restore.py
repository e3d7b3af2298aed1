"""Headquarters' journal is put back to an older state: what it lacks comes again from the site, and everybody is told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest

from demo.process import wait_until
from demo.world import HQ, PROJECT, SITE, World
from tests.faults.drill import Drill
from tests.operator import Operator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


def journal(world: World, *words: str) -> None:
    command = [sys.executable, "-m", "gateway.cli", "journal", words[0], "--config", str(world.folder / "hq.toml")]
    subprocess.run([*command, *words[1:]], cwd=PROJECT, check=True, capture_output=True, timeout=60)


def mark(world: World) -> int:
    """The newest entry of headquarters' journal that the site remembers to have been told of."""
    with contextlib.closing(world.database(SITE)) as database:
        row = database.execute("SELECT value FROM station WHERE key = 'marks hq'").fetchone()
    return int(json.loads(row[0])[-1][1]) if row else 0


def last(world: World, device: str) -> int:
    """The newest entry of a device in headquarters' journal."""
    with contextlib.closing(world.database()) as database:
        return int(database.execute("SELECT max(id) FROM journal WHERE source = ?", [device]).fetchone()[0])


@pytest.mark.parametrize("seen", [True, False])
def test_what_headquarters_lacks_after_a_restore_is_delivered_again(*, seen: bool) -> None:
    """seen: whether the site was told of a newer entry before, and so knows that headquarters lacks it."""
    with World(buttons=("clifton-gate", "clifton-visa")) as world:
        drill = Drill(world)
        gate, visa = world.buttons.values()
        gate.press()
        gate.wait_for(lambda said: said.get("stage") == 2, 10)
        backup = world.folder / "backup.db"
        journal(world, "backup", str(backup))
        visa.press()
        visa.wait_for(lambda said: said.get("stage") == 2, 10)
        wait_until(lambda: len(drill.rows()) == 2, 10, "two alarms at headquarters")
        if seen:
            wait_until(lambda: mark(world) >= last(world, visa.device), 20, "the site's mark of the second alarm")
        world.processes[f"station {HQ}"].stop(kill=True)
        journal(world, "restore", str(backup), "--force")
        assert len(drill.rows()) == 1, "the backup is older than the second alarm"
        assert visa.light == "at_hq", "its light is green, and headquarters does not have it"
        world.processes[f"station {HQ}"].start()
        wait_until(lambda: len(drill.rows()) == 2, 20, "the second alarm at headquarters again")
        operator = Operator(world).sign_in()
        assert {one["device"] for one in operator.get("incidents")} == {"clifton-gate", "clifton-visa"}
        if seen:  # headquarters tells what it lacks, and so does the site, of headquarters

            def told() -> bool:
                found = [one for one in operator.get("happenings") if one["code"] == "journal_lacks"]
                return {one["device"] for one in found} == {HQ, SITE}

            wait_until(told, 20, "the events that tell of it", every_s=0.2)
        gate.press()
        wait_until(lambda: len(drill.rows()) == 3, 10, "a third alarm")
        drill.settle()
        drill.check()
