"""A press while a site's journal drains a million events to headquarters after an outage, beside a press when nothing waits.

The events are written into the site's database while its station is down; headquarters' broker is away when the station
starts, and its return is the end of the outage.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway import chain
from tests.bench import usage
from tests.bench.pipeline import Pipeline
from tests.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEVICE = "clifton-gate"
SOURCES = 20
BLOCK = 10  # presses between two looks at the drain
PERIODS = ("pin_to_commit", "sent_to_commit")


def fill(world: World, events: int) -> None:
    """Puts so many events of SOURCES enrolled buttons into the site's journal, none of them at headquarters yet."""
    names = [f"backlog-{number:02}" for number in range(SOURCES)]
    for name in names:
        if name not in world.identities:
            world.issue(name)
            world.enrol_button(name)
    keys = [world.key_of(name) for name in names]
    now_ms = time.time_ns() // 1_000_000
    hops = wire.encode([])

    def rows(first: int, head: bytes) -> Iterator[tuple[Any, ...]]:
        for number in range(events):
            at = number % SOURCES
            message = {
                wire.KIND: wire.EVENT,
                wire.BOOT: 1,
                wire.SEQ: number,
                wire.AGE: 0,
                wire.CODE: wire.LOOP_RESTORED,
            }
            envelope = wire.seal(message, names[at], keys[at])
            columns = (first + 1 + number, names[at], 1, number, wire.EVENT, now_ms, 1, now_ms, envelope, hops)
            head = chain.link(head, list(columns))
            yield (*columns, head)

    database = sqlite3.connect(world.folder / SITE / "state" / "station.db", timeout=30)
    try:
        database.execute("PRAGMA synchronous = OFF")
        first, head = database.execute("SELECT id, chain FROM journal ORDER BY id DESC LIMIT 1").fetchone()
        database.executemany(
            "INSERT INTO journal (id, source, boot, seq, kind, happened_at_ms, exact, received_at_ms, envelope, hops, chain)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(first, head),
        )
        database.execute(
            "INSERT INTO deliveries (entry, parent, kind) SELECT id, ?, 2 FROM journal WHERE id > ?", (HQ, first)
        )
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()


class Drain:
    """A world with a backlog. Presses are measured before it and while it drains."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._database = world.database(HQ)
        self._operator = Operator(world).sign_in()

    def press(self, presses: int, *, while_it_drains: int = 0) -> Pipeline:
        """Presses so many times; ends early when fewer than `while_it_drains` events are still to come."""
        pipeline = Pipeline(
            "Tocsin",
            self._world.buttons[DEVICE],
            self._world.database(HQ),
            "SELECT max(id) FROM incidents",
            "SELECT journal.id, envelope FROM incidents JOIN journal USING (id) WHERE id > ?",
            self._operator.close_all,
        )
        while len(pipeline.times) < presses:
            for _ in range(min(BLOCK, presses - len(pipeline.times))):
                pipeline.press()
                if while_it_drains and self.left(while_it_drains) < 500:
                    return pipeline
            pipeline.settle()
            self._say(f"  {len(pipeline.times)} of {presses} presses")
        return pipeline

    def begin(self, events: int) -> float:
        """Fills the site's journal during an outage, ends it; returns when the first event came (monotonic)."""
        world = self._world
        station, broker = world.processes[f"station {SITE}"], world.processes[f"broker {HQ}"]
        station.stop()
        began = time.monotonic()
        fill(world, events)
        self._say(f"  {events} events written in {time.monotonic() - began:.0f} s")
        broker.stop()
        station.start()
        broker.start()
        wait_until(lambda: self.arrived() > 0, 60, "the first event of the backlog at headquarters", every_s=0.005)
        return time.monotonic()

    def peak_mb(self) -> dict[str, int]:
        """The most memory that each station had since it started."""
        return {
            station: round(usage.memory_mb(self._world.processes[f"station {station}"].pid or 0, peak=True))
            for station in (SITE, HQ)
        }

    def arrived(self) -> int:
        """How many events of the backlog are committed at headquarters: they come in their order."""
        sql = "SELECT max(seq) FROM journal WHERE source = ? AND boot = 1"
        return max((self._database.execute(sql, (f"backlog-{n:02}",)).fetchone()[0] or 0) for n in range(SOURCES))

    def left(self, events: int) -> int:
        """How many are still to come."""
        return events - 1 - self.arrived()


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, -int(-len(values) * share // 1) - 1)]


def measure(events: int, presses: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Medians and 99th percentiles in ms, idle and while it drains, their ratio, and the drain's rate."""
    with World(buttons=[DEVICE]) as world:
        drain = Drain(world, say)
        drain.press(5)  # nothing is cold
        say("Pressing while nothing waits …")
        memory_mb = {"idle": drain.peak_mb()}
        idle = drain.press(presses)
        say("An outage …")
        began = drain.begin(events)
        world.wait_ready(120)
        say("Pressing while it drains …")
        draining = drain.press(presses, while_it_drains=events)
        arrived = drain.arrived()
        memory_mb["draining"] = drain.peak_mb()
        result: dict[str, Any] = {
            "events": events,
            "presses": [len(idle.times), len(draining.times)],
            "drained": arrived,
            "drained_per_s": round(arrived / (time.monotonic() - began)),
            "peak_memory_mb": memory_mb,
        }
        for period in PERIODS:
            figures = {}
            for name, pipeline in (("idle", idle), ("draining", draining)):
                values = [getattr(one, period) for one in pipeline.times]
                figures[name] = {"p50": round(percentile(values, 0.5), 2), "p99": round(percentile(values, 0.99), 2)}
            ratio = {share: round(figures["draining"][share] / figures["idle"][share], 2) for share in ("p50", "p99")}
            result[f"{period}_ms"] = {**figures, "ratio": ratio}
        return result


def memory(events: int, seconds: float, say: Callable[[str], None]) -> dict[str, int]:
    """The site's station's peak memory in MB: idle, and after draining such a backlog for `seconds`."""
    world = World(buttons=[])
    try:
        world.start()
        drain = Drain(world, say)
        idle_mb = drain.peak_mb()[SITE]
        drain.begin(events)
        time.sleep(seconds)
        return {"idle": idle_mb, "draining": drain.peak_mb()[SITE]}
    finally:
        world.close()
