"""What is receipted is on the disk, once."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import BigInteger, Text, bindparam, select

from demo.process import wait_until
from firmware import wire
from gateway import chain, keeping, schema
from gateway.desk import Place, State, StepRefusedError, StorageError
from gateway.chain import Sealer
from gateway.journal import FULL, Journal, NumberTakenError, Trouble
from gateway.rows import Entry, Kept, own_entry
from gateway.reception import MOST_ALARMS, MOST_OF_ONE, MOST_TESTS, Reception
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection


def entry(seq: int, *, age: int = 5, cause: int = wire.HOLD_UP) -> Entry:
    message = {wire.KIND: wire.ALARM, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: age, wire.CAUSE: cause}
    return Entry("b1", message, wire.seal(message, "b1", bytes(32)), [], 1_000, 995, exact=True)


@pytest.fixture
def journal(store: Path | str) -> Iterator[Journal]:
    made = Journal(store, ["hq"])
    made.start()
    yield made
    made.stop()


def kept(journal: Journal, one: Entry) -> Kept:
    found: list[Kept] = []
    done = threading.Event()
    journal.put(one, lambda result: (found.append(result), done.set()))
    assert done.wait(5)
    return found[0]


def count(journal: Journal, table: str) -> int:
    with journal.readers.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def test_a_repeat_with_a_newer_age_is_the_same_alarm(journal: Journal) -> None:
    first, again = kept(journal, entry(1)), kept(journal, entry(1, age=5_000))
    assert first.fresh
    assert (again.fresh, again.conflict, again.id) == (False, False, first.id)
    assert count(journal, "incidents") == count(journal, "deliveries") == 1


def test_another_message_under_a_used_identity_is_a_conflict_and_changes_nothing(journal: Journal) -> None:
    kept(journal, entry(1))
    assert kept(journal, entry(1, cause=wire.TEST)).conflict
    with journal.readers.connect() as connection:
        assert connection.exec_driver_sql("SELECT cause FROM incidents").scalar_one() == "hold_up"


def test_many_that_wait_are_committed_together(store: Path | str) -> None:
    journal = Journal(store, [])
    done: list[Any] = []
    for seq in range(300):
        journal.put(entry(seq), done.append)
    journal.start()
    wait_until(lambda: len(done) == 300, 10, "every commit")
    assert journal.commits < 10
    journal.stop()


def test_what_is_written_together_is_what_would_be_written_one_by_one(store: Path | str) -> None:
    """Fresh ones alone, and with a repeat and a conflict among them, of an earlier transaction and of this one."""
    journal = Journal(store, ["hq", "city"])
    done: list[Kept] = []
    for seq in range(10):
        journal.put(entry(seq), done.append)
    journal.start()
    wait_until(lambda: len(done) == 10, 10, "the first commit")
    assert [one.id for one in done] == list(range(1, 11))
    ready = threading.Event()
    journal.later(lambda _: ready.wait(10), alarm=True)
    wait_until(lambda: not journal.backlog, 10, "the journal is busy")
    for one in (entry(10), entry(3, age=9_000), entry(11), entry(10, age=9), entry(4, cause=wire.TEST), entry(12)):
        journal.put(one, done.append)
    ready.set()
    wait_until(lambda: len(done) == 16, 10, "the second commit")
    told = [(one.id, one.fresh, one.conflict) for one in done[10:]]
    assert told == [
        (11, True, False), (4, False, False), (12, True, False), (11, False, False), (5, False, True), (13, True, False)
    ]  # fmt: skip
    assert (count(journal, "incidents"), count(journal, "deliveries")) == (13, 26)
    with journal.readers.connect() as connection:
        rows = connection.execute(select(*[schema.journal.c[name] for name in (*chain.HASHED, "chain")]))
        before = chain.GENESIS
        for *columns, said in rows:
            before = chain.link(before, columns)
            assert before == said
    journal.stop()


def test_alarms_are_left_at_the_broker_only_while_the_journal_keeps_up(
    store: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(store, [])
    for seq in range(FULL + 1):
        assert not journal.full
        journal.put(entry(seq), lambda _: None)
    assert journal.full
    journal.trouble = Trouble("the disk is full", 0.0)
    assert not journal.full, "what can't be kept is still passed on, so it must be read"
    journal.trouble = None
    monkeypatch.setattr(journal, "_in_hand", time.monotonic() - 2)
    assert not journal.full


def slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Each commit takes so much longer."""
    commit = Journal._commit

    def slow(self: Journal, *args: Any, **kwargs: Any) -> None:
        commit(self, *args, **kwargs)
        time.sleep(seconds)

    monkeypatch.setattr(Journal, "_commit", slow)


def test_alarms_that_never_end_do_not_keep_a_step_from_the_disk(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed(monkeypatch, 0.03)
    numbers, over = itertools.count(1), threading.Event()
    kept: list[Kept] = []

    def flood() -> None:
        while not over.is_set():
            while len(journal._alarms) < 10:
                journal.put(entry(next(numbers)), kept.append)
            time.sleep(0.002)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        wait_until(lambda: len(kept) > 20, 10, "the flood")
        began = time.monotonic()
        journal.now(lambda connection: None)
        assert time.monotonic() - began < 3
        assert len(journal._alarms) >= 5, "alarms waited all the time"
    finally:
        over.set()
        flooding.join()


def test_who_waits_for_too_long_is_told_what_became_of_it(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.journal.NOW_S", 0.2)
    written, go_on = [], threading.Event()
    journal.later(lambda _: go_on.wait(10), alarm=True)
    wait_until(lambda: not journal.backlog, 10, "the journal is busy")
    with pytest.raises(StorageError, match="nothing was changed"):
        journal.now(lambda _: written.append(1))
    go_on.set()
    with pytest.raises(StorageError, match="not known"):
        journal.now(lambda _: time.sleep(0.5))
    monkeypatch.undo()
    journal.now(lambda _: None)
    assert written == []


def test_receipts_move_an_incident_forward_and_never_back(journal: Journal) -> None:
    kept(journal, entry(1))
    identity = ("b1", 1, 1)
    assert journal.now(lambda connection: journal.delivered(connection, "hq", identity, 3)) is State.ACKNOWLEDGED
    assert journal.now(lambda connection: journal.delivered(connection, "hq", identity, 2)) is None
    assert journal.now(lambda connection: journal.delivered(connection, "hq", identity, 5)) is State.CLOSED
    with journal.readers.connect() as connection:
        assert connection.exec_driver_sql("SELECT stage FROM deliveries").scalar_one() == 5


def test_a_step_that_is_refused_reaches_who_asked_and_stops_nobody(journal: Journal) -> None:
    def refuse(_: object) -> None:
        raise StepRefusedError("no")

    with pytest.raises(StepRefusedError):
        journal.now(refuse)
    assert kept(journal, entry(2)).fresh


def test_boot_numbers_are_never_given_twice(store: Path | str) -> None:
    boots = []
    for _ in range(3):
        journal = Journal(store, [])
        journal.start()
        boots.append(journal.next_boot())
        journal.stop()
    assert boots == sorted(set(boots))
    assert boots[0] > 1_700_000_000, "a copy that is put back after years must not repeat one either"


def test_whatever_was_said_to_be_kept_survives_sigkill(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from gateway.journal import Journal
        from tests.gateway.test_journal import entry
        journal = Journal(Path(sys.argv[1]), ["hq"])
        journal.start()
        for seq in range(100_000):
            journal.put(entry(seq), lambda kept, seq=seq: sys.stdout.write(f"{seq}\\n") and sys.stdout.flush())
            if seq % 50 == 0:
                journal.now(lambda connection: None)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "station.db")], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    said = {int(process.stdout.readline()) for _ in range(200)}
    process.kill()
    said |= {int(line) for line in process.stdout.read().split("\n")[:-1] if line}
    process.wait()
    journal = Journal(tmp_path / "station.db", ["hq"])
    with journal.readers.connect() as connection:
        there = {row[0] for row in connection.exec_driver_sql("SELECT seq FROM journal")}
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    assert said <= there
    journal.start()
    journal.stop()


def test_forgotten_tests_push_no_alarm_off_the_list(journal: Journal) -> None:
    settings = SimpleNamespace(station="hq", role="hq")
    place = Place("b", "b", "", "", "", "")
    registry = SimpleNamespace(sites=dict, place_of=lambda _: place, children=dict)
    station: Any = SimpleNamespace(journal=journal, settings=settings, registry=registry)
    first = kept(journal, entry(1)).id
    for seq in range(2, MOST_TESTS + 12):
        kept(journal, replace(entry(seq, cause=wire.TEST), source=f"b{seq % 3}"))
    opened = Reception(station).open_incidents()
    assert [incident.id for incident in opened if not incident.is_test] == [first]
    assert len(opened) == 1 + MOST_TESTS


def test_a_button_that_presses_for_ever_pushes_nobody_elses_alarm_off_the_list(journal: Journal) -> None:
    settings = SimpleNamespace(station="hq", role="hq")
    place = Place("b", "b", "", "", "", "")
    registry = SimpleNamespace(sites=dict, place_of=lambda _: place, children=dict)
    station: Any = SimpleNamespace(journal=journal, settings=settings, registry=registry)
    others = [kept(journal, replace(entry(1), source=f"b{number}")).id for number in (2, 3)]
    flood = [kept(journal, entry(seq)).id for seq in range(1, MOST_ALARMS + 50)]
    opened = Reception(station).open_incidents()
    assert [incident.id for incident in opened] == [*reversed(flood[-MOST_OF_ONE:]), *reversed(others)]
    assert [incident.more for incident in opened] == [0] * (MOST_OF_ONE - 1) + [len(flood) - MOST_OF_ONE, 0, 0]


def test_many_buttons_that_press_for_ever_push_nobody_elses_alarm_off_the_list(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.reception.MOST_ALARMS", 30)
    settings = SimpleNamespace(station="hq", role="hq")
    registry = SimpleNamespace(sites=dict, place_of=lambda _: Place("b", "b", "", "", "", ""), children=dict)
    station: Any = SimpleNamespace(journal=journal, settings=settings, registry=registry)
    others = [kept(journal, replace(entry(1), source=f"b{number}")).id for number in (2, 3)]
    for seq in range(1, MOST_OF_ONE + 1):
        for flooding in ("f1", "f2"):
            kept(journal, replace(entry(seq), source=flooding))
    opened = Reception(station).open_incidents()
    assert len(opened) == 30
    assert [incident.id for incident in opened[-2:]] == [*reversed(others)]


def test_a_station_whose_journal_fails_in_any_way_ends_loudly(store: Path | str) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from gateway.journal import Journal
        journal = Journal(sys.argv[1] if ":" in sys.argv[1] else Path(sys.argv[1]), [])
        journal.start()
        journal.later(lambda connection: connection.exec_driver_sql("DELETE FROM nowhere"))
        time.sleep(20)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, str(store)], cwd=PROJECT, capture_output=True, timeout=30)
    assert ended.returncode == 74
    assert b"nowhere" in ended.stderr


UNFIT: dict[str, Callable[[Connection], object]] = {
    "a number that is too great": lambda connection: connection.execute(select(bindparam("many", 2**70, BigInteger))),
    "a text that is none": lambda connection: connection.execute(select(bindparam("text", "\ud800", Text))),
    "a value of another type": lambda _: int("much"),
    "what can't be on the wire": lambda _: wire.encode(0.5),
}


@pytest.mark.parametrize("what", list(UNFIT))
def test_a_write_that_no_database_takes_fails_alone(
    what: str, store: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_give_up", lambda _, error: ended.append(error))
    ended: list[BaseException] = []
    told: list[Any] = []
    journal = Journal(store, ["hq"])

    def half(connection: Connection) -> object:
        journal.keep(connection, entry(50))
        return UNFIT[what](connection)

    for seq in (1, 2):
        journal.put(entry(seq), told.append)
    journal.later(half, told.append, alarm=True, failed=lambda error: told.append(str(error)))
    journal.later(
        lambda connection: UNFIT[what](connection) and journal.keep(connection, entry(3)),
        told.append,
        alarm=True,
        instead=lambda connection: journal.keep_bare(connection, entry(3)),
    )
    journal.put(entry(4), told.append)
    journal.start()
    wait_until(lambda: len(told) == 5 or ended, 20, "each is told")
    assert not ended
    assert [one.id for one in told if isinstance(one, Kept)] == [1, 2, 3, 4]
    assert len([one for one in told if isinstance(one, str)]) == 1
    assert journal.unfit == 2
    assert count(journal, "journal") == count(journal, "incidents") == count(journal, "deliveries") == 4
    with pytest.raises(Exception, match="."):
        journal.now(half)
    journal.stop()
    assert keeping.verify(store, "hq", [], [], lambda _: None).findings == []


def test_an_event_of_the_stations_own_is_never_taken_for_another(
    store: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_give_up", lambda _, error: ended.append(error))
    ended: list[BaseException] = []
    sealer = Sealer("hq", ec.generate_private_key(ec.SECP256R1()), tmp_path / "checkpoints")
    journal = Journal(store, [], sealer)
    told: list[Kept] = []
    for what in ("the same", "the same", "another"):
        journal.put(own_entry("hq", (1, 1), wire.BROKER_LOST, what, None, 1, bytes(32)), told.append)
    journal.start()
    wait_until(lambda: ended, 10, "it ends loudly")
    assert isinstance(ended[0], NumberTakenError)
    assert told == []
    journal.stop()


def test_an_alarm_is_kept_verbatim_whatever_follows_from_it_can_be_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_give_up", lambda _, error: ended.append(error))
    monkeypatch.setattr(Journal, "owe", lambda *_: int("much"))
    ended: list[BaseException] = []
    told: list[Kept] = []
    one = entry(1)
    journal.later(
        lambda connection: journal.keep(connection, one),
        told.append,
        alarm=True,
        instead=lambda connection: journal.keep_bare(connection, one),
    )
    wait_until(lambda: told or ended, 10, "it is kept")
    assert not ended
    assert told[0].fresh
    with journal.readers.connect() as connection:
        assert bytes(connection.exec_driver_sql("SELECT envelope FROM journal").scalar_one()) == one.envelope
    assert (count(journal, "incidents"), count(journal, "deliveries")) == (1, 0), "operators see it"
