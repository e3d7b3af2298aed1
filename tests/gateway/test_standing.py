"""One word for how a child stands, and the digest that tells a parent who is not well."""

from __future__ import annotations

import pytest

from firmware import wire
from gateway import maintenance
from gateway.exchange import MOST_ELSEWHERE
from gateway.desk import Link, MaintenanceRefusedError
from gateway.standing import digest, standing
from gateway.supervision import Supervision


def heard(**fields: int) -> tuple[Supervision, dict[int, int]]:
    supervision = Supervision(14_000)
    supervision.heard("b1", 1, 1, 0, 0)
    return supervision, {getattr(wire, name.upper()): value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("fields", "link"),
    [
        ({}, Link.ONLINE),
        ({"loop": wire.LOOP_PRESSED}, Link.ONLINE),
        ({"loop": wire.LOOP_IS_CUT}, Link.FAULTY),
        ({"storage": 1}, Link.FAULTY),
        ({"tamper": 1, "loop": wire.LOOP_IS_CUT}, Link.TAMPERED),
    ],
)
def test_what_a_heartbeat_says_of_itself(fields: dict[str, int], link: Link) -> None:
    supervision, message = heard(**fields)
    assert standing(supervision, supervision.children["b1"], message, 1_000)[0] is link


def test_silence_comes_before_everything_else() -> None:
    supervision, message = heard(tamper=1)
    watched = supervision.children["b1"]
    assert standing(supervision, watched, message, 8_000) == (Link.LATE, "no heartbeat for 8 s")
    supervision.due(15_000)
    assert standing(supervision, watched, message, 15_000) == (Link.OFFLINE, "no heartbeat for 15 s")
    assert standing(supervision, None, None, 0)[0] is Link.NEVER_SEEN


def test_a_digest_names_who_is_not_well_and_says_how_many_more() -> None:
    assert digest({"b2": Link.OFFLINE, "b1": Link.ONLINE, "b3": Link.NEVER_SEEN}, 0) == [0, [["b2", 2]]]
    many = {f"b{n:03}": Link.LATE for n in range(100)}
    unnamed, named = digest(many, 0)
    assert (unnamed, len(named)) == (68, wire.MAX_NAMED)
    told = {child for turn in range(4) for child, _ in digest(many, turn)[1]}
    assert told == set(many), "each is named before long"


@pytest.mark.parametrize("length", [1, 12, 20, 64])
def test_whatever_the_names_a_station_heartbeat_fits_into_an_envelope(length: int) -> None:
    states = {f"{n:0{length}}"[-length:]: Link.TAMPERED for n in range(1_000)}
    message = {
        wire.KIND: wire.HEARTBEAT, wire.BOOT: 2**32 - 1, wire.SEQ: 2**32 - 1, wire.UPTIME: 2**53 - 1,
        wire.CHILDREN: 2**32 - 1, wire.ONLINE: 2**32 - 1, wire.REFUSED: 2**53 - 1, wire.DISK: 2**53 - 1,
        wire.FIRMWARE: "1.0.0-rc1", wire.DIGEST: digest(states, 7), wire.STORAGE: 1, wire.MARK: [2**63 - 1, bytes(12)],
    }  # fmt: skip
    envelope = wire.seal(message, "s" * 64, bytes(32))
    assert len(envelope) <= wire.MAX_ENVELOPE
    assert wire.unseal(envelope).message[wire.DIGEST][0] == len(states) - len(message[wire.DIGEST][1])


def test_an_answer_names_whose_maintenance_goes_on_and_fits() -> None:
    ends_ms = {f"{n:064}": 2**41 + n for n in range(100)} | {"over": 5}
    told = maintenance.told(ends_ms, 10)
    message = {
        wire.KIND: wire.RECEIPT,
        wire.BOOT: 1,
        wire.SEQ: 1,
        wire.STAGE: 2,
        wire.DEVICE: "gw",
        wire.MAINTAINED: told,
    }
    assert len(wire.seal(message, "hq", bytes(32))) <= wire.MAX_ENVELOPE
    elsewhere, mark = ["e" * 64] * MOST_ELSEWHERE, [2**63 - 1, bytes(12)]
    message |= {wire.DEVICE: "g" * 64, wire.ELSEWHERE: elsewhere, wire.MARK: mark, wire.KNOWN: [*mark, 2]}
    assert len(wire.seal(message, "h" * 64, bytes(32))) <= wire.MAX_FRAME  # what a station takes from its parent
    assert "over" not in dict(told)
    assert maintenance.told({"b1": 61_500}, 1_000) == [["b1", 61]]


@pytest.mark.parametrize(
    ("until", "lasts", "minutes"),
    [("", "90m", 90), ("", "2h", 120), ("", "3d", 4320), ("1970-01-01T01:00+00:00", "", 60)],
)
def test_an_end_as_people_write_it(until: str, lasts: str, minutes: int) -> None:
    assert maintenance.end_of(until, lasts, 0) == minutes * 60_000


@pytest.mark.parametrize(("until", "lasts"), [("", "soon"), ("", "h"), ("", "-2h"), ("", "2w"), ("tomorrow", "")])
def test_an_end_that_is_none_is_refused_with_an_example(until: str, lasts: str) -> None:
    with pytest.raises(ValueError, match="like"):
        maintenance.end_of(until, lasts, 0)


@pytest.mark.parametrize("until_ms", [0, 1_000, 1_001 + maintenance.LONGEST_MS])
def test_a_maintenance_ends_in_the_future_and_in_a_month_at_most(until_ms: int) -> None:
    with pytest.raises(MaintenanceRefusedError):
        maintenance.check(until_ms, 1_000)
