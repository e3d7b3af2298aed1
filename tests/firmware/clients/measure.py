"""One client in calm, and when its broker is killed, freezes, or its link silently dies: real MicroPython, real mosquitto."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from firmware import wire
from tests.firmware.clients.peers import PEERS
from tests.firmware.far_ends import NAME, Broker, Way
from tests.parts import PROJECT, free_port, micropython

if TYPE_CHECKING:
    from provisioning.pki import Authority

HERE = Path(__file__).parent
OURS = "tocsin"
WITHOUT_TLS = {"mqtt_async"}
KEY = bytes(range(32))
SETTLE_S = 1.0


class ClientError(Exception):
    """A client can't be measured: why."""


@dataclass(frozen=True)
class Plan:
    """How much of each is done."""

    calm: int = 100  # presses
    presses: int = 100  # around an outage
    before: int = 30  # of them, acknowledged before it begins
    every_ms: int = 100
    down_s: float = 2.0
    frozen_s: float = 10.0
    patience_s: float = 20.0  # for what a client may never do


@dataclass
class Outage:
    """What became of presses around an outage.

    again_s: from its end to the first PUBACK; None: none came in time. gap_ms: the longest time without a reading of the
    button that is the client's own doing.
    """

    acknowledged: int
    again_s: float | None
    lost: int
    copies: int
    gap_ms: int


class MeasuredBroker(Broker):
    """A mosquitto that keeps its one subscriber's subscription through a kill, and listens without TLS as well."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        super().__init__(authority, folder)
        self.plain_port = free_port()

    def _settings(self) -> str:
        return (
            f"per_listener_settings true\npersistence true\npersistence_location {self._folder}/\n"
            f"max_queued_messages 100000\nlistener {self.plain_port} 127.0.0.1\nallow_anonymous true\n{super()._settings()}"
        )

    def save(self) -> None:
        """Writes subscriptions to the disk: nothing that is published after a restart passes the subscriber by."""
        self.signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not list(self._folder.glob("mosquitto.db")) and time.monotonic() < deadline:
            time.sleep(0.01)


class Headquarters:
    """Hears every press, and answers those of our button as headquarters does."""

    def __init__(self, broker: MeasuredBroker) -> None:
        self.heard: dict[str, list[object]] = {}
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, "hq", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("tocsin/1/+/alarm", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._came
        self._client.connect("127.0.0.1", broker.plain_port)

    def _came(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        name = message.topic.split("/")[2]
        number: object = message.payload[:6]
        if name.startswith(OURS):
            alarm = wire.unseal(message.payload).message
            number = (alarm[wire.BOOT], alarm[wire.SEQ])
            receipt = {wire.KIND: wire.RECEIPT, wire.BOOT: alarm[wire.BOOT], wire.SEQ: alarm[wire.SEQ]}
            receipt |= {wire.STAGE: wire.AT_HQ, wire.DEVICE: name}
            self._client.publish(f"tocsin/1/{name}/receipt", wire.seal(receipt, "hq", KEY), 1)
        self.heard.setdefault(name, []).append(number)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(15)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Client:
    """run_client.py."""

    def __init__(self, name: str, id_: str, port: int, identity: Path | None, folder: Path) -> None:
        told = {"client": name, "port": port, "id": id_, "server": NAME, "key": KEY.hex()}
        told["identity"] = str(identity) if identity else None
        folder.mkdir()
        self._process = subprocess.Popen(
            [micropython(), "-X", "heapsize=2m", str(HERE / "run_client.py"), json.dumps(told)],
            cwd=folder,
            env={"MICROPYPATH": f"{PROJECT}:{HERE / 'board'}:{PEERS}:.frozen"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._came: queue.Queue[dict[str, Any]] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"{"):
                self._came.put(json.loads(line))
            else:
                self.said.append(line.decode(errors="replace").rstrip())

    def tell(self, **what: object) -> None:
        """One line to it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()

    def until(self, name: str, count: int, patience_s: float) -> list[dict[str, Any]]:
        """So many lines of a name; fewer if they don't come in time, or the client is gone."""
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + patience_s
        while len(found) < count:
            try:
                line = self._came.get(timeout=min(0.5, max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                if time.monotonic() >= deadline or self._process.poll() is not None:
                    break
                continue
            if name in line:
                found.append(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)


@dataclass
class Figures:
    """Of one client."""

    tls: bool
    puback_ms: dict[str, float]
    heap_kb: float
    killed: Outage
    frozen: Outage
    dead_link_s: float | None
    dead_link_gap_ms: int
    lines: int = 0

    def told(self) -> dict[str, Any]:
        return asdict(self)


class Stand:
    """Where a client is measured: a broker and a headquarters of its own."""

    def __init__(self, authority: Authority, folder: Path, client: str, plan: Plan, *, tls: bool = True) -> None:
        self._authority, self._folder, self._name, self._plan = authority, folder, client, plan
        self._tls = tls and client not in WITHOUT_TLS
        self._runs = 0

    def figures(self) -> Figures:
        """All of it."""
        with contextlib.ExitStack() as stack:
            self._broker = stack.enter_context(MeasuredBroker(self._authority, self._folder / "broker"))
            self._broker.start()
            self._hq = stack.enter_context(Headquarters(self._broker))
            self._broker.save()
            puback_ms, heap_kb = self.calm()
            killed = self.killed()
            frozen = self.frozen()
            return Figures(self._tls, puback_ms, heap_kb, killed, frozen, *self.dead_link())

    @contextlib.contextmanager
    def _client(self, port: int | None = None, name: str = "") -> Any:
        """The client, connected. name: another one in its place."""
        self._runs += 1
        self._id = f"{self._name.replace('_', '-')}-{self._runs}"
        identity = self._folder / self._id
        self._authority.issue(self._id).write_der(identity)
        if port is None:
            port = self._broker.port if self._tls else self._broker.plain_port
        folder = self._folder / f"run-{self._runs}"
        with Client(name or self._name, self._id, port, identity if self._tls else None, folder) as client:
            up = client.until("up", 1, 15)
            if not up:
                raise ClientError(f"it does not connect: {client.said[-1:]}")
            client.heap_kb = up[0]["up"] / 1024
            yield client

    def calm(self) -> tuple[dict[str, float], float]:
        """Milliseconds from publishing to the PUBACK, and what the connected client takes of the heap (64 bits), KB."""
        with self._client() as client:
            client.tell(press=[self._plan.calm, 60])
            took = sorted(line["us"] / 1000 for line in client.until("acked", self._plan.calm, 30))
        if self._name == OURS:
            with self._client(name="session") as client:  # the button around it has no counterpart in the others
                pass
        hundredths = quantiles(took, n=100, method="inclusive")
        return {"p50": round(hundredths[49], 2), "p99": round(hundredths[98], 2)}, round(client.heap_kb, 1)

    def killed(self) -> Outage:
        """The broker is killed and back after a while."""

        def outage() -> int:
            self._broker.kill()
            time.sleep(self._plan.down_s)
            self._broker.start()
            return time.time_ns()

        return self._around(outage)

    def frozen(self) -> Outage:
        """The broker stands still for a while."""

        def outage() -> int:
            self._broker.signal(signal.SIGSTOP)
            time.sleep(self._plan.frozen_s)
            self._broker.signal(signal.SIGCONT)
            return time.time_ns()

        return self._around(outage)

    def _around(self, outage: Any) -> Outage:
        plan = self._plan
        with self._client() as client:
            client.tell(press=[plan.presses, plan.every_ms])
            acked = client.until("acked", plan.before, 15)
            over_ns = outage()
            acked += client.until("acked", plan.presses - len(acked), plan.patience_s)
            after = [line["at"] - over_ns for line in acked if line["at"] > over_ns]
            gap_ms = self._gap(client)
            time.sleep(SETTLE_S)
            heard = self._hq.heard.get(self._id, [])
            return Outage(
                acknowledged=len(acked),
                again_s=round(after[0] / 1e9, 2) if after else None,
                lost=plan.presses - len(set(heard)),
                copies=len(heard) - len(set(heard)),
                gap_ms=gap_ms,
            )

    def dead_link(self) -> tuple[float | None, int]:
        """From a press on a link that died before it to the PUBACK, s, None if none came in time; and the longest gap, ms."""
        with (
            Way(self._broker.port if self._tls else self._broker.plain_port) as way,
            self._client(way.port) as client,
        ):
            time.sleep(0.5)
            way.swallow()
            time.sleep(0.2)
            client.tell(press=[1, 0])
            acked = client.until("acked", 1, self._plan.patience_s)
            return (round(acked[0]["us"] / 1e6, 2) if acked else None), self._gap(client)

    def _gap(self, client: Client) -> int:
        """How long the button was not read; a client that does not even say so is still in it."""
        client.tell(gap=True)
        said = client.until("gap", 1, 5)
        return int(said[0]["gap"]) if said else int(self._plan.patience_s * 1000)
