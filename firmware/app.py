"""The whole button on one page: builds every part and starts the tasks.

board -> loop -> latch -> outbox -> session, and receipts back to the light. The contacts are read by the board's own
timer, not by a task that others could keep waiting. A task that fails or hangs (roll.py) stops the button loudly: the
error is kept in state/errors, and the board starts again with every open alarm still in flash.
"""

import asyncio
import gc
import os
import sys

import firmware
from firmware import VERSION, bench, indicator, loop, paths, renewal, settings, slots, update, wifi, wire
from firmware.button import Button
from firmware.clock import Clock
from firmware.command import Commands
from firmware.door import Door
from firmware.faults import Faults
from firmware.flash import Flash
from firmware.outbox import Outbox
from firmware.roll import Roll
from firmware.session import Session

BEAT_MS = 5000
FEED_MS = 1000
ROUND_MS = 1000  # the longest that a task sleeps which waits for a bell
RESTART_MS = 200  # longer than a contact that has just closed needs to be believed
UNSAMPLED_MS = 5000  # a TLS handshake's arithmetic pauses everything for up to 1.2 s
SETTLED_MS = loop.LINE_MS + 200  # what the contacts are has been seen for long enough
BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h
IDENTITY = "identity"


class Restart(Exception):  # noqa: N818
    """Headquarters asked for it: no fault."""


class Bell:
    """Lets one task sleep until someone rings or its time is up."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wakes the task, now or when it next waits."""
        self._event.set()

    async def wait(self, ms: int) -> bool:
        """Until the bell rings, or `ms` have passed. Whether it rang."""
        try:  # noqa: SIM105 - MicroPython has no contextlib
            await asyncio.wait_for_ms(self._event.wait(), ms)
        except asyncio.TimeoutError:  # noqa: UP041 - on MicroPython it is not the built-in one
            pass
        rang = self._event.is_set()
        self._event.clear()
        return rang


async def _watch(button, board, roll) -> None:
    """Acts on what the timer's sampling found, and is woken by it once a round in any case: so it proves the timer, too."""
    moved = board.flag()
    samples = 0

    def sample() -> None:
        nonlocal samples
        samples += 1
        if button.sample() or samples % (ROUND_MS // board.SAMPLE_MS) == 0:
            moved.set()

    board.sample_with(sample)
    while True:
        await moved.wait()
        moved.clear()
        button.moved()
        roll.sign("watch", ROUND_MS)


async def _send(button, bell, roll) -> None:
    while True:
        button.send_due()
        roll.sign("send", ROUND_MS)
        wait_ms = button.wait_ms()
        await bell.wait(ROUND_MS if wait_ms is None else min(wait_ms, ROUND_MS))


async def _beat(button, roll) -> None:
    while True:
        roll.sign("beat", BEAT_MS)
        await asyncio.sleep_ms(BEAT_MS)  # one more is sent whenever the connection comes up
        button.tend()
        button.beat()


async def _play(board, sound) -> None:
    for on, ms in sound:
        board.sound(on)
        await asyncio.sleep_ms(ms)
    if sound:
        board.sound(False)


async def _play_beside(board, sound, roll) -> None:
    """As a task of its own: the light does not wait for it. Whoever starts it signs the roll for it."""
    await _play(board, sound)
    roll.leave("sound")


async def _test_lamps(button, board) -> None:
    """Each lamp once after power came, unless there is something to show."""
    for colour in indicator.LAMPS:
        if button.latch.least() is not None or button.loops.pressed:
            return
        board.light(colour)
        await asyncio.sleep_ms(indicator.LAMP_MS)
    board.light(indicator.OFF)
    await _play(board, indicator.CHIRP)


async def _show(button, board, clock, bell, roll) -> None:
    await _test_lamps(button, board)
    shown = led = pattern = None
    step = until_ms = 0
    while True:
        now_ms = clock.ms()
        light = button.light()
        steps = button.steps(light)
        if light == shown and steps != pattern:  # the alarm behind it became another
            step, until_ms = 0, now_ms + steps[0][1]
        pattern = steps
        if light != shown:
            shown = light
            step = 0
            until_ms = now_ms + steps[0][1]
            board.tell("light", light)
            sound = indicator.sound(light, button.settings.signal)
            roll.sign("sound", sum([ms for _, ms in sound]))
            asyncio.create_task(_play_beside(board, sound, roll))
        elif now_ms >= until_ms:
            step = (step + 1) % len(steps)
            until_ms = now_ms + steps[step][1]
        colour = steps[step][0]
        if colour != led:
            led = colour
            board.light(colour)
        wait_ms = until_ms - now_ms
        if light == indicator.REST:
            wait_ms = min(wait_ms, button.supervised_for_ms() + 1)
        roll.sign("show", ROUND_MS)
        await bell.wait(min(wait_ms, ROUND_MS))


async def _chirp(button, board, roll) -> None:
    quiet_ms = 0
    while True:
        roll.sign("chirp", indicator.NOBODY_EVERY_MS)
        await asyncio.sleep_ms(indicator.NOBODY_EVERY_MS)
        quiet_ms += indicator.NOBODY_EVERY_MS
        if indicator.calls(button.light(), button.nobody_for_ms(), button.settings.signal):
            await _play(board, indicator.CALL)
        elif quiet_ms >= indicator.CHIRP_EVERY_MS:
            quiet_ms = 0
            if indicator.chirps(button.light()):
                await _play(board, indicator.CHIRP)


async def _feed(button, board, roll) -> None:
    """Feeds the watchdog while everything else runs. It ends the rest itself, so that the cause is kept, if it still can."""
    while True:
        if button.unsampled_ms() > UNSAMPLED_MS:
            raise RuntimeError("the loops are not read any more")
        missing = roll.missing()
        if missing is not None:
            raise RuntimeError("%s makes no progress any more" % missing)
        board.feed()
        await asyncio.sleep_ms(FEED_MS)


async def _restart(button, bell, roll) -> None:
    """Starts again when it is asked to, unless an alarm comes first."""
    while True:
        roll.sign("restart", ROUND_MS)
        if not await bell.wait(ROUND_MS):
            continue
        await asyncio.sleep_ms(RESTART_MS)
        if button.commands.may_restart():
            raise Restart
        button.commands.kept_from_restart()


async def _introduce(button, door, roll) -> None:
    """Says once how the contacts are; and when the bench's test alarms are over."""
    await asyncio.sleep_ms(SETTLED_MS)
    button.tell_contacts()
    if button.tests_until_ms:
        left_ms = button.tests_until_ms - button.clock.ms()
        roll.sign("introduce", left_ms)
        await asyncio.sleep_ms(left_ms)
        door.tell("bench", False)
    roll.leave("introduce")


def _private_key() -> bytes:
    """The private key, in DER; SettingsFault unless the identity is complete."""
    for name in ("cert.der", "ca.der", "key.der"):
        path = IDENTITY + "/" + name
        try:
            os.stat(path)
        except OSError:
            raise settings.SettingsFault("%s is missing: enrol this button first." % path) from None
    with open(path, "rb") as file:
        return file.read()


def _message_key(told, flash) -> bytes:
    """The message key; SettingsFault. What computes it is needed once in a start: its memory is given back."""
    before = set(sys.modules)
    from firmware import keys, p256

    try:
        return keys.message_key(flash, _private_key(), told.id, told.hq, told.hq_message_key)
    except p256.KeyFault as fault:
        raise settings.SettingsFault("identity or hq_message_key: %s" % fault) from None
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]
            delattr(firmware, name.split(".")[1])


def _chooser(told, board, flash, door, button):
    """What chooses the network, where there is a radio; None on a board without."""
    if not wifi.has_radio():
        if told.wifi:
            door.tell("error", "settings.json has wifi, but this board has no radio: its network is the cable")
        return None
    button.radio = wifi.Radio()
    known = wifi.Known(flash, told.wifi, lambda sentence: door.tell("error", sentence))
    answer = lambda done, number, text: button.commands.answer(done, number, wire.WIFI, text)  # noqa: E731
    return wifi.Wifi(known, board.lan is not None, answer)


async def run(told, key, board, flash, faults, door, on_bench) -> None:
    """Builds the button from its settings and its message key, and runs it on its board until a task fails."""
    clock = Clock()
    roll = Roll(clock)
    store = Outbox(flash, lambda sentence: door.tell("error", sentence))
    faults.boot = store.boot
    to_send, to_show, to_restart = Bell(), Bell(), Bell()

    def wake() -> None:
        to_send.ring()
        to_show.ring()

    button = Button(told, key, store, board, clock, wake)
    if board.lan:
        button.paths = paths.Paths()
    button.session = Session(
        told.id,
        told.brokers,
        IDENTITY,
        will=button.will,
        on_message=button.received,
        on_up=button.connected,
        on_down=button.disconnected,
        log=lambda text: door.tell("session", str(text)),
        roll=roll,
        weigh=button.weigh,
        paths=button.paths,
    )
    button.session.urgent = bool(button.latch.unconfirmed())
    chooser = _chooser(told, board, flash, door, button)
    button.commands = Commands(told, key, flash, button, chooser, restart=to_restart.ring)
    told_of_renewal = lambda done, number, text: button.commands.answer(done, number, wire.RENEW, text)  # noqa: E731
    complain = lambda sentence: door.tell("error", sentence)  # noqa: E731
    button.renewal = renewal.Renewal(told.id, flash, Flash(IDENTITY), told_of_renewal, complain)
    button.update = update.Update(told, slots.Slots(flash), button, to_restart.ring)
    if on_bench:
        button.tests_until_ms = bench.BENCH_MS
    door.tell("started", {"boot": store.boot, "reset": board.reset_cause, "firmware": VERSION, "bench": on_bench})
    button.add_event(clock.ms(), wire.STARTED, None, board.reset_cause)
    fault = faults.last()
    if fault:
        button.add_event(clock.ms(), wire.FAULTED, None, fault[:200])
    button.commands.resume()
    button.update.resume()
    tasks = {
        "watch": _watch(button, board, roll),
        "send": _send(button, to_send, roll),
        "show": _show(button, board, clock, to_show, roll),
        "beat": _beat(button, roll),
        "chirp": _chirp(button, board, roll),
        "introduce": _introduce(button, door, roll),
        "restart": _restart(button, to_restart, roll),
        "renewal": renewal.run(button.renewal, button, roll),
        "update": update.run(button.update, roll),
        "session": button.session.run(),
    }
    if board.lan:
        tasks["paths"] = paths.run(button.paths, board.lan, button.radio, chooser, button, roll)
    if chooser:
        tasks["wifi"] = wifi.run(chooser, button.radio, button, roll)
    for name in tasks:
        roll.sign(name, ROUND_MS)  # whoever does not even begin is missing, too
    # The board's own task needs no roll: without its sampling, "watch" is missing. Nor does the watchdog's.
    await asyncio.gather(board.run(), _feed(button, board, roll), *tasks.values())


def main() -> None:
    """Runs the button for ever; ends by a fault, or at the prompt when somebody at the console wants that."""
    door = Door()
    mark = bench.take_mark()
    if mark == bench.HOLD:
        door.tell("held", True)
        return
    faults = board = None
    clock = Clock()
    try:
        told = settings.read()
        flash = Flash("state")
        faults = Faults(flash)
        key = _message_key(told, flash)
        gc.collect()
        # The board is made last: its watchdog, once started, would reset whoever looks into bad settings at the prompt.
        board = __import__("firmware.boards." + told.board, None, None, ["Board"]).Board(door, VERSION)
        asyncio.run(run(told, key, board, flash, faults, door, mark == bench.BENCH))
    except KeyboardInterrupt:
        if board:
            board.sample_with(None)
        door.tell("stopped", "Ctrl-C")
        return
    except settings.SettingsFault as fault:
        door.tell("error", str(fault))
        door.give_up(BAD_SETTINGS)
        return
    except Restart:
        door.tell("restarting", "headquarters asked for it")
    except slots.Back:
        door.tell("restarting", "the update has not proved itself")
    except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - whatever it is: say so and start again
        gc.collect()  # that there was no memory may be what happened
        try:
            door.tell("error", "%s: %s" % (type(problem).__name__, problem))
            if faults:
                faults.keep(clock.advance(), problem)
                slots.crashed(flash, problem)
        except Exception:  # noqa: BLE001, S110 - whatever it is can't be told; starts on trial are counted anyway
            pass
    door.restart()
