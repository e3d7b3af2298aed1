"""Looks names up, one after another, on a network that tells of a name server. Runs on MicroPython.

    micropython run_names.py port name …

Out: a JSON line {"answers": [address or error], "worst_ms": the longest time that the event loop stood still}.
"""

import asyncio
import json
import sys
import time

from tests.firmware.chip import Module

sys.modules["network"] = Module(ipconfig=lambda what: "127.0.0.1")

from firmware import names

names.PORT = int(sys.argv[1])
worst_ms = 0


async def measure():
    """How long it stands still."""
    global worst_ms
    before = time.ticks_ms()
    while True:
        await asyncio.sleep_ms(5)
        now = time.ticks_ms()
        worst_ms = max(worst_ms, time.ticks_diff(now, before) - 5)
        before = now


async def main():
    """Asks."""
    asyncio.create_task(measure())
    answers = []
    for name in sys.argv[2:]:
        try:
            answers.append(await names.resolved(name))
        except OSError as problem:
            answers.append(str(problem))
    print(json.dumps({"answers": answers, "worst_ms": worst_ms}))


asyncio.run(main())
