"""A station's journal in memory, with the methods of gateway/journal.py: what is committed survives, nothing else does.

tests/simulation/test_simulation_journal.py holds it against the real one over SQLite.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway.desk import Outcome, State, StorageError
from gateway.incidents import check_step
from gateway.rows import Entry, Heard, Kept, Owed, lasting
from gateway.vocabulary import STAGES, STATES, STEP_BOOT, STEP_BY, STEP_NOTE, STEP_OUTCOME, STEP_SEQ, STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tests.simulation.station import Station

Number = tuple[str, int, int]

RETRY_MS = 1_000  # in trouble


@dataclass(slots=True)
class _Job:
    work: Callable[[Any], Any]
    done: Callable[[Any], None]
    key: object


@dataclass
class Records:
    """What is on a station's disk."""

    rows: list[Entry] = field(default_factory=list)  # position less one
    positions: dict[Number, int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)  # of incidents, by position
    owed: dict[str, dict[int, int | None]] = field(default_factory=dict)  # by parent: position -> stage
    heard: dict[str, Heard] = field(default_factory=dict)
    chain: list[bytes] = field(default_factory=list)  # of each row: over it and all before
    marks: dict[str, str] = field(default_factory=dict)  # by parent
    at_ms: dict[tuple[str, int], int] = field(default_factory=dict)  # by parent and position: of its first receipt
    boot: int = 0

    def copy(self) -> Records:
        """A backup."""
        owed = {parent: dict(stages) for parent, stages in self.owed.items()}
        return Records(
            list(self.rows), dict(self.positions), dict(self.states), owed, dict(self.heard), list(self.chain),
            dict(self.marks), dict(self.at_ms), self.boot,
        )  # fmt: skip

    def has(self, identity: Number) -> bool:
        """Whether a message is committed."""
        return identity in self.positions

    def stage(self, identity: Number) -> int | None:
        """The newest stage that can be receipted for a message; None if it isn't here."""
        position = self.positions.get(identity)
        if position is None:
            return None
        state = self.states.get(position)
        return wire.AT_HQ if state is None else STAGES[state]


def kind_of(journal: Any, identity: Number) -> int | None:
    """In the place of the real one: here a journal is its own connection."""
    position = journal.records.positions.get(identity)
    return None if position is None else journal.records.rows[position - 1].kind


class Journal:
    """The journal of one life of a station."""

    def __init__(self, station: Station, records: Records, parents: Sequence[str]) -> None:
        self.records = records
        self._station = station
        self._parents = parents
        self._alarms: list[_Job] = []
        self._others: list[_Job] = []
        self._keyed: dict[object, _Job] = {}
        self._writing = False
        self.trouble: str | None = None
        self.run = station.engine.chance.randbytes(4) if station.engine else bytes(4)
        self.on_trouble: Callable[[str], None] = lambda _: None
        self.on_recovered: Callable[[str, float], None] = lambda _why, _lasted_s: None
        for parent in parents:
            records.owed.setdefault(parent, {})

    @property
    def backlog(self) -> int:
        """Writes that wait."""
        return len(self._alarms) + len(self._others)

    @property
    def stuck(self) -> bool:
        """Whether what comes now is not committed soon."""
        return self.trouble is not None

    def next_boot(self) -> int:
        """The station's next boot number."""
        boot = max(self.records.boot + 1, self._station.utc_ms() // 1000, self._station.unwritten + 1)
        if self._station.disk_fails:
            self.trouble = "the disk fails"
            self._station.unwritten = boot
            self.later(lambda _: setattr(self.records, "boot", boot))
        else:
            self.records.boot = boot
        return boot

    def put(self, entry: Entry, done: Callable[[Kept], None]) -> None:
        """Journals an entry."""
        self.later(lambda connection: self.keep(connection, entry), done, alarm=entry.kind == wire.ALARM)

    def later(
        self,
        work: Callable[[Any], Any],
        done: Callable[[Any], None] = lambda _: None,
        *,
        alarm: bool = False,
        failed: Callable[[Exception], None] = lambda _: None,
        key: object = None,
        instead: Callable[[Any], Any] | None = None,
        entry: Entry | None = None,
    ) -> None:
        """Does `work` in the next transaction. key: of equal ones that wait only the last is done.

        failed, instead: never needed, since whatever is said has a place here.
        """
        known = self._keyed.get(key) if key is not None else None
        if known is not None:
            known.work, known.done = work, done
            return
        job = _Job(work, done, key)
        if key is not None:
            self._keyed[key] = job
        (self._alarms if alarm else self._others).append(job)
        if not self._writing:
            self._writing = True
            self._station.engine.post(self._station, self._station.commit_ms(), self._commit)

    def now(self, work: Callable[[Any], Any]) -> Any:
        """Does `work` and returns its result once it is committed. Raises StorageError."""
        if self._station.disk_fails:
            raise StorageError("the disk fails")
        return work(self)

    def _commit(self) -> None:
        """Until here nothing is on the disk; from here all of it is, and nobody was told."""
        station = self._station
        if station.disk_fails:
            if self.trouble is None:
                self.trouble = "the disk fails"
                self.on_trouble(self.trouble)
            station.engine.post(station, RETRY_MS, self._commit)
            return
        jobs = self._alarms or self._others
        if self._alarms:
            self._alarms = []
        else:
            self._others = []
        for job in jobs:
            self._keyed.pop(job.key, None)
        station.burn()
        results = [(job.done, job.work(self)) for job in jobs]
        pause_ms = int(station.engine.random() * 2)
        if pause_ms:
            station.engine.post(station, pause_ms, self._tell, results)
        else:
            station.burn()
            self._tell(results)
        if self._alarms or self._others:
            station.engine.post(station, station.commit_ms(), self._commit)
        else:
            self._writing = False
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            self.on_recovered(trouble, 1.0)

    def _tell(self, results: list[tuple[Callable[[Any], None], Any]]) -> None:
        for done, result in results:
            done(result)
            self._station.burn()

    # ----------------------------------------------------------------------------- within a transaction

    def keep(self, _connection: Any, entry: Entry) -> Kept:
        """Writes an entry."""
        records = self.records
        known = records.positions.get(entry.identity)
        if known is not None:
            kept = records.rows[known - 1]
            conflict = lasting(wire.unseal(kept.envelope).message) != lasting(entry.message)
            return Kept(known, fresh=False, conflict=conflict, stage=records.stage(entry.identity) or wire.AT_HQ)
        return self._add(entry)

    def _add(self, entry: Entry) -> Kept:
        records = self.records
        records.rows.append(entry)
        position = len(records.rows)
        records.positions[entry.identity] = position
        before = records.chain[-1] if records.chain else bytes(8)
        records.chain.append(zlib.crc32(f"{entry.identity}".encode(), int.from_bytes(before, "big")).to_bytes(8, "big"))
        if entry.kind == wire.ALARM:
            records.states[position] = State.RAISED
        for parent in self._parents:
            records.owed[parent][position] = None
        self._station.world.committed(self._station, entry)
        return Kept(position, fresh=True, conflict=False, stage=wire.AT_HQ)

    def delivered(self, _connection: Any, parent: str, identity: Number, stage: int, at_ms: int = 0) -> State | None:
        """Notes a parent's receipt."""
        records = self.records
        position = records.positions.get(identity)
        if position is None:
            return None
        if parent == "hq":
            self._station.world.told(self._station, identity, stage)
        before = records.owed[parent].get(position)
        if before is None or before < stage:
            records.owed[parent][position] = stage
            records.at_ms.setdefault((parent, position), at_ms)
        state = STATES.get(stage)
        now = records.states.get(position)
        if state is None or now is None or STAGES[now] >= stage:
            return None
        records.states[position] = state
        return state

    def delivered_all(self, connection: Any, parent: str, receipts: Sequence[tuple[Number, int]], now_ms: int) -> None:
        """Notes receipts that move no incident."""
        for identity, stage in receipts:
            self.delivered(connection, parent, identity, stage, now_ms)

    def owe_again(self, _connection: Any, parent: str, since_ms: int, after: int) -> int | None:
        """What `parent` receipted since then counts as never delivered."""
        assert after == 0
        owed = self.records.owed[parent]
        for position, stage in owed.items():
            if stage and self.records.at_ms.get((parent, position), since_ms) >= since_ms:
                self.records.at_ms.pop((parent, position), None)
                owed[position] = None
        return None

    def keep_marks(self, _connection: Any, parent: str, text: str) -> None:
        """Writes down what is remembered of a parent's journal."""
        self.records.marks[parent] = text

    def step(
        self,
        connection: Any,
        number: int,
        state: State,
        by: str,
        note: str,
        outcome: Outcome | None,
        own: Callable[[int, str, object], Entry],
    ) -> tuple[Number, Entry]:
        """Moves an incident."""
        if number not in self.records.states:
            raise KeyError(number)
        check_step(self.records.states[number], state, outcome, note)
        self.records.states[number] = state
        source, boot, seq = self.records.rows[number - 1].identity
        detail = {STEP_BOOT: boot, STEP_SEQ: seq, STEP_BY: by, STEP_NOTE: note}
        if outcome:
            detail[STEP_OUTCOME] = outcome.value
        entry = own(STEPS[state], source, detail)
        self.keep(connection, entry)
        return (source, boot, seq), entry

    def keep_heard(self, _connection: Any, heard: Sequence[Heard]) -> None:
        """Writes what children said last."""
        for last in heard:
            self.records.heard[last.child] = last

    def forget_heard(self, _connection: Any, children: Collection[str]) -> None:
        """Deletes what these said last."""
        for child in children:
            self.records.heard.pop(child, None)

    # ------------------------------------------------------------------------------------------ readers

    @property
    def mark(self) -> tuple[int, bytes]:
        """Position and chain of the newest entry."""
        chain = self.records.chain
        return (len(chain), chain[-1]) if chain else (0, bytes(8))

    def holds(self, position: int, chain_begins: bytes) -> bool:
        """Whether the entry at a position is the one whose chain begins so."""
        chain = self.records.chain
        return position == 0 or (position <= len(chain) and chain[position - 1] == chain_begins)

    def marks(self, parent: str) -> str | None:
        """What is remembered of a parent's journal."""
        return self.records.marks.get(parent)

    def stage(self, identity: Number) -> int | None:
        """The newest stage that can be receipted for a message; None if it isn't here."""
        return self.records.stage(identity)

    def owed(self, parent: str, kind: int, after: int, limit: int) -> list[Owed]:
        """What `parent` has not receipted of one kind beyond the position `after`, oldest first."""
        found = []
        for position, stage in self.records.owed[parent].items():
            entry = self.records.rows[position - 1]
            if stage is None and position > after and entry.kind == kind and len(found) < limit:
                found.append(
                    Owed(
                        position, entry.identity, entry.envelope, entry.hops, entry.received_at_ms, entry.happened_at_ms
                    )
                )
        return found

    def heard(self) -> list[Heard]:
        """What every child said last, as far as it was kept."""
        return list(self.records.heard.values())
