"""Heartbeats that one station judges and supervises, a second and a core, beside a paho subscriber that only counts them.

Simulated buttons, each with its certificate, connection and key, send signed heartbeats as fast as the brokers take
them. Headquarters' station checks each MAC, its number and its time, moves the button's deadline, keeps what it says
for the pages and answers where an answer is due. The subscriber decodes nothing: it is the floor of this way to receive.
"""

from __future__ import annotations

import os
import pwd
import socket
import ssl
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx

from demo.process import Keeper, Process, wait_until
from demo.world import HQ, PROJECT, World, free_ports
from firmware import mqtt, wire
from tests.bench import gateways, usage
from tests.bench.counting import OCTETS
from tests.bench.growth import metric
from tests.bench.peer import LISTENER, mosquitto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BUTTONS = 50
BLOCKS = 6
BEAT_MS = 5_000  # of the buttons' own clocks between two heartbeats: faster than ours, so that none counts as held up
LOOK_S = 0.1  # between two looks at the count, which cost the station something, too
SILENCE_S = 5.0  # without a further one the rest is lost: heartbeats are QoS 0
_BROKER = """\
persistence false
user {user}
set_tcp_nodelay true
max_queued_messages 100000
log_type error
"""


class Subject:
    """Something that takes heartbeats. count: how many it has; pids: itself, and its broker."""

    def __init__(self, name: str, port: int, server: str, pids: tuple[int, int], count: Callable[[], int]) -> None:
        self.name = name
        self.port = port
        self.server = server
        self.pids = pids
        self.count = count
        self.rates: list[float] = []
        self.cpu_us: list[float] = []
        self.broker_us: list[float] = []
        self.lost = 0


class Sender:
    """One button: a connection to each broker, and the heartbeats of a block ready to go."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self._key = world.key_of(name)
        folder = world.folder / name
        world.identities[name].write_pem(folder)
        self._context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._links: dict[int, ssl.SSLSocket] = {}

    def connect(self, subject: Subject) -> None:
        """To a subject's broker."""
        tcp = socket.create_connection(("127.0.0.1", subject.port))
        tls = self._context.wrap_socket(tcp, server_hostname=subject.server)
        tls.sendall(mqtt.connect(self.name, 600, f"tocsin/1/{self.name}/presence", b"gone"))
        tls.recv(4)
        self._links[subject.port] = tls

    def prepare(self, first: int, count: int) -> list[bytes]:
        """PUBLISH packets of the heartbeats with the numbers from `first` on."""
        topic = f"tocsin/1/{self.name}/heartbeat"
        return [
            mqtt.publish(topic, wire.seal(gateways.beat(1, seq, seq * BEAT_MS), self.name, self._key), 0, False, 0)
            for seq in range(first, first + count)
        ]

    def send(self, subject: Subject, packet: bytes) -> None:
        """One heartbeat."""
        self._links[subject.port].sendall(packet)

    def close(self) -> None:
        """Ends the connections."""
        for one in self._links.values():
            one.close()


def measure(heartbeats: int, say: Callable[[str], None], blocks: int = BLOCKS) -> dict[str, Any]:
    """Heartbeats a second, and processor time of each, for both subjects: of BLOCKS blocks of `heartbeats`."""
    with World(buttons=[]) as world, _Peer(world) as peer:
        names = [f"beating-{number:02}" for number in range(BUTTONS)]
        for name in names:
            world.issue(name)
        world.enrol_buttons(names)
        wait_until(lambda: _known(world) >= BUTTONS, 40, "headquarters knows the buttons", every_s=0.2)
        station = world.processes[f"station {HQ}"].pid or 0
        subjects = [
            Subject("tocsin", world.hq_port, HQ, (station, world.mosquitto_pid(HQ)), lambda: _heard(world)),
            peer.start(),
        ]
        senders = [Sender(world, name) for name in names]
        try:
            for sender in senders:
                for subject in subjects:
                    sender.connect(subject)
            each = max(1, heartbeats // BUTTONS)
            refused = metric(world, "tocsin_refused_total")
            for block in range(blocks + 1):
                packets = [sender.prepare(1 + block * each, each) for sender in senders]
                for subject in subjects if block % 2 else reversed(subjects):
                    _block(subject, senders, packets, warm=block == 0)
                say(f"  block {block + 1} of {blocks + 1}")
            refused = metric(world, "tocsin_refused_total") - refused
        finally:
            for sender in senders:
                sender.close()
        online = metric(world, 'tocsin_children{kind="button",state="online"}')
        found = {"heartbeats": each * BUTTONS, "blocks": blocks, "buttons": BUTTONS, "refused": int(refused)}
        return {**found, "online": int(online), **_result(subjects)}


def _known(world: World) -> float:
    try:
        return metric(world, 'tocsin_children{kind="button",state="never_seen"}')
    except (httpx.TransportError, RuntimeError):
        return 0


def _heard(world: World) -> int:
    return int(metric(world, 'tocsin_messages_received_total{lane="heartbeat"}'))


def _block(subject: Subject, senders: Sequence[Sender], packets: Sequence[Sequence[bytes]], *, warm: bool) -> None:
    wanted = len(senders) * len(packets[0])
    before, cpu_s = subject.count(), [usage.cpu_s(pid) for pid in subject.pids]
    began = moved = time.monotonic()
    for number in range(len(packets[0])):
        for sender, mine in zip(senders, packets, strict=True):
            sender.send(subject, mine[number])
    came = 0
    while came < wanted and time.monotonic() - moved < SILENCE_S:
        time.sleep(LOOK_S)
        now = subject.count() - before
        if now > came:
            came, moved = now, time.monotonic()
    if warm:
        return
    subject.rates.append(came / (moved - began))
    used_us = [(usage.cpu_s(pid) - was) * 1e6 / came for pid, was in zip(subject.pids, cpu_s, strict=True)]
    subject.cpu_us.append(used_us[0])
    subject.broker_us.append(used_us[1])
    subject.lost += wanted - came


def _result(subjects: Sequence[Subject]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for subject in subjects:
        cpu_us = statistics.median(subject.cpu_us)
        found[subject.name] = {
            "per_s": round(statistics.median(subject.rates)),
            "least_per_s": round(min(subject.rates)),
            "cpu_us": round(cpu_us, 1),
            "per_core_s": round(1e6 / cpu_us),
            "broker_cpu_us": round(statistics.median(subject.broker_us), 1),
            "lost": subject.lost,
        }
    ours, floor = found["tocsin"], found["paho, counting"]
    found["buttons_a_core"] = ours["per_core_s"] * 5
    found["rate_to_counting"] = round(ours["per_s"] / floor["per_s"], 2)
    found["cpu_to_counting"] = round(ours["cpu_us"] / floor["cpu_us"], 2)
    return found


class _Peer:
    """A broker and the subscriber that counts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._keeper = Keeper()
        self._folder: Path = world.folder / "counting"

    def __enter__(self) -> _Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.stop()

    def start(self) -> Subject:
        """Starts both; ready when the subscriber has counted something."""
        folder, world = self._folder, self._world
        world.issue("localhost", server=True).write_pem(folder)
        world.issue("subscriber").write_pem(folder / "subscriber")
        (port,) = free_ports(1)
        user = pwd.getpwuid(os.geteuid()).pw_name
        (folder / "mosquitto.conf").write_text((_BROKER + LISTENER).format(folder=folder, port=port, user=user))
        broker = self._process("broker", [mosquitto(), "-c", str(folder / "mosquitto.conf")])
        wait_until(lambda: _listens(port), 20, "the peer's broker")
        counting = self._process("counting", [sys.executable, "-m", "tests.bench.counting", str(folder), str(port)])
        count = folder / "count"
        wait_until(count.exists, 20, "the peer's subscriber")
        time.sleep(1)  # it subscribes
        return Subject(
            "paho, counting",
            port,
            "localhost",
            (counting.pid or 0, broker.pid or 0),
            lambda: int.from_bytes(count.read_bytes()[:OCTETS], "little"),
        )

    def _process(self, name: str, command: list[str]) -> Process:
        made = Process(name, command, cwd=PROJECT, env={}, log=self._world.folder / f"{name}-peer.log", piped=True)
        self._keeper.keep(made)
        made.start()
        return made


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
