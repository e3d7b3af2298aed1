"""The whole button on one page: builds every part and starts the tasks.

board -> loop -> latch -> outbox -> session, and receipts back to the light. The contacts are read by the board's own
timer, not by a task that others could keep waiting. A task that fails stops the button loudly: the error is kept in
state/errors, and the board starts again with every open alarm still in flash.
"""

import asyncio
import gc
import os

from firmware import VERSION, bench, indicator, keys, loop, p256, paths, renewal, settings, wifi, wire
from firmware.button import Button
from firmware.clock import Clock
from firmware.command import Commands
from firmware.door import Door
from firmware.faults import Faults
from firmware.flash import Flash
from firmware.outbox import Outbox
from firmware.session import Session

BEAT_MS = 5000
FEED_MS = 1000
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

    async def wait(self, ms) -> None:
        """Until the bell rings, or `ms` have passed (None: for ever)."""
        if ms is None:
            await self._event.wait()
        else:
            try:  # noqa: SIM105 - MicroPython has no contextlib
                await asyncio.wait_for_ms(self._event.wait(), ms)
            except asyncio.TimeoutError:  # noqa: UP041 - on MicroPython it is not the built-in one
                pass
        self._event.clear()


async def _watch(button, board) -> None:
    moved = board.flag()
    board.sample_with(lambda: button.sample() and moved.set())
    while True:
        await moved.wait()
        moved.clear()
        button.moved()


async def _send(button, bell) -> None:
    while True:
        button.send_due()
        await bell.wait(button.wait_ms())


async def _beat(button) -> None:
    while True:
        await asyncio.sleep_ms(BEAT_MS)  # one more is sent whenever the connection comes up
        button.tend()
        button.beat()


async def _play(board, sound) -> None:
    for on, ms in sound:
        board.sound(on)
        await asyncio.sleep_ms(ms)
    if sound:
        board.sound(False)


async def _test_lamps(button, board) -> None:
    """Each lamp once after power came, unless there is something to show."""
    for colour in indicator.LAMPS:
        if button.latch.least() is not None or button.loops.pressed:
            return
        board.light(colour)
        await asyncio.sleep_ms(indicator.LAMP_MS)
    board.light(indicator.OFF)
    await _play(board, indicator.CHIRP)


async def _show(button, board, clock, bell) -> None:
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
            asyncio.create_task(_play(board, indicator.sound(light, button.settings.signal)))
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
        await bell.wait(wait_ms)


async def _chirp(button, board) -> None:
    quiet_ms = 0
    while True:
        await asyncio.sleep_ms(indicator.NOBODY_EVERY_MS)
        quiet_ms += indicator.NOBODY_EVERY_MS
        if indicator.calls(button.light(), button.nobody_for_ms(), button.settings.signal):
            await _play(board, indicator.CALL)
        elif quiet_ms >= indicator.CHIRP_EVERY_MS:
            quiet_ms = 0
            if indicator.chirps(button.light()):
                await _play(board, indicator.CHIRP)


async def _feed(button, board) -> None:
    while True:
        if button.unsampled_ms() > UNSAMPLED_MS:
            raise RuntimeError("the loops are not read any more")
        board.feed()
        await asyncio.sleep_ms(FEED_MS)


async def _restart(button, bell) -> None:
    """Starts again when it is asked to, unless an alarm comes first."""
    while True:
        await bell.wait(None)
        await asyncio.sleep_ms(RESTART_MS)
        if button.commands.may_restart():
            raise Restart
        button.commands.kept_from_restart()


async def _introduce(button, door) -> None:
    """Says once how the contacts are; and when the bench's test alarms are over."""
    await asyncio.sleep_ms(SETTLED_MS)
    button.tell_contacts()
    if button.tests_until_ms:
        await asyncio.sleep_ms(button.tests_until_ms - button.clock.ms())
        door.tell("bench", False)


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
        paths=button.paths,
    )
    button.session.urgent = bool(button.latch.unconfirmed())
    chooser = _chooser(told, board, flash, door, button)
    button.commands = Commands(told, key, flash, button, chooser, restart=to_restart.ring)
    told_of_renewal = lambda done, number, text: button.commands.answer(done, number, wire.RENEW, text)  # noqa: E731
    complain = lambda sentence: door.tell("error", sentence)  # noqa: E731
    button.renewal = renewal.Renewal(told.id, flash, Flash(IDENTITY), told_of_renewal, complain)
    if on_bench:
        button.tests_until_ms = bench.BENCH_MS
    door.tell("started", {"boot": store.boot, "reset": board.reset_cause, "firmware": VERSION, "bench": on_bench})
    button.add_event(clock.ms(), wire.STARTED, None, board.reset_cause)
    fault = faults.last()
    if fault:
        button.add_event(clock.ms(), wire.FAULTED, None, fault[:200])
    button.commands.resume()
    await asyncio.gather(
        _watch(button, board),
        _feed(button, board),
        _send(button, to_send),
        _show(button, board, clock, to_show),
        _beat(button),
        _chirp(button, board),
        _introduce(button, door),
        _restart(button, to_restart),
        board.run(),
        renewal.run(button.renewal, button),
        *([paths.run(button.paths, board.lan, button.radio, chooser, button)] if board.lan else []),
        *([wifi.run(chooser, button.radio, button)] if chooser else []),
        button.session.run(),
    )


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
        key = keys.message_key(flash, _private_key(), told.id, told.hq, told.hq_message_key)
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
    except p256.KeyFault as fault:
        door.tell("error", "identity or hq_message_key: %s" % fault)
        door.give_up(BAD_SETTINGS)
        return
    except Restart:
        door.tell("restarting", "headquarters asked for it")
    except Exception as problem:  # noqa: BLE001 - whatever it is, the answer is to say so and to start again
        door.tell("error", "%s: %s" % (type(problem).__name__, problem))
        if faults:
            faults.keep(clock.advance(), problem)
    door.restart()
