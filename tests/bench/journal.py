"""A journal of ten million events: appending, the console's pages, `tocsin journal verify` and the station's start.

All of it is measured twice, with a thousandth of the entries and with all of them, so that what grows with the journal
shows. The entries are sealed and chained by the station's own code, and written in large transactions without fsync.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from demo.process import wait_until
from demo.world import HQ, PROJECT, World
from firmware import wire
from gateway import chain, keys
from gateway.chain import CHECKPOINT_ENTRIES, Sealer
from gateway.desk import State
from gateway.journal import BATCH, Journal
from gateway.rows import Entry, own_entry
from gateway.vocabulary import STEP_BOOT, STEP_BY, STEP_NOTE, STEP_OUTCOME, STEP_SEQ, STEPS
from tests.bench import fleet, usage
from tests.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BUTTONS, A_SITE = 200, 10
LESS = 1_000  # the small journal has so many times fewer entries
STARTS, VIEWS = 5, 20
APPENDED = 20_000
IDLE_S = 3
TOGETHER = 100_000  # entries in a transaction of the filling
ROUND = 100  # entries of which one is an alarm, and two are the steps that an operator took
EARLY = 1_000  # the quiet button speaks in the first entries only
STEP_MS = 3_000  # between two entries
_COLUMNS = "id, source, boot, seq, kind, happened_at_ms, exact, received_at_ms, envelope, hops, chain"


@dataclass
class Filling:
    """Where the filling of a journal stands."""

    position: int
    head: bytes
    written: int = 0
    own_seq: int = 0
    at_ms: int = 0


class Headquarters:
    """A headquarters whose broker runs and whose journal is filled while its station doesn't."""

    def __init__(self, world: World, say: Callable[[str], None], appended: int) -> None:
        self._world = world
        self._appended = appended
        self._say = say
        self._members = fleet.enrol(world, BUTTONS, A_SITE)
        self._path = world.folder / HQ / "state" / "station.db"
        self._station = world.processes[f"station {HQ}"]
        key = keys.private_key(world.folder / HQ / "identity" / "key.pem")
        self._sealer = Sealer(HQ, key, world.folder / HQ / "state" / "station.checkpoints")
        self._appends = 0
        self._filling: Filling | None = None
        world.processes[f"broker {HQ}"].start()

    # ----------------------------------------------------------------------------------------- filling

    def fill(self, until: int) -> float:
        """Writes entries until the bench has written so many; how long it took, in seconds."""
        began = time.monotonic()
        with closing(sqlite3.connect(self._path, timeout=30)) as database:
            for pragma in ("synchronous = OFF", "cache_size = -200000"):
                database.execute(f"PRAGMA {pragma}")
            last = database.execute("SELECT id, chain FROM journal ORDER BY id DESC LIMIT 1").fetchone()
            now_ms = time.time_ns() // 1_000_000
            known = self._filling or Filling(0, b"", at_ms=now_ms - until * STEP_MS)
            self._filling = filling = known
            filling.position, filling.head = last or (0, chain.GENESIS)
            while filling.written < until:
                self._some(database, filling, min(TOGETHER, until - filling.written))
                if filling.written % 1_000_000 == 0:
                    self._say(f"  {filling.written} entries written, {time.monotonic() - began:.0f} s")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return time.monotonic() - began

    def _some(self, database: sqlite3.Connection, filling: Filling, count: int) -> None:
        alarms: list[tuple[Any, ...]] = []
        steps: list[tuple[Any, ...]] = []
        sealed: list[chain.Checkpoint] = []

        def rows() -> Iterator[tuple[Any, ...]]:
            for entry in self._entries(filling, count):
                filling.position += 1
                source, boot, seq = entry.identity
                columns = (
                    filling.position, source, boot, seq, entry.kind, entry.happened_at_ms, 1, entry.received_at_ms,
                    entry.envelope, wire.encode(entry.hops),
                )  # fmt: skip
                filling.head = chain.link(filling.head, columns)
                if entry.kind == wire.ALARM:
                    alarms.append((filling.position, source, boot, seq))
                elif source == HQ:
                    state = "acknowledged" if entry.message[wire.CODE] == wire.STEP_ACKNOWLEDGED else "closed"
                    outcome = None if state == "acknowledged" else "test"
                    steps.append((alarms[-1][0], state, entry.received_at_ms, outcome))
                if filling.position % CHECKPOINT_ENTRIES == 0:
                    at_ms = entry.received_at_ms
                    sealed.append(self._sealer.seal(filling.position, filling.head, filling.position, at_ms))
                yield (*columns, filling.head)

        database.executemany(f"INSERT INTO journal ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows())
        database.executemany(
            "INSERT INTO incidents (id, device, boot, seq, cause, how, state, outcome)"
            " VALUES (?, ?, ?, ?, 'hold_up', 'both', 'closed', 'test')",
            alarms,
        )
        database.executemany(
            "INSERT INTO steps (incident, state, at_ms, \"by\", note, outcome) VALUES (?, ?, ?, 'bench', '', ?)", steps
        )
        database.executemany(
            'INSERT INTO checkpoints (position, cut, chain, "count", at_ms, signature) VALUES (?, 0, ?, ?, ?, ?)',
            [(one.position, one.chain, one.count, one.at_ms, one.signature) for one in sealed],
        )
        database.commit()
        for one in sealed:
            self._sealer.write_down(one)

    def _entries(self, filling: Filling, count: int) -> Iterator[Entry]:
        """Alarms and events of the buttons in turn; the first button is one that was heard long ago only."""
        pressed: tuple[str, int] = ("", 0)
        for _ in range(count):
            number = filling.written
            filling.written += 1
            filling.at_ms += STEP_MS
            turn = number % ROUND
            if turn in {1, 2}:
                filling.own_seq += 1
                state = State.ACKNOWLEDGED if turn == 1 else State.CLOSED
                detail = {STEP_BOOT: 1, STEP_SEQ: pressed[1], STEP_BY: "bench", STEP_NOTE: ""}
                detail |= {STEP_OUTCOME: "test"} if state is State.CLOSED else {}
                own = (1, filling.own_seq)
                yield own_entry(HQ, own, STEPS[state], pressed[0], detail, filling.at_ms, bytes(32))
                continue
            first = 0 if number < EARLY else 1
            member = self._members[first + number // 3 % (BUTTONS - first)]
            message = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: number, wire.AGE: 0}
            if turn:
                message[wire.CODE] = wire.LOOP_RESTORED if number % 2 else wire.LOOP_CUT
            else:
                message |= {wire.KIND: wire.ALARM, wire.CAUSE: wire.HOLD_UP, wire.HOW: wire.BOTH_CONTACTS}
                pressed = (member.id, number)
            envelope = wire.seal(message, member.id, member.key)
            hops = [[member.gateway, filling.at_ms]]
            yield Entry(member.id, message, envelope, hops, filling.at_ms, filling.at_ms, exact=True)

    # --------------------------------------------------------------------------------------- measuring

    def append(self) -> float:
        """Entries a second that the station's own journal takes, chained, indexed and on the disk."""
        entries = self._fresh()
        journal = Journal(self._path, [], self._sealer)
        journal.start()
        ended = threading.Event()
        began = time.monotonic()
        for entry in entries[:-1]:
            journal.put(entry, lambda _: None)
        journal.put(entries[-1], lambda _: ended.set())
        if not ended.wait(120):
            raise TimeoutError("the journal did not take the entries")
        took_s = time.monotonic() - began
        journal.stop()
        return len(entries) / took_s

    def bare(self, path: Path) -> float:
        """The floor: the same envelopes as rows of a table without an index, in transactions of as many."""
        rows = [(entry.envelope,) for entry in self._fresh()]
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            for statement in ("journal_mode = WAL", "synchronous = FULL"):
                database.execute(f"PRAGMA {statement}")
            database.execute("CREATE TABLE rows (octets BLOB)")
            began = time.monotonic()
            for first in range(0, len(rows), BATCH):
                database.execute("BEGIN")
                database.executemany("INSERT INTO rows VALUES (?)", rows[first : first + BATCH])
                database.execute("COMMIT")
            return len(rows) / (time.monotonic() - began)

    def _fresh(self) -> list[Entry]:
        self._appends += 1
        now_ms = time.time_ns() // 1_000_000
        found = []
        for number in range(self._appended):
            member = self._members[1 + number % (BUTTONS - 1)]
            message = {
                wire.KIND: wire.EVENT, wire.BOOT: 1 + self._appends, wire.SEQ: number, wire.AGE: 0, wire.CODE: wire.LOOP_CUT
            }  # fmt: skip
            envelope = wire.seal(message, member.id, member.key)
            found.append(Entry(member.id, message, envelope, [[member.gateway, now_ms]], now_ms, now_ms, exact=True))
        return found

    def start(self, *, cold: bool = False) -> tuple[float, float]:
        """Starts the station; seconds, and processor seconds, until it says that it could take an alarm.

        cold: nothing of the file is in memory.
        """
        if cold:
            with self._path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.monotonic()
        self._station.start()
        with httpx.Client(base_url=self._world.url, timeout=10) as http:
            wait_until(lambda: _is_ready(http), 120, "headquarters ready", every_s=0.005)
        return time.monotonic() - began, usage.cpu_s(self._station.pid or 0)

    def stop(self) -> None:
        """Stops the station."""
        self._station.stop()

    def pages(self, views: int) -> dict[str, dict[str, float]]:
        """Median and 99th percentile of each page's time, in ms, as an operator's browser asks for it."""
        operator = Operator(self._world).sign_in()
        quiet, busy = self._members[0], self._members[-1]
        newest = operator.get("history")[0]["id"]
        half = newest // 2
        wanted = {
            "alarms": "/",
            "children": "/children",
            "a button": f"/children/{busy.id}",
            "events": "/happenings",
            "events, half way back": f"/happenings?before={half}",
            "history": "/history",
            "history, half way back": f"/history?before={half}",
            "an alarm": f"/incidents/{newest}",
            "sites": "/sites",
            "a site": f"/sites/site-{busy.gateway}",
            "an entrance": f"/sites/site-{busy.gateway}/entrances/{busy.id}",
            "an entrance that is silent for long": f"/sites/site-{quiet.gateway}/entrances/{quiet.id}",
            "health": "/health",
            "metrics": "/metrics",
            "API: open alarms": "/api/v1/incidents",
        }
        found = {}
        for name, path in wanted.items():
            times = []
            for _ in range(views):
                began = time.perf_counter()
                operator.page(path)
                times.append((time.perf_counter() - began) * 1000)
            found[name] = {"p50": round(statistics.median(times), 1), "p99": round(percentile(times, 0.99), 1)}
        return found

    def idle(self) -> dict[str, float]:
        """What a station costs to which nothing comes: share of a core in %, and its memory in MB."""
        pid = self._station.pid or 0
        before, began = usage.cpu_s(pid), time.monotonic()
        time.sleep(IDLE_S)
        share = (usage.cpu_s(pid) - before) / (time.monotonic() - began)
        return {"core_percent": round(100 * share, 1), "memory_mb": round(usage.memory_mb(pid))}

    def verify(self) -> dict[str, float]:
        """`tocsin journal verify` as a process; and the floor: reading the same columns."""
        began = time.monotonic()
        command = [sys.executable, "-m", "gateway.cli", "journal", "verify", "--config", self._config, "--json"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        took_s = time.monotonic() - began
        if done.returncode:
            raise RuntimeError(f"the journal does not verify: {done.stdout}{done.stderr}")
        told = json.loads(done.stdout)
        began = time.monotonic()
        with closing(sqlite3.connect(self._path)) as database:
            for _ in database.execute(f"SELECT {_COLUMNS} FROM journal ORDER BY id"):
                pass
        floor_s = time.monotonic() - began
        return {
            "entries": told["entries"],
            "s": round(took_s, 1),
            "entries_per_s": round(told["entries"] / took_s),
            "reading_alone_s": round(floor_s, 1),
        }

    @property
    def _config(self) -> str:
        return str(self._world.folder / f"{HQ}.toml")

    def size_mb(self) -> int:
        """Of the database file."""
        return self._path.stat().st_size >> 20


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def measure(
    events: int,
    say: Callable[[str], None],
    *,
    appended: int = APPENDED,
    starts: int = STARTS,
    views: int = VIEWS,
) -> dict[str, Any]:
    """Everything, with a thousandth of the entries, if that is enough to show anything, and with all of them."""
    world = World(buttons=[])
    try:
        headquarters = Headquarters(world, say, appended)
        found: dict[str, Any] = {"events": events, "buttons": BUTTONS}
        sizes = [events // LESS, events] if events >= LESS * ROUND else [events]
        for entries in sizes:
            say(f"Filling the journal up to {entries} …")
            fill_s = headquarters.fill(entries)
            say(f"  {fill_s:.0f} s; {headquarters.size_mb()} MB. Starting the station {starts} times …")
            found[str(entries)] = {"filled_in_s": round(fill_s), "file_mb": headquarters.size_mb()}
            found[str(entries)] |= _look(headquarters, say, world.folder / f"bare-{entries}.db", starts, views)
        return found
    except BaseException:
        say(world.log_tails())
        raise
    finally:
        world.close()


def _look(
    headquarters: Headquarters, say: Callable[[str], None], bare: Path, starts: int, views: int
) -> dict[str, Any]:
    cold_s, _ = headquarters.start(cold=True)
    times = []
    for _ in range(starts):
        headquarters.stop()
        times.append(headquarters.start())
    took_s, cpu_s = ([one[which] for one in times] for which in (0, 1))
    say(f"  ready after {statistics.median(took_s):.2f} s. Looking at its pages …")
    start = {"p50": statistics.median(took_s), "most": max(took_s), "cold": cold_s, "cpu": statistics.median(cpu_s)}
    found: dict[str, Any] = {
        "start_s": {name: round(value, 2) for name, value in start.items()},
        "pages_ms": headquarters.pages(views),
        "idle": headquarters.idle(),
    }
    headquarters.stop()
    say("  Appending, and verifying …")
    rates = [headquarters.append() for _ in range(3)]
    found["append_per_s"] = {"p50": round(statistics.median(rates)), "least": round(min(rates))}
    found["append_bare_per_s"] = round(headquarters.bare(bare))
    found["verify"] = headquarters.verify()
    return found
