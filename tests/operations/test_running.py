"""A press through the whole system, as its operators' tools see it: metrics, health, logs, trace."""

from __future__ import annotations

import json
import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from gateway import schema
from gateway.cli import app
from tests.operations.test_units import asked, names_in
from tests.operator import Operator
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
BUTTON = "clifton-gate"
ENDS = 1_900_000_000  # of its certificate, Unix time
HOPS = re.compile(r"^(\S+Z) INFO (.+?) id=(\S+) kind=(\w+)(.*)$")


class Scene:
    """One button was pressed, an operator acknowledged it with a note, and the button showed that."""

    def __init__(self, world: World) -> None:
        self.world = world
        button = world.buttons[BUTTON]
        self.operator = Operator(world).sign_in()
        self.site = f"http://127.0.0.1:{world.site_console}"
        with contextlib.closing(sqlite3.connect(world.folder / HQ / "state" / "station.db", timeout=20)) as database:
            database.execute("UPDATE children SET certified_until_ms = ? WHERE id = ?", (1000 * ENDS, BUTTON))
            database.execute("REPLACE INTO station (key, value) VALUES (?, 'by hand')", (schema.REGISTRY_WRITTEN,))
            database.commit()
        button.press()
        wait_until(lambda: self.operator.get("incidents"), 20, "the alarm")
        self.incident = self.operator.get("incidents")[0]
        self.id = f"{BUTTON}/{self.incident['boot']}/{self.incident['seq']}"
        assert self.operator.step(self.incident["id"], "acknowledged", note="Two units asked for").status_code == 200
        wait_until(lambda: button.light == "acknowledged", 20, "the green light")
        wait_until(
            lambda: "its light shows that an operator" in self.trace(HQ, self.id),
            30,
            "a heartbeat that tells so",
            every_s=0.5,
        )
        wait_until(
            lambda: "its light shows that an operator" in self.trace(SITE, self.id),
            30,
            "the same at the site",
            every_s=0.5,
        )

    def trace(self, station: str, *asked: str) -> str:
        done = CliRunner().invoke(app, ["trace", "--config", str(self.world.folder / f"{station}.toml"), *asked])
        assert done.exit_code == 0, done.output
        return done.output

    def metrics(self, url: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Every sample, by name and labels; Prometheus' own parser reads them."""
        answer = httpx.get(f"{url}/metrics", timeout=10)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(answer.text):
            assert family.documentation, family.name
            assert family.type in {"gauge", "counter", "histogram"}, family.name
            for sample in family.samples:
                assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
                labels = tuple(sorted(sample.labels.items()))
                assert labels not in found.setdefault(sample.name, {}), "a series comes twice"
                found[sample.name][labels] = sample.value
        return found


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with World(buttons=(BUTTON,)) as world:
        yield Scene(world)


def test_metrics_tell_of_the_press(scene: Scene) -> None:
    hq, site = scene.metrics(scene.world.url), scene.metrics(scene.site)
    for found, role in ((hq, "hq"), (site, "site")):
        assert [dict(labels)["role"] for labels in found["tocsin_build_info"]] == [role]
        assert found["tocsin_alarms_received_total"][()] >= 1
        assert found["tocsin_messages_received_total"][("lane", "heartbeat"),] >= 1
        assert found["tocsin_press_to_commit_seconds_count"][()] == 1
        assert 0 < found["tocsin_press_to_commit_seconds_sum"][()] < 20
        assert found["tocsin_journal_commit_seconds_count"][()] >= 3
        assert found["tocsin_broker_up"][()] == found["tocsin_ready"][()] == 1
        assert found["tocsin_disk_free_bytes"][()] > 1e6
        assert found["tocsin_open_incidents"][("kind", "alarm"), ("state", "acknowledged")] == 1
        assert found["tocsin_oldest_unacknowledged_seconds"][()] == 0
        assert found["tocsin_children"][("kind", "button"), ("state", "online")] == 1
        assert found["tocsin_certificate_expiry_timestamp_seconds"][()] > found["tocsin_start_time_seconds"][()] > 1e9
    assert hq["tocsin_children"][("kind", "station"), ("state", "online")] == 1
    assert hq["tocsin_children_certificate_expiry_timestamp_seconds"] == {(): ENDS}
    assert not hq["tocsin_parent_up"] if "tocsin_parent_up" in hq else True
    assert site["tocsin_parent_up"] == {(("parent", HQ),): 1}
    assert site["tocsin_relay_outstanding"][("lane", "alarm"), ("parent", HQ)] == 0
    assert site["tocsin_parent_silence_seconds"][("parent", HQ),] < 30


def test_dashboard_and_alerts_ask_only_for_what_there_is(scene: Scene) -> None:
    known = {"up"} | {name for url in (scene.world.url, scene.site) for name in scene.metrics(url)}
    for place, expressions in asked().items():
        for expression in expressions:
            names = names_in(expression)
            assert names or place == "variables", f"{place}: no metric in {expression}"
            assert not names - known, f"{place}: {names - known} is no metric of a station"
    docs = (PROJECT / "docs" / "operations.md").read_text()
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known if name.startswith("tocsin_")}
    assert not [name for name in families if f"`{name}" not in docs]
    told = set(re.findall(r"`(tocsin_[a-z_]+)", docs))
    assert not told - families


def test_metrics_are_for_this_machine_alone(scene: Scene) -> None:
    for headers in (
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"Host": "tocsin.example"},
        {"Via": "1.1 proxy"},
    ):
        answer = httpx.get(f"{scene.world.url}/metrics", headers=headers)
        assert answer.status_code == 403, headers
        assert "metrics_token" in answer.json()["error"]
        assert "tocsin_" not in answer.text
    for endpoint in ("healthz", "readyz"):
        answer = httpx.get(f"{scene.world.url}/{endpoint}", headers={"Host": "tocsin.example"})
        assert (answer.status_code, answer.json()) == (200, {"ok": True})


def hops(scene: Scene, station: str) -> list[tuple[str, str]]:
    log = (scene.world.folder / f"station-{station}.log").read_text(encoding="utf-8")
    told = [match.groups() for line in log.splitlines() if (match := HOPS.match(line)) and match[3] == scene.id]
    assert [at for at, *_ in told] == sorted(at for at, *_ in told)
    assert {kind for _, _, _, kind, _ in told} == {"alarm"}
    return [(what, rest) for _, what, _, _, rest in told]


def test_logs_tell_of_every_hop(scene: Scene) -> None:
    site, hq = hops(scene, SITE), hops(scene, HQ)
    assert [what for what, _ in hq][:3] == ["received", "committed", "receipted"]
    assert f" via={SITE} " in hq[0][1]
    assert ("step", " to=acknowledged by=operator stage=3") in hq
    first = [what for what, _ in site]
    assert first[:2] == ["received", "offered"], "an alarm goes up before the local commit"
    assert {"committed", "receipted", "receipted by a parent"} <= set(first)
    for stage in (2, 3):
        assert ("receipted by a parent", f" parent={HQ} stage={stage} passed_to={BUTTON}") in site


def test_logs_keep_secrets(scene: Scene) -> None:
    logs = "".join(log.read_text(encoding="utf-8") for log in scene.world.folder.glob("*.log"))
    assert scene.world.password not in logs
    assert "PRIVATE KEY" not in logs
    assert "Two units asked for" not in logs, "a note may name people"
    for child in (BUTTON, SITE):
        assert scene.world.key_of(child).hex() not in logs


def test_trace_shows_the_life_of_an_alarm_at_both_ends(scene: Scene) -> None:
    hq, site = (json.loads(scene.trace(station, scene.id, "--json")) for station in (HQ, SITE))
    assert (hq["id"], site["id"]) == (scene.id, scene.id)

    def whats(life: dict[str, Any]) -> list[str]:
        times = [moment["at_ms"] for moment in life["moments"] if moment["at_ms"] is not None and not moment["clock"]]
        assert times == sorted(times)
        return [moment["what"] for moment in life["moments"]]

    assert whats(hq) == [
        "pressed",
        f"received by {SITE}",
        "received here, at hq",
        f"committed here: number {hq['number']} of the journal",
        "acknowledged by operator: Two units asked for",
        "the button's last heartbeat: its light shows that an operator acknowledged it",
    ]
    assert whats(site) == [
        "pressed",
        f"received here, at {SITE}",
        f"committed here: number {site['number']} of the journal",
        "first receipt of hq: it has it",
        "receipt of hq: it says that an operator acknowledged it",
        "the button's last heartbeat: its light shows that an operator acknowledged it",
    ]
    assert any("that is in headquarters' journal" in what for what in site["unknown"])
    assert abs(hq["happened_at_ms"] - scene.incident["pressed_at_ms"]) < 2
    receipt = site["moments"][3]["at_ms"] - site["moments"][1]["at_ms"]
    assert 0 <= receipt < 20_000


def test_trace_finds_an_alarm_by_number_or_as_the_last(scene: Scene) -> None:
    by_id = scene.trace(HQ, scene.id)
    assert scene.trace(HQ, str(scene.incident["id"])).splitlines()[:4] == by_id.splitlines()[:4]
    assert scene.trace(HQ, "--last").splitlines()[:4] == by_id.splitlines()[:4]
    assert re.search(r"time not kept +committed here", by_id)
    assert re.search(r"\+0\.\d{3} s +\+0\.\d{3} s  received by", by_id)
    events = scene.world.database(HQ).execute("SELECT id, envelope FROM journal WHERE kind = 2 AND source = 'hq'")
    started = next(row[0] for row in events if wire.unseal(row[1]).message[wire.CODE] == wire.STATION_STARTED)
    assert "event: started" in scene.trace(HQ, str(started))
    for asked_for, says in (
        ((f"{BUTTON}/1/1",), "never came here"),
        (("999999",), "is not in this station's journal"),
        (("Clifton gate",), "names no alarm"),
        ((), "name one alarm"),
        ((scene.id, "--last"), "name one alarm"),
    ):
        refused = CliRunner().invoke(app, ["trace", "--config", str(scene.world.folder / "hq.toml"), *asked_for])
        assert refused.exit_code == 1
        assert says in refused.output


def test_check_knows_that_the_station_runs(scene: Scene) -> None:
    done = CliRunner().invoke(app, ["check", "--connect", "--config", str(scene.world.folder / f"{SITE}.toml")])
    assert done.exit_code == 0, done.output
    assert done.output.count("is in use by this station, which runs") == 2
    assert "answers and is hq" in done.output
