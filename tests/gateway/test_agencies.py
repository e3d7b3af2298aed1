"""Headquarters below two agencies, and a site with two ways to headquarters: real processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demo.process import Process, wait_until
from demo.world import HQ, PROJECT, SITE, World, free_ports
from firmware import wire
from gateway import keys
from gateway.registry import password_hash
from tests.faults.test_faults_links import Line
from tests.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(200)

AGENCIES = ("rangers", "ministry")
GATE = "clifton-gate"
RETURN_S = 2


class Alliance(World):
    """A world whose headquarters has two parents that know headquarters alone."""

    def __init__(self) -> None:
        self.way_port, second = free_ports(2)
        super().__init__(buttons=(GATE,), uplink_port=second)
        self.line = Line(second, self.hq_port)
        site = self.folder / f"{SITE}.toml"
        two = f'addresses = ["127.0.0.1:{self.way_port}", "127.0.0.1:{second}"]\nreturn_s = {RETURN_S}'
        text = site.read_text(encoding="utf-8")
        site.write_text(text.replace(f'address = "127.0.0.1"\nport = {second}', two), encoding="utf-8")
        ports = free_ports(2 * len(AGENCIES))
        parents = ""
        for name in AGENCIES:
            port, console = ports.pop(), ports.pop()
            parents += self._agency(name, port, console)
            command = ["enrol", "--config", f"{name}.toml", "--id", HQ, "--cert", f"{HQ}/identity/cert.pem"]
            self.tocsin(*command, "--kind", "station", "--vouches")
        headquarters = self.folder / f"{HQ}.toml"
        headquarters.write_text(headquarters.read_text(encoding="utf-8") + parents, encoding="utf-8")

    def tocsin(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            check=True,
            cwd=self.folder,
            env={"PYTHONPATH": str(PROJECT)},
            timeout=60,
        )

    def _agency(self, name: str, port: int, console: int) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        self._station(name, name, "hq", port, console)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}-key.pem").write_bytes(pem)
        settings = self.folder / f"{name}.toml"
        text = settings.read_text(encoding="utf-8").replace("message-key.pem", f"{name}-key.pem")
        settings.write_text(text, encoding="utf-8")
        for kind in ("broker", "station"):
            command = [sys.executable, "-m", "gateway.cli", kind, "--config", str(settings)]
            log = self.folder / f"{kind}-{name}.log"
            process = Process(f"{kind} {name}", command, cwd=PROJECT, env={}, log=log)
            self.processes[process.name] = process
            self.keeper.keep(process)
        point = keys.point(key.public_key()).hex()
        return f'[[parents]]\nid = "{name}"\naddress = "127.0.0.1"\nport = {port}\nmessage_key = "{point}"\n'

    def press(self) -> None:
        """Presses until the button says so: on a busy machine it may not have looked while it was pressed."""
        button = self.buttons[GATE]
        for left in (2, 1, 0):
            since = len(button.said)
            button.press()
            try:
                button.wait_for(lambda said: "latched" in said, 5, since)
            except TimeoutError:
                if not left:
                    raise
            else:
                return

    def alarms(self, station: str) -> list[tuple[str, int, int]]:
        database = self.database(station)
        try:
            return database.execute("SELECT source, boot, seq FROM journal WHERE kind = 1 ORDER BY id").fetchall()
        finally:
            database.close()

    def refused(self, station: str) -> int:
        database = self.database(station)
        try:
            row = database.execute("SELECT count(*) FROM deliveries WHERE stage = 0").fetchone()
        finally:
            database.close()
        return int(row[0])

    def close(self, *, keep: bool = False) -> None:
        super().close(keep=keep)
        self.line.close()


@pytest.fixture(scope="module")
def world() -> Iterator[Alliance]:
    with Alliance() as made:
        yield made


def test_a_press_is_at_both_agencies_and_one_that_was_away_gets_each_once(world: Alliance) -> None:
    button = world.buttons[GATE]
    world.press()
    wait_until(lambda: all(len(world.alarms(name)) == 1 for name in AGENCIES), 30, "the press at both agencies")
    for part in ("station", "broker"):
        world.processes[f"{part} rangers"].stop(kill=True)
    for _ in range(3):
        world.press()
    wait_until(lambda: len(world.alarms("ministry")) == 4, 30, "the presses at the agency that is there")
    assert len(world.alarms("rangers")) == 1
    for part in ("broker", "station"):
        world.processes[f"{part} rangers"].start()
    wait_until(lambda: len(world.alarms("rangers")) == 4, 40, "the presses at the agency that came back")
    Operator(world).sign_in().close_all()

    def has_every_step(agency: str) -> bool:
        at_hq, there = world.database(HQ), world.database(agency)
        try:
            sql = "SELECT source, boot, seq FROM journal WHERE kind = 2 AND source = 'hq'"
            steps = set(at_hq.execute("SELECT id FROM steps").fetchall())
            return len(steps) >= 4 and set(at_hq.execute(sql).fetchall()) <= set(there.execute(sql).fetchall())
        finally:
            at_hq.close()
            there.close()

    for name in AGENCIES:
        wait_until(lambda name=name: has_every_step(name), 30, f"headquarters' steps at {name}")
        assert sorted(world.alarms(name)) == sorted(world.alarms(HQ))
    assert world.refused(HQ) == 0

    def all_receipted() -> bool:
        database = world.database(HQ)
        try:
            return database.execute("SELECT count(*) FROM deliveries WHERE stage IS NULL").fetchone() == (0,)
        finally:
            database.close()

    wait_until(all_receipted, 30, "both agencies' receipts for everything")
    wait_until(lambda: button.light == "rest", 20, "the light at rest: closed by headquarters")


def test_what_is_changed_beside_the_running_station_reaches_its_parents(world: Alliance) -> None:
    world.tocsin("maintenance", "--config", f"{HQ}.toml", GATE, "--for", "2h")

    def know_it(agency: str) -> bool:
        database = world.database(agency)
        try:
            rows = database.execute("SELECT envelope FROM journal WHERE kind = 2 AND source = 'hq'").fetchall()
        finally:
            database.close()
        return any(wire.unseal(row[0]).message[wire.CODE] == wire.MAINTENANCE for row in rows)

    for name in AGENCIES:
        wait_until(lambda name=name: know_it(name), 40, f"the maintenance at {name}")
    world.tocsin("maintenance", "--config", f"{HQ}.toml", GATE, "--end")


def test_an_agency_says_who_vouches_and_moves_nothing_at_headquarters(world: Alliance) -> None:
    button = world.buttons[GATE]
    rows = len(world.alarms("ministry"))
    world.wait_ready()
    world.press()
    wait_until(lambda: len(world.alarms("ministry")) == rows + 1, 20, "the press at the agency")
    wait_until(lambda: button.light == "at_hq", 20, "headquarters' receipt")
    database = world.folder / "ministry" / "state" / "station.db"
    with sqlite3.connect(database) as changes:
        changes.execute(
            "INSERT INTO people (name, full_name, role, password) VALUES ('operator', 'Clerk', 'operator', ?)",
            (password_hash(world.password),),
        )
    console = (world.folder / "ministry.toml").read_text(encoding="utf-8").split("[console]\nport = ")[1].split()[0]
    clerk = Operator(world, f"http://127.0.0.1:{console}").sign_in()
    (incident,) = [one for one in clerk.get("incidents") if one["seq"] == world.alarms("ministry")[-1][2]][:1]
    assert incident["vouched_by"] == HQ
    page = clerk._http.get(f"/incidents/{incident['id']}").text
    assert "Vouched for by" in page
    clerk.step(incident["id"], "acknowledged")
    time.sleep(1.5)
    assert button.light == "at_hq", "only headquarters says that an operator has it"
    (here,) = Operator(world).sign_in().get("incidents")[:1]
    assert here["state"] == "raised"
    assert here["vouched_by"] == ""
    Operator(world).sign_in().close_all()
    wait_until(lambda: button.light == "rest", 20, "the light at rest")


def test_the_site_takes_the_second_address_and_returns_to_the_first_when_it_answers(world: Alliance) -> None:
    operator = Operator(world, f"http://127.0.0.1:{world.site_console}").sign_in()

    def where() -> str:
        checks = {check["name"]: check for check in operator.get("health")["checks"]}
        return str(checks[f"parent {HQ}"]["text"])

    assert str(world.line._listener.getsockname()[1]) in where()
    first = Line(world.way_port, world.hq_port)
    try:
        wait_until(lambda: f":{world.way_port}" in where() and "not connected" not in where(), 20, "the first address")
        rows = len(world.alarms(HQ))
        world.press()
        wait_until(lambda: len(world.alarms(HQ)) == rows + 1, 10, "a press over it")
        first.swallows = True  # it takes connections and never answers
        began = time.monotonic()
        world.press()
        wait_until(lambda: len(world.alarms(HQ)) == rows + 2, 20, "a press over the second address", every_s=0.05)
        print(json.dumps({"failover_s": round(time.monotonic() - began, 1)}))
        assert str(world.line._listener.getsockname()[1]) in where()
    finally:
        first.close()
