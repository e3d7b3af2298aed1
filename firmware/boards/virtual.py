"""The board without hardware: contacts and supply come as JSON lines on standard input, lights go out as lines.

    {"loop_a": per mille, "loop_b": per mille, "tamper": per mille, "battery_mv": mV, "mains": true}    any of them

It starts at rest. The end of the input changes nothing: the button goes on with the last readings.
"""

import asyncio
import json
import select
import sys

_MEASURED = ("loop_a", "loop_b", "tamper", "battery_mv", "mains")
_LINE = 512  # bytes; longer lines are refused
_POWER_ON = 1
_WATCHDOG_MS = 8000


def _chip() -> tuple:
    """(why it started, its watchdog, started) where a chip is played around the process; (power on, None) if not."""
    try:
        from machine import WDT, reset_cause
    except ImportError:
        return _POWER_ON, None
    return reset_cause(), WDT(timeout=_WATCHDOG_MS)


def _lan():
    """Ethernet, where a `network` is played around the process that has it; else None."""
    try:
        from network import LAN
    except ImportError:
        return None
    return LAN()  # type: ignore[call-arg]  # the one that is played has one port


class Board:
    """Readings from standard input."""

    SAMPLE_MS = 10

    def __init__(self, door, version: str) -> None:
        self.version = version
        self.reset_cause, self._watchdog = _chip()
        self.lan = _lan()
        self.tell = door.tell
        self._now = {"loop_a": 340, "loop_b": 610, "tamper": 340, "battery_mv": 4050, "mains": True}
        self._next = []  # lines that came while nothing was sampled: each is seen by one sample at least
        self._call = None

    def readings(self) -> tuple:
        """Loop A, loop B and tamper loop, per mille."""
        if self._next:
            self._now.update(self._next.pop(0))
        now = self._now
        return now["loop_a"], now["loop_b"], now["tamper"]

    def battery_mv(self) -> int:
        """The battery, mV."""
        return self._now["battery_mv"]

    def mains(self) -> bool:
        """Whether PoE or mains is there."""
        return bool(self._now["mains"])

    def rssi(self) -> None:
        """No radio."""
        return

    def flag(self) -> asyncio.Event:
        """What wakes the watching task."""
        return asyncio.Event()

    def sample_with(self, call) -> None:
        """`call` is called every SAMPLE_MS from now on; None: nothing is any more."""
        self._call = call

    def light(self, colour: str) -> None:
        """Switches the lamp."""
        self.tell("led", colour)

    def sound(self, on: bool) -> None:
        """Switches the sounder."""
        self.tell("sounder", on)

    def feed(self) -> None:
        """Tells the watchdog that the tasks run; without a chip, whoever started the process watches it."""
        if self._watchdog:
            self._watchdog.feed()

    async def run(self) -> None:
        """Samples, and reads the lines."""
        await asyncio.gather(self._sample(), self._listen())

    async def _sample(self) -> None:
        while True:
            if self._call:
                self._call()
            await asyncio.sleep_ms(self.SAMPLE_MS)

    async def _listen(self) -> None:
        # One octet at a time: only a read that the poll has promised can't block the button on half a line.
        source = asyncio.StreamReader(sys.stdin.buffer)
        more = select.poll()
        more.register(sys.stdin, select.POLLIN)
        line = b""
        while True:
            octet = await source.read(1)
            while octet not in (b"", b"\n"):
                line += octet
                if not more.poll(0):
                    break
                octet = sys.stdin.buffer.read(1)
            if not octet:
                return
            if octet == b"\n":
                self._take(line)
                line = b""

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict) or len(line) > _LINE:
            self.tell("error", "a line on standard input is not a JSON object")
            return
        for name, value in told.items():
            if name not in _MEASURED or not isinstance(value, int):
                self.tell("error", "standard input: %s is not one of %s with a number" % (name, ", ".join(_MEASURED)))
                return
        self._next.append(told)
