"""A real IP link that loses packets: TUN devices in network namespaces of their own, joined by a program that drops.

netem does the same in the kernel, which not every machine's kernel has. Needs root and /dev/net/tun.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from demo.process import _end_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
MTU = 1400


def why_not() -> str:
    """Why no such link can be made here; "" if one can."""
    if os.geteuid():
        return "network namespaces need root"
    try:
        with Lossy(("a",)):
            return ""
    except (OSError, subprocess.SubprocessError) as error:
        return f"no TUN device or network namespace can be made here: {error}"


class Lossy:
    """A network of this machine and other `places`, each with an address of its own. `loss`: the share that is dropped."""

    def __init__(self, places: Sequence[str], chance: random.Random | None = None) -> None:
        self.loss = 0.0
        self.passed = self.dropped = 0
        self._chance = chance or random.Random()
        number = self._chance.randrange(1 << 13)
        self._net = (198 << 24) | (18 << 16) | (number << 3 << 0)
        self._places = ("here", *places)
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._ends: dict[int, int] = {}
        self._ending, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._pump, daemon=True)

    def address(self, place: str) -> str:
        """The IP address of a place."""
        return ".".join(map(str, struct.pack(">I", self._number(place))))

    def _number(self, place: str) -> int:
        return self._net + 1 + self._places.index(place)

    def command(self, place: str, command: Sequence[str]) -> list[str]:
        """A command as it runs in a place."""
        if place == "here":
            return list(command)
        return ["nsenter", f"--net=/proc/{self._holders[place].pid}/ns/net", *command]

    def __enter__(self) -> Self:
        try:
            for place in self._places:
                self._make(place)
        except BaseException:
            self._close()
            raise
        self._thread.start()
        return self

    def _make(self, place: str) -> None:
        device = f"tocsin{os.getpid() % 100_000}{place[:2]}"
        if place != "here":
            holder = subprocess.Popen(
                ["unshare", "-n", "sleep", "3600"], stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent
            )
            self._holders[place] = holder
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._ends[self._number(place)] = end
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH14s", device.encode(), _TUN_WITHOUT_HEADER, b""))
        if place != "here":
            self._wait_for_namespace(place)
            _run(["ip", "link", "set", device, "netns", str(self._holders[place].pid)])
            _run(self.command(place, ["ip", "link", "set", "lo", "up"]))
        for words in (f"addr add {self.address(place)}/29 dev {device}", f"link set {device} mtu {MTU} up"):
            _run(self.command(place, ["ip", *words.split()]))

    def _wait_for_namespace(self, place: str) -> None:
        own, path = Path("/proc/self/ns/net").readlink(), Path(f"/proc/{self._holders[place].pid}/ns/net")
        for _ in range(500):
            if path.readlink() != own:
                return
            threading.Event().wait(0.01)
        raise OSError("unshare made no network namespace")

    def _pump(self) -> None:
        while True:
            ready, _, _ = select.select([*self._ends.values(), self._ending], [], [])
            if self._ending in ready:
                return
            for end in ready:
                packet = os.read(end, 65536)
                to = self._ends.get(int.from_bytes(packet[16:20], "big"))
                if packet[0] >> 4 != 4 or to is None:
                    continue
                if self._chance.random() < self.loss:
                    self.dropped += 1
                    continue
                self.passed += 1
                with contextlib.suppress(OSError):
                    os.write(to, packet)

    def __exit__(self, *_: object) -> None:
        os.write(self._wake, b"x")
        self._thread.join(10)
        self._close()

    def _close(self) -> None:
        for end in self._ends.values():
            os.close(end)
        for holder in self._holders.values():
            holder.kill()
            holder.wait(10)
        os.close(self._ending)
        os.close(self._wake)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    print(why_not() or "a lossy link can be made here", file=sys.stderr)
