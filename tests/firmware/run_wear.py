"""How much flash the outbox wears out, and how much heap 2,000 events take; for real MicroPython.

Prints one line of JSON: blocks erased per event (kept and removed), per alarm (kept, moved on twice, removed), both with
2,000 events waiting, and per record that is appended to a file instead; octets of heap that an opened outbox takes.
"""

import gc
import json

from firmware import outbox, wire
from firmware.flash import Flash
from firmware.latch import Alarm
from tests.firmware import nor_flash

nor_flash.BLOCKS = 480


class Chip(nor_flash.Chip):
    """Counts what it erases."""

    erased = 0

    def ioctl(self, operation, argument):
        if operation == 6:
            self.erased += 1
        return super().ioctl(operation, argument)


def complain(sentence):
    raise AssertionError(sentence)


chip = Chip(nor_flash.formatted().octets)
nor_flash.mounted(chip)
box = outbox.Outbox(Flash("state"), complain)
for n in range(outbox.MAX_EVENTS):
    box.add_event(n, n, wire.LOOP_CUT, "A")
chip.erased = 0
for n in range(200):  # each pushes the oldest out
    box.add_event(n, n, wire.LOOP_CUT, "A")
erased_per_event = chip.erased / 200
chip.erased = 0
for n in range(50):
    alarm = Alarm(box.boot, box.number()[1], n, 1, 0)
    for stage in (0, 1, 2):
        alarm.stage = stage
        box.keep_alarm(alarm, n)
    box.remove_alarm(alarm.boot, alarm.seq)
erased_per_alarm = chip.erased / 50
box = None
gc.collect()
before = gc.mem_alloc()
box = outbox.Outbox(Flash("state"), complain)
gc.collect()
heap = gc.mem_alloc() - before
assert box.waiting == outbox.MAX_EVENTS and len(box.events) == outbox.HEAD
chip.erased = 0
for n in range(50):
    with open("state/log", "ab") as file:
        file.write(bytes(70))
        file.flush()
print(
    json.dumps(
        {
            "erased_per_event": erased_per_event,
            "erased_per_alarm": erased_per_alarm,
            "erased_per_appended_record": chip.erased / 50,
            "heap_of_the_outbox": heap,
        }
    )
)
nor_flash.unmounted()
