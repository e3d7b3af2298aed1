"""A message that retention deleted does not come again as a new one, whoever recorded it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import insert, select, update

from demo.process import wait_until
from demo.world import HQ
from firmware import wire
from gateway import deleted, keeping, keys, schema
from gateway.chain import Sealer
from gateway.journal import DeletedError, Journal
from gateway.rows import Entry, Kept
from tests.gateway.test_journal import entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gateway.lived import Lived

DAY_MS = 86_400_000


def event(seq: int, boot: int = 1, source: str = "b1") -> Entry:
    message = {wire.KIND: wire.EVENT, wire.BOOT: boot, wire.SEQ: seq, wire.AGE: 5, wire.CODE: wire.LOOP_CUT}
    return Entry(source, message, wire.seal(message, source, bytes(32)), [], 0, 0, exact=True)


def put(journal: Journal, one: Entry) -> Kept:
    return journal.now(lambda connection: journal.keep(connection, one))


def shorten(journal: Journal, sealer: Sealer, closes: str | None = None) -> int:
    """All that is there was long ago, is closed, and goes."""
    journal.now(lambda connection: connection.execute(update(schema.incidents).values(state="closed")))
    limit, _ = keeping.to_go(journal, 30, closes)
    return keeping.retain(journal, sealer, 7, limit, closes, lambda _: None)


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    return Sealer("hq", ec.generate_private_key(ec.SECP256R1()), tmp_path / "checkpoints")


@pytest.fixture
def journal(store: Path | str) -> Iterator[Journal]:
    made = Journal(store, [])
    made.start()
    yield made
    made.stop()


def test_an_alarm_that_was_deleted_comes_again_as_a_repeat_of_a_closed_one(journal: Journal, sealer: Sealer) -> None:
    put(journal, entry(5))
    assert shorten(journal, sealer) == 1
    again = put(journal, entry(5, age=9_000))
    assert (again.fresh, again.stage) == (False, wire.CLOSED)
    assert journal.stage(("b1", 1, 5)) == wire.CLOSED, "a button that shows less is told so"
    assert journal.stage(("b1", 1, 4)) is None
    with journal.readers.connect() as connection:
        assert connection.execute(select(schema.incidents)).all() == []
        assert connection.execute(select(schema.journal)).all() == []
    assert put(journal, entry(4)).fresh, "an earlier one that never came is no repeat"
    assert put(journal, entry(6)).fresh


def test_an_event_is_refused_that_was_deleted_or_comes_after_newer_ones_that_were(
    journal: Journal, sealer: Sealer
) -> None:
    for one in (event(3), event(5), event(9, boot=2), event(2, source="b2")):
        put(journal, one)
    assert shorten(journal, sealer) == 4
    for late in (event(5), event(3), event(4), event(9, boot=2)):
        with pytest.raises(DeletedError, match="too late"):
            put(journal, late)
    for new in (event(6), event(10, boot=2), event(3, source="b2"), event(1, boot=3), event(5, source="b3")):
        assert put(journal, new).fresh
    assert put(journal, entry(4)).fresh, "an alarm is never lost to what events were deleted"


def test_the_newest_deleted_event_of_a_boot_is_remembered_whatever_goes_later(journal: Journal, sealer: Sealer) -> None:
    for seq, expected in ((9, True), (11, True)):
        put(journal, event(seq))
        shorten(journal, sealer)
        with journal.readers.connect() as connection:
            assert deleted.is_event(connection, ("b1", 1, seq)) is expected
    journal.now(lambda connection: connection.execute(insert(schema.journal), _row(journal, event(4))))
    shorten(journal, sealer)
    with journal.readers.connect() as connection:
        assert deleted.is_event(connection, ("b1", 1, 11)), "an older one that goes later lowers nothing"


def _row(journal: Journal, one: Entry) -> dict[str, Any]:
    source, boot, seq = one.identity
    shape = {"kind": one.kind, "happened_at_ms": 0, "exact": 1, "received_at_ms": 0}
    return {
        "source": source, "boot": boot, "seq": seq, **shape,
        "envelope": one.envelope, "hops": b"\x80", "chain": bytes(32),
    }  # fmt: skip


def test_of_a_batch_that_is_written_together_the_deleted_ones_alone_are_turned_away(
    store: Path | str, sealer: Sealer
) -> None:
    journal = Journal(store, [])
    journal.start()
    for one in (entry(1), event(2)):
        put(journal, one)
    shorten(journal, sealer)
    journal.stop()
    journal = Journal(store, [])
    done: list[Kept] = []
    refused: list[Exception] = []

    def later(one: Entry) -> None:
        journal.later(
            lambda connection: journal.keep(connection, one), done.append, failed=refused.append, entry=one,
            alarm=one.kind == wire.ALARM,
        )  # fmt: skip

    for one in (entry(7), entry(1), entry(8), event(9), event(2), event(10)):
        later(one)
    journal.start()
    wait_until(lambda: len(done) + len(refused) == 6, 10, "all six")
    assert [one.fresh for one in done] == [True, False, True, True, True]
    assert [type(one) for one in refused] == [DeletedError]
    journal.stop()


def test_a_site_remembers_alarms_alone_and_leaves_late_events_to_headquarters(
    store: Path | str, sealer: Sealer
) -> None:
    journal = Journal(store, ["hq"])
    journal.start()
    for one in (entry(1), event(2)):
        put(journal, one)
        journal.now(lambda connection, name=one.identity: journal.delivered(connection, "hq", name, 2))  # type: ignore[misc]
    assert shorten(journal, sealer, "hq") == 2
    assert not put(journal, entry(1)).fresh
    assert put(journal, event(2)).fresh
    journal.stop()


def test_a_recording_played_to_headquarters_after_retention_opens_nothing_and_is_told(lived: Lived) -> None:
    """With real MACs, through everything that headquarters judges by."""
    from gateway.exchange import Exchange
    from gateway.notice import NoticeBoard
    from gateway.refusals import Refusals
    from gateway.registry import Registry

    sources = {"gate-1", "gate-2"}
    recorded = [row for row in lived.rows(schema.journal) if row["source"] in sources and row["kind"] != 100]
    assert {row["kind"] for row in recorded} == {wire.ALARM, wire.EVENT}
    long_ago = {"received_at_ms": schema.journal.c.received_at_ms - 100 * DAY_MS}
    lived.do(lambda connection: connection.execute(update(schema.journal).values(long_ago)))
    lived.do(lambda connection: connection.execute(update(schema.steps).values(at_ms=0)))
    lived.do(lambda connection: connection.execute(update(schema.deliveries).values(stage=2)))
    lived.do(lambda connection: connection.execute(update(schema.incidents).values(state="closed")))
    assert lived.run("retain", "--days", "30").exit_code == 0
    journal = Journal(lived.settings.store, [], lived.sealer)
    registry = Registry(journal.readers, HQ, keys.private_key(lived.world.folder / "message-key.pem"))
    exchange = Exchange(lived.settings, journal, registry, Refusals(), NoticeBoard(), journal.next_boot())
    told: list[tuple[str, int]] = []
    exchange.send_down = lambda topic, payload: told.append((topic, wire.unseal(payload).message[wire.STAGE]))
    journal.start()
    played = [row for row in recorded if row["source"] == "gate-2"]  # gate-1 was replaced: nobody believes it
    for row in played:
        lane = "alarm" if row["kind"] == wire.ALARM else "event"
        exchange.arrived(f"tocsin/1/gate-2/{lane}", row["envelope"], lambda: None)
        journal.now(lambda _: None)
    alarms = [row for row in played if row["kind"] == wire.ALARM]
    assert told == [("tocsin/1/gate-2/receipt", wire.CLOSED)] * len(alarms)
    wait_until(lambda: not journal.backlog, 5, "the event that tells of it")
    journal.now(lambda _: None)
    registry.close()
    journal.stop()
    assert lived.rows(schema.incidents) == []
    fresh = [wire.unseal(row["envelope"]).message for row in lived.rows(schema.journal) if row["source"] == HQ]
    refusals = [one for one in fresh if one[wire.CODE] == wire.REFUSAL]
    assert [one[wire.SUBJECT] for one in refusals] == ["gate-2"]
