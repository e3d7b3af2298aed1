"""When a silent link stops being trusted, and when the next try begins, under a simulated clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firmware.vigil import FIRST_MS, LASTED_MS, LONGEST_MS, TRUST_MS, URGENT_LONGEST_MS, Backoff, Vigil

TICK_MS = 100
BEAT_MS = 5000
KEEPALIVE_MS = 8000


def run(*, dies_ms: int, pressed_ms: int | None = None, answer_ms: int = 20, until_ms: int = 60_000) -> int | None:
    """When the link is given up that stops forwarding at `dies_ms`; the alarm is sent and urgent from `pressed_ms`."""
    vigil = Vigil(0)
    answers: list[int] = []
    said_ms = 0
    for now_ms in range(0, until_ms, TICK_MS):
        while answers and answers[0] <= now_ms:
            vigil.heard(answers.pop(0))
        urgent = pressed_ms is not None and now_ms >= pressed_ms
        if vigil.verdict(now_ms, urgent):
            return now_ms
        asks = urgent and pressed_ms is not None and now_ms - pressed_ms < TICK_MS
        if asks or vigil.wants_ping(now_ms, urgent):
            vigil.said(now_ms, asks=True)
            said_ms = now_ms
            if now_ms < dies_ms:
                answers.append(now_ms + answer_ms)
        elif not now_ms % BEAT_MS:
            vigil.said(now_ms, asks=False)
            said_ms = now_ms
        assert now_ms - said_ms < KEEPALIVE_MS
    return None


@given(st.integers(0, 30_000))
def test_a_dead_link_is_noticed_within_ten_seconds_at_rest(dies_ms: int) -> None:
    noticed_ms = run(dies_ms=dies_ms)
    assert noticed_ms is not None
    assert dies_ms <= noticed_ms < dies_ms + 10_000


@given(st.integers(0, 30_000), st.integers(0, 10_000))
def test_a_dead_link_is_noticed_two_seconds_after_a_press_at_the_latest(dies_ms: int, later_ms: int) -> None:
    pressed_ms = dies_ms + later_ms
    noticed_ms = run(dies_ms=dies_ms, pressed_ms=pressed_ms)
    assert noticed_ms is not None
    assert noticed_ms <= pressed_ms + 2000 + 2 * TICK_MS


@given(st.integers(1, 1500), st.none() | st.integers(0, 30_000))
def test_a_slow_link_that_answers_is_kept(answer_ms: int, pressed_ms: int | None) -> None:
    assert run(dies_ms=10**9, pressed_ms=pressed_ms, answer_ms=answer_ms) is None


def test_time_in_which_nobody_listened_does_not_count() -> None:
    vigil = Vigil(0)
    vigil.said(0, asks=True)
    vigil.excuse(60_000)
    assert vigil.verdict(60_100, urgent=True) is None
    assert vigil.verdict(62_000, urgent=True)


def test_a_socket_that_takes_nothing_is_given_up_although_the_broker_speaks() -> None:
    vigil = Vigil(0)
    vigil.stuck(0)
    for now_ms in range(0, TRUST_MS, TICK_MS):
        vigil.heard(now_ms)
        assert vigil.verdict(now_ms, urgent=False) is None
        assert not vigil.wants_ping(now_ms + 60_000, urgent=True)
    assert vigil.verdict(2000, urgent=True)
    assert vigil.verdict(TRUST_MS, urgent=False)
    vigil.stuck(None)
    assert vigil.verdict(TRUST_MS, urgent=True) is None


def test_a_lost_session_is_retried_at_once_and_then_ever_more_slowly() -> None:
    backoff = Backoff()
    backoff.ended(LASTED_MS)
    pauses = []
    for _ in range(12):
        pauses.append(backoff.pause_ms(urgent=False, chance=255))
        backoff.ended(0)
    assert pauses[0] == 0
    assert pauses[1] <= FIRST_MS
    assert pauses == sorted(pauses)
    assert LONGEST_MS * 0.99 < pauses[-1] <= LONGEST_MS
    assert LONGEST_MS // 2 == backoff.pause_ms(urgent=False, chance=0)
    assert backoff.pause_ms(urgent=True, chance=255) <= URGENT_LONGEST_MS
    backoff.ended(LASTED_MS)
    assert backoff.pause_ms(urgent=False, chance=255) == 0


def test_a_broker_that_accepts_and_drops_does_not_bring_the_quick_retry_back() -> None:
    backoff = Backoff()
    for _ in range(8):
        backoff.ended(LASTED_MS - 1)
    assert backoff.pause_ms(urgent=False, chance=0) == LONGEST_MS // 2


def test_it_asks_again_every_second_as_long_as_the_answer_is_missing() -> None:
    """Over a link that loses packets each one that arrives makes TCP repeat at once what was lost before it."""
    vigil = Vigil(0)
    asked = []
    for now_ms in range(0, 3000 + TRUST_MS, TICK_MS):
        if vigil.wants_ping(now_ms, urgent=False):
            vigil.said(now_ms, asks=True)
            asked.append(now_ms)
    assert asked == [3000, 4000, 5000, 6000, 7000]
    assert vigil.verdict(3000 + TRUST_MS, urgent=False) is not None, "asking again gives no more time"
