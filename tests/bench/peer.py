"""The pipeline that a user would pick instead: the same button on a mosquitto that bridges to a second mosquitto.

Both brokers ask for certificates of the world's authority; the bridge is QoS 1 with a session that lasts.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING, Self

from demo.button import Button
from demo.process import Keeper, Process, wait_until
from demo.world import HQ, PROJECT, World, free_ports, micropython

if TYPE_CHECKING:
    from pathlib import Path

DEVICE = "peer-gate"
PROBE = "bench/probe"
LISTENER = """\
listener {port} 127.0.0.1
cafile {folder}/ca.pem
certfile {folder}/cert.pem
keyfile {folder}/key.pem
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
allow_anonymous false
"""
_BROKER = """\
persistence true
persistence_location {folder}/
user {user}
set_tcp_nodelay true
max_queued_messages 10000
log_dest stderr
log_type error
log_type warning
"""
_BRIDGE = """\
connection site-to-hq
address localhost:{hq_port}
bridge_cafile {folder}/ca.pem
bridge_certfile {folder}/cert.pem
bridge_keyfile {folder}/key.pem
bridge_tls_version tlsv1.2
cleansession false
notifications false
restart_timeout 1
topic tocsin/1/+/alarm out 1
topic tocsin/1/+/event out 1
topic tocsin/1/+/heartbeat out 1
topic tocsin/1/+/receipt in 1
topic {probe} out 1
"""


def mosquitto() -> str:
    """Where mosquitto is."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        message = "mosquitto is not installed: apt install mosquitto"
        raise FileNotFoundError(message)
    return found


class Peer:
    """Site mosquitto, bridge, headquarters' mosquitto, subscriber and one button, in a folder of the world's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.folder = world.folder / "peer"
        self.site_port, self.hq_port = free_ports(2)
        for name in ("localhost", "peer-site", "subscriber", "probe"):
            world.issue(name, server=name in {"localhost", "peer-site"}).write_pem(self.folder / name)
        world.issue(DEVICE)
        user = pwd.getpwuid(os.geteuid()).pw_name
        for name, port, bridge in (("localhost", self.hq_port, ""), ("peer-site", self.site_port, _BRIDGE)):
            folder = self.folder / name
            text = (_BROKER + LISTENER + bridge).format(
                folder=folder, user=user, port=port, hq_port=self.hq_port, probe=PROBE
            )
            (folder / "mosquitto.conf").write_text(text, encoding="utf-8")
        receipts = {"hq": HQ, "device": DEVICE, "key": world.key_of(DEVICE).hex()}
        (self.folder / "receipts.json").write_text(json.dumps(receipts), encoding="utf-8")
        self.button = self._button()
        self.brokers = [
            self._process(name, [mosquitto(), "-c", str(self.folder / name / "mosquitto.conf")])
            for name in ("localhost", "peer-site")
        ]
        command = [sys.executable, "-m", "tests.bench.subscriber", str(self.folder), str(self.hq_port)]
        self.subscriber = self._process("subscriber", command, piped=True)
        self._keeper = Keeper()
        self._keeper.keep(*self.brokers, self.subscriber, self.button)

    def _process(self, name: str, command: list[str], *, piped: bool = False) -> Process:
        log = self._world.folder / f"peer-{name}.log"
        return Process(f"peer {name}", command, cwd=PROJECT, env={}, log=log, piped=piped)

    def _button(self) -> Button:
        folder = self.folder / DEVICE
        self._world.identities[DEVICE].write_der(folder / "identity")
        settings = {
            "id": DEVICE,
            "board": "virtual",
            "brokers": [["127.0.0.1", self.site_port, "peer-site"]],
            "hq": HQ,
            "hq_message_key": self._world.hq_message_point.hex(),
            "alarms_per_minute": 6000,
        }
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        return Button(DEVICE, folder, PROJECT, micropython())

    @property
    def messages(self) -> Path:
        """The subscriber's database."""
        return self.folder / "messages.db"

    def database(self) -> sqlite3.Connection:
        """A read-only connection to the subscriber's database."""
        return sqlite3.connect(f"file:{self.messages}?mode=ro", uri=True, timeout=10)

    def close_all(self) -> None:
        """Receipts the last stage of every alarm."""
        stdin = self.subscriber.stdin
        if stdin:
            stdin.write(b"close\n")
            stdin.flush()

    def __enter__(self) -> Self:
        """Starts everything and waits until the button is at rest and supervised."""
        try:
            for process in (*self.brokers, self.subscriber, self.button):
                process.start()
            wait_until(lambda: self.button.light == "rest", 40, "the bridge pipeline's button at rest")
        except BaseException:
            self._keeper.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends everything."""
        self._keeper.stop()
