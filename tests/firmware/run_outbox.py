"""Writes alarms into an outbox in the folder `state` as fast as it can, until it is killed; runs on MicroPython.

Prints "boot n", then "kept boot seq" after each alarm was written and "removing boot seq" before one goes.
"""

from firmware.flash import Flash
from firmware.latch import Alarm
from firmware.outbox import Outbox

box = Outbox(Flash("state"), lambda sentence: print("complaint", sentence))
print("boot", box.boot)
while True:
    boot, seq = box.number()
    alarm = Alarm(boot, seq, 0, 1, 0)
    box.keep_alarm(alarm, seq)
    print("kept", boot, seq)
    alarm.stage = 2
    box.keep_alarm(alarm, seq + 1)
    if seq % 3 == 0:
        print("removing", boot, seq - 1)
        box.remove_alarm(boot, seq - 1)
