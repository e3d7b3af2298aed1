"""The least that could take heartbeats: a paho subscriber that decodes nothing and counts.

`python -m tests.bench.counting FOLDER PORT`: FOLDER holds the identity, and the count in the file `count`, 8 octets.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import link

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

OCTETS = 8


class Counting:
    """Counts messages into a file that another process reads."""

    def __init__(self, folder: Path) -> None:
        path = folder / "count"
        path.write_bytes(bytes(OCTETS))
        with path.open("r+b") as file:
            self._shown = mmap.mmap(file.fileno(), OCTETS)
        self._count = 0
        self.client = link.client("subscriber", "localhost", folder / "subscriber", keepalive_s=30, keep_session=False)
        self.client.on_connect = lambda client, *_: client.subscribe([("tocsin/1/+/heartbeat", 1)])
        self.client.on_message = self._counted

    def _counted(self, *_: mqtt.Client | object) -> None:
        self._count += 1
        self._shown[:] = self._count.to_bytes(OCTETS, "little")


def main() -> None:
    """Runs until standard input ends."""
    counting = Counting(Path(sys.argv[1]))
    counting.client.connect("127.0.0.1", int(sys.argv[2]), 30)
    counting.client.loop_start()
    sys.stdin.read()
    counting.client.disconnect()
    counting.client.loop_stop()


if __name__ == "__main__":
    main()
