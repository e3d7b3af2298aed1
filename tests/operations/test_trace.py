"""A trace says what the journal knows, and says what it doesn't."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from firmware import wire
from gateway import schema
from gateway.journal import Journal
from gateway.rows import Entry
from gateway.settings import Settings
from gateway.trace import Life, TraceError, as_text, find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRESSED = 1_800_000_000_000


class Kept:
    """A site's journal with two parents, and what is traced of it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(station="gw", state=folder)
        self.journal = Journal(self.settings.store, ["hq", "rangers"])
        self.journal.start()

    def alarm(self, **more: Any) -> None:
        message = {wire.KIND: wire.ALARM, wire.BOOT: 3, wire.SEQ: 7, wire.AGE: 40, wire.CAUSE: wire.HOLD_UP}
        times = {"received_at_ms": PRESSED + 40, "happened_at_ms": PRESSED, "exact": True, "hops": [], **more}
        entry = Entry("b1", message, wire.seal(message, "b1", bytes(32)), **times)
        self.journal.now(lambda connection: self.journal.keep(connection, entry))

    def receipt(self, parent: str, stage: int, at_ms: int | None) -> None:
        self.journal.now(lambda connection: self.journal.delivered(connection, parent, ("b1", 3, 7), stage, at_ms))

    def heartbeat(self, at_ms: int, shown: list[list[int]]) -> None:
        row = {"child": "b1", "via": "b1", "boot": 3, "seq": 9, "heard_at_ms": at_ms, "silent": 0}
        row["message"] = wire.encode({wire.KIND: wire.HEARTBEAT, wire.SHOWN: shown})
        self.journal.now(lambda connection: connection.execute(insert(schema.latest), [row]) and None)

    def life(self) -> Life:
        return find(self.settings, "b1/3/7")

    def whats(self) -> list[str]:
        return [moment.what for moment in self.life().moments]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.journal.stop()


def test_times_that_no_calendar_has_or_that_run_backwards_are_called_implausible(kept: Kept) -> None:
    hops = [["gw-1", PRESSED + 10], ["gw-2", PRESSED - 60_000], ["gw-3", 2**53 - 1], ["gw-4", PRESSED + 30]]
    kept.alarm(hops=hops)
    life = kept.life()
    assert [one.doubtful for one in life.moments if one.clock] == [False, True, True, False]
    lines = {line.split("received by ")[1][:4]: line for line in as_text(life).splitlines() if "by gw-" in line}
    assert ["implausible" in lines[name] for name, _ in hops] == [False, True, True, False]
    assert str(2**53 - 1) in lines["gw-3"]


@pytest.mark.parametrize("at_ms", [2**53 - 1, -(2**53), 0])
def test_a_message_of_any_time_can_be_traced(kept: Kept, at_ms: int) -> None:
    kept.alarm(happened_at_ms=at_ms, received_at_ms=at_ms)
    assert "pressed" in as_text(kept.life())


def test_a_press_that_no_parent_has_yet(kept: Kept) -> None:
    kept.alarm()
    assert kept.whats()[3:] == [
        "not receipted by hq yet: it is sent until it is",
        "not receipted by rangers yet: it is sent until it is",
        "no heartbeat of the button is kept here: whether its light showed anything is not known",
    ]


def test_the_first_receipt_of_a_parent_keeps_its_time(kept: Kept) -> None:
    kept.alarm()
    kept.receipt("hq", wire.AT_HQ, PRESSED + 50)
    kept.receipt("hq", wire.ACKNOWLEDGED, PRESSED + 9_000)
    kept.receipt("hq", wire.AT_HQ, PRESSED + 9_500)  # an older one, late
    kept.receipt("rangers", 0, PRESSED + 60)
    told = [
        (moment.at_ms, moment.what) for moment in kept.life().moments if moment.at_ms and moment.at_ms > PRESSED + 40
    ]
    assert told == [
        (PRESSED + 50, "first receipt of hq: it has it"),
        (PRESSED + 60, "rangers refused it: it will never be believed there"),
        (PRESSED + 9_000, "receipt of hq: it says that an operator acknowledged it"),
    ]


def test_a_receipt_from_before_such_times_were_kept(kept: Kept) -> None:
    kept.alarm()
    kept.receipt("hq", wire.AT_HQ, None)
    life = kept.life()
    assert "when hq receipted it: that was before this station kept such times" in life.unknown
    assert "time not kept" in next(line for line in as_text(life).splitlines() if "receipt of hq" in line)


def test_a_press_of_unknown_time_is_not_told_as_known(kept: Kept) -> None:
    kept.alarm(exact=False)
    life = kept.life()
    assert life.moments[0].what == "pressed then or earlier: the sender lost power since"
    assert "at least +0.040 s" in as_text(life)


def test_hops_are_told_by_their_own_clock_in_their_order(kept: Kept) -> None:
    kept.alarm(hops=[["gw-b", PRESSED - 7_000], ["gw-c", PRESSED + 900_000]])
    assert [(moment.clock, moment.what) for moment in kept.life().moments][1:4] == [
        ("gw-b", "received by gw-b"),
        ("gw-c", "received by gw-c"),
        (None, "received here, at gw"),
    ]
    assert "-7.000 s" in as_text(kept.life())


@pytest.mark.parametrize(
    ("heard_ms", "shown", "says"),
    [
        (PRESSED + 5_000, [[3, 7, wire.AT_HQ]], "its light shows that headquarters has it"),
        (PRESSED + 5_000, [[3, 6, wire.AT_HQ]], "its light shows nothing of it"),
        (PRESSED - 5_000, [], "no heartbeat of the button since"),
    ],
)
def test_what_the_light_showed(kept: Kept, heard_ms: int, shown: list[list[int]], says: str) -> None:
    kept.alarm()
    kept.heartbeat(heard_ms, shown)
    assert says in kept.whats()[-1]


def test_a_journal_that_is_not_there_or_damaged_is_no_traceback(tmp_path: Path) -> None:
    settings = Settings(station="gw", state=tmp_path)
    with pytest.raises(TraceError, match="there is no journal yet"):
        find(settings, "b1/3/7")
    (tmp_path / "station.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(TraceError, match="can't be read"):
        find(settings, "b1/3/7")
