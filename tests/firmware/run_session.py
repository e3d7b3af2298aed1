"""A session at work, told what to do: JSON lines in, JSON lines out. Runs on MicroPython.

    micropython run_session.py '{"id": …, "brokers": […], "identity": …, "vigil": {constants to change}, "route": …}'

In: {"publish": [topic, payload, QoS]}, {"flood": [topic, payload length]}, {"urgent": bool}, {"sum": true},
{"fail": callback's name, or "write" for the acknowledgement of the next message}, {"latency": count}, {"close": true}. Out: {"up": sessions so far}, {"down": reason}, {"log": text},
{"message": [topic, text]}, {"published": bool}, {"flooded": n}, {"sum": {…}}, {"latency_us": […]}, {"closed": true}.
"""

import asyncio
import gc
import json
import os
import sys
import time

from firmware import mqtt, route, vigil
from firmware.session import Session

STALL_TICK_MS = 5


def tell(**line):
    """One line to the test."""
    print(json.dumps(line))


class Probe:
    """A session and what its callbacks were called with."""

    def __init__(self, told):
        self.wills = 0
        self.failing = None
        self.worst_ms = self.weighed = 0
        self.topic = "tocsin/1/%s/" % told["id"]
        self.session = Session(
            told["id"],
            told["brokers"],
            told["identity"],
            will=self.will,
            on_message=self.received,
            on_up=self.came_up,
            on_down=self.went_down,
            log=lambda text: tell(log=text),
            weigh=self.weigh,
        )

    def weigh(self):
        """Called where most of the heap is in use."""
        self.weighed += 1

    def fail(self, name):
        """Raises once if the test wants this callback to fail."""
        if self.failing == name:
            self.failing = None
            raise RuntimeError("the test's " + name)

    def will(self):
        """A last will that counts."""
        self.wills += 1
        self.fail("will")
        return self.topic + "presence", b"gone %d" % self.wills

    def came_up(self):
        """Publishes presence, as a button does."""
        self.session.publish(self.topic + "presence", b"here %d" % self.wills, 1, True)
        tell(up=self.session.reconnects + 1)
        self.fail("on_up")

    def went_down(self, reason):
        """Tells why."""
        tell(down=reason)
        self.fail("on_down")

    def received(self, topic, payload):
        """Tells what."""
        try:
            text = payload.decode()
        except UnicodeError:
            text = str(payload)
        tell(message=[topic, text])
        if self.failing == "write":
            self.failing = None
            self.session._link.write = self.broken
        self.fail("on_message")

    def broken(self, octets):
        """A socket that is gone, as writing notices it."""
        raise OSError(32)

    async def measure_stalls(self):
        """The longest time that the event loop kept a task waiting."""
        before = time.ticks_ms()
        while True:
            await asyncio.sleep_ms(STALL_TICK_MS)
            now = time.ticks_ms()
            self.worst_ms = max(self.worst_ms, time.ticks_diff(now, before) - STALL_TICK_MS)
            before = now

    def sum(self):
        """What is left after collecting garbage, and counts."""
        gc.collect()
        free = gc.mem_free()
        worst_ms, self.worst_ms = self.worst_ms, 0
        return {
            "free": free,
            "files": len(list(os.ilistdir("/proc/self/fd"))),
            "worst_ms": worst_ms,
            "up": self.session.up,
            "reconnects": self.session.reconnects,
            "refused": self.session.refused,
            "weighed": self.weighed,
        }

    async def latency(self, count):
        """Microseconds from publishing to the PUBACK, `count` times."""
        came = asyncio.Event()
        take = self.session._take
        self.session._take = lambda packet: (packet[0] == mqtt.PUBACK and came.set(), take(packet))[1]
        took = []
        for _ in range(count):
            before = time.ticks_us()
            self.session.publish(self.topic + "event", bytes(300), 1)
            await came.wait()
            took.append(time.ticks_diff(time.ticks_us(), before))
            came.clear()
            await asyncio.sleep_ms(5)
        self.session._take = take
        tell(latency_us=took)

    def flood(self, topic, length):
        """Publishes until the socket is full."""
        n = 0
        while self.session.publish(topic, b"%08d" % n + bytes(length - 8), 1):
            n += 1
        tell(flooded=n)

    async def obey(self):
        """Reads what to do."""
        reader = asyncio.StreamReader(sys.stdin.buffer)
        while True:
            line = await reader.readline()
            if not line:
                return
            for what, value in json.loads(line).items():
                if what == "publish":
                    tell(published=self.session.publish(value[0], value[1].encode(), value[2]))
                elif what == "flood":
                    self.flood(*value)
                elif what == "urgent":
                    self.session.urgent = value
                elif what == "fail":
                    self.failing = value
                    tell(failing=value)
                elif what == "latency":
                    await self.latency(value)
                elif what == "sum":
                    tell(sum=self.sum())
                elif what == "close":
                    await self.session.close()
                    tell(closed=True)
                    return


async def main():
    """Runs until told to close, or until the test goes away."""
    told = json.loads(sys.argv[1])
    for module in (vigil, route):
        for name, value in told.get(module.__name__.split(".")[1], {}).items():
            setattr(module, name, value)
    probe = Probe(told)
    others = [asyncio.create_task(task) for task in (probe.session.run(), probe.measure_stalls())]
    await probe.obey()
    for task in others:
        task.cancel()


asyncio.run(main())
