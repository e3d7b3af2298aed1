"""A whole button without sockets, one connection after another to a broker that lies. For MicroPython, in an empty folder.

    micropython run_lies.py first count

Each connection is one seed from `first` on: the real session, parser, button, commands and outbox; only the octets come from
lies.py. Out: a JSON line {"connections", "endings": {why: how often}, "worst_ms", "grown": bytes of heap, "refused": messages}.
"""

import asyncio
import gc
import json
import sys
import time

from firmware import session as sessions
from firmware import wire
from firmware.button import Button
from firmware.clock import Clock
from firmware.command import Commands
from firmware.flash import Flash
from firmware.latch import Alarm
from firmware.outbox import Outbox
from firmware.session import Session
from tests.firmware.lies import Draw, lie
from tests.firmware.pretended import Board, settings_of

KEY = bytes(range(32))
WARM = 100
ID = "khi-cn-b1"


class Far:
    """What a session takes for a link: its other end accepts, says `pieces`, and closes."""

    pieces = []
    draw = None

    async def open(self, trust, address, port, name, source=None):
        self._rest = None

    async def send_first(self, octets, weigh=None):
        if weigh is not None:
            weigh()
        at = 2 + octets[1]
        Far.pieces.insert(0, b"\x20\x02\x00\x00\x90\x04" + octets[at + 2 : at + 4] + b"\x01\x01")
        return len(octets)

    def write(self, octets):
        return Far.draw.below(len(octets) + 1)

    def read_into(self, room):
        if not len(room):
            raise RuntimeError("no room to read into")
        if not Far.pieces:
            return 0
        if not Far.draw.below(3):
            return None
        piece = Far.pieces.pop(0)
        n = min(len(room), len(piece))
        room[:n] = piece[:n]
        if n < len(piece):
            Far.pieces.insert(0, piece[n:])
        return n

    async def readable(self):
        await asyncio.sleep_ms(0)

    async def writable(self):
        await asyncio.sleep_ms(0)

    def close(self):
        Far.pieces = []


def envelopes(number):
    """What headquarters could say to this button, each with a seal; and what others say."""
    made = []
    for stage in (2, 3, 4, 5):
        receipt = {
            wire.KIND: wire.RECEIPT,
            wire.BOOT: number[0],
            wire.SEQ: number[1],
            wire.STAGE: stage,
            wire.DEVICE: ID,
        }
        made.append(wire.seal(receipt, "hq", KEY))
        made.append(wire.seal(receipt, "hq", bytes(32)))
    for code in (wire.IDENTIFY, wire.WIFI, wire.TEST_ALARM, wire.CONFIGURE, wire.RENEW):
        order = {
            wire.KIND: wire.COMMAND,
            wire.BOOT: 1,
            wire.SEQ: code,
            wire.DEVICE: ID,
            wire.CODE: code,
            wire.DETAIL: b"x",
            wire.UPON: list(number),
        }
        made.append(wire.seal(order, "hq", KEY))
    return made


async def main(first, count):
    """Seeds `first` to `first + count - 1`."""
    sessions.Link = Far
    sessions.context = lambda *_: None
    told = settings_of(ID)
    flash = Flash("state")
    button = Button(told, KEY, Outbox(flash, print), Board(), Clock(), lambda: None)
    button.session = Session(
        ID, told.brokers, "", will=button.will, on_message=button.received, on_up=button.connected,
        on_down=button.disconnected, weigh=None,
    )  # fmt: skip
    button.commands = Commands(told, KEY, flash, button, None)
    button.session._task = asyncio.current_task()
    alarm_number = button.outbox.number()
    alarm = Alarm(alarm_number[0], alarm_number[1], 0, wire.HOLD_UP, wire.BOTH_CONTACTS)
    button.latch.add(alarm)
    topics = ["tocsin/1/%s/%s" % (ID, lane) for lane in ("receipt", "command", "alarm")]
    button._answered_beat = (alarm_number, button.clock.ms())
    sealed = envelopes(alarm_number)
    endings = {}
    worst_ms = before = 0
    for seed in range(first, first + count):
        if seed - first == min(WARM, count // 2):
            gc.collect()
            before = gc.mem_alloc()
        Far.draw = Draw(~seed)
        Far.pieces = lie(seed, topics, sealed)
        began = time.ticks_ms()
        why = await button.session._one(told.brokers[0])
        worst_ms = max(worst_ms, time.ticks_diff(time.ticks_ms(), began))
        why = "".join([c for c in why[len("127.0.0.1:1: ") :] if not c.isdigit()])
        if why not in endings and len(endings) < 60:
            endings[why] = 0
        endings[why] = endings.get(why, 0) + 1
        if (
            alarm.stage >= wire.AT_HQ
            or button.supervised_for_ms()
            or button.outbox.waiting
            or alarm not in button.latch.alarms
        ):
            raise RuntimeError("seed %d was believed" % seed)
    why = None
    Far.pieces = []
    gc.collect()
    grown = gc.mem_alloc() - before
    print(
        json.dumps(
            {"connections": count, "endings": endings, "worst_ms": worst_ms, "grown": grown, "refused": button.refused}
        )
    )


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
