"""The whole button on a played chip, and one of its tasks stops after a while. Runs on MicroPython, in a button's folder.

    micropython run_frozen.py module:function|module:Class.function hang|spin after_ms

hang: it waits for what never comes, and can't be cancelled. spin: it never gives way. Says {"frozen": function} then.
"""

import asyncio
import json
import sys
import time

import tests.firmware.chip  # noqa: F401 - before the firmware looks for it
from firmware import app, route

route.LOOK_MS = 300


def stop(name, spin):
    """The task's last words, and then nothing for ever."""
    print(json.dumps({"frozen": name}))
    while spin:
        pass
    while True:
        try:
            yield from asyncio.Event().wait()
        except asyncio.CancelledError:
            pass


def freezing(name, function, spin, at_ms):
    """`function`, which is not resumed any more once `at_ms` is over."""

    def started(*args):
        task = function(*args)
        problem = None
        while True:
            if time.ticks_diff(time.ticks_ms(), at_ms) > 0:
                yield from stop(name, spin)
            try:
                if problem is None:
                    task.send(None)
                else:
                    task.throw(problem)
            except StopIteration:
                return
            problem = None
            try:
                yield
            except BaseException as thrown:
                problem = thrown

    return started


name, how, after_ms = sys.argv[1:]
module, path = name.split(":")
where = __import__("firmware." + module, None, None, ["x"])
*owners, last = path.split(".")
for part in owners:
    where = getattr(where, part)
begin_ms = time.ticks_add(time.ticks_ms(), int(after_ms))
setattr(where, last, freezing(name, getattr(where, last), how == "spin", begin_ms))
app.main()
