"""Durable alarms per second through one station, beside subscribers that commit each message or groups of them.

All three verify the same sealed alarms with the same code and acknowledge after the commit; the station also judges,
de-duplicates, opens incidents, notes deliveries and seals a receipt for each. The floor is the broker alone: how fast it
acknowledges the senders when nobody subscribes. Blocks take turns, so that whatever else the machine does meets all.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import sqlite3
import ssl
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.process import Keeper, Process, wait_until
from demo.world import HQ, PROJECT, World, free_ports
from firmware import mqtt, wire
from tests.bench import nodered
from tests.bench.peer import LISTENER, mosquitto

if TYPE_CHECKING:
    from collections.abc import Callable

SENDERS = 8
KINDS = {
    "each": "paho, each",
    "grouped": "paho, groups",
    "receipted": "paho, groups, receipts",
    "node-red": "Node-RED",
    "none": "broker alone",
}
BLOCKS = 6
TICKS = os.sysconf("SC_CLK_TCK")
_BROKER = """\
persistence false
user {user}
set_tcp_nodelay true
max_queued_messages 100000
max_inflight_messages 1000
log_type error
"""


class Subject:
    """Something that stores alarms. count: how many it has; pid: whose processor time counts."""

    def __init__(self, name: str, port: int, pid: Callable[[], int] | None, database: Path | None, sql: str) -> None:
        self.name = name
        self.port = port
        self.rates: list[float] = []
        self.cpu_us: list[float] = []
        self._pid = pid
        self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True) if database else None
        self._sql = sql

    def count(self) -> int:
        """Alarms that are committed; -1 where nothing is stored."""
        return int(self._database.execute(self._sql).fetchone()[0] or 0) if self._database else -1

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        if self._pid is None:
            return 0.0
        fields = Path(f"/proc/{self._pid()}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Sender:
    """One child's connection: sends what was prepared as fast as the broker takes it, counts acknowledgements."""

    def __init__(self, world: World, name: str, server: str) -> None:
        self.name = name
        self._server = server
        self._key = world.key_of(name)
        folder = world.folder / name
        world.identities[name].write_pem(folder)
        self._context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    def prepare(self, block: int, count: int) -> bytes:
        """PUBLISH packets of `count` new alarms."""
        packets = []
        for seq in range(count):
            message = {wire.KIND: wire.ALARM, wire.BOOT: block, wire.SEQ: seq, wire.AGE: 12, wire.CAUSE: 1, wire.HOW: 0}
            sealed = wire.seal(message, self.name, self._key)
            packets.append(mqtt.publish(f"tocsin/1/{self.name}/alarm", sealed, 1, False, seq % 65535 + 1))
        return b"".join(packets)

    def send(self, port: int, packets: bytes, count: int) -> None:
        """Sends them to a broker and waits for every PUBACK."""
        with (
            socket.create_connection(("127.0.0.1", port)) as tcp,
            self._context.wrap_socket(tcp, server_hostname=self._server) as tls,
        ):
            tls.sendall(mqtt.connect(self.name, 60, f"tocsin/1/{self.name}/presence", b"gone"))
            tls.recv(4)
            reader = threading.Thread(target=self._read, args=(tls, 4 * count))
            reader.start()
            tls.sendall(packets)
            reader.join(120)
            if reader.is_alive():
                raise TimeoutError(f"{self.name}: the broker does not acknowledge")

    @staticmethod
    def _read(tls: ssl.SSLSocket, octets: int) -> None:
        while octets > 0:
            octets -= len(tls.recv(65536)) or octets


def measure(alarms: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Alarms per second and processor time per alarm of each subject: medians over BLOCKS blocks of `alarms`."""
    with World(buttons=[]) as world, _Peers(world) as peers:
        names = [f"sender-{number:02}" for number in range(SENDERS)]
        for name in names:
            world.issue(name)
            world.enrol_button(name)
        wait_until(lambda: _listens(world.hq_port) and _listens(world.hq_console), 40, "headquarters runs")
        time.sleep(2)  # its station subscribes, and looks at its registry twice a second
        red = nodered.installed(say)
        subjects = [
            Subject(
                "tocsin",
                world.hq_port,
                lambda: world.processes[f"station {HQ}"].pid,
                world.folder / HQ / "state" / "station.db",
                "SELECT count(*) FROM journal WHERE kind = 1",
            ),
            *peers.start(world, names, red),
        ]
        for block in range(1, BLOCKS + 2):
            for subject in subjects if block % 2 else reversed(subjects):
                _block(world, subject, names, block, alarms, warm=block == 1)
            say(f"  block {block} of {BLOCKS + 1}")
        return _result(subjects, alarms)


def _block(world: World, subject: Subject, names: list[str], block: int, alarms: int, *, warm: bool) -> None:
    server = HQ if subject.name == "tocsin" else "localhost"
    each = alarms // SENDERS
    senders = [Sender(world, name, server) for name in names]
    packets = [sender.prepare(block, each) for sender in senders]
    before, cpu_s, began = subject.count(), subject.cpu_s(), time.monotonic()
    threads = [
        threading.Thread(target=sender.send, args=(subject.port, octets, each))
        for sender, octets in zip(senders, packets, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    if before >= 0:
        wait_until(lambda: subject.count() - before >= each * SENDERS, 180, f"{subject.name} has it", every_s=0.005)
    took_s = time.monotonic() - began
    if not warm:
        subject.rates.append(each * SENDERS / took_s)
        subject.cpu_us.append((subject.cpu_s() - cpu_s) * 1e6 / (each * SENDERS))


def _result(subjects: list[Subject], alarms: int) -> dict[str, Any]:
    found: dict[str, Any] = {"alarms": alarms, "blocks": BLOCKS}
    for subject in subjects:
        found[subject.name] = {
            "per_s": round(statistics.median(subject.rates)),
            "least_per_s": round(min(subject.rates)),
            "cpu_us": round(statistics.median(subject.cpu_us), 1),
        }
    ours, theirs = found["tocsin"], found["paho, groups"]
    receipted = found["paho, groups, receipts"]
    found["rate_to_receipts"] = round(ours["per_s"] / receipted["per_s"], 2)
    found["cpu_to_receipts"] = round(ours["cpu_us"] / receipted["cpu_us"], 2)
    found["rate_to_groups"] = round(ours["per_s"] / theirs["per_s"], 2)
    found["cpu_to_groups"] = round(ours["cpu_us"] / theirs["cpu_us"], 2)
    return found


class _Peers:
    """A broker for each peer, and its subscriber."""

    def __init__(self, world: World) -> None:
        self._keeper = Keeper()
        self._folder = world.folder / "storing"

    def __enter__(self) -> _Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.stop()

    def start(self, world: World, names: list[str], red: Path | None) -> list[Subject]:
        """The peers, ready. red: where Node-RED is installed."""
        subjects = []
        for kind, name in KINDS.items():
            if kind == "node-red" and red is None:
                continue
            folder = self._folder / kind
            world.issue("localhost", server=True).write_pem(folder)
            world.issue("subscriber").write_pem(folder / "subscriber")
            (folder / "keys.json").write_text(json.dumps({one: world.key_of(one).hex() for one in names}))
            (port,) = free_ports(1)
            user = pwd.getpwuid(os.geteuid()).pw_name
            (folder / "mosquitto.conf").write_text((_BROKER + LISTENER).format(folder=folder, port=port, user=user))
            broker = Process(
                f"broker {kind}",
                [mosquitto(), "-c", str(folder / "mosquitto.conf")],
                cwd=PROJECT,
                env={},
                log=world.folder / f"storing-{kind}.log",
            )
            self._keeper.keep(broker)
            broker.start()
            if kind == "none":
                subjects.append(Subject(name, port, None, None, ""))
                continue
            log = world.folder / f"stores-{kind}.log"
            if kind == "node-red" and red:
                storing = nodered.prepare(red, folder, port, log)
            else:
                command = [sys.executable, "-m", "tests.bench.storing", kind, str(folder), str(port)]
                storing = Process(f"storing {kind}", command, cwd=PROJECT, env={}, log=log, piped=True)
            self._keeper.keep(storing)
            wait_until(lambda port=port: _listens(port), 20, "the peer's broker")  # type: ignore[misc]
            storing.start()
            database = folder / "messages.db"
            wait_until(database.exists, 20, "the peer's database")
            subjects.append(
                Subject(
                    name,
                    port,
                    lambda storing=storing: storing.pid,  # type: ignore[misc]
                    database,
                    "SELECT count(*) FROM messages",
                )
            )
        time.sleep(1)
        return subjects


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
