"""A station's metrics in Prometheus' text format, by its naming conventions: base units, `_total` for what only grows.

Two histograms are fed as things happen; all else is read from the station when somebody asks. No label names a button:
the number of series grows with parents and stations below, not with buttons.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from gateway import keys, logs, revocation, schema
from gateway.clock import monotonic_ms, utc_ms
from gateway.desk import OPEN, TEST_CAUSE, Link, State
from gateway.settings import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from gateway.reception import Reception
    from gateway.station import Station

PRESS_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 20, 60, 600)
COMMIT_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
LANES = ("alarm", "event", "heartbeat", "presence")
KINDS = ("button", "station")


class Metrics:
    """What a station measures as it happens, and the text that tells everything."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.press_to_commit = Histogram(
            "tocsin_press_to_commit_seconds",
            "From a press, as its button dates it, to its commit in this station's journal; presses of a button that "
            "lost power since are left out.",
            buckets=PRESS_BUCKETS_S,
            registry=self.registry,
        )
        self.journal_commit = Histogram(
            "tocsin_journal_commit_seconds",
            "One transaction of the journal, from its start until it is on the disk.",
            buckets=COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def watch(self, station: Station, reception: Reception) -> None:
        """Tells of `station` too from now on. Registers once."""
        self.registry.register(_Readings(station, reception))

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class _Readings(Collector):
    """What is read from a running station when somebody asks."""

    def __init__(self, station: Station, reception: Reception) -> None:
        self._of = station
        self._desk = reception

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the station is not running yet when it is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        yield from self._itself()
        yield from self._traffic()
        yield from self._journal()
        yield from self._children()
        yield from self._parents()
        yield from self._incidents()

    def _itself(self) -> Iterable[Metric]:
        of = self._of
        yield _gauge(
            "build_info",
            "Always 1; the labels tell which station this is, and its version.",
            [((VERSION, of.settings.station, of.settings.role), 1)],
            ("version", "station", "role"),
        )
        yield _gauge("start_time_seconds", "When the station started, Unix time.", [((), of.started_ms / 1000)])
        wrong = [*of.vitals.stuck(), *of.vitals.unready()]
        yield _gauge("ready", "1 if an alarm could be taken now, as /readyz says.", [((), not wrong)])
        yield _gauge("broker_up", "1 if the station is connected with its own broker.", [((), of.broker_up)])
        free = shutil.disk_usage(of.settings.state).free
        yield _gauge("disk_free_bytes", "Room where the journal is.", [((), free)])
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When the station's own certificate ends, Unix time.",
            _certificate_end(of.settings.identity / "cert.pem"),
        )
        yield _gauge(
            "revocation_list_expiry_timestamp_seconds",
            "When the revocation list ends, and with it the broker's trust in everybody, Unix time.",
            _list_end(of.settings.revoked),
        )

    def _traffic(self) -> Iterable[Metric]:
        of = self._of
        got = dict(of.exchange.counters)
        yield _count(
            "heartbeats_unproven",
            "Heartbeats of buttons reported as silent that name no answer of late: long away, or recorded by a thief.",
            [((), got.get("heartbeats unproven", 0))],
        )
        yield _count(
            "alarms_received", "Alarms that were believed, repeats included.", [((), got.get("alarms received", 0))]
        )
        yield _count(
            "messages_received",
            "Messages from below that were believed.",
            [((lane,), got.get(f"{lane}s received", 0)) for lane in LANES],
            ("lane",),
        )
        yield _count(
            "repeats",
            "Alarms and events that were here already, and were answered again.",
            [((), got.get("repeats", 0))],
        )
        yield _count("refused", "Messages and connections that were turned away.", [((), of.refusals.total)])
        yield _count(
            "log_lines_left_out", "Lines of the log that too many others left no room for.", [((), logs.left_out())]
        )

    def _journal(self) -> Iterable[Metric]:
        journal = self._of.journal
        yield _count("journal_commits", "Transactions that are on the disk.", [((), journal.commits)])
        yield _gauge("journal_backlog", "Writes that wait for the journal.", [((), journal.backlog)])
        yield _gauge(
            "journal_oldest_wait_seconds", "How long the oldest of them has been waiting.", [((), journal.waiting_s)]
        )

    def _children(self) -> Iterable[Metric]:
        counted = Counter((child.kind, child.link.value) for child in self._desk.children())
        yield _gauge(
            "children",
            "Buttons and stations below, by what they are and how they stand.",
            [((kind, link.value), counted[kind, link.value]) for kind in KINDS for link in Link],
            ("kind", "state"),
        )
        ends = [child.certified_until_ms for child in self._of.registry.working().values() if child.certified_until_ms]
        yield _gauge(
            "children_certificate_expiry_timestamp_seconds",
            "When the first certificate of a button or station below ends, of those that are known, Unix time.",
            [((), min(ends) / 1000)] if ends else [],
        )
        offsets = {child: min(samples) for child, samples in list(self._of.exchange.clock_offsets.items()) if samples}
        yield _gauge(
            "clock_offset_seconds",
            "How far this station's clock is ahead of a station's below, at most.",
            [((child,), offset / 1000) for child, offset in sorted(offsets.items())],
            ("station",),
        )

    def _parents(self) -> Iterable[Metric]:
        uplinks = self._of.uplinks
        now = monotonic_ms()
        yield _gauge(
            "parent_up",
            "1 if a parent's broker is connected.",
            [((up.parent.id,), up.connected) for up in uplinks],
            ("parent",),
        )
        yield _gauge(
            "parent_silence_seconds",
            "Since a parent's last receipt; it answers a heartbeat about every 9 s. Absent: it never answered.",
            [((up.parent.id,), (now - up.answered_ms) / 1000) for up in uplinks if up.answered_ms is not None],
            ("parent",),
        )
        waiting = {
            (up.parent.id, lane): count for up in uplinks for lane, count in zip(LANES, up.outstanding(), strict=False)
        }
        yield _gauge(
            "relay_outstanding",
            "What a parent has not receipted, as far as it is in memory.",
            list(waiting.items()),
            ("parent", "lane"),
        )

    def _incidents(self) -> Iterable[Metric]:
        table, journal = schema.incidents.c, schema.journal.c
        test = table.cause == TEST_CAUSE
        with self._of.journal.readers.connect() as connection:
            rows = connection.execute(
                select(
                    table.state,
                    test.label("test"),
                    func.count().label("many"),
                    func.min(journal.happened_at_ms).label("oldest"),
                )
                .join_from(schema.incidents, schema.journal, journal.id == table.id)
                .where(table.state.in_([state.value for state in OPEN]))
                .group_by(table.state, test)
            ).all()
        many = {(row.state, bool(row.test)): row.many for row in rows}
        yield _gauge(
            "open_incidents",
            "Incidents that are not closed.",
            [
                ((state.value, kind), many.get((state.value, kind == "test"), 0))
                for state in OPEN
                for kind in ("alarm", "test")
            ],
            ("state", "kind"),
        )
        raised = [row.oldest for row in rows if row.state == State.RAISED.value and not row.test]
        oldest = max(0, utc_ms() - raised[0]) / 1000 if raised else 0
        yield _gauge(
            "oldest_unacknowledged_seconds",
            "Since the press of the oldest alarm, tests left out, that nobody acknowledged; 0: there is none.",
            [((), oldest)],
        )


def _gauge(
    name: str, told: str, samples: Sequence[tuple[tuple[str, ...], float]], labels: Sequence[str] = ()
) -> Metric:
    family = GaugeMetricFamily(f"tocsin_{name}", told, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


def _count(
    name: str, told: str, samples: Sequence[tuple[tuple[str, ...], float]], labels: Sequence[str] = ()
) -> Metric:
    family = CounterMetricFamily(f"tocsin_{name}", told, labels=labels)
    for values, number in samples:
        family.add_metric(values, float(number))
    return family


def _certificate_end(path: Path) -> list[tuple[tuple[str, ...], float]]:
    try:
        return [((), keys.certificate(path).not_valid_after_utc.timestamp())]
    except keys.KeyFileError:
        return []  # being renewed; /metrics must not fail for it


def _list_end(path: Path | None) -> list[tuple[tuple[str, ...], float]]:
    ends = revocation.ends(path) if path else None
    return [((), ends.timestamp())] if ends else []
