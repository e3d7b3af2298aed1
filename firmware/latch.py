"""The life of an alarm on the button: latched, sent, at the gateway, at HQ, acknowledged, responding, closed.

Pure. An alarm, once latched, leaves only when headquarters has closed it. Its stage only grows, and only by a receipt
for exactly this alarm: an old receipt can't turn a newer alarm's light green.
"""

from firmware import wire

RESEND_MS = (1000, 2000, 4000, 5000)  # pauses after the first, second, … sending; the last one goes on for ever


class Alarm:
    """One press.

    happened_ms: when the first reading said pressed, by this start's monotonic clock; negative if it was earlier.
    stage: 0 while nobody has confirmed it, else the highest stage of a receipt.
    """

    def __init__(
        self, boot: int, seq: int, happened_ms: int, cause: int, how: int, resumed: int = 0, stage: int = 0
    ) -> None:
        self.boot = boot
        self.seq = seq
        self.happened_ms = happened_ms
        self.cause = cause
        self.how = how
        self.resumed = resumed
        self.stage = stage
        self.sendings = 0  # since the connection came up
        self.due_ms = None  # when to send it again; None: at once

    def message(self, now_ms: int) -> dict:
        """The alarm as it goes on the wire at `now_ms`."""
        message = {
            wire.KIND: wire.ALARM,
            wire.BOOT: self.boot,
            wire.SEQ: self.seq,
            wire.AGE: max(0, now_ms - self.happened_ms),
            wire.CAUSE: self.cause,
            wire.HOW: self.how,
        }
        if self.resumed:
            message[wire.RESUMED] = self.resumed
        return message


class Latch:
    """The alarms that are not closed yet, oldest first."""

    def __init__(self, alarms: list) -> None:
        self.alarms = alarms

    def add(self, alarm: Alarm) -> None:
        """A new press."""
        self.alarms.append(alarm)

    def drop(self, boot: int, seq: int) -> None:
        """Forgets an alarm that headquarters has: the flash needs its room (outbox.MAX_ALARMS)."""
        self.alarms = [alarm for alarm in self.alarms if (alarm.boot, alarm.seq) != (boot, seq)]

    def newest(self, test: bool):
        """The newest open alarm that is a test, or that is none; None when there is none."""
        for alarm in reversed(self.alarms):
            if (alarm.cause == wire.TEST) is test:
                return alarm
        return None

    def sent(self, alarm: Alarm, now_ms: int) -> None:
        """The alarm was handed to a connection."""
        alarm.due_ms = now_ms + RESEND_MS[min(alarm.sendings, len(RESEND_MS) - 1)]
        alarm.sendings += 1

    def connected(self) -> None:
        """A new connection: whatever headquarters does not have is due at once."""
        for alarm in self.alarms:
            alarm.sendings = 0
            alarm.due_ms = None

    def unconfirmed(self) -> list:
        """The alarms that headquarters does not have, oldest first."""
        return [alarm for alarm in self.alarms if alarm.stage < wire.AT_HQ]

    def due(self, now_ms: int) -> list:
        """The alarms to send now, oldest first. A receipt from the gateway alone does not end it: it may be stolen."""
        return [alarm for alarm in self.unconfirmed() if alarm.due_ms is None or alarm.due_ms <= now_ms]

    def wait_ms(self, now_ms: int):
        """Milliseconds until the next alarm is due; None when there is none."""
        waits = [max(0, alarm.due_ms - now_ms) for alarm in self.unconfirmed() if alarm.due_ms is not None]
        return min(waits) if waits else None

    def receipt(self, boot: int, seq: int, stage: int):
        """The alarm that this receipt moves on, else None. A closed one has left the latch."""
        for alarm in self.alarms:
            if alarm.boot == boot and alarm.seq == seq:
                if stage <= alarm.stage:
                    return None
                alarm.stage = stage
                if stage >= wire.CLOSED:
                    self.alarms.remove(alarm)
                return alarm
        return None

    def least(self):
        """The stage of the least advanced open alarm: what the guard is shown. None when there is none."""
        return min([alarm.stage for alarm in self.alarms]) if self.alarms else None

    def nobody_has_since(self):
        """When the oldest alarm without any receipt was pressed, ms; None when each has one."""
        waiting = [alarm.happened_ms for alarm in self.alarms if not alarm.stage]
        return min(waiting) if waiting else None
