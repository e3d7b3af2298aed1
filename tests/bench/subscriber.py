"""The end of the bridge pipeline: a paho subscriber that commits every message, then receipts and acknowledges it.

`python -m tests.bench.subscriber FOLDER PORT`; FOLDER holds the identity and `receipts.json`. A line "close" on standard
input closes every alarm that is open, as an operator would.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from firmware import wire
from tests.bench.bare import bare_client

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

SCHEMA = "CREATE TABLE messages (id INTEGER PRIMARY KEY, kind INTEGER, topic TEXT, payload BLOB)"
LANES = ("alarm", "event", "heartbeat")


class Subscriber:
    """Commits what comes: one transaction for each message, as the usual script does."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "receipts.json").read_text(encoding="utf-8"))
        self._headquarters, self._device, self._key = told["hq"], told["device"], bytes.fromhex(told["key"])
        self._database = sqlite3.connect(folder / "messages.db", isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", SCHEMA):
            self._database.execute(statement)
        self._open: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self.client = bare_client("subscriber", "localhost", folder / "subscriber", keep_session=True)
        self.client.manual_ack_set(False)  # paho acknowledges when `_arrived` returns, so after the commit
        self.client.on_connect = self._connected
        self.client.on_message = self._arrived

    def _connected(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe([(f"tocsin/1/{self._device}/{lane}", 1) for lane in LANES])

    def _arrived(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        content = wire.unseal(message.payload).message
        kind = content[wire.KIND]
        self._database.execute(  # in autocommit: when it returns, the row is on the disk
            "INSERT INTO messages (kind, topic, payload) VALUES (?, ?, ?)", (kind, message.topic, message.payload)
        )
        self._receipt(content[wire.BOOT], content[wire.SEQ], wire.AT_HQ)
        if kind == wire.ALARM:
            with self._lock:
                self._open.append((content[wire.BOOT], content[wire.SEQ]))

    def _receipt(self, boot: int, seq: int, stage: int) -> None:
        content = {
            wire.KIND: wire.RECEIPT,
            wire.BOOT: boot,
            wire.SEQ: seq,
            wire.STAGE: stage,
            wire.DEVICE: self._device,
        }
        sealed = wire.seal(content, self._headquarters, self._key)
        self.client.publish(f"tocsin/1/{self._device}/receipt", sealed, 1)

    def close_all(self) -> None:
        """Receipts the last stage of every open alarm."""
        with self._lock:
            closing, self._open = self._open, []
        for boot, seq in closing:
            self._receipt(boot, seq, wire.CLOSED)


def main() -> None:
    """Runs until standard input ends."""
    subscriber = Subscriber(Path(sys.argv[1]))
    subscriber.client.connect("127.0.0.1", int(sys.argv[2]), 30)
    subscriber.client.loop_start()
    for line in sys.stdin:
        if line.strip() == "close":
            subscriber.close_all()
    subscriber.client.disconnect()
    subscriber.client.loop_stop()


if __name__ == "__main__":
    main()
