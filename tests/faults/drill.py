"""What every fault test watches: presses, what headquarters' database holds, and what the lights said meanwhile."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from demo.process import wait_until
from tests.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.button import Button
    from demo.world import World

ROUNDS = int(os.environ.get("TOCSIN_FAULT_ROUNDS", "20"))
GREEN = {"at_hq", "acknowledged", "responding"}


def seeded(name: str) -> random.Random:
    """Random numbers that can be had again: TOCSIN_SEED."""
    seed = int(os.environ.get("TOCSIN_SEED", str(time.time_ns() % 1_000_000)))
    print(f"{name}: TOCSIN_SEED={seed}")
    return random.Random(seed)


class Drill:
    """Presses buttons in a world that something happens to, and holds the result against the promise."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.latched: set[tuple[str, int, int]] = set()
        self.lies: list[str] = []
        self._shown: dict[str, set[tuple[str, int, int]]] = {}
        for button in world.buttons.values():
            button.heard = self._heard

    def _heard(self, button: Button, said: dict[str, Any]) -> None:
        if "latched" in said:
            self.latched.add((button.device, said["latched"]["boot"], said["latched"]["seq"]))
        if said.get("stage", 0) >= 2 and tuple(said["alarm"]) and not self.at_hq((button.device, *said["alarm"])):
            self.lies.append(f"{button.device} showed stage {said['stage']} of {said['alarm']}: not at headquarters")
        if said.get("light") in GREEN and not any(at[0] == button.device for at in self.rows()):
            self.lies.append(f"{button.device} was green without any alarm at headquarters")

    def rows(self) -> list[tuple[str, int, int]]:
        """Every alarm that is committed at headquarters."""
        database = self.world.database()
        try:
            return database.execute("SELECT source, boot, seq FROM journal WHERE kind = 1").fetchall()
        finally:
            database.close()

    def at_hq(self, identity: tuple[str, int, int]) -> bool:
        """Whether an alarm is committed at headquarters."""
        return identity in self.rows()

    def press_around(self, chance: random.Random, button: Button, happens: Callable[[], None]) -> None:
        """Presses, and lets something happen around it.

        Half the time while the alarm is under way (the firmware believes a contact after 45 ms; headquarters and the
        light follow within some 30 ms), else at any moment from 200 ms before to 400 ms after the press.
        """
        offset = chance.uniform(0.045, 0.1) if chance.random() < 0.5 else chance.uniform(-0.2, 0.4)
        finger = threading.Thread(target=button.press)
        if offset < 0:
            happens()
            time.sleep(-offset)
            finger.start()
        else:
            finger.start()
            time.sleep(offset)
            happens()
        finger.join()

    def settle(self, timeout_s: float = 60) -> None:
        """Waits until every latched alarm is at headquarters, works them all to the end, waits for every light at rest."""
        wait_until(lambda: self.latched <= set(self.rows()), timeout_s, "every press at headquarters", every_s=0.1)
        operator = Operator(self.world).sign_in()
        end = time.monotonic() + timeout_s
        while any(button.light != "rest" for button in self.world.buttons.values()):
            operator.close_all()
            if time.monotonic() > end:
                lights = {button.device: (button.light, button.said[-4:]) for button in self.world.buttons.values()}
                refused = operator.get("health")["refused"]
                raise TimeoutError(f"not every button is at rest again: {lights}; {refused}\n{self.world.log_tails()}")
            time.sleep(0.3)

    def check(self, *, silent: int = 0) -> None:
        """The promise. silent: how many presses may be there that no button told of, as a power cut took its words."""
        rows = self.rows()
        assert len(rows) == len(set(rows)), "an alarm is at headquarters more than once"
        assert self.latched <= set(rows), f"lost: {self.latched - set(rows)}"
        unheard = set(rows) - self.latched
        assert len(unheard) <= silent, f"nobody pressed: {unheard}"
        assert not self.lies, self.lies
