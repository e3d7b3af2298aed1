"""The button's conduct: what it does when a contact moves, a receipt arrives, the connection comes or time passes.

Everything it decides with is pure (loop, latch, window, indicator, health); everything that it decides about is given
to it: outbox, session, board. It never waits; app.py calls it.
"""

import time

from firmware import health, indicator, latch, loop, outbox, settings, testing, window, wire

PROVED_MS = 90_000  # how long headquarters' own answer counts: so long can a stolen gateway pretend
WAY_MS = 25_000  # how long that answer shows, too, that the way to headquarters works
SAID_MS = 15_000  # how long the gateway's word for the way counts: it has proof that is at most 10 s old
BEATS = 18  # heartbeats whose receipt, or a command upon which, still counts: 90 s of them
STUCK_MS = 600_000  # a button that is still pressed after this wants somebody to reset it
MINUTE_MS = 60_000
HELD_MS = 50  # when to try again after the connection, though up, took no more
BURST = 4  # alarms that are sealed and sent without a pause: a backlog must not keep the next press waiting

_HOW = {loop.A: wire.CONTACT_A, loop.B: wire.CONTACT_B, loop.BOTH: wire.BOTH_CONTACTS}
_ABSENT = {settings.NORMALLY_CLOSED: "B", settings.NORMALLY_OPEN: "A"}
_LINE_EVENTS = {
    loop.FINE: wire.LOOP_RESTORED,
    loop.CUT: wire.LOOP_CUT,
    loop.SHORTED: wire.LOOP_SHORTED,
    loop.FAULTY: wire.LOOP_FAULT,
}


class Button:
    """One button. `wake` is called whenever there may be something to send or another light to show."""

    def __init__(self, told, key: bytes, store, board, clock, wake) -> None:
        self.settings = told
        self.board = board
        self.clock = clock
        self.outbox = store
        self.latch = latch.Latch(store.alarms)
        self.loops = loop.Loops(_ABSENT.get(told.contacts))
        self.window = window.Window()
        self.session = None  # set by app.py: session and button need each other
        self.commands = None  # set by app.py likewise
        self.renewal = None  # set by app.py likewise
        self.update = None  # set by app.py likewise
        self.radio = None  # set by app.py, on a board that has one
        self.paths = None  # set by app.py, on a board that has a cable
        self.up_ms = None  # when the present or the last session came up
        self.proved_ms = None  # when the newest heartbeat that headquarters answered on it was sent
        self.tests_until_ms = 0  # a press before this is a technician's test (bench.py)
        self.testing = testing.Testing()
        self.refused = 0
        self.storage_failed = False  # the last write to the flash: headquarters is told, and the light says fault
        self._key = key
        self._wake = wake
        self._presence = None
        self._presence_owed = False
        self._held = False
        self._more = False
        self._beats = []
        self._beaten = 0
        self._answered_beat = None  # (number, when it was sent) of the last one that headquarters answered
        self._was_testing = False
        self._proved_until_ms = 0
        self._way_until_ms = 0
        self._identify_until_ms = 0
        self._room_ms = MINUTE_MS  # a press takes its part of a minute, and time gives it back
        self._room_at_ms = 0
        self._chatters = False
        self._pressed_ms = None  # since when it is pressed; None: it is not, or that was told
        self._changes = []
        self._sampled_ms = clock.ms()
        self._delay_ms = 0
        self._heap_least = 0
        self._seen_ns = 0

    # ---------------------------------------------------------------------------------------------- contacts

    def sample(self) -> bool:
        """Reads the loops: every 10 ms, from a timer where the board has one. Whether `moved` has something to do."""
        now_ms = self.clock.advance()
        self._delay_ms = max(self._delay_ms, now_ms - self._sampled_ms - self.board.SAMPLE_MS)
        self._sampled_ms = now_ms
        since = self.loops.since
        a, b, tamper = self.board.readings()
        changes = self.loops.sample(now_ms, a, b, tamper)
        if self.loops.since != since:
            self._seen_ns = time.time_ns()
        for change in changes:
            self._changes.append(change)
        return bool(self._changes)

    def unsampled_ms(self) -> int:
        """How long ago the loops were read."""
        return self.clock.ms() - self._sampled_ms

    def moved(self) -> None:
        """Acts on what sampling found: presses before everything else."""
        changes = []
        while self._changes:
            change = self._changes.pop(0)
            if change[0] == "pressed":
                self._press(change[1], change[2])
            changes.append(change)
        for what, about, since_ms in changes:
            if what == "line":
                line = self.loops.line(about)
                self.add_event(since_ms, _LINE_EVENTS[line], about)
                self.board.tell("loop", {about: line})
            elif what == "tamper":
                if about == loop.FINE:
                    self.add_event(since_ms, wire.TAMPER_RESTORED)
                else:
                    self.add_event(since_ms, wire.TAMPERED, None, about)
                self.board.tell("tamper", about)
            else:
                self._pressed_ms = since_ms if what == "pressed" else None
                self.board.tell("loop", {"pressed": what == "pressed"})
        self._wake()

    def tell_contacts(self) -> None:
        """Says how the contacts are, for whoever just began to listen; from then on `moved` says what changes."""
        loops = self.loops
        self.board.tell("loop", {"A": loops.line("A"), "B": loops.line("B"), "pressed": loops.pressed})
        self.board.tell("tamper", loops.tamper())

    def _press(self, contacts: int, since_ms: int) -> None:
        cause = wire.TEST if since_ms < self.tests_until_ms else wire.HOLD_UP
        if cause != wire.TEST:
            found = self.testing.press(since_ms, self.latch.newest(False) is not None)
            if found == testing.TEST:
                cause = wire.TEST
            elif found == testing.JOINS:
                self._again(self.latch.newest(False))
                return
        newest = self.latch.newest(cause == wire.TEST)
        has_room = self._has_room(since_ms)
        if newest is not None and since_ms == self.loops.began_ms and newest.boot != self.outbox.boot:
            self._again(newest)  # it latched before this start and was never released
            self.add_event(since_ms, wire.STILL_PRESSED, None, [newest.boot, newest.seq])
            return
        if newest is not None and not has_room:
            self._again(newest)
            if not self._chatters:
                self._chatters = True
                self.add_event(since_ms, wire.CONTACT_CHATTERS)
            return
        how = _HOW[contacts] if self.settings.contacts == settings.BOTH else wire.BOTH_CONTACTS
        self._raise_alarm(cause, how, since_ms)

    def test(self) -> tuple:
        """Raises a test alarm, as a press would; its (boot, seq)."""
        self._raise_alarm(wire.TEST, wire.BOTH_CONTACTS, self.clock.ms())
        newest = self.latch.newest(True)
        self._wake()
        return newest.boot, newest.seq

    def _raise_alarm(self, cause: int, how: int, since_ms: int) -> None:
        unconfirmed = self.latch.unconfirmed()
        if len(unconfirmed) >= outbox.MAX_ALARMS:
            tests = [alarm for alarm in unconfirmed if alarm.cause == wire.TEST]
            if cause == wire.TEST or not tests:
                # Nothing more fits, and nothing may go. The newest one is sent again at once and stands for this press.
                self.board.tell("error", "%d alarms are waiting; this press joins the newest" % len(unconfirmed))
                unconfirmed[-1].due_ms = None
                return
            self._forget(tests[0])  # no alarm stands behind a test
        boot, seq = self.outbox.number()
        alarm = latch.Alarm(boot, seq, since_ms, cause, how)
        self.latch.add(alarm)
        self.session.urgent = True
        # On its way first, then into flash, without yielding in between: a flash write takes milliseconds.
        self._send_alarm(alarm, self.clock.ms())
        if len(self.latch.alarms) > outbox.MAX_ALARMS:
            self._forget(next(known for known in self.latch.alarms if known.stage >= wire.AT_HQ))
        self._store(self.outbox.keep_alarm, alarm, self.clock.ms())
        self.board.tell("latched", {"boot": boot, "seq": seq, "pin_at": self._seen_ns, "test": cause == wire.TEST})

    def _again(self, alarm) -> None:
        """The press belongs to an alarm that is open: at once on its way again, if headquarters lacks it."""
        alarm.due_ms = None
        self.board.tell("joined", {"boot": alarm.boot, "seq": alarm.seq})

    def _has_room(self, now_ms: int) -> bool:
        """Whether a press now is one of the alarms_per_minute; a contact that chatters has none."""
        part_ms = MINUTE_MS // self.settings.alarms_per_minute
        self._room_ms = min(MINUTE_MS, self._room_ms + now_ms - self._room_at_ms)
        self._room_at_ms = now_ms
        if self._room_ms < part_ms:
            return False
        if self._room_ms == MINUTE_MS:
            self._chatters = False
        self._room_ms -= part_ms
        return True

    def tend_testing(self) -> None:
        """Tells headquarters when presses begin and cease to be tests."""
        is_testing = self.is_testing()
        if is_testing != self._was_testing:
            self._was_testing = is_testing
            self.add_event(self.clock.ms(), wire.TESTING_BEGUN if is_testing else wire.TESTING_ENDED)

    def is_testing(self) -> bool:
        """Whether a press now is a technician's test: never while an alarm is open that is none."""
        return self.testing.state(self.clock.ms()) == testing.ON and self.latch.newest(False) is None

    def tend(self) -> None:
        """What only time shows: a button that stays pressed, a test that is over."""
        self.tend_testing()
        if self._pressed_ms is not None and self.clock.ms() - self._pressed_ms >= STUCK_MS:
            self.add_event(self._pressed_ms, wire.CONTACT_STUCK)
            self._pressed_ms = None

    def _forget(self, alarm) -> None:
        """Gives up an alarm whose room is needed: headquarters has it, or it is a test."""
        self.latch.drop(alarm.boot, alarm.seq)
        self._store(self.outbox.remove_alarm, alarm.boot, alarm.seq)

    def add_event(self, since_ms: int, code: int, subject=None, detail=None):
        """Keeps an event, which is sent when its turn comes; its (boot, seq), or None if it could not be kept."""
        number = self._store(self.outbox.add_event, self.clock.ms(), since_ms, code, subject, detail)
        self._wake()
        return number

    def _store(self, write, *what):
        """Storage that fails must not stop an alarm: it is said, and the button goes on with what is in memory."""
        try:
            done = write(*what)
        except (OSError, MemoryError) as problem:
            self.storage_failed = True
            self.board.tell("error", "the flash cannot be written: %s" % problem)
            return None
        self.storage_failed = False
        return done

    # ----------------------------------------------------------------------------------------------- sending

    def _topic(self, lane: str) -> str:
        return "tocsin/1/%s/%s" % (self.settings.id, lane)

    def _publish(self, lane: str, message: dict, qos: int, retain: bool = False) -> bool:
        envelope = wire.seal(message, self.settings.id, self._key)
        return self.session.publish(self._topic(lane), envelope, qos, retain)

    def _send_alarm(self, alarm, now_ms: int) -> bool:
        if not self._publish("alarm", alarm.message(now_ms), 1):
            return False
        self.latch.sent(alarm, now_ms)
        return True

    def send_due(self) -> None:
        """Sends what is due, alarms first. Without a connection nothing is due: `connected` makes it so."""
        now_ms = self.clock.ms()
        self._more = False
        self._held = self.session.up and not (self._send_first(now_ms) and self._send_events(now_ms))

    def _send_first(self, now_ms: int) -> bool:
        """Alarms, then the presence that a new connection owes; False when there is more for later."""
        due = self.latch.due(now_ms)
        for alarm in due[:BURST]:
            if not self._send_alarm(alarm, now_ms):
                return False
        self._more = len(due) > BURST
        if self._more:
            return False
        if self._presence_owed:
            if not self._publish("presence", self._presence_message(1), 1, True):
                return False
            self._presence_owed = False
        return True

    def _send_events(self, now_ms: int) -> bool:
        self._store(self.outbox.report_dropped, now_ms)
        for number in self.window.due(self.outbox.events, now_ms):
            message = self.outbox.event(number, now_ms)
            if message is None:
                self.window.done(number)
            elif self._publish("event", message, 1):
                self.window.sent(number, now_ms)
            else:
                return False
        return True

    def wait_ms(self):
        """Milliseconds until `send_due` has something to do; None when nothing is waiting."""
        if not self.session.up:
            return None
        if self._held:
            return 0 if self._more else HELD_MS
        now_ms = self.clock.ms()
        waits = [wait for wait in (self.latch.wait_ms(now_ms), self.window.wait_ms(now_ms)) if wait is not None]
        return min(waits) if waits else None

    def weigh(self) -> int:
        """Free bytes of the heap now; the least of all is in the heartbeat. The session asks in the middle of handshakes, too."""
        heap = health.heap_free()
        self._heap_least = min(self._heap_least, heap) if self._heap_least else heap
        return heap

    def beat(self) -> None:
        """Sends a heartbeat."""
        if not self.session.up:
            return
        number = self.outbox.number()
        self._beats.append((number, self.clock.ms()))
        del self._beats[:-BEATS]
        heap = self.weigh()
        path, spare = self.paths.told() if self.paths else (None, None)
        by_radio = self.radio and path != wire.BY_CABLE
        message = health.heartbeat(
            number,
            self.loops,
            uptime_ms=self.clock.ms(),
            battery_mv=self.board.battery_mv(),
            mains=self.board.mains(),
            rssi=self.radio.rssi() if by_radio else self.board.rssi(),
            path=path,
            spare=spare,
            reset=self.board.reset_cause,
            firmware=self.board.version,
            pending=len(self.latch.unconfirmed()) + self.outbox.waiting,
            shown=health.shown(self.latch.alarms, self._beaten),
            delay_ms=self._delay_ms,
            heap=heap,
            heap_least=self._heap_least,
            reconnects=self.session.reconnects,
            refused=self.refused + self.session.refused,
            storage_failed=self.storage_failed,
            wanted=self.update.wanted() if self.update else None,
            testing=self._testing_told(),
            answered=self._answered_beat[0][1] if self._answered_beat else None,
        )
        self._beaten += 1
        if self._publish("heartbeat", message, 0):
            self._delay_ms = 0

    def _testing_told(self):
        """TESTING of a heartbeat; None: every press is an alarm, and stays one."""
        if self.is_testing():
            return testing.ON
        return testing.GRANTED if self.testing.state(self.clock.ms()) != testing.OFF else None

    # ------------------------------------------------------------------------------------------- the session

    def will(self) -> tuple:
        """(topic, payload) of the last will: "gone", numbered like the "here" that follows on the connection."""
        self._presence = self.outbox.number()
        return self._topic("presence"), wire.seal(self._presence_message(0), self.settings.id, self._key)

    def _presence_message(self, state: int) -> dict:
        boot, seq = self._presence
        return {wire.KIND: wire.PRESENCE, wire.BOOT: boot, wire.SEQ: seq, wire.STATE: state}

    def connected(self) -> None:
        """The connection is up: alarms, then presence and a heartbeat, then the events."""
        self.up_ms = self.clock.ms()
        self.proved_ms = None
        self.latch.connected()
        self.window.connected()
        self._presence_owed = True
        if self._send_first(self.clock.ms()):
            self.beat()
        self.send_due()
        self.board.tell("link", "up")
        self._wake()

    def disconnected(self, reason: str) -> None:
        """The connection is gone."""
        self.board.tell("link", "down", reason=reason)
        self._wake()

    # ---------------------------------------------------------------------------------------------- receipts

    def received(self, topic: str, payload: bytes) -> None:
        """A message from the broker, believed only as far as it proves itself."""
        try:
            if topic == self._topic("receipt"):
                message = self._receipt(payload)
            elif topic == self._topic("command") and self.commands is not None:
                self.commands.received(payload)
                return
            else:
                return
        except wire.WireError as why:
            self.refused += 1
            self.board.tell("refused", str(why))
            return
        self._receipted((message[wire.BOOT], message[wire.SEQ]), message[wire.STAGE])

    def _receipt(self, payload: bytes) -> dict:
        """The receipt, checked. A bare one is the gateway's word, which counts for stage 1 and nothing else."""
        if len(payload) > wire.MAX_ENVELOPE:
            raise wire.WireError("the receipt is longer than %d bytes" % wire.MAX_ENVELOPE)
        if payload[:1] == b"\xd1":
            envelope = wire.unseal(payload)
            if envelope.kid != self.settings.hq:
                raise wire.WireError("the receipt is from %s, not from headquarters" % envelope.kid)
            if not envelope.sealed_with(self._key):
                raise wire.WireError("the receipt's MAC is wrong")
            message = envelope.message
            stages = (wire.AT_HQ, wire.ACKNOWLEDGED, wire.RESPONDING, wire.CLOSED)  # type: tuple
        else:
            message = wire.message_of(payload)
            stages = (wire.AT_GATEWAY,)
        if message[wire.KIND] != wire.RECEIPT:
            raise wire.WireError("this is not a receipt")
        if message[wire.DEVICE] != self.settings.id:
            raise wire.WireError("the receipt is for %s" % message[wire.DEVICE])
        if message[wire.STAGE] not in stages:
            raise wire.WireError("a receipt of this form cannot say stage %d" % message[wire.STAGE])
        return message

    def _receipted(self, number: tuple, stage: int) -> None:
        alarm = self.latch.receipt(number[0], number[1], stage)
        if alarm is not None:
            if stage >= wire.CLOSED:
                self._store(self.outbox.remove_alarm, alarm.boot, alarm.seq)
                self.tend_testing()
            else:
                self._store(self.outbox.keep_alarm, alarm, self.clock.ms())
            self.session.urgent = bool(self.latch.unconfirmed())
            self.board.tell("alarm", list(number), stage=stage)
            if self.commands is not None and stage >= wire.AT_HQ:
                self.commands.arrived(number)
        elif stage < wire.AT_HQ:
            self._vouched(number)
        elif number in self.outbox.events:  # what was sent is among the oldest
            self._store(self.outbox.remove_event, number)
            self.window.done(number)
            if self.update is not None:
                self.update.receipted(number)
        else:
            self._answered(number)
        self._wake()

    def _answered(self, number: tuple) -> None:
        """Headquarters heard a heartbeat when it was sent: that, not the answer's arrival, is what is known.

        An answer that was held back or repeated proves nothing. A receipt for anything else is a repeat.
        """
        for n, (beat, sent_ms) in enumerate(self._beats):
            if beat == number:
                del self._beats[: n + 1]
                self._answered_beat = (number, sent_ms)
                self.proved_ms = sent_ms
                self._supervised(sent_ms + PROVED_MS, sent_ms + WAY_MS)
                return

    def beat_sent_ms(self, number: tuple):
        """When a heartbeat of late was sent, by this start's clock; None: it is none of them."""
        if self._answered_beat and self._answered_beat[0] == number:
            return self._answered_beat[1]
        for beat, sent_ms in self._beats:
            if beat == number:
                return sent_ms
        return None

    def _vouched(self, number: tuple) -> None:
        """The gateway heard a heartbeat and says that its way to headquarters works: no more than its word."""
        for beat, sent_ms in self._beats:
            if beat == number:
                self._supervised(self._proved_until_ms, sent_ms + SAID_MS)
                return

    def _supervised(self, proved_until_ms: int, way_until_ms: int) -> None:
        was = self.supervised_for_ms()
        self._proved_until_ms = max(self._proved_until_ms, proved_until_ms)
        self._way_until_ms = max(self._way_until_ms, way_until_ms)
        if not was and self.supervised_for_ms():
            self.board.tell("supervised", True)

    # -------------------------------------------------------------------------------------------- the lights

    def supervised_for_ms(self) -> int:
        """How long the light may say that headquarters would hear a press; 0 when it may not.

        Two things must hold: headquarters itself answered lately, which nobody in between can make up; and the way to
        it works now, which the gateway knows sooner.
        """
        return max(0, min(self._proved_until_ms, self._way_until_ms) - self.clock.ms())

    def identify(self, for_ms: int) -> bool:
        """Shows which button this is. False, and nothing is shown: the light belongs to an open alarm."""
        if self.latch.least() is not None:
            return False
        self._identify_until_ms = self.clock.ms() + for_ms
        self._wake()
        return True

    def light(self) -> str:
        """The name of the light to show now (indicator.py)."""
        if self.clock.ms() < self._identify_until_ms and self.latch.least() is None:
            return indicator.IDENTIFY
        if self.latch.least() is None and self.is_testing():
            return indicator.TEST
        fault = self.storage_failed or self.loops.tampered or self.loops.worst() != loop.FINE
        return indicator.state(self.latch.least(), fault, self.supervised_for_ms() > 0)

    def steps(self, light: str) -> tuple:
        """What the lamp does for a light, over and over. An alarm that is a test is marked, if no other is open."""
        steps = indicator.steps(light, self.nobody_for_ms(), self.settings.signal)
        return indicator.marked(steps) if self.latch.alarms and self.latch.newest(False) is None else steps

    def nobody_for_ms(self) -> int:
        """How long the oldest alarm without any receipt has been waiting; 0 when there is none."""
        since_ms = self.latch.nobody_has_since()
        return 0 if since_ms is None else self.clock.ms() - since_ms
