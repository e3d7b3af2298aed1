"""Which station a button tries, over stories of tries that fail and sessions that last."""

from __future__ import annotations

import pytest

from firmware.route import LASTED_MS, LONGEST_LOOK_MS, LOOK_MS, Route, is_address


def test_every_address_is_tried_in_turn() -> None:
    route, tried = Route(4), []
    for _ in range(9):
        tried.append(route.at)
        route.ended(0)
    assert tried == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_a_session_that_lasted_elsewhere_leads_back_to_the_preferred_and_one_there_to_the_next() -> None:
    route = Route(3)
    route.ended(LASTED_MS)
    assert route.at == 1, "the preferred path may be the one that swallows everything"
    route.ended(LASTED_MS - 1)
    assert route.at == 2
    route.ended(LASTED_MS)
    assert route.at == 0


def test_the_preferred_one_is_looked_at_calmly_and_rarer_after_each_disappointment() -> None:
    route = Route(2)
    assert not route.wants_look(10**9, urgent=False), "it serves"
    route.ended(0)
    looks = []
    for _ in range(9):
        assert not route.wants_look(10**9, urgent=True)
        due = next(ms for ms in range(0, 10**7, LOOK_MS) if route.wants_look(ms, urgent=False))
        looks.append(due)
        route.looked(is_back=True)
        route.ended(due)
        assert route.at == 0
        route.ended(0)  # it accepts connections and serves nobody
        assert route.at == 1
    assert looks == [LOOK_MS << n for n in range(6)] + [LONGEST_LOOK_MS] * 3
    route.looked(is_back=True)
    route.ended(LONGEST_LOOK_MS)
    route.ended(LASTED_MS)
    assert route.wants_look(LOOK_MS, urgent=False), "it was well in between"


def test_one_address_is_tried_for_ever() -> None:
    route = Route(1)
    for up_ms in (0, LASTED_MS, 0):
        route.ended(up_ms)
        assert route.at == 0
        assert not route.wants_look(10**9, urgent=False)


@pytest.mark.parametrize(
    ("text", "digits"),
    [("10.0.0.2", True), ("fe80::1", True), ("gw.khi", False), ("gw-1", False), ("10.example", False)],
)
def test_names_are_told_from_addresses(text: str, digits: bool) -> None:  # noqa: FBT001
    assert is_address(text) is digits
