"""Commands of headquarters: which are believed, what they ask for, and how they are answered.

A command counts only if headquarters sealed it for this button and upon a heartbeat of late, so that nobody can keep it
for later; and only if its number is greater than that of the last one of its code, which is in flash, so that nobody can
play it again, also after a power cut. Until headquarters has the answer it repeats the command, and a repeat changes
nothing. The answer is an event, so it arrives.
"""

from firmware import configuration, settings, testing, wire

IDENTIFY_MS = 10_000
FRESH_MS = 90_000  # headquarters gets a heartbeat of every button about once a minute
LONGEST_ANSWER = 200  # letters

_NAMES = {
    wire.IDENTIFY: "identify",
    wire.WIFI: "wifi",
    wire.TEST_ALARM: "test",
    wire.REBOOT: "reboot",
    wire.CONFIGURE: "configuration",
    wire.UPDATE: "update",
    wire.RENEW: "certificate",
    wire.TEST_MODE: "testing",
    wire.TEST_OVER: "testing over",
}
_LONGEST = 112  # octets of a detail: as long for every network, so that its length says nothing of the password


def aes(key: bytes):
    """AES-256 of single blocks: every build of MicroPython has ECB, few have CTR."""
    import cryptolib

    return cryptolib.aes(key, 1).encrypt


def packed(network) -> bytes:
    """(name, password) of a network as the octets of a detail, not yet masked. Raises WireError: too long."""
    octets = wire.encode([network[0], network[1]])
    if len(octets) >= _LONGEST:
        raise wire.WireError("the network's name and password are too long")
    return bytes((len(octets),)) + octets + bytes(_LONGEST - 1 - len(octets))


def unpacked(octets: bytes) -> tuple:
    """(name, password) of the network in an unmasked detail. Raises WireError."""
    network = wire.decode(octets[1 : 1 + octets[0]]) if octets else None
    fault = settings.network_fault(network)
    if fault:
        raise wire.WireError(fault)
    return tuple(network)


class Commands:
    """Takes commands for one button. `wifi`: a wifi.Wifi, or None on a board without a radio.

    restart() asks for a restart, before which `may_restart` is asked once more.
    """

    def __init__(self, told, key: bytes, flash, button, wifi, cipher=aes, restart=None) -> None:
        self._id = told.id
        self._hq = told.hq
        self._key = key
        self._flash = flash
        self._button = button
        self._wifi = wifi
        self._cipher = cipher
        self._restart = restart
        self._configuration = configuration.Configuration(told, flash, lambda text: button.board.tell("error", text))
        self._tests = {}  # (boot, seq) of a test alarm -> (number of its command, when it was raised)
        self._doing = {}  # code -> number of the command that is being carried out

    def received(self, payload: bytes) -> None:
        """A command from the broker. Raises WireError for what is not to be believed, and does nothing then."""
        message = self._read(payload)
        number, code = (message[wire.BOOT], message[wire.SEQ]), message[wire.CODE]
        if code == wire.PIECE:  # an old one does no harm: its place and its hash are known
            if self._button.update and self._button.update.piece(message.get(wire.DETAIL)):
                self._button.beat()
            return
        beat = tuple(message.get(wire.UPON, (0, 0)))
        sent_ms = self._button.beat_sent_ms(beat)
        if 0 < beat[0] < self._button.outbox.boot:  # under way during a restart: it comes again upon a newer one
            self._button.board.tell("late", _NAMES.get(code, code), number=list(number))
            return
        if sent_ms is None or self._button.clock.ms() - sent_ms > FRESH_MS:
            if self._last(code)[0] == number:  # a repeat of what it has: it changes nothing, whenever it comes
                return
            raise wire.WireError("the command is not upon a heartbeat of late: it was kept on its way")
        for_s = self._granted_s(message.get(wire.DETAIL)) if code == wire.TEST_MODE else 0
        again = self._last(code)[0] == number  # it was cut short by a restart
        if not self._is_to_do(number, code):
            return
        self._button.board.tell("command", _NAMES.get(code, code), number=list(number))
        self._doing[code] = number
        if code == wire.IDENTIFY:
            self._identify(number)
        elif code == wire.WIFI:
            self._change_network(number, message.get(wire.DETAIL))
        elif code == wire.TEST_ALARM:
            self._test(number, again)
        elif code == wire.REBOOT:
            self._reboot(number, again)
        elif code == wire.CONFIGURE:
            self._configure(number, message.get(wire.DETAIL))
        elif code == wire.UPDATE:
            self._update(number, message.get(wire.DETAIL))
        elif code == wire.TEST_MODE:
            self._grant(number, sent_ms + 1000 * for_s)
        elif code == wire.TEST_OVER:
            self._button.testing.end()
            self._button.tend_testing()
            self.answer(True, number, code, "every press is an alarm")
        elif code == wire.RENEW:
            self._renew(number, message.get(wire.DETAIL))
        else:
            self.answer(False, number, code, "this firmware does not know the command %d" % code)

    def _read(self, payload: bytes) -> dict:
        if len(payload) > wire.MAX_ENVELOPE:
            raise wire.WireError("the command is longer than %d bytes" % wire.MAX_ENVELOPE)
        envelope = wire.unseal(payload)
        if envelope.kid != self._hq:
            raise wire.WireError("the command is from %s, not from headquarters" % envelope.kid)
        if not envelope.sealed_with(self._key):
            raise wire.WireError("the command's MAC is wrong")
        message = envelope.message
        if message[wire.KIND] != wire.COMMAND:
            raise wire.WireError("this is not a command")
        if message[wire.DEVICE] != self._id:
            raise wire.WireError("the command is for %s" % message[wire.DEVICE])
        return message

    # ---------------------------------------------------------------------------------------------- numbers

    def _is_to_do(self, number: tuple, code: int) -> bool:
        """Whether it is new, or was cut short by a restart. Raises WireError for an old one."""
        last, answer = self._last(code)
        if last is None or number > last:
            self._keep(code, number, None)
            return True
        if number < last:
            raise wire.WireError("the command %d, %d is older than the last one of its code" % number)
        if answer is None:
            return self._doing.get(code) != number
        if not self._button.outbox.holds(answer):
            raise wire.WireError("the command %d, %d was answered long ago" % number)
        return False

    def _last(self, code: int) -> tuple:
        """(number of the last command of this code, number of the event that answered it); None: there is none yet."""
        octets = self._flash.read("command-%d" % code)
        if octets is None:
            return None, None
        try:
            kept = wire.decode(octets)
            answer = kept.get(wire.SHOWN)
            return (kept[wire.BOOT], kept[wire.SEQ]), tuple(answer) if answer else None
        except (wire.WireError, AttributeError, KeyError):
            self._button.board.tell("error", "state/command-%d is damaged: any number counts as new" % code)
            return None, None

    def _keep(self, code: int, number: tuple, answer) -> None:
        kept = {wire.BOOT: number[0], wire.SEQ: number[1]}
        if answer:
            kept[wire.SHOWN] = list(answer)
        try:
            self._flash.write("command-%d" % code, wire.encode(kept))
        except OSError as problem:
            # Nothing is done that can't be remembered: headquarters sends it again.
            raise wire.WireError("the flash can't be written, so the command is not taken: %s" % problem) from None

    # --------------------------------------------------------------------------------------------- carrying out

    def answer(self, done: bool, number: tuple, code: int, text: str) -> None:
        """Tells headquarters what became of a command, in one sentence."""
        button = self._button
        if self._doing.get(code) == number:
            del self._doing[code]
        detail = {wire.ANSWER_BOOT: number[0], wire.ANSWER_SEQ: number[1], wire.ANSWER_TEXT: text[:LONGEST_ANSWER]}
        event = button.add_event(button.clock.ms(), wire.COMMAND_DONE if done else wire.COMMAND_FAILED, None, detail)
        button.board.tell("answer", text, done=done, number=list(number))
        if event is not None and self._last(code)[0] == number:
            self._keep(code, number, event)

    def _identify(self, number: tuple) -> None:
        if self._button.identify(IDENTIFY_MS):
            text = "its lamp blinks amber and green for %d s" % (IDENTIFY_MS // 1000)
            self.answer(True, number, wire.IDENTIFY, text)
        else:
            self.answer(False, number, wire.IDENTIFY, "an alarm is open, and its lamp shows nothing else meanwhile")

    def _granted_s(self, detail) -> int:
        """For how long test mode is granted. Raises WireError for what can't be, and takes no note of it."""
        fields = wire.decode(detail) if isinstance(detail, bytes) else None
        for_s = fields.get(wire.TEST_FOR_S) if isinstance(fields, dict) else None
        if not isinstance(for_s, int) or not 0 < for_s <= testing.LONGEST_S:
            raise wire.WireError("test mode is granted for %d s at most" % testing.LONGEST_S)
        return for_s

    def _grant(self, number: tuple, until_ms: int) -> None:
        now_ms = self._button.clock.ms()
        self._button.testing.grant(until_ms)
        self._button.tend_testing()
        told = (max(0, until_ms - now_ms) // 1000, testing.PRESSES, testing.PATTERN_MS // 1000)
        text = "for %d s: %d presses within %d s, and their alarm closed, make further ones tests" % told
        self.answer(True, number, wire.TEST_MODE, text)

    def _test(self, number: tuple, again: bool) -> None:
        """The end-to-end proof: answered when headquarters' receipt for the test alarm is here."""
        alarms = self._button.latch.alarms
        tests = [alarm for alarm in alarms if alarm.cause == wire.TEST]
        if len(tests) < len(alarms):
            self.answer(False, number, wire.TEST_ALARM, "an alarm is open: nothing is tested meanwhile")
        elif again and tests:  # raised before the restart
            self._tests[(tests[-1].boot, tests[-1].seq)] = (number, tests[-1].happened_ms)
            if tests[-1].stage >= wire.AT_HQ:
                self.arrived((tests[-1].boot, tests[-1].seq))
        else:
            began_ms = self._button.clock.ms()
            self._tests[self._button.test()] = (number, began_ms)

    def arrived(self, alarm: tuple) -> None:
        """Headquarters' receipt for an alarm, (boot, seq), is here: if a command asked for it, it is answered."""
        number, began_ms = self._tests.pop(alarm, (None, 0))
        if number:
            took_ms = self._button.clock.ms() - began_ms
            text = "headquarters' receipt for the test alarm was here after %d ms" % took_ms
            self.answer(True, number, wire.TEST_ALARM, text)

    def may_restart(self) -> bool:
        """Whether nothing is lost by a restart now: no alarm is open, and nobody presses."""
        return self._button.latch.least() is None and not self._button.loops.pressed

    def _reboot(self, number: tuple, again: bool) -> None:
        if again:
            self._started_again(number)
        elif self.may_restart() and self._restart:
            self._restart()
        else:
            self.answer(False, number, wire.REBOOT, "an alarm is open: it does not start again meanwhile")

    def kept_from_restart(self) -> None:
        """An alarm came between the command and the restart."""
        number = self._doing.get(wire.REBOOT)
        if number:
            self.answer(False, number, wire.REBOOT, "an alarm came first: it did not start again")

    def resume(self) -> None:
        """Call once at the start: answers the command that made it."""
        number, answer = self._last(wire.REBOOT)
        if number and not answer:
            try:
                self._started_again(number)
            except wire.WireError as problem:
                self._button.board.tell("error", str(problem))

    def _started_again(self, number: tuple) -> None:
        button = self._button
        text = "it started again: start %d, reset cause %d" % (button.outbox.boot, button.board.reset_cause)
        self.answer(True, number, wire.REBOOT, text)

    def _configure(self, number: tuple, detail) -> None:
        try:
            changes = configuration.unpacked(detail)
            self._configuration.change(changes)
        except (wire.WireError, settings.SettingsFault) as problem:
            self.answer(False, number, wire.CONFIGURE, "nothing was changed: %s" % problem)
        except OSError as problem:
            self.answer(False, number, wire.CONFIGURE, "nothing was changed, the flash fails: %s" % problem)
        else:
            self.answer(True, number, wire.CONFIGURE, "it has %s from now on" % configuration.told(changes))

    def _change_network(self, number: tuple, detail) -> None:
        if self._wifi is None:
            self.answer(False, number, wire.WIFI, "this board has no radio: its network is the cable")
            return
        block = self._cipher(wire.command_key(self._key))
        try:
            if not isinstance(detail, bytes):
                raise wire.WireError("it names no network")
            network = unpacked(wire.masked(detail, number[0], number[1], block))
            self._wifi.known.put_on_trial(network, number)
        except wire.WireError as problem:
            self.answer(False, number, wire.WIFI, "the network can't be used: %s" % problem)
        except OSError as problem:
            self.answer(False, number, wire.WIFI, "the network can't be kept, the flash fails: %s" % problem)

    def _renew(self, number: tuple, detail) -> None:
        try:
            self._button.renewal.put_on_trial(number, detail)
        except (wire.WireError, OSError, MemoryError) as problem:
            self.answer(False, number, wire.RENEW, "the certificate is not taken: %s" % problem)

    def _update(self, number: tuple, detail) -> None:
        try:
            self._button.update.offer(number, detail)
        except (wire.WireError, OSError, MemoryError) as problem:
            self.answer(False, number, wire.UPDATE, "it keeps its firmware: %s" % problem)
