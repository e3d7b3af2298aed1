"""Which heartbeats go up verbatim: news at once, the rest once a minute and not in step."""

from __future__ import annotations

from typing import Any

import pytest

from firmware import wire
from gateway.passing import BURST, PASS_MS, REFILL_MS, SPREAD_MS, UNANSWERED_MS, Passing

WELL = {
    wire.BOOT: 1, wire.LOOP: 0, wire.TAMPER: 0, wire.STORAGE: 0, wire.SUPPLY: 1, wire.PENDING: 0, wire.SHOWN: [],
    wire.REFUSED: 0, wire.FIRMWARE: "1", wire.BATTERY: 4000, wire.RSSI: -60, wire.UPTIME: 0, wire.HEAP: 1,
}  # fmt: skip


class Gateway:
    """One child's heartbeats, one every 5 s, and a parent that answers what it gets."""

    def __init__(self, child: str = "b1", *, answers: bool = True) -> None:
        self.passing = Passing()
        self.child, self.answers = child, answers
        self.now_ms = self.seq = 0
        self.named: dict[int, int] = {}  # what the child says of answers

    def beat(self, *, afresh: bool = False, **changes: Any) -> bool:
        self.seq += 1
        self.now_ms += 5_000
        fields = {getattr(wire, name.upper()): value for name, value in changes.items()}
        message = {**WELL, wire.SEQ: self.seq, wire.UPTIME: self.now_ms, wire.HEAP: self.seq, **self.named, **fields}
        passes = self.passing.passes(self.child, message, self.now_ms, afresh=afresh)
        if passes and self.answers:
            self.named = {wire.ANSWERED: self.seq}
        return passes

    def settled(self) -> Gateway:
        """It was heard, and its next heartbeat named the answer."""
        assert [self.beat(), self.beat(), self.beat()] == [True, self.answers, False]
        return self

    def passed_at(self, beats: int, **changes: Any) -> list[int]:
        return [self.now_ms for _ in range(beats) if self.beat(**changes)]


def test_a_child_that_is_well_goes_up_once_a_minute_at_least_and_hardly_more() -> None:
    at = Gateway().settled().passed_at(7_200)  # ten hours
    pauses = [b - a for a, b in zip(at, at[1:], strict=False)]
    assert max(pauses) <= 60_000
    assert min(pauses) >= PASS_MS - SPREAD_MS
    assert len(at) < 36_000 / 40


def test_fifty_that_came_together_drift_apart() -> None:
    gateways = [Gateway(f"b{n}") for n in range(50)]
    for gateway in gateways:
        gateway.passed_at(60)
    soon = [sum(gateway.beat() for gateway in gateways) for _ in range(12)]
    assert sum(soon) >= 50
    assert max(soon) < 25


@pytest.mark.parametrize(
    "change",
    [
        {"boot": 2}, {"loop": 2}, {"tamper": 1}, {"storage": 1}, {"supply": 0}, {"pending": 1}, {"shown": [[1, 1, 2]]},
        {"refused": 1}, {"path": 2}, {"spare": 2}, {"firmware": "2"}, {"battery": 3900}, {"afresh": True},
    ],
)  # fmt: skip
def test_what_matters_goes_up_at_once(change: dict[str, Any]) -> None:
    assert Gateway().settled().beat(**change)


@pytest.mark.parametrize("change", [{"rssi": -80}, {"battery": 3950}, {"heap": 7}, {"delay": 900}])
def test_what_always_moves_a_little_does_not(change: dict[str, Any]) -> None:
    assert not Gateway().settled().beat(**change)


def test_a_child_that_flutters_costs_no_more_than_one_heartbeat_in_ten_seconds() -> None:
    gateway = Gateway()
    passed = [gateway.beat(tamper=beat % 2) for beat in range(1_000)]
    assert all(passed[:BURST])
    assert sum(passed) <= BURST + 1_000 * 5_000 // REFILL_MS


def test_one_without_an_answer_is_followed_by_the_next_soon_and_then_less_often() -> None:
    gateway = Gateway(answers=False)
    at = gateway.passed_at(100)
    pauses = [b - a for a, b in zip(at, at[1:], strict=False)]
    assert pauses[:5] == [UNANSWERED_MS * factor for factor in (1, 1, 1, 2, 4)]
    assert at[-1] - at[-2] >= PASS_MS - SPREAD_MS


def test_a_new_connection_to_the_parent_gets_the_next_heartbeat_of_everybody() -> None:
    gateway = Gateway()
    gateway.settled()
    gateway.passing.connected()
    gateway.settled()


def test_the_first_heartbeat_that_names_an_answer_goes_up_at_once_since_it_alone_proves_that_the_child_lives() -> None:
    gateway = Gateway().settled()
    gateway.named = {}
    for _ in range(2):
        assert gateway.beat(boot=2), "a start"
        gateway.named = {wire.ANSWERED: gateway.seq}
    assert not gateway.beat(boot=2)


def test_after_a_silence_the_first_that_names_an_answer_goes_up_at_once() -> None:
    gateway = Gateway().settled()
    assert [gateway.beat(afresh=True), gateway.beat(), gateway.beat()] == [True, True, False]


def test_an_answer_that_the_child_did_not_get_is_followed_by_another_heartbeat_soon() -> None:
    gateway = Gateway().settled()
    gateway.passed_at(5)
    lost = dict(gateway.named)
    while not gateway.beat():
        pass
    gateway.named = lost
    at = gateway.now_ms
    while not gateway.beat():
        assert gateway.now_ms - at < UNANSWERED_MS
    assert gateway.now_ms - at == UNANSWERED_MS
    assert [gateway.beat(), gateway.beat()] == [True, False], "and the first that names an answer after that, at once"


def test_while_an_alarm_is_on_the_light_lost_receipts_can_be_repeated_every_ten_seconds() -> None:
    gateway = Gateway()
    at = gateway.passed_at(100, shown=[[1, 5, 2]])
    assert max(b - a for a, b in zip(at, at[1:], strict=False)) <= 10_000
