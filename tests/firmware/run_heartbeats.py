"""Years of a button in minutes: heartbeats, each answered, with faults and presses among them. For MicroPython, in an empty folder.

    micropython run_heartbeats.py count

Real: button, latch, outbox and its files, wire, health. Played: the clock, 5 s a heartbeat, and the far end, which unseals every
message and answers it. Out: one JSON line {"heartbeats", "years", "alloc": bytes of heap in use after each tenth, "longest":
octets of a message in each tenth, "events", "alarms", "files"}.
"""

import gc
import json
import os
import sys

from firmware import wire
from firmware.button import Button
from firmware.flash import Flash
from firmware.outbox import Outbox
from tests.firmware.pretended import Board, settings_of

ID = "khi-cn-b1"
KEY = bytes(range(32))
BEAT_MS = 5000
CUT = 1000, 610, 340
PRESSED = 610, 340, 340
REST = 340, 610, 340


class Clock:
    """Winds itself only when told to."""

    def __init__(self):
        self.now = 0

    def ms(self):
        return self.now

    def advance(self):
        return self.now


class Contacts(Board):
    """A board whose contacts move."""

    now = REST

    def readings(self):
        return self.now


class Far:
    """A session that is up, and what headquarters received over it."""

    up = True
    urgent = False
    reconnects = refused = 0

    def __init__(self):
        self.came = []
        self.longest = 0

    def publish(self, topic, payload, qos, retain=False):
        """Takes everything."""
        self.longest = max(self.longest, len(payload))
        self.came.append(wire.unseal(payload).message)
        return True


def move(button, clock, contacts):
    """The contacts change, and stay so until that is believed."""
    button.board.now = contacts
    for _ in range(50):
        clock.now += 10
        if button.sample():
            button.moved()


def main(count):
    """`count` heartbeats."""
    clock = Clock()
    board = Contacts()
    flash = Flash("state")
    button = Button(settings_of(ID), KEY, Outbox(flash, print), board, clock, lambda: None)
    far = button.session = Far()
    topic = "tocsin/1/%s/receipt" % ID
    alloc, longest = [], []
    events = alarms = 0
    gc.collect()
    for n in range(1, count + 1):
        clock.now += BEAT_MS
        button.sample()
        if n % 1000 == 500:
            move(button, clock, CUT)
            move(button, clock, REST)
        if n % 5000 == 2500:
            move(button, clock, PRESSED)
            move(button, clock, REST)
        button.tend()
        button.beat()
        button.send_due()
        while far.came:
            message = far.came.pop(0)
            kind = message[wire.KIND]
            receipt = {
                wire.KIND: wire.RECEIPT,
                wire.BOOT: message[wire.BOOT],
                wire.SEQ: message[wire.SEQ],
                wire.DEVICE: ID,
            }
            receipt[wire.STAGE] = wire.AT_GATEWAY
            button.received(topic, wire.encode(receipt))
            stages = (wire.AT_HQ,)
            if kind == wire.ALARM:
                alarms += 1
                stages = (wire.AT_HQ, wire.ACKNOWLEDGED, wire.RESPONDING, wire.CLOSED)
            elif kind == wire.EVENT:
                events += 1
            elif n % 12:
                continue  # headquarters itself answers one a minute
            for stage in stages:
                receipt[wire.STAGE] = stage
                button.received(topic, wire.seal(receipt, "hq", KEY))
            button.send_due()
        if not n % (count // 10):
            gc.collect()
            alloc.append(gc.mem_alloc())
            longest.append(far.longest)
            far.longest = 0
    if button.latch.alarms or button.outbox.waiting or button.refused:
        raise RuntimeError("something was left over")
    told = {"heartbeats": count, "years": count * BEAT_MS / 31557600000, "alloc": alloc, "longest": longest}
    told.update({"events": events, "alarms": alarms, "files": len(list(os.ilistdir("state")))})
    print(json.dumps(told))


main(int(sys.argv[1]))
