"""A part that hangs is named, by itself and in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from demo.process import wait_until
from gateway import link
from gateway.clock import monotonic_ms
from gateway.vitals import Vitals
from provisioning.pki import Authority
from tests.parts import free_port

if TYPE_CHECKING:
    from pathlib import Path


def station(**changes: Any) -> Any:
    now = monotonic_ms()
    jobs: list[object] = []
    parts = {
        "journal": SimpleNamespace(waiting_s=0.0, backlog=0, later=jobs.append, trouble=None),
        "link_beat_ms": now,
        "console_server": SimpleNamespace(beat_ms=now, started=True),
        "uplinks": [SimpleNamespace(parent=SimpleNamespace(id="hq"), link_beat_ms=now, beat_ms=now)],
        "broker_up": True,
        "jobs": jobs,
    }
    return SimpleNamespace(**{**parts, **changes})


def test_all_is_well() -> None:
    of = station()
    vitals = Vitals(cast("Any", of))
    assert (vitals.stuck(), vitals.unready()) == ([], [])
    vitals.tick()
    assert len(of.jobs) == 1, "the journal's thread gets something to do, so that it shows when it hangs"
    of.journal.backlog = 1
    vitals.tick()
    assert len(of.jobs) == 1, "once is enough"


HUNG = monotonic_ms() - 3_600_000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"link_beat_ms": HUNG}, "the broker's client has made no progress for "),
        ({"console_server": SimpleNamespace(beat_ms=HUNG, started=True)}, "the console has made no progress"),
        ({"uplinks": [SimpleNamespace(parent=SimpleNamespace(id="hq"), link_beat_ms=HUNG, beat_ms=1 << 60)]}, "the client of parent hq has"),
        ({"uplinks": [SimpleNamespace(parent=SimpleNamespace(id="hq"), link_beat_ms=1 << 60, beat_ms=HUNG)]}, "the relay to parent hq has"),
        ({"journal": SimpleNamespace(waiting_s=6.0, backlog=1, trouble=None)}, "the journal has made no progress for 6 s"),
    ],
)  # fmt: skip
def test_what_hangs_is_named(changes: dict[str, Any], says: str) -> None:
    (told,) = Vitals(cast("Any", station(**changes))).stuck()
    assert says in told


def test_a_main_loop_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vitals = Vitals(cast("Any", station()))
    vitals._ticked_ms = HUNG
    assert "the main loop has made no progress" in vitals.stuck()[0]


def test_what_is_missing_for_an_alarm_is_named() -> None:
    of = station(broker_up=False, journal=SimpleNamespace(waiting_s=3.0, backlog=1, trouble=None))
    of.console_server.started = False
    told = Vitals(cast("Any", of)).unready()
    assert [what.split()[1] for what in told] == ["journal", "station's", "console"]


def test_a_client_without_a_broker_still_beats(tmp_path: Path) -> None:
    Authority.create().issue("gw").write_pem(tmp_path)
    client = link.client("gw", "gw", tmp_path, keepalive_s=10, keep_session=True)
    client.beat_ms = 0
    client.connect_async("127.0.0.1", free_port())
    client.loop_start()
    try:
        wait_until(lambda: client.beat_ms > 0, 20, "a beat of a client that can't connect")
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_journal_that_waits_out_a_disk_in_trouble_is_unready_but_not_stuck() -> None:
    """The watchdog must not end a station that passes alarms on."""
    journal = SimpleNamespace(waiting_s=60.0, backlog=9, trouble=SimpleNamespace(why="the disk is full"))
    vitals = Vitals(cast("Any", station(journal=journal)))
    assert vitals.stuck() == []
    assert vitals.unready() == ["the journal can't be written: the disk is full"]
