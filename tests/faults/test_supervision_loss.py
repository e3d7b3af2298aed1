"""A link that loses three packets in ten is no silence: real processes over real TCP, and a program that drops packets."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from demo.world import HQ, SITE, World
from firmware import wire
from tests.faults.drill import seeded
from tests.faults.lossy import Lossy, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

LOSSY_S = 62
FLAPS = {wire.CHILD_SILENT, wire.CHILD_BACK, wire.MANY_SILENT, wire.MANY_BACK}


@pytest.fixture
def apart() -> Iterator[tuple[World, Lossy]]:
    """Headquarters here, the site and the buttons each in a network namespace of its own."""
    if reason := why_not():
        pytest.skip(reason)
    with Lossy(("site", "buttons"), seeded("loss")) as net:
        world = World()
        try:
            for station, parent in ((HQ, ""), (SITE, net.address("here"))):
                file = world.folder / f"{station}.toml"
                own, header, parents = file.read_text(encoding="utf-8").partition("[[parents]]")
                own = own.replace('listen = "127.0.0.1"', 'listen = "0.0.0.0"')
                file.write_text(own + header + parents.replace("127.0.0.1", parent), encoding="utf-8")
            for kind in ("broker", "station"):
                process = world.processes[f"{kind} {SITE}"]
                process._command = net.command("site", process._command)
            for button in world.buttons.values():
                file = world.folder / button.device / "settings.json"
                settings = json.loads(file.read_text(encoding="utf-8"))
                settings["brokers"] = [[net.address("site"), world.site_port, SITE]]
                file.write_text(json.dumps(settings), encoding="utf-8")
                button._command = net.command("buttons", button._command)
            world.start(120)
            yield world, net
        finally:
            world.close()


def test_a_minute_of_30_percent_packet_loss_is_no_silence_and_no_return(apart: tuple[World, Lossy]) -> None:
    world, net = apart
    (last,) = world.database().execute("SELECT max(id) FROM journal").fetchone()
    net.passed = net.dropped = 0
    net.loss = 0.3
    time.sleep(LOSSY_S)
    net.loss = 0.0
    print(f"{net.dropped} of {net.dropped + net.passed} packets were lost in {LOSSY_S} s")
    assert 0.25 < net.dropped / (net.dropped + net.passed) < 0.35
    assert net.dropped > 100
    rows = world.database().execute("SELECT envelope FROM journal WHERE id > ? AND kind = 2", (last,)).fetchall()
    told = [wire.unseal(envelope).message for (envelope,) in rows]
    flaps = [event for event in told if event[wire.CODE] in FLAPS]
    assert not flaps, f"{flaps}\n{world.log_tails()}"
