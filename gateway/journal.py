"""The append-only record: what is in it is on the disk, once, and what is receipted is in it.

One thread writes. It takes everything that waits, alarms first and by themselves, and commits it together; only then
does it tell whoever asked. If it can't write it stops the whole station, loudly: buttons and parents keep what they have.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from firmware import wire
from gateway import schema
from gateway.desk import State, StepRefusedError
from gateway.vocabulary import CAUSES, HOWS, STAGES, STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

BATCH = 500
EX_IOERR = 74

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message for the journal. Times in UTC milliseconds; `exact` False: it happened then or earlier."""

    source: str
    message: dict[int, Any]
    envelope: bytes
    hops: list[list[Any]]
    received_at_ms: int
    happened_at_ms: int
    exact: bool

    @property
    def kind(self) -> int:
        """ALARM or EVENT."""
        return int(self.message[wire.KIND])

    @property
    def identity(self) -> tuple[str, int, int]:
        """(source, boot, seq): names this message for ever."""
        return self.source, self.message[wire.BOOT], self.message[wire.SEQ]


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an entry. id: its position. conflict: its identity already names another message."""

    id: int
    fresh: bool
    conflict: bool
    stage: int  # the newest stage that can be receipted


@dataclass(slots=True)
class _Job:
    work: Callable[[Connection], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]
    since: float  # time.monotonic()


class Journal:
    """The station's database and the thread that writes it."""

    def __init__(self, database: Path, parents: Sequence[str]) -> None:
        database.parent.mkdir(parents=True, exist_ok=True)
        self._parents = tuple(parents)
        self._writer = schema.open_database(database, writes=True)
        self.readers = schema.open_database(database, writes=False)
        with self._writer.begin() as connection:
            schema.metadata.create_all(connection)
        self._alarms: deque[_Job] = deque()
        self._others: deque[_Job] = deque()
        self._waiting = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.commits = 0
        self.measured: Callable[[float], None] = lambda _seconds: None  # called with the length of each transaction

    def start(self) -> None:
        """Starts writing."""
        self._thread.start()

    def stop(self) -> None:
        """Writes what waits, then stops."""
        with self._waiting:
            self._stopping = True
            self._waiting.notify()
        self._thread.join(10)
        self._writer.dispose()
        self.readers.dispose()

    @property
    def backlog(self) -> int:
        """Writes that wait."""
        return len(self._alarms) + len(self._others)

    @property
    def waiting_s(self) -> float:
        """How long the oldest write has been waiting, in seconds."""
        with self._waiting:
            oldest = [queue[0].since for queue in (self._alarms, self._others) if queue]
        return time.monotonic() - min(oldest) if oldest else 0.0

    def put(self, entry: Entry, done: Callable[[Kept], None]) -> None:
        """Journals an entry; `done` is called on the writing thread after the commit."""
        self.later(lambda connection: self.keep(connection, entry), done, alarm=entry.kind == wire.ALARM)

    def later(
        self,
        work: Callable[[Connection], T],
        done: Callable[[T], None] = lambda _: None,
        *,
        alarm: bool = False,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """Does `work` in the next transaction. It may raise StepRefusedError or KeyError, before it writes anything."""
        with self._waiting:
            (self._alarms if alarm else self._others).append(_Job(work, done, failed, time.monotonic()))
            self._waiting.notify()

    def now(self, work: Callable[[Connection], T]) -> T:
        """Does `work` and returns its result once it is committed."""
        future: Future[T] = Future()
        self.later(work, future.set_result, failed=future.set_exception)
        return future.result(30)

    def next_boot(self) -> int:
        """The station's next boot number, never given before. Call before `start`.

        It is the time in seconds where that is more, so that a database restored from a copy repeats none either.
        """
        with self._writer.begin() as connection:
            row = connection.execute(select(schema.station.c.value).where(schema.station.c.key == "boot")).scalar()
            boot = max(int(row or 0) + 1, int(time.time()))
            statement = sqlite_insert(schema.station).values(key="boot", value=str(boot))
            connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"value": str(boot)}))
        return boot

    def _run(self) -> None:
        try:
            with self._writer.connect() as connection:
                while jobs := self._take():
                    self._commit(connection, jobs)
        except BaseException:  # whatever it is: a station that can't write must not look alive
            logger.critical(
                "the journal can't be written: stopping, so that nobody is promised anything", exc_info=True
            )
            os._exit(EX_IOERR)

    def _take(self) -> list[_Job]:
        with self._waiting:
            while not self._alarms and not self._others:
                if self._stopping:
                    return []
                self._waiting.wait()
            queue = self._alarms or self._others
            return [queue.popleft() for _ in range(min(len(queue), BATCH))]

    def _commit(self, connection: Connection, jobs: list[_Job]) -> None:
        results: list[tuple[_Job, Any]] = []
        refused: list[tuple[_Job, Exception]] = []
        began = time.monotonic()
        with connection.begin():
            for job in jobs:
                try:
                    results.append((job, job.work(connection)))
                except (StepRefusedError, KeyError) as error:
                    refused.append((job, error))
        self.commits += 1
        self.measured(time.monotonic() - began)
        for job, result in results:
            try:
                job.done(result)
            except Exception:
                logger.exception("what follows on a commit failed")
        for job, reason in refused:
            job.failed(reason)

    def keep(self, connection: Connection, entry: Entry) -> Kept:
        """Writes an entry within a transaction; `put` is the ordinary way."""
        source, boot, seq = entry.identity
        table = schema.journal
        number = connection.execute(
            sqlite_insert(table)
            .values(
                source=source,
                boot=boot,
                seq=seq,
                kind=entry.kind,
                happened_at_ms=entry.happened_at_ms,
                exact=int(entry.exact),
                received_at_ms=entry.received_at_ms,
                envelope=entry.envelope,
                hops=wire.encode(entry.hops),
            )
            .on_conflict_do_nothing()
            .returning(table.c.id)
        ).scalar()
        if number is None:
            return self._repeated(connection, entry)
        if entry.kind == wire.ALARM:
            connection.execute(
                insert(schema.incidents).values(
                    id=number,
                    device=source,
                    boot=boot,
                    seq=seq,
                    cause=CAUSES.get(entry.message[wire.CAUSE], f"cause {entry.message[wire.CAUSE]}"),
                    how=HOWS.get(entry.message.get(wire.HOW, 0), "both"),
                    state=State.RAISED.value,
                )
            )
        for parent in self._parents:
            connection.execute(insert(schema.deliveries).values(entry=number, parent=parent, kind=entry.kind))
        return Kept(number, fresh=True, conflict=False, stage=wire.AT_HQ)

    def _repeated(self, connection: Connection, entry: Entry) -> Kept:
        number, envelope = connection.execute(
            select(schema.journal.c.id, schema.journal.c.envelope).where(*_is(entry.identity))
        ).one()
        conflict = _lasting(wire.unseal(envelope).message) != _lasting(entry.message)
        return Kept(number, fresh=False, conflict=conflict, stage=stage_of(connection, entry.identity) or wire.AT_HQ)

    def delivered(
        self,
        connection: Connection,
        parent: str,
        identity: tuple[str, int, int],
        stage: int,
        at_ms: int | None = None,
    ) -> State | None:
        """Notes a parent's receipt. Returns the state that the incident moved to, if it did. at_ms: when it came, UTC."""
        number = connection.execute(select(schema.journal.c.id).where(*_is(identity))).scalar()
        if number is None:
            return None
        table = schema.deliveries
        connection.execute(
            update(table)
            .where(
                table.c.entry == number, table.c.parent == parent, (table.c.stage.is_(None)) | (table.c.stage < stage)
            )
            .values(stage=stage, stage_at_ms=at_ms, at_ms=func.coalesce(table.c.at_ms, at_ms))
        )
        state = STATES.get(stage)
        now = connection.execute(select(schema.incidents.c.state).where(schema.incidents.c.id == number)).scalar()
        if state is None or now is None or STAGES[State(now)] >= stage:
            return None
        connection.execute(update(schema.incidents).where(schema.incidents.c.id == number).values(state=state.value))
        return state


def _is(identity: tuple[str, int, int]) -> tuple[Any, Any, Any]:
    source, boot, seq = identity
    table = schema.journal.c
    return table.source == source, table.boot == boot, table.seq == seq


def _lasting(message: dict[int, Any]) -> dict[int, Any]:
    """A message without what its sender brings up to date at every sending."""
    return {field: value for field, value in message.items() if field not in {wire.AGE, wire.RESUMED}}


def kind_of(connection: Connection, identity: tuple[str, int, int]) -> int | None:
    """ALARM or EVENT; None: no such message is in the journal."""
    return connection.execute(select(schema.journal.c.kind).where(*_is(identity))).scalar()


def stage_of(connection: Connection, identity: tuple[str, int, int]) -> int | None:
    """The newest stage that headquarters can receipt for a message; None if it isn't here."""
    source, boot, seq = identity
    table = schema.incidents.c
    state = connection.execute(
        select(table.state).where(table.device == source, table.boot == boot, table.seq == seq)
    ).scalar()
    if state is not None:
        return STAGES[State(state)]
    here = connection.execute(select(schema.journal.c.id).where(*_is(identity))).scalar()
    return None if here is None else wire.AT_HQ
