"""The usual ways to store what comes over MQTT: a paho subscriber that verifies, and commits each message or groups.

`python -m tests.bench.storing each|grouped|receipted FOLDER PORT`; receipted: in groups, and each sender is sent a sealed receipt,
as a station does. FOLDER holds the identity and `keys.json` (kid -> MAC key, hex).
"""

from __future__ import annotations

import json
import queue
import sqlite3
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmware import wire
from tests.bench.bare import bare_client

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, source TEXT, boot INTEGER, seq INTEGER, payload BLOB,"
    " UNIQUE (source, boot, seq))"
)
INSERT = "INSERT OR IGNORE INTO messages (source, boot, seq, payload) VALUES (?, ?, ?, ?)"


class Storing:
    """Decodes, verifies, stores, and acknowledges after the commit."""

    def __init__(self, folder: Path, *, grouped: bool, receipts: bool = False) -> None:
        told = json.loads((folder / "keys.json").read_text(encoding="utf-8"))
        self._keys = {name: bytes.fromhex(key) for name, key in told.items()}
        self._receipts = receipts
        self._database = sqlite3.connect(folder / "messages.db", isolation_level=None, check_same_thread=False)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", SCHEMA):
            self._database.execute(statement)
        self._came: queue.SimpleQueue[tuple[int, int, tuple[object, ...]]] = queue.SimpleQueue()
        self.client = bare_client("subscriber", "localhost", folder / "subscriber", keep_session=True)
        self.client.on_connect = lambda client, *_: client.subscribe([("tocsin/1/+/alarm", 1)])
        self.client.on_message = self._queue if grouped else self._store
        if grouped:
            threading.Thread(target=self._write, daemon=True).start()

    def _row(self, payload: bytes) -> tuple[object, ...]:
        envelope = wire.unseal(payload)
        if not envelope.sealed_with(self._keys[envelope.kid]):
            raise wire.WireError("the MAC is wrong")
        return envelope.kid, envelope.message[wire.BOOT], envelope.message[wire.SEQ], payload

    def _store(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._database.execute(INSERT, self._row(message.payload))  # in autocommit: the row is on the disk
        client.ack(message.mid, message.qos)

    def _queue(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._came.put((message.mid, message.qos, self._row(message.payload)))

    def _write(self) -> None:
        while True:
            taken = [self._came.get()]
            while not self._came.empty() and len(taken) < 500:
                taken.append(self._came.get())
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(INSERT, [row for _, _, row in taken])
            self._database.execute("COMMIT")
            for mid, qos, row in taken:
                self.client.ack(mid, qos)
                if self._receipts:
                    self._receipt(*row[:3])

    def _receipt(self, source: Any, boot: Any, seq: Any) -> None:
        told = {wire.KIND: wire.RECEIPT, wire.BOOT: boot, wire.SEQ: seq, wire.STAGE: wire.AT_HQ, wire.DEVICE: source}
        self.client.publish(f"tocsin/1/{source}/receipt", wire.seal(told, "hq", self._keys[source]), 1)


def main() -> None:
    """Runs until standard input ends."""
    storing = Storing(Path(sys.argv[2]), grouped=sys.argv[1] != "each", receipts=sys.argv[1] == "receipted")
    storing.client.connect("127.0.0.1", int(sys.argv[3]), 30)
    storing.client.loop_start()
    sys.stdin.read()
    storing.client.disconnect()
    storing.client.loop_stop()


if __name__ == "__main__":
    main()
