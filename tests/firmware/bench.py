"""A button on the bench: the real main.py on real MicroPython, a real mosquitto with mutual TLS, and a paho-mqtt peer.

The peer plays gateway and headquarters.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from paho.mqtt.enums import CallbackAPIVersion

from firmware import wire
from tests.parts import PROJECT, free_port, micropython, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from provisioning.pki import Authority, Identity

DEADLINE_S = 15.0
REST = {"loop_a": 340, "loop_b": 610}
PRESSED = {"loop_a": 610, "loop_b": 340}

Line = dict[str, Any]


class Button:
    """One start of a button: a process, what it says, and its contacts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[Line] = []
        self._let_go = False
        self._came: queue.Queue[Line | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for octets in self.process.stdout:
            self._came.put(json.loads(octets))
        self._came.put(None)

    def set(self, **readings: int) -> None:
        """Changes readings."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(readings).encode() + b"\n")
        self.process.stdin.flush()

    def press(self) -> tuple[int, int]:
        """Presses, waits until it is latched, and lets go: (boot, seq). A second press waits for rest first."""
        if self._let_go:
            self.until("loop", {"pressed": False})
        self.set(**PRESSED)
        latched = self.until("latched")["latched"]
        self.set(**REST)
        self._let_go = True
        return latched["boot"], latched["seq"]

    def until(self, name: str, value: object = None, **more: object) -> Line:
        """The next line with this name (and value, and more); AssertionError with what came instead."""
        deadline, passed = time.monotonic() + DEADLINE_S, list[Line]()
        while True:
            try:
                line = self._came.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no {name} {value} {more}, but {passed}"
            self.lines.append(line)
            passed.append(line)
            fits = name in line and (value is None or line[name] == value)
            if fits and all(line.get(key) == wanted for key, wanted in more.items()):
                return line

    def until_light(self, name: str) -> Line:
        """The next change of light to `name`."""
        return self.until("light", name)

    def drain(self) -> list[Line]:
        """Whatever was said since."""
        drained = []
        with contextlib.suppress(queue.Empty):
            while (line := self._came.get_nowait()) is not None:
                drained.append(line)
        self.lines += drained
        return drained

    def cut_power(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)


class Peer:
    """Gateway and headquarters in one: reads all topics, publishes what it is told to."""

    def __init__(self, port: int, identity: Identity, folder: Path) -> None:
        identity.write_pem(folder)
        self.came: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._ready = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, identity.name)
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.check_hostname = False
        self._client.tls_set_context(context)
        self._client.on_connect = lambda client, *_: client.subscribe("tocsin/1/+/+", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _, __, message: self.came.put((message.topic, bytes(message.payload)))
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, device: str, payload: bytes) -> None:
        """A message on the receipt topic of `device`."""
        self._client.publish(f"tocsin/1/{device}/receipt", payload, 1)

    def command(self, device: str, payload: bytes) -> None:
        """A message on the command topic of `device`."""
        self._client.publish(f"tocsin/1/{device}/command", payload, 1)


class Post:
    """One button's side of the peer: its key, its messages, receipts for it."""

    def __init__(self, peer: Peer, device: str, key: bytes) -> None:
        self.peer = peer
        self.device = device
        self.key = key

    def until(self, lane: str, fits: Callable[[dict[int, Any]], bool] = lambda _: True) -> dict[int, Any]:
        """The next message of this button in a lane that fits; every envelope on the way must be sealed."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            topic, payload = self.peer.came.get(timeout=max(0.01, deadline - time.monotonic()))
            if topic.split("/")[2] != self.device or topic.endswith(("/receipt", "/command")):
                continue
            envelope = wire.unseal(payload)
            assert envelope.sealed_with(self.key)
            assert envelope.kid == self.device
            if topic.endswith("/" + lane) and fits(envelope.message):
                return envelope.message

    def receipt(self, number: tuple[int, int], stage: int, **wrong: Any) -> None:  # noqa: ANN401 - parts of a receipt
        """A receipt; sealed from stage 2 on. wrong: kid, key, device or bare, to send one that must be refused."""
        message = {0: 4, 1: number[0], 2: number[1], 10: stage, 11: wrong.get("device", self.device)}
        bare = wrong.get("bare", stage == wire.AT_GATEWAY)
        sealed = wire.seal(message, wrong.get("kid", "hq"), wrong.get("key", self.key))
        self.peer.publish(self.device, wire.encode(message) if bare else sealed)


class Bench:
    """An authority, headquarters' message key and a broker's port; buttons are made on it."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.folder = folder
        self.port = free_port()
        self.hq = ec.generate_private_key(ec.SECP256R1())

    @contextlib.contextmanager
    def broker(self) -> Iterator[None]:
        """A mosquitto that wants client certificates."""
        site = self.folder / "site"
        self.authority.issue("khi-cn", server=True).write_pem(site)
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\ncafile {site}/ca.pem\ncertfile {site}/cert.pem\nkeyfile {site}/key.pem\n"
            "require_certificate true\nuse_identity_as_username true\nallow_anonymous false\nuser root\n"
            "max_queued_messages 100000\n",
            encoding="utf-8",
        )
        command = ["mosquitto", "-c", str(config)]
        with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            self._broker = process
            yield

    def stop_broker(self) -> None:
        """SIGKILL to the broker."""
        self._broker.kill()
        self._broker.wait(DEADLINE_S)

    def post(self, peer: Peer, device: str) -> Post:
        """Enrols a button, and its headquarters."""
        return Post(peer, device, self.enrol(device))

    def enrol(self, device: str) -> bytes:
        """Makes a button's folder, with identity and settings; its message key."""
        identity = self.authority.issue(device)
        identity.write_der(self.folder / device / "identity")
        point = self.hq.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        told = {
            "id": device,
            "board": "virtual",
            "brokers": [["127.0.0.1", self.port, "khi-cn"]],
            "hq": "hq",
            "hq_message_key": point.hex(),
            "alarms_per_minute": 6000,
        }
        (self.folder / device / "settings.json").write_text(json.dumps(told), encoding="utf-8")
        shared = self.hq.exchange(ec.ECDH(), identity.key.public_key())
        return wire.message_key(shared, device, "hq")

    @staticmethod
    def command() -> list[str]:
        """What starts a button."""
        return [micropython(), "-X", "heapsize=2m", str(PROJECT / "firmware" / "main.py")]

    def place(self, device: str) -> dict[str, Any]:
        """Where a button runs: its folder is its flash."""
        return {"cwd": self.folder / device, "env": {"MICROPYPATH": f"{PROJECT}:.frozen"}}

    @contextlib.contextmanager
    def button(self, device: str) -> Iterator[Button]:
        """A start of the button."""
        command, place = self.command(), self.place(device)
        with running(command, **place, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield Button(process)
