"""A gateway that records a button's heartbeats and plays them later pretends for two minutes at most, whatever it does.

The real supervision and the real choice of heartbeats, over a day of simulated time.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from firmware import wire
from gateway.passing import Passing
from gateway.supervision import SIGNED_MS, SINCE_MS, Supervision, Verdict

BEAT_MS = 5_000
BOUND_MS = SINCE_MS + SIGNED_MS + 2_000


class Button:
    """Beats every 5 s, and names the newest answer that it got since its start."""

    def __init__(self) -> None:
        self.boot, self.seq, self.began_ms = 1, 0, 0
        self.answered: int | None = None

    def restart(self, now_ms: int) -> None:
        self.boot, self.seq, self.began_ms, self.answered = self.boot + 1, 0, now_ms, None

    def beat(self, now_ms: int) -> dict[int, Any]:
        self.seq += 1
        message = {wire.BOOT: self.boot, wire.SEQ: self.seq, wire.UPTIME: now_ms - self.began_ms}
        return message if self.answered is None else {**message, wire.ANSWERED: self.answered}

    def receipt(self, boot: int, seq: int) -> None:
        if boot == self.boot:
            self.answered = max(self.answered or 0, seq)


class Headquarters:
    """Its supervision of a gateway, whose word is always that all is well, and of one button behind it."""

    def __init__(self) -> None:
        self.supervision = Supervision(14_000)
        self.supervision.expect("gw", station=True, now_ms=0)
        self.supervision.expect("b1", station=False, now_ms=0)
        self.told: list[int] = []
        self.seq = 0

    def take(self, message: dict[int, Any], now_ms: int) -> bool:
        """A heartbeat of the button; whether it is answered."""
        verdict = self.supervision.heard(
            "b1", message[wire.BOOT], message[wire.SEQ], message[wire.UPTIME], now_ms, "gw",
            answered=message.get(wire.ANSWERED), proves=True,
        )  # fmt: skip
        if verdict in {Verdict.FRESH, Verdict.UNPROVEN}:
            self.supervision.answered("b1", message[wire.BOOT], message[wire.SEQ], now_ms)
        if verdict is Verdict.FRESH:
            self.supervision.back("b1", now_ms)
        return verdict in {Verdict.FRESH, Verdict.UNPROVEN}

    def tick(self, now_ms: int) -> None:
        if now_ms % BEAT_MS == 0:
            self.seq += 1
            self.supervision.heard("gw", 1, self.seq, now_ms, now_ms)
            self.supervision.digested("gw", {}, unnamed=0, now_ms=now_ms)
        self.supervision.returns(now_ms)
        self.told += [now_ms for silence in self.supervision.due(now_ms) if silence.child == "b1"]

    @property
    def is_well(self) -> bool:
        """Whether it believes that the button lives."""
        watched = self.supervision.children["b1"]
        return watched.last_ms is not None and not watched.reported


@pytest.mark.parametrize("hold_ms", [0, 20_000, 60_000, 90_000, 120_000, 500_000])
@pytest.mark.parametrize("restarts", [0, 1, 12])
@pytest.mark.parametrize("lets_it_be_told", [False, True])
def test_recorded_heartbeats_show_a_dead_button_as_alive_for_two_minutes_at_most(
    hold_ms: int, restarts: int, lets_it_be_told: bool
) -> None:
    """It holds every heartbeat back so long, and longer with every restart of the button, which it can bring about.

    lets_it_be_told: it passes nothing for half a minute after each restart, so that the silence is reported.
    """
    hq, button = Headquarters(), Button()
    dies_ms = 3_600_000
    restart_at = {600_000 + 120_000 * number for number in range(restarts)}
    recorded: list[tuple[int, dict[int, Any]]] = []
    held_ms, mute_until = hold_ms if not restarts else 0, 0
    last_well = 0
    for now_ms in range(0, dies_ms + 1_200_000, 500):
        if now_ms in restart_at:
            button.restart(now_ms)
            held_ms += hold_ms // max(1, restarts)
            mute_until = now_ms + 30_000 if lets_it_be_told else 0
        if now_ms < dies_ms and (now_ms - button.began_ms) % BEAT_MS == 0:
            recorded.append((now_ms + held_ms, button.beat(now_ms)))
        while recorded and recorded[0][0] <= now_ms:
            _, message = recorded.pop(0)
            if now_ms >= mute_until and hq.take(message, now_ms) and now_ms < dies_ms:
                button.receipt(message[wire.BOOT], message[wire.SEQ])  # at once: nothing later serves the thief better
        hq.tick(now_ms)
        if hq.is_well:
            last_well = now_ms
    assert last_well <= dies_ms + BOUND_MS
    if hold_ms == restarts == 0:
        assert not [at for at in hq.told if at < dies_ms]
        assert dies_ms + SIGNED_MS - 2 * BEAT_MS <= last_well


@pytest.mark.parametrize("seed", range(8))
def test_an_honest_gateway_never_makes_a_living_button_silent(seed: int) -> None:
    """Of what goes up to headquarters, and of its answers, each fiftieth is lost; the button starts again now and then."""
    chance = random.Random(seed)
    hq, button, passing = Headquarters(), Button(), Passing()
    for now_ms in range(0, 6 * 3_600_000, 500):
        if chance.random() < 1 / 4_000:
            button.restart(now_ms)
        if (now_ms - button.began_ms) % BEAT_MS == 0:
            message = button.beat(now_ms)
            passes = passing.passes("b1", message, now_ms, afresh=False)
            if passes and chance.random() > 0.02 and hq.take(message, now_ms) and chance.random() > 0.02:
                button.receipt(message[wire.BOOT], message[wire.SEQ])
        hq.tick(now_ms)
    assert hq.told == []


def test_a_button_whose_firmware_names_no_answers_is_believed_without() -> None:
    """A headquarters is brought up to date before its buttons."""
    hq, button, passing = Headquarters(), Button(), Passing()
    for now_ms in range(0, 3_600_000, 500):
        if now_ms % BEAT_MS == 0:
            message = button.beat(now_ms)
            if passing.passes("b1", message, now_ms, afresh=False):
                hq.take(message, now_ms)
        hq.tick(now_ms)
    assert hq.told == []


def test_headquarters_that_starts_again_asks_for_no_answer_that_it_never_gave() -> None:
    hq, button, passing = Headquarters(), Button(), Passing()
    for now_ms in range(0, 3_600_000, 500):
        if now_ms == 1_800_000:
            old, hq = hq.supervision.children["b1"], Headquarters()
            hq.supervision = Supervision(14_000)
            hq.supervision.expect("gw", station=True, identity=(1, 1), now_ms=now_ms)
            hq.supervision.expect("b1", station=False, identity=old.identity, now_ms=now_ms)
            hq.supervision.remember("b1", via="gw", reported=False, names=True)
            hq.seq = 10_000
        if now_ms % BEAT_MS == 0:
            message = button.beat(now_ms)
            if passing.passes("b1", message, now_ms, afresh=False) and hq.take(message, now_ms):
                button.receipt(message[wire.BOOT], message[wire.SEQ])
        hq.tick(now_ms)
    assert hq.told == []


def test_leniency_ends_no_silence_that_was_reported() -> None:
    """Headquarters starts again while a button is reported: what was recorded of it brings it back to nobody's list."""
    supervision = Supervision(14_000)
    supervision.expect("b1", station=False, identity=(7, 100), now_ms=0)
    supervision.remember("b1", via="gw", reported=True, names=True)
    assert supervision.heard("b1", 7, 101, 10**7, 5_000, "gw", answered=99, proves=True) is Verdict.UNPROVEN
    supervision.answered("b1", 7, 101, 5_000)
    assert supervision.heard("b1", 7, 102, 10**7 + 5_000, 10_000, "gw", answered=101, proves=True) is Verdict.FRESH


def test_while_headquarters_answers_nobody_it_asks_for_no_answers() -> None:
    """Its disk is in trouble for ten minutes: that makes no button silent."""
    hq, button, passing = Headquarters(), Button(), Passing()
    for now_ms in range(0, 3_600_000, 500):
        if now_ms % BEAT_MS == 0:
            message = button.beat(now_ms)
            if passing.passes("b1", message, now_ms, afresh=False):
                answers = hq.take(message, now_ms)
                if 1_000_000 <= now_ms < 1_600_000:
                    hq.supervision.children["b1"].answers.pop()
                    hq.supervision.lenient(now_ms)
                elif answers:
                    button.receipt(message[wire.BOOT], message[wire.SEQ])
        hq.tick(now_ms)
    assert hq.told == []
