"""Power cuts on a real LittleFS, the file system of the board, in memory; for real MicroPython.

The story of an alarm and an event is cut at every program and erase operation of the flash, the last one torn in half;
then the flash is mounted again. Prints "passed" and the number of cuts when every promise was kept.
"""

from firmware import wire
from firmware.flash import Flash
from firmware.latch import Alarm
from firmware.outbox import Outbox
from tests.firmware.nor_flash import Chip, formatted, mounted, unmounted


def opened(complaints):
    return Outbox(Flash("state"), complaints.append)


def story(box, done):
    """A press, an event, and headquarters' receipts for both."""
    alarm = Alarm(box.boot, box.number()[1], 0, 1, 0)
    box.keep_alarm(alarm, 20)
    done.append("alarm")
    box.add_event(30, 30, wire.LOOP_CUT, "A")
    done.append("event")
    alarm.stage = wire.AT_HQ
    box.keep_alarm(alarm, 120)
    done.append("at HQ")
    box.remove_event(box.events[-1])
    done.append("event gone")
    box.remove_alarm(alarm.boot, alarm.seq)
    done.append("closed")


def cut_after(octets, operations):
    """Runs the story with the power gone after so many operations; whether it came to its end."""
    chip = Chip(bytearray(octets))
    mounted(chip)
    chip.left = operations
    done, complaints, boot = [], [], 1
    try:
        box = opened(complaints)
        boot = box.boot
        story(box, done)
    except OSError:
        pass
    chip.left = 1 << 30
    unmounted()
    mounted(Chip(chip.octets))
    box = opened(complaints)
    assert not complaints, complaints
    assert box.boot > boot, "a boot number was used twice"
    stages = [alarm.stage for alarm in box.alarms]
    if "closed" in done:
        assert stages == []
    elif "event gone" not in done and "alarm" in done:
        assert stages == ([2] if "at HQ" in done else [0]) or (stages == [2] and "event" in done), stages
    if "event" in done and "at HQ" not in done:
        assert len(box.events) == 1 and box.event(box.events[0], 0)[wire.SUBJECT] == "A"
    unmounted()
    return "closed" in done


fresh = formatted()
mounted(fresh)
opened([])
unmounted()
cuts = 0
while not cut_after(fresh.octets, cuts):
    cuts += 1
print("passed", cuts)
