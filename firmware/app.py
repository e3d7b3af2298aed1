"""The whole button on one page: builds every part and starts the tasks.

board -> loop -> latch -> outbox -> session, and receipts back to the light. The contacts are read by the board's own
timer, not by a task that others could keep waiting. A task that fails stops the button loudly: the error is kept in
state/errors, and the board starts again with every open alarm still in flash.
"""

import asyncio
import gc
import io
import sys

from firmware import VERSION, indicator, keys, p256, settings, wire
from firmware.button import Button
from firmware.clock import Clock
from firmware.door import Door
from firmware.flash import Flash
from firmware.outbox import Outbox
from firmware.session import Session

BEAT_MS = 5000
FEED_MS = 1000
UNSAMPLED_MS = 5000  # a TLS handshake's arithmetic pauses everything for up to 1.2 s
ERRORS_KEPT = 4096  # bytes of state/errors
BAD_SETTINGS = 78  # EX_CONFIG of sysexits.h


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
        button.beat()


async def _show(button, board, clock, bell) -> None:
    shown = led = None
    step = until_ms = 0
    while True:
        now_ms = clock.ms()
        light = button.light()
        steps = indicator.steps(light, button.nobody_for_ms())
        if light != shown:
            shown = light
            step = 0
            until_ms = now_ms + steps[0][1]
            board.tell("light", light)
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
    while True:
        await asyncio.sleep_ms(indicator.CHIRP_EVERY_MS)
        if indicator.chirps(button.light()):
            board.sound(True)
            await asyncio.sleep_ms(indicator.CHIRP_MS)
            board.sound(False)


async def _feed(button, board) -> None:
    while True:
        if button.unsampled_ms() > UNSAMPLED_MS:
            raise RuntimeError("the loops are not read any more")
        board.feed()
        await asyncio.sleep_ms(FEED_MS)


def _private_key(identity: str) -> bytes:
    path = identity + "/key.der"
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        raise settings.SettingsFault("%s is missing: enrol this button first." % path) from None


async def run(told, flash, door) -> None:
    """Builds the button from its settings and runs it until a task fails."""
    identity = "identity"
    board = __import__("firmware.boards." + told.board, None, None, ["Board"]).Board(door, VERSION)
    clock = Clock()
    store = Outbox(flash, lambda sentence: door.tell("error", sentence))
    key = keys.message_key(flash, _private_key(identity), told.id, told.hq, told.hq_message_key)
    gc.collect()
    to_send, to_show = Bell(), Bell()

    def wake() -> None:
        to_send.ring()
        to_show.ring()

    button = Button(told, key, store, board, clock, wake)
    button.session = Session(
        told.id,
        told.brokers,
        identity,
        will=button.will,
        on_message=button.received,
        on_up=button.connected,
        on_down=button.disconnected,
        log=lambda text: door.tell("session", str(text)),
    )
    button.session.urgent = bool(button.latch.unconfirmed())
    door.tell("started", {"boot": store.boot, "reset": board.reset_cause, "firmware": VERSION})
    button.add_event(clock.ms(), wire.STARTED, None, board.reset_cause)
    await asyncio.gather(
        _watch(button, board),
        _feed(button, board),
        _send(button, to_send),
        _show(button, board, clock, to_show),
        _beat(button),
        _chirp(button, board),
        board.run(),
        button.session.run(),
    )


def _keep_error(flash, problem) -> None:
    """Adds a traceback to state/errors, of which the last ERRORS_KEPT bytes are kept."""
    text = io.StringIO()
    sys.print_exception(problem, text)
    kept = (flash.read("errors") or b"") + text.getvalue().encode()
    flash.write("errors", kept[-ERRORS_KEPT:])


def main() -> None:
    """Runs the button for ever; ends only by a fault."""
    door = Door()
    flash = None
    try:
        told = settings.read()
        flash = Flash("state")
        asyncio.run(run(told, flash, door))
    except settings.SettingsFault as fault:
        door.tell("error", str(fault))
        sys.exit(BAD_SETTINGS)
    except p256.KeyFault as fault:
        door.tell("error", "identity or hq_message_key: %s" % fault)
        sys.exit(BAD_SETTINGS)
    except Exception as problem:  # noqa: BLE001 - whatever it is, the answer is to say so and to start again
        door.tell("error", "%s: %s" % (type(problem).__name__, problem))
        if flash:
            _keep_error(flash, problem)
    door.restart()
