"""Nothing is lost: whichever process is killed around a press, the press is at headquarters exactly once."""

from __future__ import annotations

import os
import signal

import pytest

from demo.process import wait_until
from demo.world import World
from tests.faults.drill import ROUNDS, Drill, seeded

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def kill_broker(world: World, station: str) -> None:
    """SIGKILL to mosquitto itself; its wrapper ends and is started again."""
    try:
        os.kill(world.mosquitto_pid(station), signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        world.processes[f"broker {station}"].kill()


KILLS = {
    "gateway": lambda world: world.processes["station gw-clifton"].kill(),
    "site broker": lambda world: kill_broker(world, "gw-clifton"),
    "HQ broker": lambda world: kill_broker(world, "hq"),
    "HQ station": lambda world: world.processes["station hq"].kill(),
}


@pytest.mark.parametrize("victim", list(KILLS))
def test_a_press_survives_sigkill_of_the(victim: str) -> None:
    chance = seeded(victim)
    with World() as world:
        drill = Drill(world)
        buttons = list(world.buttons.values())
        for number in range(ROUNDS):
            button = buttons[number % len(buttons)]
            before = len(drill.latched)
            drill.press_around(chance, button, lambda: KILLS[victim](world))
            wait_until(lambda count=before: len(drill.latched) == count + 1, 15, "the press was latched")
        drill.settle()
        assert len(drill.latched) == ROUNDS
        drill.check()


def test_a_press_survives_a_power_cut_of_the_button() -> None:
    chance = seeded("button")
    with World() as world:
        drill = Drill(world)
        buttons = list(world.buttons.values())
        silent = number = 0
        while number < ROUNDS or (number < 4 * ROUNDS and len(drill.latched) < ROUNDS / 4):  # a disk may be slow
            button = buttons[number % len(buttons)]
            number += 1
            wait_until(lambda button=button: button.light != "dark", 15, "the button looks at its contacts")
            before = len(drill.latched)
            drill.press_around(chance, button, button.kill)
            wait_until(lambda button=button: button.running, 5, "the button has power again")
            silent += len(drill.latched) == before
        drill.settle()
        drill.check(silent=silent)
        assert len(drill.latched) >= ROUNDS / 4, "hardly any press was latched: the test shows nothing"


def test_no_light_is_green_while_headquarters_is_dead() -> None:
    with World() as world:
        drill = Drill(world)
        world.processes["station hq"].stop(kill=True)
        frozen = set(drill.rows())
        for button in world.buttons.values():
            since = len(button.said)
            button.press()
            button.wait_for(lambda said: said.get("stage") == 1, 10, since)
            button.wait_for(lambda said: said.get("light") == "at_gateway", 10, since)
        assert set(drill.rows()) == frozen
        world.processes["station hq"].start()
        drill.settle()
        drill.check()
        assert len(drill.rows()) == len(frozen) + 3
