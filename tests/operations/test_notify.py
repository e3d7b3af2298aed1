"""systemd is told the truth: READY when an alarm could be taken, a beat only while every part makes progress."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from demo.process import wait_until
from demo.world import HQ, World
from gateway.notify import ServiceManager
from tests.parts import PROJECT, running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path | str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.told: list[tuple[float, str]] = []

    def hear(self) -> list[str]:
        """Every line so far."""
        while True:
            try:
                lines = self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return [line for _, line in self.told]
            self.told += [(time.monotonic(), line) for line in lines]

    def has(self, line: str) -> bool:
        return any(told.startswith(line) for told in self.hear())

    def since(self, at: float) -> list[str]:
        self.hear()
        return [line for when, line in self.told if when > at]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_ready_is_told_once_and_a_stuck_part_gets_no_beat(manager: Manager, tmp_path: Path) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    service.beat(stuck=[], unready=["no broker"], status="well")
    assert manager.hear() == ["STATUS=no broker", "EXTEND_TIMEOUT_USEC=30000000"]
    manager.told.clear()
    service.beat(stuck=["the relay hangs"], unready=[], status="well")
    assert manager.hear() == ["STATUS=the relay hangs"]
    manager.told.clear()
    service.beat(stuck=[], unready=[], status="well\nREADY=0")
    service.beat(stuck=[], unready=[], status="well\nREADY=0")
    assert manager.hear() == ["STATUS=well READY=0", "READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    manager.told.clear()
    service.beat(stuck=["the relay hangs"], unready=[], status="well")
    service.beat(stuck=[], unready=["no broker"], status="well")
    assert manager.hear() == ["STATUS=the relay hangs", "STATUS=no broker", "WATCHDOG=1"]


def test_without_a_service_manager_or_with_one_that_is_gone_nothing_happens(manager: Manager, tmp_path: Path) -> None:
    ServiceManager({}).beat(stuck=[], unready=[], status="well")
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for _ in range(500):  # more than the socket holds
        service.beat(stuck=[], unready=[], status="well")
    manager.close()
    (tmp_path / "notify").unlink()
    service.beat(stuck=[], unready=[], status="well")
    service.stopping()


def test_an_abstract_socket_is_found() -> None:
    name = f"tocsin-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).stopping()
    assert manager.hear() == ["STOPPING=1", "STATUS=stopping"]
    manager.close()


def test_a_station_tells_systemd_how_it_fares(manager: Manager, tmp_path: Path) -> None:
    world = World(buttons=())
    settings = str(world.folder / f"{HQ}.toml")
    (world.folder / "token").write_text("3f1b8a7c5d2e9f60\n")
    text = Path(settings).read_text(encoding="utf-8")
    Path(settings).write_text(text.replace("[console]", '[console]\nmetrics_token = "token"'), encoding="utf-8")
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "JOURNAL_STREAM": "0:0"}
    command = [sys.executable, "-m", "gateway.cli", "station", "--config", settings]
    log = (tmp_path / "log").open("wb")
    try:
        with log, running(command, cwd=PROJECT, env=environment, stderr=log) as station:
            wait_until(
                lambda: manager.has("STATUS=the station's own broker is not connected"), 40, "a word of the broker"
            )
            wait_until(lambda: manager.has("EXTEND_TIMEOUT_USEC="), 5, "more time to start")
            wait_until(lambda: answer(world, "healthz") == 200, 20, "the console")
            assert answer(world, "readyz") == 503
            assert not manager.has("READY=1")
            broker_told = Manager(tmp_path / "broker")
            environment["NOTIFY_SOCKET"] = str(tmp_path / "broker")
            broker = [*command[:-3], "broker", "--config", settings]
            with running(broker, cwd=PROJECT, env=environment, stderr=log) as wrapper:
                wait_until(lambda: broker_told.has("READY=1"), 40, "the broker's READY")
                wait_until(lambda: manager.has("READY=1"), 40, "the station's READY")
                assert answer(world, "readyz") == 200
                assert httpx.get(f"{world.url}/metrics").status_code == 401
                shown = httpx.get(f"{world.url}/metrics", headers={"Authorization": "Bearer 3f1b8a7c5d2e9f60"})
                assert "tocsin_ready 1.0" in shown.text
                held_back(world, manager)
                assert station.poll() is None, (tmp_path / "log").read_text()
                station.send_signal(signal.SIGTERM)
                wait_until(lambda: manager.has("STOPPING=1"), 10, "word of stopping")
                assert station.wait(20) == 0
                assert broker_told.has("WATCHDOG=1")  # and makes room: a socket holds ten datagrams
                wrapper.send_signal(signal.SIGTERM)
                assert wrapper.wait(20) == 0
                assert broker_told.has("STOPPING=1")
                broker_told.close()
        said = [
            json.loads(line.partition(">")[2]) for line in (tmp_path / "log").read_text().splitlines() if line[0] == "<"
        ]
        assert any("message" in line and line["level"] == "info" for line in said)
        (started,) = [line for line in said if line.get("says") == "started" and line["message"] == "committed"]
        assert (started["about"], started["id"].split("/")[0], started["kind"]) == (HQ, HQ, "event")
        assert "3f1b8a7c5d2e9f60" not in (tmp_path / "log").read_text()
    finally:
        world.close()


def held_back(world: World, manager: Manager) -> None:
    """Another program holds the database: the journal's thread is stuck, and no beat may be told until it goes on."""
    began = time.monotonic()
    wait_until(lambda: "WATCHDOG=1" in manager.since(began), 10, "a beat in calm")
    other = sqlite3.connect(world.folder / HQ / "state" / "station.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    locked = time.monotonic()
    wait_until(
        lambda: any("the journal has made no" in line for line in manager.since(locked)), 9, "word of the journal"
    )
    stuck = next(when for when, line in manager.told if "the journal has made no" in line and when > locked)
    assert answer(world, "healthz") == 503
    assert answer(world, "readyz") == 503
    time.sleep(max(0.0, locked + 8 - time.monotonic()))  # SQLite gives up after ten seconds
    assert "WATCHDOG=1" not in manager.since(stuck)
    other.execute("ROLLBACK")
    other.close()
    freed = time.monotonic()
    wait_until(lambda: "WATCHDOG=1" in manager.since(freed), 10, "a beat again")
    wait_until(lambda: answer(world, "healthz") == 200, 10, "health again")


def answer(world: World, endpoint: str) -> int:
    try:
        said = httpx.get(f"{world.url}/{endpoint}", timeout=10)
    except httpx.TransportError:
        return 0
    assert ("wrong" in said.json()) == (said.status_code == 503)
    return said.status_code
