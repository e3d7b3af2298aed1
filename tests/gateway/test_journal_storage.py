"""A disk in trouble: alarms pass, nothing is promised that is not kept, everybody is told, and it heals by itself."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import event

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway import database
from gateway.chain import Checkpoint, Sealer
from gateway.clockwatch import ClockWatch
from gateway.desk import StorageError
from gateway.journal import Journal, Trouble
from gateway.station import Station
from tests.gateway.test_exchange import Bench
from tests.gateway.test_journal import entry
from tests.operator import Operator
from tests.outsider import Outsider
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

GATE = "clifton-gate"
BROKERS_WINDOW = 200  # messages that are not acknowledged
SMALL_DISK = 'mkdir "$0.was" && cp -a "$0/." "$0.was/" && mount -t tmpfs -o size=4m tmpfs "$0" && cp -a "$0.was/." "$0/" && exec "$@"'


def may_unshare() -> bool:
    return bool(shutil.which("unshare")) and (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    )


class Site:
    """A world whose gateway keeps its state on a disk of 4 MB that is its own."""

    def __init__(self) -> None:
        self.world = World(buttons=(GATE,))
        station = self.world.processes[f"station {SITE}"]
        state = str(self.world.folder / SITE / "state")
        station._command = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            SMALL_DISK,
            state,
            *station._command,
        ]
        self.world.start()
        self.hq = Operator(self.world).sign_in()
        self.site = Operator(self.world, f"http://127.0.0.1:{self.world.site_console}").sign_in()

    @property
    def state(self) -> Path:
        """The gateway's state folder, as it sees it."""
        return Path(f"/proc/{self.world.processes[f'station {SITE}'].pid}/root{self.world.folder / SITE / 'state'}")

    def kept(self) -> set[tuple[str, int, int, int]]:
        """What the gateway has committed."""
        # Beside a full disk SQLite may not make files, so the copy is read elsewhere.
        copy = self.world.folder / "copy.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.state / 'station.db'}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy)) as database:
            return set(database.execute("SELECT source, boot, seq, kind FROM journal"))

    def told(self, code: str) -> list[dict[str, Any]]:
        """Events of that code at headquarters."""
        return [one for one in self.hq.get("happenings") if one["code"] == code]

    def link(self) -> str:
        """How headquarters sees the gateway."""
        return next(one["link"] for one in self.hq.get("children") if one["id"] == SITE)

    def check(self) -> dict[str, Any]:
        """The gateway's check "journal"."""
        return next(one for one in self.site.get("health")["checks"] if one["name"] == "journal")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    if not may_unshare():
        pytest.skip("a disk of one's own needs root: mount namespaces are not permitted here")
    made = Site()
    try:
        yield made
    finally:
        made.world.close()


def fill(site: Site) -> None:
    with (site.state / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65_536, 4_096, 64):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def limit(site: Site, size: str) -> None:
    pid = site.world.processes[f"station {SITE}"].pid
    subprocess.run(["prlimit", "--pid", str(pid), f"--fsize={size}"], check=True)


CAUSES: dict[str, tuple[Callable[[Site], None], Callable[[Site], None], str]] = {
    "a full disk": (fill, lambda site: (site.state / "ballast").unlink(), "disk is full"),
    "a disk that answers with errors": (
        lambda site: limit(site, "0:unlimited"),
        lambda site: limit(site, "unlimited"),
        "disk answers with an error",
    ),
}


@pytest.mark.parametrize("cause", list(CAUSES))
def test_alarms_pass_nothing_is_promised_and_all_is_told_and_healed(site: Site, cause: str) -> None:
    begin, end, words = CAUSES[cause]
    button = site.world.buttons[GATE]
    starts = site.world.processes[f"station {SITE}"].starts
    failed, restored = len(site.told("storage_failed")), len(site.told("storage_restored"))
    try:
        begin(site)
        began = time.monotonic()
        since = len(button.said)
        button.press()
        latched = button.wait_for(lambda said: "latched" in said, 5, since)["latched"]
        alarm = (GATE, latched["boot"], latched["seq"])
        button.wait_for(lambda said: said.get("stage", 0) >= 2, 5, since)
        assert not any(said.get("stage") == 1 for said in button.said[since:]), (
            "the gateway promised what it has not kept"
        )
        wait_until(lambda: site.link() == "faulty", 20, "headquarters shows the gateway as faulty")
        wait_until(lambda: len(site.told("storage_failed")) > failed, 20, "headquarters journals it")
        print(f"{cause}: told at headquarters after {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < 20
        assert site.told("storage_failed")[0]["subject"] == SITE
        check = site.check()
        assert not check["ok"]
        assert words in check["text"]
        assert (*alarm, 1) not in site.kept()
    finally:
        end(site)
    healed = time.monotonic()
    wait_until(lambda: (*alarm, 1) in site.kept(), 15, "what waited is committed", every_s=0.2)
    print(f"{cause}: committed {time.monotonic() - healed:.1f} s after it went")
    wait_until(lambda: len(site.told("storage_restored")) >= restored + 2, 15, "both stations tell that it is over")
    own = [one for one in site.told("storage_restored") if one["device"] == SITE]
    assert words in own[0]["detail"]
    wait_until(lambda: site.link() == "online", 15, "headquarters sees the gateway as sound")
    assert site.check()["ok"]
    assert site.world.processes[f"station {SITE}"].starts == starts, "it ended meanwhile"
    site.hq.close_all()
    button.wait_for(lambda said: said.get("light") == "rest", 20)


def test_while_a_disk_is_read_only_who_asks_is_refused_and_the_rest_is_kept_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "station.db", ["hq"])
    read_only = threading.Event()
    connected: list[None] = []

    @event.listens_for(journal._writer, "connect")
    def _connect(connection: Any, _: object) -> None:
        connected.append(None)
        if read_only.is_set():
            connection.execute("PRAGMA query_only = ON")

    told: list[object] = []
    journal.on_trouble = told.append
    journal.on_recovered = lambda why, lasted_s: told.append((why, lasted_s))
    read_only.set()
    boot = journal.next_boot()  # a station starts nevertheless
    assert journal.trouble is not None
    journal.start()
    kept: list[Any] = []
    for seq in range(3):
        journal.put(entry(seq), kept.append)
    for number in range(100):
        journal.later(lambda _, number=number: kept.append(number), key="the same")
    with pytest.raises(StorageError, match="read-only"):
        journal.now(lambda connection: None)
    journal.put(entry(3), kept.append)
    wait_until(lambda: len(connected) == 5, 10, "it is tried again and again")
    wait_until(lambda: journal.backlog == 7, 10, "each waits once")
    assert kept == []
    read_only.clear()
    wait_until(lambda: len(kept) == 5, 10, "all of it is committed")
    journal.now(lambda connection: None)
    assert [one.id for one in kept if not isinstance(one, int)] == [1, 2, 3, 4]
    assert [one for one in kept if isinstance(one, int)] == [99]
    assert len(told) == 1
    assert "read-only" in str(told[0])
    assert journal.trouble is None
    with journal.readers.connect() as connection:
        assert database.kept(connection, "boot") == str(boot)
    journal.stop()


def test_of_two_that_say_the_same_the_newer_is_kept_also_when_the_older_failed_meanwhile(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "station.db", [])
    done: list[str] = []

    def older(connection: Connection) -> str:
        journal.later(lambda _: "newer", done.append, key="the same")
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("DELETE FROM journal")
        return "older"

    journal.later(older, done.append, key="the same")
    journal.start()
    wait_until(lambda: done and journal.backlog == 0, 10, "it is written")
    journal.now(lambda _: None)
    assert done == ["newer"]
    journal.stop()


def test_an_idle_station_notices_within_seconds_that_its_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.IDLE_S", 0.2)
    journal = Journal(tmp_path / "station.db", [])
    journal.start()
    wait_until(lambda: journal.commits > 2, 10, "it tries the disk by itself")
    (tmp_path / "station.db").rename(tmp_path / "gone.db")
    connection = journal._connection
    assert connection is not None
    connection.connection.dbapi_connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    wait_until(lambda: journal.trouble is not None, 10, "the trouble shows")
    wait_until(
        lambda: "opened" in (journal.trouble.why if journal.trouble else ""), 10, "no empty database takes its place"
    )
    (tmp_path / "gone.db").rename(tmp_path / "station.db")
    wait_until(lambda: journal.trouble is None, 10, "it is written again")
    journal.stop()


def test_a_flood_of_events_while_the_disk_is_full_holds_up_no_alarm(site: Site) -> None:
    site.world.issue("flood")
    flood = Outsider(site.world, "flood", site.world.site_port, SITE).connect()
    button = site.world.buttons[GATE]
    try:
        fill(site)
        wait_until(lambda: not site.check()["ok"], 20, "the trouble shows")
        for seq in range(1, BROKERS_WINDOW + 100):
            event = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 0, wire.CODE: wire.LOOP_CUT}
            flood.publish("event", wire.seal(event, "flood", bytes(32)))
        since = len(button.said)
        button.press()
        button.wait_for(lambda said: said.get("stage", 0) >= 2, 5, since)
    finally:
        (site.state / "ballast").unlink()
        flood.close()
    wait_until(lambda: site.check()["ok"], 20, "it heals")
    wait_until(
        lambda: len({one for one in site.kept() if one[0] == "flood"}) >= 100, 20, "what it took on is committed"
    )
    site.hq.close_all()


def test_two_starts_within_a_second_with_an_unwritable_disk_get_two_numbers(tmp_path: Path) -> None:
    numbers = []
    for _ in range(2):
        journal = Journal(tmp_path / "station.db", [])
        event.listen(journal._writer, "connect", lambda one, _: one.execute("PRAGMA query_only = ON"))
        numbers.append(journal.next_boot())
        journal.readers.dispose()
    assert numbers[0] < numbers[1]


def test_repeats_of_what_waits_for_the_disk_take_no_room() -> None:
    world = World(buttons=())
    bench = Bench(world, world.folder / "other.db")
    try:
        bench.journal.trouble = Trouble("the disk is full", 0.0)
        for seq in (1, 2, 1, 2, 1):
            bench.alarm(seq)
        assert bench.journal.backlog == 2
        assert bench.story == [("done", 0)] * 3, "the broker keeps the first of each"
        bench.journal.trouble = None
        bench.journal.start()
        wait_until(lambda: len(bench.story) == 7, 10, "both are receipted")
        assert bench.rows() == 2
    finally:
        bench.journal.stop()
        world.close()


def test_checkpoints_are_told_to_parents_every_ten_minutes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    exchange = SimpleNamespace(event=lambda *event: told.append(event))
    station: Any = SimpleNamespace(_checkpoint_told=None, exchange=exchange, settings=SimpleNamespace(station="hq"))
    for minute in range(25):
        monkeypatch.setattr("gateway.station.monotonic_ms", lambda minute=minute: 60_000 * minute)
        Station._checkpoint(station, Checkpoint(minute, cut=False, chain=bytes(32), count=minute, at_ms=1))
    assert [event[2][0] for event in told] == [0, 10, 20]


def damage(database: Path, table: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x55" * size)


def test_a_corrupt_page_ends_the_station_with_the_command_to_run(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from gateway.journal import Journal
        from tests.gateway.test_journal import entry
        journal = Journal(Path(sys.argv[1]), [])
        journal.start()
        journal.put(entry(1), lambda kept: print("kept", flush=True))
        time.sleep(20)
        """
    )
    journal = Journal(tmp_path / "station.db", [])
    journal.next_boot()
    damage(tmp_path / "station.db", "journal")
    command = [sys.executable, "-c", script, str(tmp_path / "station.db")]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (74, "")
    assert "damaged" in ended.stderr
    assert "tocsin journal verify" in ended.stderr


@pytest.mark.parametrize("how", ["damaged", "not a database", "of a newer version", "in no folder"])
def test_a_database_that_cannot_be_opened_ends_the_start_with_words(tmp_path: Path, how: str) -> None:
    world = World(buttons=())
    try:
        database = world.folder / HQ / "state" / "station.db"
        if how == "damaged":
            damage(database, "alembic_version")
        elif how == "not a database":
            database.write_bytes(b"this was a database" * 500)
        elif how == "of a newer version":
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("UPDATE alembic_version SET version_num = '9999'")
                connection.commit()
        else:
            shutil.rmtree(database.parent)
            database.parent.write_text("")
        command = [sys.executable, "-m", "gateway.cli", "station", "--config", str(world.folder / f"{HQ}.toml")]
        ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    finally:
        world.close()
    assert ended.returncode == 74
    assert "Traceback" not in ended.stderr
    expected = {
        "damaged": "tocsin journal verify",
        "not a database": "tocsin journal restore",
        "of a newer version": "newer",
        "in no folder": "folder",
    }
    assert expected[how] in ended.stderr


def test_a_jump_of_the_clock_is_told_and_slewing_is_not() -> None:
    clocks, utc = ClockWatch(), 1_000_000_000
    assert [clocks.look(utc + 501 * tick, 500 * tick) for tick in range(10_000)] == [None] * 10_000
    utc += 501 * 10_000
    assert clocks.look(utc + 3_600_000, 500 * 10_000) == pytest.approx(3_600_000, abs=1_000)
    assert clocks.look(utc + 3_600_500, 500 * 10_001) is None
    assert clocks.look(utc - 7_200_000, 500 * 10_002) == pytest.approx(-10_801_000, abs=1_000)


def test_a_clock_that_jumps_back_changes_nothing_of_the_order(tmp_path: Path) -> None:
    sealer = Sealer("hq", ec.generate_private_key(ec.SECP256R1()), tmp_path / "checkpoints")
    journal = Journal(tmp_path / "station.db", [], sealer)
    journal.start()
    for seq, at in enumerate((5_000_000, 1_000, 9_000_000_000)):
        one = replace(entry(seq), received_at_ms=at)
        assert journal.now(lambda connection, one=one: journal.keep(connection, one)).id == seq + 1
    journal.stop()
    assert (tmp_path / "checkpoints").read_text().count("\n") == 1
