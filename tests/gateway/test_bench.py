"""What `make bench` measures can be measured: each part once, as short as it gets; and what must not grow does not."""

from __future__ import annotations

import json
import pytest

from tests.bench import backlog, growth, heartbeats, journal


def quiet(_: str) -> None:
    """Says nothing."""


@pytest.mark.timeout(300)
def test_heartbeats_are_judged_and_none_is_refused() -> None:
    told = heartbeats.measure(1_000, quiet, blocks=1)
    print(json.dumps(told))
    assert told["refused"] == 0
    assert told["online"] == told["buttons"]
    assert told["tocsin"]["lost"] + told["paho, counting"]["lost"] == 0


@pytest.mark.timeout(300)
def test_headquarters_is_sent_less_than_every_heartbeat_and_takes_every_button_for_online() -> None:
    told = growth.measure(4, quiet, [60], settle_s=4, idle_s=0.5)["60"]
    print(json.dumps(told))
    for design in growth.DESIGNS:
        assert told[design]["online"] == 60
        assert told[design]["refused"] == 0
    assert told["tocsin_to_verbatim"]["octets"] < 1


@pytest.mark.timeout(300)
def test_a_journal_is_filled_appended_to_looked_at_and_verified() -> None:
    told = journal.measure(3_000, quiet, appended=500, starts=1, views=1)
    print(json.dumps(told))
    assert told["3000"]["verify"]["entries"] > 3_000


@pytest.mark.timeout(300)
def test_a_backlog_stays_on_the_disk() -> None:
    peak_mb = backlog.memory(100_000, 2, quiet)
    print(json.dumps(peak_mb))
    assert peak_mb["draining"] < peak_mb["idle"] + 25
