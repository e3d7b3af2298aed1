"""A backlog delays no alarm, fits into one message by the dozen, and a bad entry of a batch spoils nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firmware import wire
from gateway import batch
from gateway.ingest import Arrival, Judge, RefusedError
from gateway.relay import BATCH_OCTETS
from gateway.ways import LOST_MS, PAUSE_MS, Ways
from tests.bench import backlog

KEYS = {"gw": bytes(32), "b1": b"1" * 32, "b2": b"2" * 32, "hq": b"3" * 32}
TOPIC = "tocsin/1/gw/event"


def event(seq: int, source: str = "b1", key: bytes | None = None, code: int = wire.LOOP_CUT) -> bytes:
    message = {wire.KIND: wire.EVENT, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 0, wire.CODE: code}
    return wire.seal(message, source, key or KEYS[source])


def judge(vouches: str = "", known: dict[str, bytes] | None = None) -> Judge:
    known = KEYS if known is None else known

    def is_vouched(source: str, child: str) -> bool:
        return child == vouches and source not in known

    return Judge("hq", True, known.get, lambda child: child in ("gw", "hq"), is_vouched=is_vouched)  # noqa: FBT003


def opened(letters: list[bytes], judging: Judge | None = None, topic: str = TOPIC) -> list[Any]:
    (payload,) = batch.packed(letters, "gw", KEYS["gw"])
    return list((judging or judge()).open(topic, payload))


def framed(envelope: bytes, *stations: str) -> bytes:
    return batch.letter(envelope, [[station, 1_000] for station in stations or ("gw",)])


def test_each_entry_of_a_batch_is_judged_by_itself() -> None:
    own = event(9, "gw", code=wire.STATION_STARTED)
    alarm = wire.seal({0: wire.ALARM, 1: 1, 2: 7, 3: 0, 5: wire.HOLD_UP}, "b1", KEYS["b1"])
    found = opened(
        [
            framed(event(1)),
            framed(event(2, key=b"f" * 32)),
            framed(event(3), "gw", "other"),
            b"rubbish",
            wire.encode({wire.ENVELOPE: event(4), wire.HOPS: []}),
            batch.letter(event(5)),
            framed(alarm),
            framed(event(6, "b2"), "low", "gw"),
            batch.letter(own),
        ]
    )
    believed = [(one.source, one.identity[2], one.framed) for one in found if isinstance(one, Arrival)]
    assert believed == [("b1", 1, True), ("b2", 6, True), ("gw", 9, False)]
    refused = [one for one in found if isinstance(one, RefusedError)]
    assert len(refused) == 6
    assert refused[0].about == ("b1", 1, 2), "so that its sender stops sending it"
    assert found[7].hops == [["low", 1_000], ["gw", 1_000]]


def test_only_a_station_sends_batches_of_events_sealed_by_itself() -> None:
    letters = [framed(event(1)), framed(event(2))]
    for kid, key, topic in [
        ("b1", KEYS["b1"], "tocsin/1/b1/event"),
        ("gw", b"x" * 32, TOPIC),
        ("gw", KEYS["gw"], "tocsin/1/gw/alarm"),
        ("gw", KEYS["gw"], "tocsin/1/hq/event"),
    ]:
        (payload,) = batch.packed(letters, kid, key)
        (found,) = judge().open(topic, payload)
        assert isinstance(found, RefusedError)
    empty = wire.seal({wire.KIND: wire.BATCH, wire.LETTERS: []}, "gw", KEYS["gw"])
    assert [type(one) for one in judge().open(TOPIC, empty)] == [RefusedError]
    huge = wire.seal({wire.KIND: wire.BATCH, wire.LETTERS: [bytes(9_000)]}, "gw", KEYS["gw"])
    assert [type(one) for one in judge().open(TOPIC, huge)] == [RefusedError]


def test_batches_are_bounded_and_lose_nothing() -> None:
    letters = [framed(event(seq)) for seq in range(300)]
    payloads = list(batch.packed(letters, "gw", KEYS["gw"], BATCH_OCTETS))
    assert all(len(payload) <= BATCH_OCTETS for payload in payloads)
    assert len(payloads) < 20
    found = [one for payload in payloads for one in judge().open(TOPIC, payload)]
    assert [one.identity[2] for one in found if isinstance(one, Arrival)] == list(range(300))


def test_a_voucher_is_believed_for_strangers_and_for_nobody_who_is_known() -> None:
    agency = judge(vouches="gw", known={"gw": KEYS["gw"], "b2": KEYS["b2"]})
    stranger, known, forged = opened(
        [framed(event(1, "b1")), framed(event(2, "b2")), framed(event(3, "b2", b"x" * 32))], agency
    )
    assert (stranger.source, stranger.vouched) == ("b1", True)
    assert (known.source, known.vouched) == ("b2", False)
    assert isinstance(forged, RefusedError)
    assert isinstance(opened([framed(event(1, "b1"))], judge(known={"gw": KEYS["gw"]}))[0], RefusedError)


# ----------------------------------------------------------------------------------------------------- ways


def test_addresses_are_tried_in_turn_and_a_round_without_an_answer_is_followed_by_a_pause() -> None:
    ways = Ways(2, 30_000)
    assert ways.choose(0) == 0
    ways.failed(0, 3_000)
    assert ways.choose(3_000) == 1
    ways.failed(1, 6_000)
    assert ways.choose(6_000) is None
    assert ways.wait_ms(6_000) == PAUSE_MS[0]
    assert ways.choose(6_000 + PAUSE_MS[0]) == 0


def test_the_preferred_address_is_tried_now_and_then_and_rarer_when_it_keeps_failing() -> None:
    ways = Ways(3, 30_000)
    ways.stands(2, 0)
    assert ways.choose(29_999) is None
    assert ways.choose(30_000) == 0
    ways.failed(0, 33_000)
    assert ways.choose(33_000) == 1
    ways.failed(1, 36_000)
    assert ways.choose(95_999) is None
    assert ways.choose(96_000) == 0
    ways.stands(0, 97_000)
    assert ways.choose(10**9) is None
    assert ways.wait_ms(97_000) is None
    ways.lost(200_000)
    assert ways.choose(200_000) is None
    assert ways.choose(200_000 + LOST_MS) == 0


def test_a_preferred_address_that_falls_at_once_is_not_returned_to_at_once() -> None:
    ways = Ways(2, 10_000)
    now = 0
    gaps = []
    for _ in range(6):
        ways.stands(1, now)
        came = next(at for at in range(now, now + 200_000, 1_000) if ways.choose(at) == 0)
        gaps.append(came - now)
        ways.stands(0, came)
        ways.lost(came + 500)
        now = came + 1_000
    assert gaps == sorted(gaps)
    assert gaps[-1] == 80_000


# ------------------------------------------------------------------------------------------------- real processes


@pytest.mark.timeout(200)
def test_a_press_while_twenty_thousand_events_drain_takes_about_as_long_as_idle() -> None:
    told = backlog.measure(20_000, 10, lambda _: None)
    print(json.dumps(told))
    assert told["presses"][1] >= 3, "it drained before anybody pressed"
    assert told["sent_to_commit_ms"]["draining"]["p50"] < max(100, 5 * told["sent_to_commit_ms"]["idle"]["p50"])
    assert told["drained_per_s"] > 100
