"""The heartbeat's contents: what a station needs to know to trust this button with the next press."""

import gc

from firmware import loop, wire

MAX_SHOWN = 16  # alarms in one heartbeat: more would not fit into an envelope beside the rest

_LINES = {loop.CUT: wire.LOOP_IS_CUT, loop.SHORTED: wire.LOOP_IS_SHORTED, loop.FAULTY: wire.LOOP_IS_FAULTY}


def loop_state(loops: loop.Loops) -> int:
    """LOOP: a line that is not in order first. A press has its own message; a broken line would hide behind it."""
    worst = loops.worst()
    if worst in _LINES:
        return _LINES[worst]
    return wire.LOOP_PRESSED if loops.pressed else wire.LOOP_AT_REST


def shown(alarms: list, turn: int) -> list:
    """SHOWN: the alarms on the light. Of more than MAX_SHOWN, each heartbeat (`turn`) takes the next ones."""
    start = turn * MAX_SHOWN % len(alarms) if len(alarms) > MAX_SHOWN else 0
    return [[alarm.boot, alarm.seq, alarm.stage] for alarm in alarms[start : start + MAX_SHOWN]]


def heap_free() -> int:
    """Free bytes of the heap once what nobody needs is gone; 0 where the Python does not say."""
    gc.collect()
    return gc.mem_free() if hasattr(gc, "mem_free") else 0


def heartbeat(number: tuple, loops: loop.Loops, **health) -> dict:
    """A heartbeat.

    health: uptime_ms, battery_mv, mains, reset, firmware, pending, shown, delay_ms, reconnects, refused; rssi if a
    radio carries the session; path and spare on a board with more than one path; testing
    while presses are or may become tests; wanted if pieces of an update are; answered once one of this start was.
    """
    message = {
        wire.KIND: wire.HEARTBEAT,
        wire.BOOT: number[0],
        wire.SEQ: number[1],
        wire.LOOP: loop_state(loops),
        wire.TAMPER: 1 if loops.tampered else 0,
        wire.BATTERY: health["battery_mv"],
        wire.SUPPLY: wire.ON_MAINS if health["mains"] else wire.ON_BATTERY,
        wire.HEAP: health["heap"],
        wire.HEAP_LEAST: health["heap_least"],
        wire.UPTIME: health["uptime_ms"],
        wire.RESET: health["reset"],
        wire.FIRMWARE: health["firmware"],
        wire.PENDING: health["pending"],
        wire.SHOWN: health["shown"],
        wire.DELAY: health["delay_ms"],
        wire.RECONNECTS: health["reconnects"],
        wire.REFUSED: health["refused"],
        wire.STORAGE: int(health["storage_failed"]),
    }
    seldom = (
        (wire.RSSI, "rssi"),
        (wire.PATH, "path"),
        (wire.SPARE, "spare"),
        (wire.TESTING, "testing"),
        (wire.WANTED, "wanted"),
        (wire.ANSWERED, "answered"),
    )
    for field, name in seldom:
        if health.get(name) is not None:
            message[field] = health[name]
    return message
