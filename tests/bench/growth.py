"""What supervising costs headquarters as buttons are added: octets on the wire and processor seconds a button and hour.

A slice of the steady state with 100, 1,000 and 10,000 buttons behind gateways, ten at a site, through headquarters' real
broker and station; beside it the design in which every heartbeat of every button goes up, through the same two.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import httpx

from demo.process import wait_until
from demo.world import HQ, World
from tests.bench import fleet, usage
from tests.bench.gateways import Gateways

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = (100, 1_000, 10_000)
A_SITE = 10
SETTLE_S = 10.0
IDLE_S = 10.0
HOUR_S = 3_600
DESIGNS = {"tocsin": False, "verbatim": True}


def measure(
    seconds: float,
    say: Callable[[str], None],
    sizes: Sequence[int] = SIZES,
    *,
    settle_s: float = SETTLE_S,
    idle_s: float = IDLE_S,
) -> dict[str, Any]:
    """For each size and design: what a slice of `seconds` used, a button and hour. Every button must be online at its end."""
    found: dict[str, Any] = {"seconds": seconds, "buttons_at_a_site": A_SITE}
    for buttons in sizes:
        world = World(buttons=[])
        try:
            say(f"Enrolling {buttons} buttons …")
            members = fleet.enrol(world, buttons, A_SITE)
            _start(world)
            found[str(buttons)] = {"nobody_connected": {"hq_core_percent": _idle_percent(world, idle_s)}}
            for boot, (design, verbatim) in enumerate(DESIGNS.items(), 1):
                gateways = Gateways(world, members, boot, verbatim=verbatim)
                told = asyncio.run(_slice(world, gateways, seconds, settle_s))
                say(f"  {design}: {told}")
                found[str(buttons)][design] = told
                _restart(world)
        except BaseException:
            say(world.log_tails())
            raise
        finally:
            world.close()
        ours, theirs = (found[str(buttons)][design] for design in DESIGNS)
        found[str(buttons)]["tocsin_to_verbatim"] = {
            name: round(ours[name] / theirs[name], 3) for name in ("octets", "hq_cpu_s", "broker_cpu_s") if theirs[name]
        }
    return found


def _start(world: World) -> None:
    for kind in ("broker", "station"):
        world.processes[f"{kind} {HQ}"].start()
    wait_until(lambda: _is_ready(world), 120, "headquarters ready", every_s=0.1)


def _restart(world: World) -> None:
    """Nothing that one design told is known to the other."""
    world.processes[f"station {HQ}"].stop()
    world.processes[f"broker {HQ}"].stop()
    _start(world)


def _is_ready(world: World) -> bool:
    try:
        return httpx.get(f"{world.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _pids(world: World) -> tuple[int, int]:
    return world.processes[f"station {HQ}"].pid or 0, world.mosquitto_pid(HQ)


def _idle_percent(world: World, seconds: float) -> float:
    """Of a core, which a station uses that just knows all those buttons."""
    time.sleep(1.5 * seconds)  # it has just started
    pid, _ = _pids(world)
    before = usage.cpu_s(pid)
    time.sleep(seconds)
    return round(100 * (usage.cpu_s(pid) - before) / seconds, 1)


async def _slice(world: World, gateways: Gateways, seconds: float, settle_s: float) -> dict[str, Any]:
    try:
        await gateways.connect()
        await gateways.run(settle_s)
        station, broker = _pids(world)
        octets, up, down = gateways.counts()
        station_s, broker_s = usage.cpu_s(station), usage.cpu_s(broker)
        late_s = await gateways.run(seconds)
        station_s, broker_s = usage.cpu_s(station) - station_s, usage.cpu_s(broker) - broker_s
        now_octets, now_up, now_down = gateways.counts()
        online = metric(world, 'tocsin_children{kind="button",state="online"}')
        refused = metric(world, "tocsin_refused_total")
    finally:
        gateways.close()
    hours = gateways.buttons * seconds / HOUR_S  # of a button
    return {
        "octets": round((now_octets - octets) / hours),
        "hq_cpu_s": round(station_s / hours, 3),
        "broker_cpu_s": round(broker_s / hours, 3),
        "messages_up_per_s": round((now_up - up) / seconds, 1),
        "messages_down_per_s": round((now_down - down) / seconds, 1),
        "hq_core_percent": round(100 * station_s / seconds, 1),
        "hq_memory_mb": round(usage.memory_mb(station)),
        "online": int(online),
        "refused": int(refused),
        "gateways_late_s": round(late_s, 2),
    }


def metric(world: World, name: str) -> float:
    """A figure of headquarters' /metrics."""
    text = httpx.get(f"{world.url}/metrics", timeout=30).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"headquarters has no metric {name}")
    return float(found[1])
