"""The append-only record: what is in it is on the disk, once, and what is receipted is in it.

One thread writes. It takes everything that waits, alarms first and by themselves, and commits it together; only then
does it tell whoever asked. While the disk is full, read-only or failing it keeps what waits, promises nobody anything,
and tries again until it goes; a damaged database or a fault of the program stops the whole station, loudly.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from firmware import wire
from gateway import chain, database, deleted, schema, together
from gateway.chain import CHECKPOINT_ENTRIES, CHECKPOINT_S, Checkpoint, Sealer
from gateway.deliveries import Deliveries
from gateway.desk import MaintenanceRefusedError, Outcome, State, StepRefusedError, StorageError
from gateway.incidents import check_step
from gateway.latest import Latest
from gateway.marks import RUN_BYTES
from gateway.rows import RECORD, Entry, Kept, head, incident, kind_told, last_sealed, lasting, named, seal, stage_of
from gateway.vocabulary import (
    STEP_BOOT,
    STEP_BY,
    STEP_NOTE,
    STEP_OUTCOME,
    STEP_SEQ,
    STEPS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

BATCH = 500
TOGETHER = 25  # events written at one go: an alarm waits for no more
FULL = 200  # alarms
FAIR_S = 0.5  # so long everything else waits for alarms that keep coming; then a few of it are written after each of their batches
NOW_S = 30.0  # somebody waits for a write
EX_IOERR = 74
RETRY_S = 1.0  # in trouble
STUCK_S = 1.0  # a write that waits for longer
TOLD_S = 60.0  # between two lines of the log about a database that can't be read: whoever reads tries twice a second
IDLE_S = 10.0  # after so long the disk is tried, whether there is anything to write or not

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing can be written at present. since: time.monotonic()."""

    why: str
    since: float


@dataclass(slots=True)
class _Job:
    work: Callable[[Connection], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    since: float  # time.monotonic()
    alarm: bool = False
    patient: bool = True  # False: somebody waits for it, and is told rather than kept waiting
    instead: Callable[[Connection], Any] | None = None
    key: object = None
    entry: Entry | None = None  # that the work keeps


class NumberTakenError(Exception):
    """An event of the station's own would be lost, because its number is in the journal with another content."""


class UnwritableError(Exception):
    """What a job would write has no place in the database."""


class DeletedError(Exception):
    """An event that was deleted long ago came again, or comes after others of its sender that were."""


class Journal(Deliveries, Latest):
    """The station's database and the thread that writes it.

    where: SQLite's file or PostgreSQL's URL. sealer: signs the chain's checkpoints; None: the running station does.
    own: the station whose own events are never given up for others of the same number; the sealer's, if there is one.
    on_trouble(why) and on_recovered(why, seconds) are called on the writing thread, on_checkpoint(one) after its commit.
    Raises StorageError if the database can't be opened.
    """

    def __init__(self, where: Path | str, parents: Sequence[str], sealer: Sealer | None = None, own: str = "") -> None:
        database.prepare(where)
        self.parents = tuple(parents)
        self._writer = database.open_database(where, writes=True, create=False)
        self.readers = database.open_database(where, writes=False)
        self._connection: Connection | None = None
        self._alarms: deque[_Job] = deque()
        self._others: deque[_Job] = deque()
        self._alarms_last = False
        self._in_hand: float | None = None  # since when the oldest of what is being written waits
        self._keyed: dict[object, _Job] = {}
        self._waiting = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.commits = 0
        self.unfit = 0  # writes that no database takes
        self.trouble: Trouble | None = None
        self.on_trouble: Callable[[str], None] = lambda _: None
        self.on_recovered: Callable[[str, float], None] = lambda _why, _lasted_s: None
        self.on_damage: Callable[[str], None] = lambda _: None  # before it ends the station
        self.on_checkpoint: Callable[[Checkpoint], None] = lambda _: None
        self._sealer = sealer
        self._own = sealer.station if sealer else own
        self.run = secrets.token_bytes(RUN_BYTES)  # another one whenever the database may be: also after trouble
        self.mark: tuple[int, bytes] | None = None  # position and chain of the newest entry on the disk, if known
        self._head: tuple[int, bytes] | None = None  # the newest entry and its chain, within a transaction
        self._ahead: dict[int, Kept] = {}  # entries of this transaction that were written before their jobs, by id()
        self._news = 0  # entries since the last checkpoint, but for those that tell of checkpoints
        self._last_sealed: tuple[int, int] | None = None  # position and UTC milliseconds of the last checkpoint
        self._tried_at = time.monotonic()
        self._told_unread = -TOLD_S
        self._unwritten: list[Checkpoint] = []
        self.measured: Callable[[float], None] = lambda _seconds: None  # called with the length of each transaction

    def start(self) -> None:
        """Starts writing."""
        if self.trouble is None:
            try:
                with self.readers.connect() as connection:
                    self.mark = head(connection)
            except DBAPIError as error:
                self.report(error)
        if self.parents:
            self.later(self.begin_owing)
        self._thread.start()

    def stop(self) -> None:
        """Writes what waits, then stops."""
        with self._waiting:
            self._stopping = True
            self._waiting.notify()
        self._thread.join(10)
        if self._connection is not None:
            self._connection.close()
        self._writer.dispose()
        self.readers.dispose()

    @property
    def backlog(self) -> int:
        """Writes that wait."""
        return len(self._alarms) + len(self._others)

    @property
    def full(self) -> bool:
        """Whether so many alarms wait that more of them would only wait here rather than at the broker."""
        if len(self._alarms) <= FULL or self.trouble is not None:
            return False
        began = self._in_hand  # others may wait for long behind alarms: that is no reason to read more of these
        return began is None or time.monotonic() - began < STUCK_S

    @property
    def waiting_s(self) -> float:
        """How long the oldest write has been waiting, in seconds."""
        with self._waiting:
            oldest = [queue[0].since for queue in (self._alarms, self._others) if queue]
            oldest += [] if self._in_hand is None else [self._in_hand]
        return time.monotonic() - min(oldest) if oldest else 0.0

    @property
    def stuck(self) -> bool:
        """Whether what comes now is not committed soon: the disk is in trouble, or does not answer."""
        return self.trouble is not None or self.waiting_s > STUCK_S

    def put(self, entry: Entry, done: Callable[[Kept], None]) -> None:
        """Journals an entry; `done` is called on the writing thread after the commit."""
        self.later(lambda connection: self.keep(connection, entry), done, alarm=entry.kind == wire.ALARM, entry=entry)

    def later(
        self,
        work: Callable[[Connection], T],
        done: Callable[[T], None] = lambda _: None,
        *,
        alarm: bool = False,
        failed: Callable[[Exception], None] = lambda _: None,
        key: object = None,
        instead: Callable[[Connection], T] | None = None,
        entry: Entry | None = None,
    ) -> None:
        """Does `work` in the next transaction. It may raise StepRefusedError or KeyError, before it writes anything.

        It may be done more than once, until one time is committed. key: of equal ones that wait only the last is done.
        instead: is done if `work` fails for a value that has no place in the database; failed(error) if that does, too.
        entry: that `work` surely keeps; it may be written before, with others.
        """
        self._add(_Job(work, done, failed, time.monotonic(), alarm, key=key, instead=instead, entry=entry))

    def now(self, work: Callable[[Connection], T]) -> T:
        """Does `work` and returns its result once it is committed. Raises StorageError if nothing can be written now,
        and whatever `work` raises.
        """
        future: Future[T] = Future()
        job = _Job(work, future.set_result, future.set_exception, time.monotonic(), patient=False)
        self._add(job)
        try:
            return future.result(NOW_S)
        except TimeoutError:
            with self._waiting:
                waits = job in self._others
                if waits:
                    self._others.remove(job)
            raise (
                _unwritten("too much waits to be written")
                if waits
                else StorageError(
                    "this station's disk does not answer: whether it was written is not known; look before you try again"
                )
            ) from None

    def _add(self, job: _Job) -> None:
        with self._waiting:
            trouble = self.trouble
            if trouble is None or job.patient:
                known = self._keyed.get(job.key) if job.key is not None else None
                if known is not None:
                    known.work, known.done, known.failed = job.work, job.done, job.failed
                    return
                if job.key is not None:
                    self._keyed[job.key] = job
                (self._alarms if job.alarm else self._others).append(job)
                self._waiting.notify()
                return
        job.failed(_unwritten(trouble.why))

    def report(self, error: DBAPIError) -> None:
        """Judges an error that a reader met: trouble that passes is logged, a damaged database stops the station."""
        found = database.trouble(error)
        if found is None or not found.passes:
            self._give_up(error)
        now = time.monotonic()
        if now - self._told_unread > TOLD_S:
            self._told_unread = now
            logger.error("the database can't be read at present: %s", found.why)

    def next_boot(self) -> int:
        """The station's next boot number, never given before. Call before `start`.

        It is the time in seconds where that is more, so that a database restored from a copy repeats none either. If it
        can't be written now, it is before anything that carries it.
        """
        with self.readers.connect() as connection:
            last = database.kept(connection, "boot")
        boot = max(int(last or 0) + 1, int(time.time()))
        row = {"key": "boot", "value": str(boot)}

        def write(connection: Connection) -> None:
            database.upsert(connection, schema.station, row, ["key"])

        try:
            with self._writer.begin() as connection:
                write(connection)
        except DBAPIError as error:
            found = database.trouble(error)
            if found is None or not found.passes:
                raise
            self.trouble = Trouble(found.why, time.monotonic())
            logger.critical("the journal can't be written: %s; alarms are passed on, nothing is promised", found.why)
            self.later(write)
            time.sleep(max(0.0, min(1.0, boot + 1 - time.time())))  # a start within the same second would get it, too
        return boot

    # ------------------------------------------------------------------------------ the writing thread

    def _run(self) -> None:
        try:
            while True:
                jobs = self._take()
                if jobs is None and not (self._news and self._sealer and self.trouble is None):
                    break
                try:
                    self._write(jobs or [], closing=jobs is None)
                except (DBAPIError, OSError) as error:
                    found = database.trouble(error)
                    if found is None or not found.passes:
                        raise
                    self._endure(found.why, jobs or [])
                    if self._stopping:
                        break
                else:
                    if jobs is None:
                        break
                    self._recovered()
        except BaseException as error:  # noqa: BLE001 whatever it is: a station that can't write must not look alive
            self._give_up(error)

    def _give_up(self, error: BaseException) -> NoReturn:
        found = database.trouble(error)
        told = database.advice(found) if found else "the journal can't be written"
        if isinstance(error, NumberTakenError):
            told = str(error)
        expected = found or isinstance(error, NumberTakenError)
        logger.critical("%s: stopping, so that nobody is promised anything", told, exc_info=None if expected else error)
        if found and not found.passes:
            self.on_damage(found.why)
        os._exit(EX_IOERR)

    def _take(self) -> list[_Job] | None:
        """What to write next; nothing: to try the disk; None: all is written, and the journal is to stop."""
        with self._waiting:
            self._in_hand = None
            if self.trouble is None and not self._stopping and not self._alarms and not self._others:
                self._waiting.wait(IDLE_S)
            queue, most = (self._alarms, BATCH) if self._alarms else (self._others, BATCH)
            if self._alarms and self._others and self._turn_of_others():
                queue, most = self._others, TOGETHER
            if not queue and self._stopping:
                return None
            jobs = [queue.popleft() for _ in range(min(len(queue), most))]
            self._alarms_last = queue is self._alarms
            for job in jobs:
                self._keyed.pop(job.key, None)
            self._in_hand = jobs[0].since if jobs else time.monotonic()
            return jobs

    def _turn_of_others(self) -> bool:
        """Alarms that never end, of a stolen key say, must not keep an operator's step from the disk, nor what else waits."""
        return self._alarms_last and time.monotonic() - self._others[0].since > FAIR_S

    def _write(self, jobs: list[_Job], *, closing: bool) -> None:
        try:
            self._commit(jobs, closing=closing)
        except Exception as error:
            if not jobs or not database.is_unfit(error):
                raise
            self._commit(jobs, closing=closing, apart=True)

    def _commit(self, jobs: list[_Job], *, closing: bool = False, apart: bool = False) -> None:
        """apart: so that one that fails takes nothing of the others along."""
        results: list[tuple[_Job, Any]] = []
        refused: list[tuple[_Job, Exception]] = []
        began = time.monotonic()
        if self._connection is None:
            self._connection = self._writer.connect()
            if self._sealer:
                database.announce(self._connection)
        self._head, fresh, sealed = None, self._news, None
        later: list[_Job] = []
        begun = 0
        try:
            with self._connection.begin():
                if self._sealer and self._last_sealed is None:
                    self._last_sealed = last_sealed(self._connection)
                for number, job in enumerate(jobs):
                    if number == begun:
                        if number and self._alarms and not job.alarm:
                            later = jobs[number:]  # an alarm came: it waits for this commit, and for no more
                            break
                        begun += BATCH if job.alarm else TOGETHER
                        group = () if apart else jobs[number:begun]
                        self._keep_together(self._connection, [one.entry for one in group if one.entry])
                    try:
                        results.append((job, (self._apart(job) if apart else job.work)(self._connection)))
                    except (*_REFUSING, KeyError, UnwritableError) as error:
                        refused.append((job, error))
                if self._sealer and self._is_due(self._connection, idle=not jobs, closing=closing):
                    sealed = self._checkpoint(self._connection, self._sealer)
                elif not jobs or self.trouble is not None or began - self._tried_at > IDLE_S:
                    # What changes nothing proves nothing of the disk.
                    database.upsert(self._connection, schema.station, {"key": "tried", "value": ""}, ["key"])
                    self._tried_at = began
        except BaseException:
            self._news = fresh
            raise
        self._put_back(later)
        self.mark = self._head or self.mark
        self.commits += 1
        self.measured(time.monotonic() - began)
        for job, result in results:
            try:
                job.done(result)
            except Exception:
                logger.exception("what follows on a commit failed")
        for job, reason in refused:
            if isinstance(reason, UnwritableError):
                logger.error("something can't be journaled: %s", reason)
            job.failed(reason)
        if sealed:
            self._sealed(sealed)

    def _apart(self, job: _Job) -> Callable[[Connection], Any]:
        """Its work, or what is to be done instead, under a savepoint. Raises UnwritableError."""

        def work(connection: Connection) -> Any:
            before, why = (self._head, self._news), ""
            for attempt in (job.work, job.instead):
                if attempt is None:
                    continue
                try:
                    with connection.begin_nested():
                        return attempt(connection)
                except (*_REFUSING, KeyError):
                    raise
                except Exception as error:
                    if not database.is_unfit(error):
                        raise
                    why = why or f"{type(error).__name__}: {getattr(error, 'orig', error)}"
                    self.unfit += attempt is job.work
                    logger.exception("a write failed for what it says")
                    self._head, self._news = before
            raise UnwritableError(why)

        return work

    def _put_back(self, jobs: list[_Job]) -> None:
        """Jobs that were taken and not done, before all others; of equal ones the newer stays."""
        with self._waiting:
            for job in reversed(jobs):
                if job.key is None or self._keyed.setdefault(job.key, job) is job:
                    (self._alarms if job.alarm else self._others).appendleft(job)

    def _endure(self, why: str, jobs: list[_Job]) -> None:
        """Keeps what could not be written, with a new connection for the next time, and waits a moment."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except DBAPIError:
                connection.invalidate()
        with self._waiting:
            began = self.trouble is None
            self.trouble = Trouble(why, self.trouble.since if self.trouble else time.monotonic())
            told = [job for job in (*jobs, *self._others) if not job.patient]
            self._others = deque(job for job in self._others if job.patient)
        self._put_back([job for job in jobs if job.patient])
        for job in told:
            job.failed(_unwritten(why))
        if began:
            logger.critical("the journal can't be written: %s; alarms are passed on, nothing is promised", why)
            self.on_trouble(why)
        with self._waiting:
            self._waiting.wait_for(lambda: self._stopping, RETRY_S)

    def _recovered(self) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            self.run = secrets.token_bytes(RUN_BYTES)
            lasted_s = time.monotonic() - trouble.since
            logger.warning("the journal is written again, after %.0f s: %s", lasted_s, trouble.why)
            self.on_recovered(trouble.why, lasted_s)

    # -------------------------------------------------------------------------------------- the chain

    def _is_due(self, connection: Connection, *, idle: bool, closing: bool) -> bool:
        """By what the journal holds, whoever wrote it and whenever: `tocsin journal verify` judges by the same."""
        if self._last_sealed is None or not (self._news or idle):
            return False
        position, at_ms = self._last_sealed
        self._head = self._head or head(connection)
        unsealed = self._head[0] - position
        if unsealed < (1 if self._news else 2):  # a single one may be the event that tells of the last checkpoint
            return False
        since_ms = abs(time.time_ns() // 1_000_000 - at_ms)
        return closing or unsealed >= CHECKPOINT_ENTRIES or since_ms >= CHECKPOINT_S * 1000

    def _checkpoint(self, connection: Connection, sealer: Sealer) -> Checkpoint:
        position, now_chain = self._head = self._head or head(connection)
        made = seal(connection, sealer, position, now_chain)
        self._news = 0
        return made

    def _sealed(self, checkpoint: Checkpoint) -> None:
        self._last_sealed = checkpoint.position, checkpoint.at_ms
        self._unwritten.append(checkpoint)
        try:
            while self._sealer and self._unwritten:
                self._sealer.write_down(self._unwritten[0])
                del self._unwritten[0]
        except OSError as error:
            logger.warning("a checkpoint can't be written to %s: %s", self._sealer and self._sealer.file, error)
        self.on_checkpoint(checkpoint)

    def keep(self, connection: Connection, entry: Entry, *, relayed: bool = True) -> Kept:
        """Writes an entry within a transaction; `put` is the ordinary way. relayed: whether parents and pages get it."""
        if self._ahead and (ahead := self._ahead.pop(id(entry), None)):
            return ahead
        kept = self._enter(connection, entry, relayed=relayed)
        for follow in self._consequences(entry, relayed=relayed) if kept.fresh else ():
            follow(connection, kept.id, entry)
        return kept

    def keep_bare(self, connection: Connection, entry: Entry) -> Kept:
        """The same where that failed: the entry itself, and as much of what follows from it as the database takes."""
        kept = self._enter(connection, entry, relayed=True)
        for follow in self._consequences(entry, relayed=True) if kept.fresh else ():
            try:
                with connection.begin_nested():
                    follow(connection, kept.id, entry)
            except Exception as error:
                if not database.is_unfit(error):
                    raise
                logger.exception("what follows from %s can't be written", "/".join(map(str, entry.identity)))
        return kept

    def _enter(self, connection: Connection, entry: Entry, *, relayed: bool) -> Kept:
        if entry.source != self._own:
            if entry.kind == wire.ALARM and deleted.is_alarm(connection, entry.identity):
                return Kept(0, fresh=False, conflict=False, stage=wire.CLOSED)
            if entry.kind != wire.ALARM and deleted.is_event(connection, entry.identity):
                raise DeletedError("it was here before and was deleted as too old, or it comes too late")
        position, before = self._head = self._head or head(connection)
        columns = together.columns(position + 1, entry, kind_told(entry) if relayed else RECORD)
        now_chain = chain.link(before, columns)
        number = connection.execute(
            _KEEP[connection.dialect.name], dict(zip((*chain.HASHED, "chain"), (*columns, now_chain), strict=True))
        ).scalar()
        if number is None:
            return self._repeated(connection, entry)
        self._head = number, now_chain
        self._news += entry.message.get(wire.CODE) != wire.CHECKPOINT
        return Kept(number, fresh=True, conflict=False, stage=wire.AT_HQ)

    def _consequences(self, entry: Entry, *, relayed: bool) -> Iterator[Callable[[Connection, int, Entry], object]]:
        if entry.kind == wire.ALARM:
            yield _open
        if relayed and self.parents:
            yield self.owe

    def _keep_together(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Writes what jobs of this transaction will keep, if none of it was there before."""
        self._ahead = {}
        if len(entries) < 2:
            return
        if not deleted.none_of(connection, [entry for entry in entries if entry.source != self._own]):
            return
        before = self._head or head(connection)
        now = together.write(connection, before, entries, self.parents, kind_told, incident)
        if now is None:
            return
        self._head = now
        self._news += sum(entry.message.get(wire.CODE) != wire.CHECKPOINT for entry in entries)
        for number, entry in enumerate(entries, before[0] + 1):
            self._ahead[id(entry)] = Kept(number, fresh=True, conflict=False, stage=wire.AT_HQ)

    def _repeated(self, connection: Connection, entry: Entry) -> Kept:
        number, envelope = connection.execute(
            select(schema.journal.c.id, schema.journal.c.envelope).where(*named(entry.identity))
        ).one()
        conflict = lasting(wire.unseal(envelope).message) != lasting(entry.message)
        if conflict and entry.source == self._own:
            raise NumberTakenError(
                f"{'/'.join(map(str, entry.identity))} is another event already: the next start's are not"
            )
        return Kept(number, fresh=False, conflict=conflict, stage=stage_of(connection, entry.identity) or wire.AT_HQ)

    # ------------------------------------------------------------------------------------ the incidents

    def stage(self, identity: tuple[str, int, int]) -> int | None:
        """The newest stage that can be receipted for a message; None if it isn't here."""
        with self.readers.connect() as connection:
            return stage_of(connection, identity)

    def holds(self, position: int, chain_begins: bytes) -> bool:
        """Whether the entry at a position is the one whose chain begins so; also where retention deleted it."""
        table = schema.journal.c
        with self.readers.connect() as connection:
            known = connection.execute(select(table.chain).where(table.id == position)).scalar()
            if known is not None:
                return bytes(known).startswith(chain_begins)
            first = connection.execute(select(func.min(table.id))).scalar()
            return position < first if first is not None else position <= head(connection)[0]

    def step(
        self,
        connection: Connection,
        number: int,
        state: State,
        by: str,
        note: str,
        outcome: Outcome | None,
        own: Callable[[int, str, object], Entry],
    ) -> tuple[tuple[str, int, int], Entry]:
        """Moves an incident within a transaction; its identity, and the event that `own` made of the step.

        Raises StepRefusedError, KeyError.
        """
        table = schema.incidents
        row = connection.execute(select(table).where(table.c.id == number)).first()
        if row is None:
            raise KeyError(number)
        check_step(State(row.state), state, outcome, note)
        connection.execute(
            table.update()
            .where(table.c.id == number)
            .values(state=state.value, outcome=outcome.value if outcome else None)
        )
        detail = {STEP_BOOT: row.boot, STEP_SEQ: row.seq, STEP_BY: by, STEP_NOTE: note}
        if outcome:
            detail[STEP_OUTCOME] = outcome.value
        entry = own(STEPS[state], row.device, detail)
        connection.execute(
            insert(schema.steps).values(
                incident=number,
                state=state.value,
                at_ms=entry.received_at_ms,
                by=by,
                note=note,
                outcome=outcome.value if outcome else None,
            )
        )
        self.keep(connection, entry)
        return (row.device, row.boot, row.seq), entry


_REFUSING = (StepRefusedError, MaintenanceRefusedError, DeletedError)  # before anything is written

_KEEP = {
    name: made(schema.journal)
    .on_conflict_do_nothing(index_elements=["source", "boot", "seq"])
    .returning(schema.journal.c.id)
    for name, made in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}


def _unwritten(why: str) -> StorageError:
    return StorageError(f"nothing was changed: this station can't write its journal now ({why})")


def _open(connection: Connection, number: int, entry: Entry) -> None:
    connection.execute(insert(schema.incidents), incident(number, entry))
