"""What a station does about marks (gateway/marks.py): as a parent it answers, as a child it delivers again what is lacking."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from firmware import wire
from gateway import dates, marks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.clock import Clock
    from gateway.journal import Journal
    from gateway.uplink import Uplink

TOLD_MS = 600_000  # between two events that this journal lacks what it had
MISSED_MS = 60_000  # so long an alarm on a light may be missing here: a station below may deliver it again
MOST_MISSED = 1_000


class Marking:
    """Of one station. event(code, subject, detail) journals an event of its own. Safe from any thread."""

    def __init__(self, station: str, journal: Journal, clock: Clock, event: Callable[[int, str, object], None]) -> None:
        self.uplinks: Sequence[Uplink] = ()
        self.beat: Callable[[str], None] = lambda _parent: None  # a heartbeat to a parent, out of turn
        self._station = station
        self._journal = journal
        self._clock = clock
        self._event = event
        self._changed: set[str] = set()  # parents whose marks are to be written down
        self._owing: set[str] = set()  # parents to whom much is being owed again
        self._missed: OrderedDict[tuple[str, int, int], int | None] = OrderedDict()  # since when; None: it was told of
        self._told_ms = -TOLD_MS

    # ------------------------------------------------------------------------------------ as a parent

    def answer(self, station: str, message: Mapping[int, Any], now_ms: int) -> dict[int, Any]:
        """What an answer tells a station: what this journal holds, and whether it holds what it said before."""
        newest, asked, run = self._journal.mark, marks.read(message, wire.MARK), self._journal.run
        told: dict[int, Any] = {} if newest is None else {wire.MARK: [newest[0], newest[1][: marks.CHAIN_BYTES] + run]}
        if asked is None:
            return told
        position, sign = asked
        try:  # what this run told is there; of what an earlier one told, the journal knows
            of_this_run = newest is not None and position <= newest[0] and sign.endswith(run)
            known = of_this_run or self._journal.holds(position, sign[: marks.CHAIN_BYTES])
        except DBAPIError as error:
            self._journal.report(error)
            return told
        if not known and now_ms - self._told_ms >= TOLD_MS:
            self._told_ms = now_ms
            why = f"an older state of it was put back: {station} saw entry {position}, which is not there or is another"
            self._event(wire.JOURNAL_LACKS, self._station, f"{why}; stations below deliver again what they still hold")
        says = marks.LACKED if not known else marks.KNOWN if sign.endswith(run) else marks.STARTED_ANEW
        return told | {wire.KNOWN: [*asked, says]}

    def shown(self, alarm: tuple[str, int, int], stage: int, *, here: bool, now_ms: int) -> None:
        """A light shows an alarm. One that headquarters is said to have, and that is not here, is told of if it stays so."""
        if here or not wire.AT_HQ <= stage < wire.CLOSED:
            self._missed.pop(alarm, None)
            return
        since = self._missed.setdefault(alarm, now_ms)
        if since is not None and now_ms - since >= MISSED_MS:
            self._missed[alarm] = None
            source, boot, seq = alarm
            why = f"its light says that headquarters has alarm {boot}/{seq}, which is not there: ask what happened"
            self._event(wire.JOURNAL_LACKS, source, why)
        if len(self._missed) > MOST_MISSED:
            self._missed.popitem(last=False)

    # ------------------------------------------------------------------------------------- as a child

    def answered(self, parent: str, answer: Mapping[int, Any]) -> None:
        """A parent's answer says what its journal holds; what it lacks of what was delivered is owed again."""
        uplink = next((one for one in self.uplinks if one.parent.id == parent), None)
        if uplink is None or parent in self._owing:
            return
        known, newest = marks.read(answer, wire.KNOWN), marks.read(answer, wire.MARK)
        due = None if known is None else uplink.marks.answered(known[:2], known[2])
        if due is not None:
            self._owe_again(uplink, due)
        elif uplink.marks.searching:
            self.beat(parent)
        if newest is not None and uplink.marks.told(newest, self._clock.utc_ms()):
            self._changed.add(parent)

    def _owe_again(self, uplink: Uplink, due: marks.Due) -> None:
        parent = uplink.parent.id
        self._owing.add(parent)
        if due.lacking:
            since = dates.text(max(0, due.since_ms))
            why = f"it lacks what was delivered to it since {since}, and gets it again"
            self._event(wire.JOURNAL_LACKS, parent, why)

        def some(after: int) -> None:
            def done(left: int | None) -> None:
                uplink.again()
                if left is None:
                    self._owing.discard(parent)
                else:
                    some(left)

            def failed(_: Exception) -> None:
                self._owing.discard(parent)

            self._journal.later(
                lambda one: self._journal.owe_again(one, parent, due.since_ms, after), done, failed=failed
            )

        some(0)

    def save(self) -> None:
        """Writes down what changed. Not while it is not known what a parent lacks: a restart must ask again."""
        for uplink in self.uplinks:
            parent = uplink.parent.id
            if parent in self._changed and parent not in self._owing and not uplink.marks.searching:
                self._changed.discard(parent)
                self._write(parent, uplink.marks.text)

    def _write(self, parent: str, text: str) -> None:
        self._journal.later(lambda connection: self._journal.keep_marks(connection, parent, text))
