"""The broker may forget a message, and its sender hears of it, only once it is on the disk."""

from __future__ import annotations

import threading
import time
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest
from sqlalchemy import BigInteger, bindparam, select

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway import batch, keeping
from gateway.commands import ANSWERS
from gateway.exchange import Exchange, Report
from gateway.ingest import Arrival
from gateway.journal import STUCK_S, Journal, Trouble
from gateway.notice import NoticeBoard
from gateway.reception import _told
from gateway.reception import Reception
from gateway.refusals import Refusals
from gateway.registry import Registry
from gateway.settings import load
from gateway.station import Station
from gateway.supervision import Silence
from gateway.uplink import Uplink
from gateway.vocabulary import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Bench:
    """A site's exchange over a real journal that does not write before `journal.start()`."""

    def __init__(self, world: World, store: Path | str) -> None:
        settings = load(world.folder / f"{SITE}.toml")
        self.journal = Journal(store, ["hq"])
        self.board = NoticeBoard()
        self.exchange = Exchange(
            settings, self.journal, Registry(self.journal.readers, SITE, None), Refusals(), self.board, 1
        )
        self.story: list[Any] = []
        self.exchange.send_down = lambda topic, payload: self.story.append((topic, wire.decode(payload)[wire.STAGE]))

    def rows(self) -> int:
        with self.journal.readers.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM journal").scalar_one())

    def alarm(self, seq: int) -> None:
        message = {wire.KIND: wire.ALARM, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 5, wire.CAUSE: wire.HOLD_UP}
        self.exchange.arrived(
            "tocsin/1/b1/alarm", wire.seal(message, "b1", bytes(32)), lambda: self.story.append(("done", self.rows()))
        )


@pytest.fixture
def bench(store: Path | str) -> Iterator[Bench]:
    world = World(buttons=())
    made = Bench(world, store)
    try:
        yield made
    finally:
        made.journal.stop()
        world.close()


def test_puback_and_receipt_come_after_the_commit_and_the_page_is_told(bench: Bench) -> None:
    waiting = bench.board.subscribe()
    bench.alarm(1)
    time.sleep(0.2)
    assert bench.story == []
    bench.journal.start()
    wait_until(lambda: len(bench.story) == 2, 5, "what follows on the commit")
    assert bench.story == [("done", 1), ("tocsin/1/b1/receipt", wire.AT_GATEWAY)]
    assert "incidents" in waiting.wait(5)


def test_half_of_the_brokers_window_is_let_go_when_the_disk_turns_out_to_be_in_trouble(bench: Bench) -> None:
    for seq in range(1, 151):
        bench.alarm(seq)
    bench.exchange.relieve()
    assert bench.story == []
    bench.journal.trouble = Trouble("the disk is full", 0.0)
    bench.exchange.relieve()
    assert bench.story == [("done", 0)] * 50
    bench.journal.trouble = None
    bench.journal.start()
    wait_until(lambda: len(bench.story) == 300, 20, "each is let go once, and receipted")
    assert bench.rows() == 150


def test_a_repeat_is_answered_and_changes_nothing(bench: Bench) -> None:
    bench.journal.start()
    for _ in range(3):
        bench.alarm(1)
    wait_until(lambda: len(bench.story) == 6, 5, "three answers")
    assert bench.rows() == 1


def test_receipts_and_commands_go_down_from_the_buttons_headquarters_alone(bench: Bench) -> None:
    bench.journal.start()
    bench.alarm(1)
    wait_until(lambda: len(bench.story) == 2, 5, "the alarm in the journal")
    sent: list[str] = []
    bench.exchange.send_down = lambda topic, _: sent.append(topic)
    receipt = {wire.KIND: wire.RECEIPT, wire.BOOT: 1, wire.SEQ: 1, wire.STAGE: wire.ACKNOWLEDGED, wire.DEVICE: "b1"}
    command = {wire.KIND: wire.COMMAND, wire.BOOT: 1, wire.SEQ: 1, wire.CODE: wire.IDENTIFY, wire.DEVICE: "b1"}

    def state() -> str:
        with bench.journal.readers.connect() as connection:
            return str(connection.exec_driver_sql("SELECT state FROM incidents").scalar_one())

    bench.exchange.receipted("agency", [(receipt, b"sealed")])
    bench.exchange.commanded("agency", command, b"sealed")
    bench.journal.now(lambda _: None)
    assert sent == []
    assert state() == "raised"
    bench.exchange.receipted("hq", [(receipt, b"sealed")])
    bench.exchange.commanded("hq", command, b"sealed")
    bench.journal.now(lambda _: None)
    assert sent == ["tocsin/1/b1/receipt", "tocsin/1/b1/command"]
    assert state() == "acknowledged"


def test_an_alarm_waits_for_no_more_than_the_statement_that_is_under_way(bench: Bench) -> None:
    done: list[str] = []
    for _ in range(100):
        bench.journal.later(lambda _: time.sleep(0.02), lambda _: done.append("event"))
    bench.journal.start()
    time.sleep(0.1)
    bench.journal.later(lambda _: None, lambda _: done.append("alarm"), alarm=True)
    wait_until(lambda: "alarm" in done, 20, "the alarm's commit")
    assert done.index("alarm") < 60, "it waited for the whole transaction of the others"
    wait_until(lambda: len(done) == 101, 30, "the rest, which lost nothing")


def test_whose_silence_is_no_event_is_what_the_newest_answer_to_a_heartbeat_says(bench: Bench) -> None:
    bench.journal.start()
    answer = {wire.KIND: wire.RECEIPT, wire.BOOT: 1, wire.SEQ: 1, wire.STAGE: wire.AT_HQ, wire.DEVICE: SITE}
    maintained = bench.exchange.supervision
    bench.exchange.receipted("hq", [({**answer, wire.MAINTAINED: [["b1", 60]]}, b"")])
    assert set(maintained.maintained) == {"b1"}
    bench.exchange.receipted("hq", [(answer, b"")])
    assert set(maintained.maintained) == {"b1"}, "a receipt for an event says nothing of it"
    bench.exchange.receipted("hq", [({**answer, wire.MAINTAINED: []}, b"")])
    assert not maintained.maintained


def test_a_site_answers_a_button_only_while_its_way_to_headquarters_works(bench: Bench) -> None:
    bench.journal.start()
    works = {"hq": True, "agency": True}
    bench.exchange.uplinks = [  # type: ignore[assignment]
        SimpleNamespace(
            parent=SimpleNamespace(id=name), works=lambda _, name=name: works[name], pass_on=lambda *_, **__: None
        )
        for name in works
    ]
    seq = iter(range(1, 100))

    def is_answered(child: str = "b1", **fields: Any) -> bool:
        told = len(bench.story)
        message = {wire.KIND: wire.HEARTBEAT, wire.BOOT: 1, wire.SEQ: next(seq), wire.UPTIME: 0, **fields}
        bench.exchange.arrived(f"tocsin/1/{child}/heartbeat", wire.seal(message, child, bytes(32)), lambda: None)
        return bench.story[told:] == [(f"tocsin/1/{child}/receipt", wire.AT_GATEWAY)]

    assert is_answered()
    works["hq"] = False
    assert not is_answered(), "the agency above is not its headquarters"
    works["hq"] = True
    assert is_answered()


def test_a_heartbeat_that_a_station_below_passed_on_goes_on_to_every_parent(bench: Bench) -> None:
    """It comes once a minute at most; left out, its child would be unsigned for two at the parent above."""
    bench.journal.start()
    passed: list[tuple[str, bool]] = []
    bench.exchange.uplinks = [  # type: ignore[assignment]
        SimpleNamespace(
            parent=SimpleNamespace(id="agency"),
            works=lambda _: True,
            pass_on=lambda child, *_, afresh: passed.append((child, afresh)),
        )
    ]
    for child, station in (("b1", "gw1"), ("b2", "b2")):
        for seq in (1, 2):
            message = {wire.KIND: wire.HEARTBEAT, wire.BOOT: 1, wire.SEQ: seq, wire.UPTIME: seq}
            hops = [] if station == child else [[station, 1]]
            bench.exchange._heartbeat(Arrival(wire.HEARTBEAT, station, child, message, b"", hops), b"")
    assert passed == [("b1", True), ("b1", True), ("b2", False), ("b2", False)]


def test_a_disk_that_does_not_answer_fills_neither_the_brokers_window_nor_the_memory(bench: Bench) -> None:
    for seq in range(1, 151):
        bench.alarm(seq)
    wait_until(lambda: bench.journal.stuck, 10, "the writing hangs")  # without any error
    assert bench.journal.trouble is None
    bench.exchange.relieve()
    assert bench.story == [("done", 0)] * 50
    event = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: 151, wire.AGE: 5, wire.CODE: wire.LOOP_CUT}
    bench.exchange.arrived("tocsin/1/b1/event", wire.seal(event, "b1", bytes(32)), lambda: bench.story.append("left"))
    assert bench.story[50:] == ["left"], "its sender still holds it"
    assert bench.journal.backlog == 150
    bench.journal.start()
    wait_until(lambda: bench.rows() == 150, 20, "it goes on")


@pytest.fixture
def headquarters(store: Path | str) -> Iterator[tuple[Exchange, list[Any]]]:
    """Headquarters' exchange that knows one button, and what it sent down."""
    world = World(buttons=())
    registry = MagicMock()
    registry.key_of.return_value = registry.receipt_key_of.return_value = bytes(32)
    registry.is_station.return_value = registry.is_vouched.return_value = registry.is_pending.return_value = False
    registry.is_retired.return_value = False
    journal = Journal(store, [])
    made = Exchange(load(world.folder / f"{HQ}.toml"), journal, registry, Refusals(), NoticeBoard(), 1)
    sent: list[Any] = []
    made.send_down = lambda topic, payload: sent.append((topic, payload))
    journal.start()
    try:
        yield made, sent
    finally:
        journal.stop()
        world.close()


def test_headquarters_that_can_keep_no_press_tells_no_button_that_all_is_well(
    headquarters: tuple[Exchange, list[Any]],
) -> None:
    exchange, sent = headquarters

    def beat(seq: int) -> None:
        message = {wire.KIND: wire.HEARTBEAT, wire.BOOT: 1, wire.SEQ: seq, wire.UPTIME: 20_000 * seq}
        exchange.arrived("tocsin/1/b1/heartbeat", wire.seal(message, "b1", bytes(32)), lambda: None)

    beat(1)
    assert len(sent) == 1
    exchange._answered.clear()
    exchange._journal.trouble = Trouble("the disk is full", time.monotonic())
    beat(2)
    assert len(sent) == 1
    exchange._journal.trouble = None
    hanging, told = threading.Event(), threading.Event()
    exchange._journal.later(lambda _: told.set() or hanging.wait(10))  # a disk that does not answer, and fails neither
    assert told.wait(5)
    wait_until(lambda: exchange._journal.waiting_s > STUCK_S, 10, "the writing hangs")
    beat(3)
    assert len(sent) == 1
    hanging.set()
    wait_until(lambda: exchange._journal.waiting_s == 0, 5, "it goes on")
    beat(4)
    assert len(sent) == 2


def anything(random: Random, depth: int = 3) -> Any:
    """A value that the wire can carry, of those that are seldom thought of."""
    numbers = (0, 1, -1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63) - 1, -(2**64))
    plain = (None, True, False, "", "x", "a\0b", "=1+1", "آ" * 40, b"", b"\0\xff", random.choice(numbers))
    if not depth or random.random() < 0.4:
        return random.choice(plain)
    if random.random() < 0.3:
        return [anything(random, depth - 1) for _ in range(random.randrange(4))]
    return {key: anything(random, depth - 1) for key in random.sample(range(16), random.randrange(6))}


def test_nothing_that_an_event_says_stops_headquarters(
    headquarters: tuple[Exchange, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, _ = headquarters
    monkeypatch.setattr(Journal, "_give_up", lambda _, error: ended.append(error))
    ended: list[BaseException] = []
    exchange._registry.is_station.side_effect = lambda child: child == "gw1"  # type: ignore[attr-defined]
    answer = {wire.ANSWER_BOOT: 2**63, wire.ANSWER_SEQ: 1, wire.ANSWER_TEXT: "x"}
    details: list[tuple[int, Any]] = [(code, answer) for code in ANSWERS]
    details += [(code, {**answer, wire.ANSWER_BOOT: boot}) for code in ANSWERS for boot in (True, -1, 2**32, "1")]
    seed = 20261125
    random = Random(seed)
    details += [(code, anything(random)) for code in CODES for _ in range(15)]
    done: list[None] = []
    for seq, (code, detail) in enumerate(details):
        child = "gw1" if code >= wire.CHILD_SILENT else "b1"
        message = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: random.choice((0, 2**53 - 1))}
        message |= {wire.CODE: code, wire.SUBJECT: random.choice(("", "b1", "a\0b")), wire.DETAIL: detail}
        exchange.arrived(f"tocsin/1/{child}/event", wire.seal(message, child, bytes(32)), lambda: done.append(None))
    wait_until(lambda: len(done) == len(details) or ended, 60, f"each is dealt with, seed {seed}")
    assert not ended
    with exchange._journal.readers.connect() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM journal WHERE source IN ('b1', 'gw1')").scalar_one()
    assert kept == len(details) - exchange._refusals.total
    assert exchange._journal.unfit == 0
    station: Any = SimpleNamespace(journal=exchange._journal, registry=SimpleNamespace(children=dict))
    listed = Reception(station).happenings(limit=1000)
    assert len(listed) > kept / 2  # all but those that are the journal's own


def test_nobody_below_speaks_in_the_stations_own_name(headquarters: tuple[Exchange, list[Any]]) -> None:
    exchange, sent = headquarters
    registry: Any = exchange._registry
    registry.is_station.side_effect = lambda child: child == "gw1"
    registry.is_vouched.side_effect = lambda source, child: (source, child) == (HQ, "gw1")
    forged = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: 7, wire.AGE: 0, wire.CODE: wire.REGISTRY_ENTRY}
    forged |= {wire.SUBJECT: "spy", wire.DETAIL: {0: 0, 1: ["kind", "button"]}}
    envelope = wire.seal(forged, HQ, b"x" * 32)
    framed = {wire.KIND: wire.FRAME, wire.ENVELOPE: envelope, wire.HOPS: [["gw1", 1]]}
    done: list[None] = []
    for payload in (
        wire.seal(framed, "gw1", bytes(32)),
        next(batch.packed([batch.letter(envelope, [["gw1", 1]])] * 2, "gw1", bytes(32))),
    ):
        exchange.arrived("tocsin/1/gw1/event", payload, lambda: done.append(None))
    wait_until(lambda: len(done) == 2, 10, "each is dealt with")
    assert exchange._refusals.total == 3
    assert all("own name" in one.why for one in exchange._refusals.newest())
    exchange._journal.now(lambda _: None)
    with exchange._journal.readers.connect() as connection:
        rows = connection.exec_driver_sql("SELECT seq, envelope FROM journal").all()
        assert not [row for row in rows if row.seq == 7 or bytes(row.envelope) == envelope]
    with exchange._journal._writer.begin() as connection:
        keeping.rebuild(connection, HQ, [], lambda _: None)
        assert connection.exec_driver_sql("SELECT count(*) FROM children").scalar_one() == 0


def test_an_event_whose_consequence_no_database_takes_is_journaled_all_the_same(
    headquarters: tuple[Exchange, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, sent = headquarters
    monkeypatch.setattr(Journal, "_give_up", lambda _, error: ended.append(error))
    ended: list[BaseException] = []
    too_much = select(bindparam("many", 2**70, BigInteger))
    monkeypatch.setattr(exchange.commands, "answered", lambda connection, *_: connection.execute(too_much))
    done: list[None] = []

    def send(seq: int) -> None:
        message = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 5, wire.CODE: wire.COMMAND_DONE}
        exchange.arrived("tocsin/1/b1/event", wire.seal(message, "b1", bytes(32)), lambda: done.append(None))

    send(1)
    wait_until(lambda: sent or ended, 10, "it is receipted")
    assert (len(done), exchange._refusals.total, ended) == (1, 0, [])
    monkeypatch.setattr(Journal, "keep_bare", lambda *_: int("much"))
    send(2)
    wait_until(lambda: len(done) == 2 or ended, 10, "the broker may forget what can't be kept")
    assert not ended
    assert "can't be journaled" in exchange._refusals.newest()[0].why
    assert len(sent) == 1, "nobody is told that it is here"


def test_nobody_above_headquarters_says_whose_silence_is_no_event(headquarters: tuple[Exchange, list[Any]]) -> None:
    exchange, _ = headquarters
    exchange.supervision.maintained = {"b1": 60_000}
    answer = {wire.KIND: wire.RECEIPT, wire.BOOT: 1, wire.SEQ: 1, wire.STAGE: wire.AT_HQ, wire.DEVICE: HQ}
    exchange.receipted("ministry", [({**answer, wire.MAINTAINED: []}, b"")])
    assert exchange.supervision.maintained == {"b1": 60_000}


def test_an_agency_does_not_report_again_whom_headquarters_told_with_their_gateway(
    headquarters: tuple[Exchange, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange, _ = headquarters
    told: list[Any] = []
    monkeypatch.setattr(exchange, "event", lambda *event: told.append(event))
    exchange.silent([Silence("gw", "no heartbeat came", 18_000, ("b1", "b2"))])
    ((code, subject, detail),) = told
    assert _told(detail) == "no heartbeat came, silent for 18 s; behind it: b1, b2"
    now = exchange.clock.monotonic_ms()
    for child in ("gw", "b1", "b2", "b3"):
        exchange.supervision.heard(child, 1, 1, 0, now, HQ)
        exchange.reports[child] = Report(HQ, {}, 0)
    event = {
        wire.KIND: wire.EVENT,
        wire.BOOT: 1,
        wire.SEQ: 1,
        wire.CODE: code,
        wire.SUBJECT: subject,
        wire.DETAIL: detail,
    }
    exchange._learn(Arrival(wire.EVENT, HQ, HQ, event, b"", []), exchange.clock.utc_ms())
    assert {one.id for one in exchange.supervision.children.values() if one.reported} == {"gw", "b1", "b2"}


def test_a_gateway_forgets_a_button_that_headquarters_hears_through_another(
    headquarters: tuple[Exchange, list[Any]], bench: Bench
) -> None:
    hq, sent = headquarters
    hq._registry.is_station.side_effect = lambda child: child.startswith("gw")  # type: ignore[attr-defined]
    bench.journal.start()
    old = bench.exchange
    hq.supervision.lenient(hq.clock.monotonic_ms())
    for child in ("b1", "b2", "b3"):
        message = {wire.KIND: wire.HEARTBEAT, wire.BOOT: 1, wire.SEQ: 1, wire.UPTIME: 1}
        old.arrived(f"tocsin/1/{child}/heartbeat", wire.seal(message, child, bytes(32)), lambda: None)
        via = {"b1": "gw-new", "b2": "gw-old", "b3": "gw-new"}[child]
        hq._heartbeat(Arrival(wire.HEARTBEAT, via, child, message, b"", [[via, 1]]), b"")
    old.save()
    for child in ("b1", "b2"):  # and b3 is heard at both, for now
        old.supervision.children[child].last_ms = old.clock.monotonic_ms() - 60_000
    digest = [0, [["b1", wire.CHILD_OFFLINE], ["b2", wire.CHILD_OFFLINE], ["b3", wire.CHILD_LATE]]]
    beat = {wire.KIND: wire.HEARTBEAT, wire.BOOT: 1, wire.SEQ: 1, wire.UPTIME: 1, wire.CHILDREN: 3, wire.DIGEST: digest}
    sent.clear()
    hq._heartbeat(Arrival(wire.HEARTBEAT, "gw-old", "gw-old", beat, b"", []), b"")
    answer = wire.unseal(sent[-1][1]).message
    assert answer[wire.ELSEWHERE] == ["b1", "b3"]
    hq._registry.is_retired.side_effect = "b2".__eq__  # type: ignore[attr-defined]
    hq._heartbeat(Arrival(wire.HEARTBEAT, "gw-old", "gw-old", {**beat, wire.SEQ: 2}, b"", []), b"")
    assert wire.unseal(sent[-1][1]).message[wire.ELSEWHERE] == ["b1", "b2", "b3"], "one is retired meanwhile"
    old.receipted("agency", [({**answer, wire.DEVICE: SITE}, b"")])
    assert set(old.supervision.children) == {"b1", "b2", "b3"}
    old.receipted("hq", [({**answer, wire.DEVICE: SITE}, b"")])
    assert set(old.supervision.children) == {"b2", "b3"}
    old.save()
    bench.journal.now(lambda _: None)
    assert {last.child for last in bench.journal.heard()} == {"b2", "b3"}


def test_of_a_button_that_named_an_answer_once_it_is_asked_for_ever_also_after_both_started_again(
    headquarters: tuple[Exchange, list[Any]],
) -> None:
    hq, _ = headquarters

    def beat(boot: int, **more: int) -> None:
        message = {wire.KIND: wire.HEARTBEAT, wire.BOOT: boot, wire.SEQ: 9, wire.UPTIME: 1}
        message |= {getattr(wire, name.upper()): value for name, value in more.items()}
        hq._heartbeat(Arrival(wire.HEARTBEAT, "gw", "b1", message, b"", [["gw", 1]]), b"")

    beat(1)
    hq.save()
    hq._journal.now(lambda _: None)
    assert [wire.ANSWERED in last.message for last in hq._journal.heard()] == [False]
    beat(2, answered=3)
    beat(3)
    hq.save()
    hq._journal.now(lambda _: None)
    again = Exchange(hq.settings, hq._journal, hq._registry, Refusals(), NoticeBoard(), 2)
    again.remember()
    assert again.supervision.children["b1"].identity == (3, 9)
    assert again.supervision.children["b1"].names


def test_a_line_that_fell_late_does_not_take_down_the_one_that_stands() -> None:
    told: list[bool] = []
    uplink = Uplink.__new__(Uplink)
    uplink.parent = SimpleNamespace(id="hq")  # type: ignore[assignment]
    uplink._lock = threading.RLock()
    uplink._on_link = lambda _parent, up: told.append(up)
    uplink._line = SimpleNamespace(client=object())  # type: ignore[assignment]
    uplink.connected = True
    uplink._disconnected()
    assert (uplink.connected, told) == (True, [])
    uplink._line.client = None
    uplink._disconnected()
    assert (uplink.connected, told) == (False, [False])


def test_an_acknowledgement_of_an_older_session_is_not_sent_in_the_next_one() -> None:
    """The numbers begin anew with a broker that was started again: it would forget another message."""
    world = World(buttons=())
    station = Station(load(world.folder / f"{SITE}.toml"))
    try:
        client, done = MagicMock(), []
        station.exchange.arrived = lambda _topic, _payload, settled: done.append(settled)  # type: ignore[method-assign]
        station._message(client, None, SimpleNamespace(mid=7, qos=1, topic="t", payload=b""))  # type: ignore[arg-type]
        station._message(client, None, SimpleNamespace(mid=8, qos=1, topic="t", payload=b""))  # type: ignore[arg-type]
        done[0]()
        station._disconnected()
        done[1]()
        assert [call.args for call in client.ack.call_args_list] == [(7, 1)]
    finally:
        station.registry.close()
        station.journal.readers.dispose()
        world.close()
