"""A new firmware from headquarters: asked for piece by piece, checked, started on trial, and kept or taken back.

Headquarters' command offers a release (release.py). The button asks for its pieces in heartbeats, a few at a time, and
never while an alarm is open. The head's signature is checked before the first file is written; a file counts when its
hash is right, so after a power cut only the one under way is asked for again. The whole is read back before it is
started on trial (slots.py). On trial it sends headquarters an event, and headquarters' sealed receipt for that keeps it:
it came only if contacts, flash, network, TLS, keys and the way to headquarters work with the new firmware.
"""

import asyncio
import gc
import os

from firmware import VERSION, slots, wire

STEP_MS = 500
SETTLED_MS = 3_000  # the contacts are known (app.py), and the first connection may have come
TRIAL_MS = 300_000  # for headquarters' receipt, from the start on
GIVE_UP_MS = 3_600_000  # without a piece, though the connection is up
BITS = 8  # of the signature's scalars at a time: some 20 ms on the chip


class Update:
    """The button's part in updates. record: slots.Slots. here: the slot that this firmware runs from."""

    def __init__(self, told, record, button, restart, here=None, files=os, opener=open) -> None:
        self._told = told
        self._record = record
        self._button = button
        self._restart = restart
        self._files = files
        self._open = opener
        self._here = slots.running() if here is None else here
        self._download = None
        self._order = None
        self._work = None  # a generator that judges the head or looks through the slot
        self._whole = False
        self._came = 0  # pieces since they were asked for
        self._heard_ms = 0
        self._proof = None  # (boot, seq) of the event whose receipt ends the trial

    @property
    def on_trial(self) -> bool:
        """Whether this firmware has yet to prove itself."""
        return self._record.trial is not None and self._record.trial == self._here

    def resume(self) -> None:
        """Call once at the start: tells headquarters how a trial ended, if one did. Raises OSError."""
        record = self._record
        if record.trial is not None:
            return
        if record.order and record.why:
            text = "back to %s: %s" % (VERSION, record.why)
            self._button.commands.answer(False, record.order, wire.UPDATE, text)
        elif record.order:
            self._button.commands.answer(True, record.order, wire.UPDATE, "%s runs and is kept" % VERSION)
        elif record.why:
            self._button.add_event(self._button.clock.ms(), wire.FAULTED, None, "the update: " + record.why)
        if record.order or record.why:
            record.told()

    def offer(self, number: tuple, detail) -> None:
        """Headquarters' command: begins, or goes on after a restart. Raises WireError for what is refused, and OSError."""
        if self._record.trial is not None and self._record.order == number:
            self._order = number
            return  # it is on trial, or waits for it
        from firmware import download, release

        offer = release.offered(detail)
        if offer[0] == VERSION and not self.on_trial:
            self._button.commands.answer(True, number, wire.UPDATE, "%s runs already" % VERSION)
            return
        if self.on_trial:
            raise wire.WireError("%s is still on trial" % VERSION)
        if self._told.release_key is None:
            raise wire.WireError("settings.json has no release_key, so no release is believed")
        download.check_version(offer[0], self._record.newest)
        self._record.disarm()
        self._stop()
        self._download = download.Download(offer, self._record.spare, self._files, self._open)
        self._order = number
        self._heard_ms = self._button.clock.ms()
        self._button.board.tell("update", "begins", version=offer[0])

    def _stop(self) -> None:
        if self._download:
            self._download.close()
        self._download = self._work = None
        self._whole = False

    def _fail(self, why: str) -> None:
        self._stop()
        gc.collect()  # that there was no memory may be why
        self._button.commands.answer(False, self._order, wire.UPDATE, "it keeps %s: %s" % (VERSION, why))

    def _may(self) -> bool:
        return self._button.commands.may_restart()

    def wanted(self):
        """WANTED of a heartbeat; None: nothing now, and nothing ever while an alarm is open."""
        if not self._download or self._work or self._download.at is None or not self._may():
            return None
        self._came = 0
        return [self._download.digest[:8], self._download.at]

    def piece(self, detail) -> bool:
        """A piece from headquarters; whether it is time to ask for more. Whatever is not wanted now is left alone."""
        download = self._download
        if not download or self._work or download.at is None or not self._may():
            return False
        if not isinstance(detail, list) or len(detail) != 3 or not isinstance(detail[2], bytes):
            raise wire.WireError("it is not a piece of an update")
        if detail[0] != download.digest[:8] or detail[1] != download.at:
            return False
        self._heard_ms = self._button.clock.ms()
        try:
            download.take(detail[1], detail[2])
            if download.head:
                self._work = download.judge(self._told.release_key, self._told.board, self._record.newest)
            elif download.at is None:
                self._work = download.look()
        except (wire.WireError, OSError, MemoryError) as problem:
            self._fail(str(problem))
            return False
        self._came += 1
        return self._came >= wire.PIECES and self._work is None

    def work(self) -> bool:
        """One short step of checking; whether there is more to do at once."""
        if self._work is None:
            return False
        try:
            self._go_on()
        except (wire.WireError, OSError, MemoryError) as problem:
            self._work = None
            self._fail(str(problem))
        return self._work is not None

    def _go_on(self) -> None:
        try:
            for _ in range(BITS):
                next(self._work)
        except StopIteration:
            self._worked()

    def _worked(self) -> None:
        download = self._download
        self._work = None
        if not download.looks:  # the head is good
            self._work = download.look()
        elif download.at is None:
            self._whole = True
            self._button.board.tell("update", "whole", version=download.version)
        elif download.looks > 1:
            self._fail("the flash does not keep what is written")
        else:
            self._button.beat()

    def step(self) -> None:
        """What only time brings: the trial's self-test and its end, the start on trial, and patience that ends."""
        now_ms = self._button.clock.ms()
        if self.on_trial:
            if self._proof is None and now_ms >= SETTLED_MS and not self._button.storage_failed:
                self._proof = self._button.add_event(now_ms, wire.UPDATE_TRIAL, None, VERSION)
            if now_ms >= TRIAL_MS:
                self._record.fail("no receipt of headquarters within %d s" % (TRIAL_MS // 1000))
                raise slots.Back
        elif self._whole or self._record.trial is not None:
            if not self._may():
                return
            if self._record.trial is None:
                self._record.arm(self._order)
            self._restart()
        elif self._download and not self._work and now_ms - self._heard_ms >= GIVE_UP_MS and self._may():
            self._fail("no piece of it came for %d minutes" % (GIVE_UP_MS // 60_000))

    def receipted(self, number: tuple) -> None:
        """Headquarters has an event: if it is the self-test's, this firmware is kept. Raises OSError."""
        if number == self._proof and self.on_trial:
            self._record.confirm(VERSION)
            self._button.board.tell("update", "kept", version=VERSION)
            self.resume()


async def run(update: Update, roll) -> None:
    """Steps, for ever."""
    while True:
        roll.sign("update", STEP_MS)
        while update.work():
            roll.sign("update", STEP_MS)
            await asyncio.sleep_ms(0)
        update.step()
        await asyncio.sleep_ms(STEP_MS)
