"""Nothing is lost: headquarters away for a minute, and a button that says everything three times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from demo.process import wait_until
from demo.world import SITE, World, free_ports
from firmware import wire
from tests.faults.drill import Drill, seeded
from tests.faults.line import Line
from tests.operator import Operator
from tests.outsider import Outsider

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

AWAY_S = 60


@pytest.fixture
def lined() -> Iterator[tuple[World, Line]]:
    (port,) = free_ports(1)
    world = World(uplink_port=port)
    line = Line(port, world.hq_port)
    try:
        world.start()
        yield world, line
    finally:
        world.close()
        line.close()


def test_headquarters_is_away_for_a_minute_and_back(lined: tuple[World, Line]) -> None:
    world, line = lined
    chance = seeded("away")
    drill = Drill(world)
    line.swallows = True
    buttons = list(world.buttons.values())
    end = time.monotonic() + AWAY_S
    pressed = 0
    while time.monotonic() < end:
        buttons[pressed % 3].press()
        pressed += 1
        time.sleep(chance.uniform(3, 9))
    operator = Operator(world).sign_in()
    silent = [said for said in operator.get("happenings") if said["code"] == "child_silent"]
    assert any(
        said["subject"] == SITE and all(device in said["detail"] for device in world.buttons) for said in silent
    ), [(said["subject"], said["detail"], said["happened_at_ms"]) for said in silent]
    since = min(said["happened_at_ms"] for said in silent) - (time.time_ns() // 1_000_000 - AWAY_S * 1000)
    assert since < 22_000, f"headquarters noticed after {since} ms"
    assert all(button.light in {"at_gateway", "unconfirmed"} for button in buttons)
    line.swallows = False
    drill.settle()
    assert len(drill.latched) == pressed
    drill.check()


def test_a_button_that_says_everything_three_times() -> None:
    with World(buttons=("clifton-gate",)) as world:
        operator = Operator(world).sign_in()
        device = "thrice"
        world.issue(device)
        world.enrol_button(device)
        wait_until(lambda: any(child["id"] == device for child in operator.get("children")), 10, "the enrolment")
        client = Outsider(world, device, world.site_port, SITE).connect()
        key = world.key_of(device)
        for seq in range(1, 21):
            alarm = {wire.KIND: wire.ALARM, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: seq, wire.CAUSE: wire.HOLD_UP}
            for late in range(3):
                client.publish("alarm", wire.seal({**alarm, wire.AGE: seq + late}, device, key))
        wait_until(lambda: len(client.receipts(wire.AT_HQ)) == 20, 20, "a receipt for each")
        client.close()
        assert operator.get("health")["refused"] == [], "what is said again is no refusal"
        assert not [one for one in operator.get("happenings") if one["code"] == "refusal"]
        rows = (
            world.database()
            .execute("SELECT seq, count(*) FROM incidents WHERE device = ? GROUP BY seq", (device,))
            .fetchall()
        )
        assert rows == [(seq, 1) for seq in range(1, 21)]


def test_a_silent_button_is_an_event_within_20_s() -> None:
    with World(buttons=("clifton-gate", "clifton-visa")) as world:
        operator = Operator(world).sign_in()
        at = time.monotonic()
        world.processes["broker gw-clifton"]  # the broker lives; only the button falls silent, without a word
        world.buttons["clifton-visa"].freeze()
        wait_until(
            lambda: any(
                said["code"] == "child_silent" and said["subject"] == "clifton-visa"
                for said in operator.get("happenings")
            ),
            20,
            "the event of the silent button",
            every_s=0.2,
        )
        assert time.monotonic() - at < 20
        assert {child["id"]: child["link"] for child in operator.get("children")}["clifton-visa"] == "offline"
        world.buttons["clifton-visa"].thaw()
        wait_until(
            lambda: {child["id"]: child["link"] for child in operator.get("children")}["clifton-visa"] == "online",
            20,
            "the button is heard again",
            every_s=0.2,
        )
