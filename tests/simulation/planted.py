"""Bugs that the simulator must find: each breaks one rule of the real code (or of the journal's stand-in) for a while.

The table PLANTED is the list. A bug counts as caught when a schedule of its kind ends in a violation.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmware import latch, wire
from firmware.button import PROVED_MS, SAID_MS, Button
from firmware.flash import Flash
from firmware.outbox import Outbox
from firmware.window import Window
from gateway.exchange import Exchange
from gateway.ingest import Judge
from gateway.marking import Marking
from gateway.marks import KNOWN, STARTED_ANEW, Marks
from gateway.passing import PASS_MS, Passing
from gateway.relay import Outgoing
from gateway.supervision import Supervision, Verdict
from gateway.uplink import Uplink
from tests.simulation import records, schedules
from tests.simulation.button import ButtonMachine
from tests.simulation.records import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WITHIN = 2_000  # schedules of its kind that a bug may survive


@dataclass(frozen=True)
class Planted:
    """One bug. owner, name: what is replaced; bug(original) makes the replacement. kind: of schedules that catch it."""

    name: str
    breaks: str
    owner: Any
    attribute: str
    bug: Callable[[Any], Any]
    kind: str = "short"

    @property
    def where(self) -> str:
        """What is replaced, in words."""
        return f"{self.owner.__name__}.{self.attribute}"

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Puts the bug into place."""
        held = self.owner.__dict__[self.attribute]
        setattr(self.owner, self.attribute, self.bug(held))
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, held)


def caught(bug: Planted, *, within: int = WITHIN) -> schedules.Result | None:
    """The first schedule that finds the bug; None: none did."""
    with bug.planted():
        for seed in range(within):
            result = schedules.run(seed, kind=bug.kind)
            if result.violation:
                return result
    return None


# ------------------------------------------------------------------------------------------- the stations


def _receipt_early(record: Any) -> Any:
    def early(self: Exchange, arrival: Any, payload: bytes, done: Any, receipts: Any) -> None:
        self.receipt(arrival.identity, wire.AT_HQ if self._hq else wire.AT_GATEWAY, arrival.child)
        record(self, arrival, payload, done, receipts)

    return early


def _puback_early(record: Any) -> Any:
    def early(self: Exchange, arrival: Any, payload: bytes, done: Any, receipts: Any) -> None:
        done()
        record(self, arrival, payload, lambda: None, receipts)

    return early


def _no_dedup(_keep: Any) -> Any:
    return lambda self, _connection, entry: self._add(entry)


def _forgets_at_reconnection(_reconnected: Any) -> Any:
    def reconnected(self: Outgoing) -> None:
        for lane in (self.alarms, self.events):
            for identity in [*lane.waiting, *lane.flying]:
                lane.take(identity)

    return reconnected


def _sent_is_done(due: Any) -> Any:
    def once(self: Outgoing, now_ms: int) -> list[Any]:
        letters: list[Any] = due(self, now_ms)
        for letter in letters:
            self.receipted(letter.identity)
        return letters

    return once


def _starts_empty(_outstanding: Any) -> Any:
    return lambda _self, _kind, _after, _limit: []


def _believes_everything(_believe: Any) -> Any:
    return lambda _self, _envelope, _who: None


def _forgets_that_it_told(due: Any) -> Any:
    def again(self: Supervision, now_ms: int, **how: Any) -> list[Any]:
        found: list[Any] = due(self, now_ms, **how)
        for silence in found:
            self.children[silence.child].reported = False
        return found

    return again


def _believes_old_wills(_gone: Any) -> Any:
    def gone(self: Supervision, child: str, _boot: int, _seq: int, now_ms: int) -> None:
        watched = self.children.get(child)
        if watched and watched.last_ms is not None:
            watched.gone_ms = now_ms - 60_000

    return gone


def _never_silent(_deadline: Any) -> Any:
    return lambda _self, _watched, _now_ms: (1 << 60, "")


def _patient(deadline: Any) -> Any:
    def later(self: Supervision, watched: Any, now_ms: int) -> tuple[int, str]:
        at_ms, why = deadline(self, watched, now_ms)
        return at_ms + 7_000, why

    return later


def _hears_the_past(heard: Any) -> Any:
    def believing(self: Supervision, child: str, *rest: Any, **more: Any) -> Verdict:
        verdict: Verdict = heard(self, child, *rest, **more)
        return Verdict.REPEATED if verdict is Verdict.FRESH and self.children[child].reported else verdict

    return believing


def _believes_replays(heard: Any) -> Any:
    def believing(
        self: Supervision, child: str, boot: int, seq: int, uptime_ms: int, now_ms: int, *rest: Any, **more: Any
    ) -> Verdict:
        verdict: Verdict = heard(self, child, boot, seq, uptime_ms, now_ms, *rest, **more)
        if verdict is Verdict.REPEATED:
            self.children[child].last_ms = now_ms
        return verdict

    return believing


def _thins_out(passes: Any) -> Any:
    def seldom(self: Passing, child: str, message: Any, now_ms: int, **_: Any) -> bool:
        known = self._passed.get(child)
        return (not known or now_ms - known.at_ms >= PASS_MS) and passes(self, child, message, now_ms, afresh=False)

    return seldom


def _any_step(_check: Any) -> Any:
    return lambda *_: None


def _knows_everything(_answer: Any) -> Any:
    def answer(self: Marking, station: str, message: Any, now_ms: int) -> dict[int, Any]:
        told: dict[int, Any] = _answer(self, station, message, now_ms)
        return told if wire.KNOWN not in told else told | {wire.KNOWN: [*told[wire.KNOWN][:2], KNOWN]}

    return answer


def _marks_only(answered: Any) -> Any:
    return lambda self, mark, says: answered(self, mark, KNOWN if says == STARTED_ANEW else says)


# ------------------------------------------------------------------------------------------- the buttons


def _writes_in_place(_write: Any) -> Any:
    def write(self: Flash, name: str, octets: bytes) -> None:
        with self._open(self._folder + "/" + name, "wb") as file:
            file.write(octets)

    return write


def _forgets_alarms(_keep: Any) -> Any:
    return lambda _self, _alarm, _now_ms: None


def _any_receipt(_receipt: Any) -> Any:
    def receipt(self: latch.Latch, _boot: int, _seq: int, stage: int) -> Any:
        for alarm in self.alarms:
            if stage > alarm.stage:
                alarm.stage = stage
                return alarm
        return None

    return receipt


def _goes_back(_receipt: Any) -> Any:
    def receipt(self: latch.Latch, boot: int, seq: int, stage: int) -> Any:
        for alarm in self.alarms:
            if (alarm.boot, alarm.seq) == (boot, seq):
                alarm.stage = stage
                return alarm
        return None

    return receipt


def _done_at_the_gateway(_unconfirmed: Any) -> Any:
    return lambda self: [alarm for alarm in self.alarms if alarm.stage < wire.AT_GATEWAY]


def _dropped_at_the_gateway(receipted: Any) -> Any:
    def dropping(self: Button, number: tuple[int, int], stage: int) -> None:
        receipted(self, number, stage)
        if stage == wire.AT_GATEWAY:
            self.latch.drop(*number)
            self.outbox.remove_alarm(*number)

    return dropping


def _counts_in_memory(_count: Any) -> Any:
    return lambda _self, least: least + 1


def _same_boot(count: Any) -> Any:
    return lambda self, least: max(1, count(self, least) - 1)


def _no_window(_due: Any) -> Any:
    return lambda self, waiting, now_ms: [number for number in waiting if self._due.get(number, 0) <= now_ms]


def _bare_is_enough(receipt: Any) -> Any:
    def believing(self: Button, payload: bytes) -> Any:
        return wire.message_of(payload) if payload[:1] != b"\xd1" else receipt(self, payload)

    return believing


def _its_word_is_enough(_vouched: Any) -> Any:
    def believing(self: Button, number: tuple[int, int]) -> None:
        for beat, sent_ms in self._beats:
            if beat == number:
                self._supervised(sent_ms + PROVED_MS, sent_ms + SAID_MS)

    return believing


def _never_again(_sent: Any) -> Any:
    def sent(_self: latch.Latch, alarm: Any, _now_ms: int) -> None:
        alarm.due_ms = 1 << 60

    return sent


PLANTED = (
    Planted(
        "receipt before commit", "a receipt goes out as soon as a message comes", Exchange, "_record", _receipt_early
    ),
    Planted("PUBACK before commit", "the broker forgets what is not on the disk", Exchange, "_record", _puback_early),
    Planted("no deduplication", "a repeat is journaled again", Journal, "keep", _no_dedup),
    Planted(
        "relay forgets at reconnection",
        "what was outstanding is dropped",
        Outgoing,
        "reconnected",
        _forgets_at_reconnection,
        "long",
    ),
    Planted("relay sends once", "sent counts as arrived", Outgoing, "due", _sent_is_done, "long"),
    Planted(
        "relay starts empty", "a restart loads nothing from the journal", Uplink, "_outstanding", _starts_empty, "long"
    ),
    Planted("no MAC", "headquarters believes whatever comes", Judge, "_believe", _believes_everything),
    Planted(
        "reported flag forgotten",
        "a silent child is told of again and again",
        Supervision,
        "due",
        _forgets_that_it_told,
        "watch",
    ),
    Planted(
        "old will believed", "a will of an earlier session counts", Supervision, "gone", _believes_old_wills, "watch"
    ),
    Planted("silence unheard", "no silence is an event", Supervision, "_deadline", _never_silent, "watch"),
    Planted("deadline too long", "silence is told of 7 s too late", Supervision, "_deadline", _patient, "watch"),
    Planted("never back", "a child that is back stays reported", Supervision, "heard", _hears_the_past, "watch"),
    Planted(
        "replay believed", "a recorded heartbeat is a sign of life", Supervision, "heard", _believes_replays, "watch"
    ),
    Planted(
        "relay thins out again",
        "whatever a heartbeat says, it waits for its minute",
        Passing,
        "passes",
        _thins_out,
        "watch",
    ),
    Planted(
        "backup unnoticed",
        "a parent takes every mark for its own",
        Marking,
        "answer",
        _knows_everything,
        "restored",
    ),
    Planted(
        "what came after the mark forgotten",
        "a parent that started anew holds what it receipted last, too",
        Marks,
        "answered",
        _marks_only,
        "restored",
    ),
    Planted("any step", "an incident moves backwards", records, "check_step", _any_step),
    Planted("torn write", "a record is written in place", Flash, "write", _writes_in_place),
    Planted("alarm not kept", "an alarm is in memory only", Outbox, "keep_alarm", _forgets_alarms),
    Planted(
        "receipt of another alarm", "any receipt counts for the oldest alarm", latch.Latch, "receipt", _any_receipt
    ),
    Planted("stage goes back", "an old receipt counts", latch.Latch, "receipt", _goes_back),
    Planted(
        "resending stops too soon", "the gateway's receipt ends it", latch.Latch, "unconfirmed", _done_at_the_gateway
    ),
    Planted(
        "dropped after stage 1",
        "an alarm is removed when the gateway has it",
        Button,
        "_receipted",
        _dropped_at_the_gateway,
    ),
    Planted("resending never", "an alarm is sent once a connection", latch.Latch, "sent", _never_again),
    Planted("counter lost", "the boot counter is not in flash", Outbox, "_count", _counts_in_memory, "watch"),
    Planted("counter reused", "a start takes the number of the last one", Outbox, "_count", _same_boot),
    Planted("window unbounded", "a backlog goes out all at once", Window, "due", _no_window, "long"),
    Planted(
        "gateway's word for supervised",
        "the gateway's answer to a heartbeat counts as headquarters' own",
        Button,
        "_vouched",
        _its_word_is_enough,
        "watch",
    ),
    Planted("bare receipt believed", "anybody can say at_hq", Button, "_receipt", _bare_is_enough),
)

__all__ = ["PLANTED", "ButtonMachine", "Planted", "caught"]
