"""Headquarters on PostgreSQL, everything else as always: a press arrives, is worked to its end, and the light follows."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from demo.process import wait_until
from demo.world import HQ, World
from tests.operator import Operator
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgres import Server

GATE = "clifton-gate"


@pytest.fixture
def world(postgres: Server) -> Iterator[World]:
    with World(buttons=(GATE,), hq_database=postgres.fresh()) as made:
        yield made


def test_a_press_is_worked_at_a_headquarters_on_postgresql(world: World, postgres: Server) -> None:
    operator, button = Operator(world).sign_in(), world.buttons[GATE]
    since = len(button.said)
    button.press()
    button.wait_for(lambda said: said.get("stage") == 2, 10, since)
    (incident,) = operator.get("incidents")
    for state, outcome in (("acknowledged", None), ("responding", None), ("closed", "genuine")):
        assert operator.step(incident["id"], state, outcome).status_code == 200
    button.wait_for(lambda said: said.get("stage") == 5, 10, since)
    assert "started" in {one["code"] for one in operator.get("happenings")}
    wait_until(lambda: button.light == "rest", 20, "the light is at rest again")
    # The database goes and comes: nothing is promised meanwhile, and nobody needs to start anything again.
    starts, since = world.processes[f"station {HQ}"].starts, len(button.said)
    postgres.stop()
    button.press()
    button.wait_for(lambda said: said.get("stage") == 1, 10, since)
    wait_until(lambda: operator.answer("incidents").status_code == 503, 20, "the console notices")
    assert "The station's database can't be read since" in operator.answer("incidents").json()["error"]["message"]
    page = operator.answer("/")
    assert (page.status_code, "<h1>The database can&#39;t be read</h1>" in page.text) == (503, True), page.text
    time.sleep(1)  # long enough for a receipt, were one given
    assert not any(said.get("stage", 0) >= 2 for said in button.said[since:])
    postgres.start()
    button.wait_for(lambda said: said.get("stage") == 2, 30, since)
    wait_until(lambda: "storage_restored" in {one["code"] for one in operator.get("happenings")}, 10, "it is told")
    assert world.processes[f"station {HQ}"].starts == starts
    operator.close_all()
    # Another process changes the registry, and the running station notices.
    world.issue("clifton-visa").write_pem(world.folder / "visa")
    config, certificate = str(world.folder / f"{HQ}.toml"), str(world.folder / "visa" / "cert.pem")
    command = ["enrol", "--config", config, "--id", "clifton-visa", "--cert", certificate, "--site", "clifton"]
    subprocess.run([sys.executable, "-m", "gateway.cli", *command], cwd=PROJECT, check=True, timeout=60)
    wait_until(lambda: "clifton-visa" in {one["id"] for one in operator.get("children")}, 10, "it is known")
    world.processes[f"station {HQ}"].stop()
    verify = [sys.executable, "-m", "gateway.cli", "journal", "verify", "--config", config]
    told = subprocess.run(verify, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert (told.returncode, "in order" in told.stdout) == (0, True), told.stdout + told.stderr
