"""Commands from headquarters reach the button itself, through whatever happens in between, and prove themselves there."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from demo.process import wait_until
from demo.world import HQ, SITE, World
from firmware import wire
from firmware.command import unpacked
from gateway import link, technicians
from gateway.commands import AGAIN_MS, FRESH_MS, Commands, Outstanding, Waiting, concealed
from gateway.journal import Journal
from tests.operator import Operator
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = bytes(range(32))
GATE, VISA = "clifton-gate", "clifton-visa"
SECRET = "a very secret password"
OLD = "the old password"


# ------------------------------------------------------------------------------------------------- pure


def test_what_is_concealed_is_read_by_the_button_alone() -> None:
    octets = concealed(("Consulate", SECRET), KEY, (7, 9))
    block = Cipher(algorithms.AES256(wire.command_key(KEY)), modes.ECB()).encryptor().update
    assert SECRET.encode() not in octets
    assert unpacked(wire.masked(octets, 7, 9, block)) == ("Consulate", SECRET)


def test_its_length_says_nothing_of_the_password() -> None:
    lengths = {len(concealed((name, password), KEY, (1, 1))) for name, password in [("a", ""), ("s" * 32, "p" * 63)]}
    assert len(lengths) == 1


def test_a_newer_command_of_the_same_code_takes_the_place_of_the_older() -> None:
    outstanding = Outstanding()
    outstanding.put("b1", Waiting(wire.WIFI, (1, 5), b"new", 10_000))
    outstanding.put("b1", Waiting(wire.WIFI, (1, 4), b"old", 10_000))
    outstanding.put("b1", Waiting(wire.IDENTIFY, (1, 3), None, 10_000))
    assert [one.number for one in outstanding.due("b1", 0, 0)] == [(1, 3), (1, 5)]


def test_it_is_repeated_some_seconds_apart_until_it_is_settled_or_its_time_is_over() -> None:
    outstanding = Outstanding()
    outstanding.put("b1", Waiting(wire.IDENTIFY, (1, 3), None, 100_000))
    assert outstanding.due("b2", 0, 0) == []
    assert len(outstanding.due("b1", 0, 0)) == 1
    assert outstanding.due("b1", AGAIN_MS - 1, 0) == []
    assert len(outstanding.due("b1", AGAIN_MS, 0)) == 1
    assert outstanding.due("b1", 10 * AGAIN_MS, 100_000) == []
    assert [(child, one.number) for child, one in outstanding.expired(100_000)] == [("b1", (1, 3))]
    outstanding.drop("b1", (1, 2))
    assert outstanding.expired(100_000)
    outstanding.drop("b1", (1, 3))
    assert not outstanding.expired(100_000)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_numbers_only_grow_whatever_the_clock_and_the_database_do(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    child = SimpleNamespace(kind="button")
    registry: Any = SimpleNamespace(children=lambda: {GATE: child}, key_of=lambda _: KEY)
    sent: list[tuple[int, int]] = []

    def send(_: str, payload: bytes) -> None:
        message = wire.unseal(payload).message
        sent.append((message[wire.BOOT], message[wire.SEQ]))

    def give(database: Path | str, *times_ms: int) -> None:
        journal = Journal(database, [])
        journal.start()
        commands = Commands(HQ, journal, registry, send)
        commands.remember()
        for now_ms in times_ms:
            commands.give(GATE, wire.IDENTIFY, "ayesha", now_ms, None, None)
            commands.heard(GATE, (1, 1), 0, now_ms, now_ms)
        journal.stop()

    hour = 3_600_000
    server = request.getfixturevalue("postgres") if kind == "postgresql" else None
    give(server.fresh() if server else tmp_path / "station.db", 500 * hour, 500 * hour, 499 * hour, 500 * hour + 1)
    (tmp_path / "empty.db").touch()
    give(server.empty() if server else tmp_path / "empty.db", 501 * hour)
    assert sent == sorted(set(sent))
    assert len(sent) == 5


# --------------------------------------------------------------------------------------------- end to end


class Headquarters:
    """Gives commands as programs do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.operator = Operator(world).sign_in()

    def give(self, child: str, **body: object) -> dict[str, Any]:
        answer = self.post(child, **body)
        assert answer.status_code == 202, answer.text
        given: dict[str, Any] = answer.json()
        return given

    def post(self, child: str, **body: object) -> httpx.Response:
        http, csrf = self.operator._http, self.operator._csrf
        return http.post(f"/api/v1/children/{child}/commands", json=body, headers={"X-CSRF-Token": csrf})

    def token(self) -> str:
        """A technician's."""
        journal = Journal(self.world.folder / HQ / "state" / "station.db", [])
        journal.start()
        now_ms = time.time_ns() // 1_000_000
        made = journal.now(lambda connection: technicians.give(connection, "rana", days=1, now_ms=now_ms))
        journal.stop()
        return made

    def change_network(self, child: str, ssid: str, password: str) -> dict[str, Any]:
        """As the technician's tool does."""
        answer = httpx.post(
            f"{self.world.url}/api/v1/children/{child}/commands",
            json={"command": "wifi", "ssid": ssid, "password": password},
            headers={"Authorization": f"Bearer {self.token()}"},
        )
        assert answer.status_code == 202, answer.text
        assert password not in answer.text
        given: dict[str, Any] = answer.json()
        return given

    def state(self, child: str, number: int) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.operator.get(f"children/{child}/commands")
        return next(one for one in found if one["id"] == number)

    def until(self, child: str, number: int, state: str, timeout_s: float = 30) -> dict[str, Any]:
        def is_so() -> bool:
            try:
                return bool(self.state(child, number)["state"] == state)
            except httpx.TransportError:
                return False

        wait_until(is_so, timeout_s, f"command {number} of {child} is {state}", every_s=0.1)
        return self.state(child, number)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(buttons=(GATE, VISA)) as made:
        yield made


@pytest.fixture
def hq(world: World) -> Headquarters:
    world.wait_ready()
    return Headquarters(world)


def put_on_air(world: World, networks: dict[str, str]) -> None:
    part = world.folder / GATE / "air.part"
    part.write_text(json.dumps({name: {"password": word, "rssi": -61} for name, word in networks.items()}))
    part.replace(world.folder / GATE / "air.json")


@contextlib.contextmanager
def radio_world() -> Iterator[World]:
    """A world whose one button has a radio (tests/firmware/air), and is on Wi-Fi."""
    world = World(buttons=(GATE,))
    folder, button = world.folder / GATE, world.buttons[GATE]
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    (folder / "settings.json").write_text(json.dumps(settings | {"wifi": [["Consulate", OLD]]}), encoding="utf-8")
    (folder / "main.py").write_bytes((PROJECT / "firmware" / "main.py").read_bytes())
    button._command[-1] = "main.py"
    button._env = {**os.environ, "MICROPYPATH": f"{PROJECT / 'tests' / 'firmware' / 'air'}:{PROJECT}:.frozen"}
    put_on_air(world, {"Consulate": OLD})
    with world:
        yield world


def send_down(world: World, child: str, *payloads: bytes) -> None:
    """What somebody who holds the gateway can do: publish on the button's topic, as the gateway itself."""
    identity = world.folder / SITE / "identity"
    client = link.client(SITE, SITE, identity, keepalive_s=10, keep_session=False)
    up: list[object] = []
    client.on_connect = lambda *_: up.append(1)
    world.processes[f"station {SITE}"].stop()
    client.connect("127.0.0.1", world.site_port)
    client.loop_start()
    wait_until(lambda: up, 10, "the gateway's thief is connected")
    for payload in payloads:
        client.publish(f"tocsin/1/{child}/command", payload, 1).wait_for_publish(5)
    client.disconnect()
    client.loop_stop()
    world.processes[f"station {SITE}"].start()


def taken(world: World, child: str, since: int = 0) -> list[list[int]]:
    return [said["number"] for said in world.buttons[child].said[since:] if "command" in said]


def newest_beat(world: World, child: str) -> list[int]:
    """(boot, seq) of the newest one that headquarters wrote down."""
    with sqlite3.connect(world.folder / HQ / "state" / "station.db") as database:
        return list(database.execute("SELECT boot, seq FROM latest WHERE child = ?", (child,)).fetchone())


def command(world: World, child: str, number: tuple[int, int], **other: Any) -> bytes:
    message = {0: wire.COMMAND, 1: number[0], 2: number[1], 7: wire.IDENTIFY, 11: other.get("device", child)}
    message[54] = other.get("upon") or newest_beat(world, child)
    return wire.seal(message, other.get("kid", HQ), other.get("key", world.key_of(child)))


def test_identify_reaches_the_light_and_is_answered(world: World, hq: Headquarters) -> None:
    button = world.buttons[GATE]
    since = len(button.said)
    given = hq.give(GATE, command="identify")
    assert (given["state"], given["command"], given["by"]) == ("waiting", "identify", "operator")
    button.wait_for(lambda said: said.get("light") == "identify", 5, since)
    assert {"amber", "green"} <= {
        button.wait_for(lambda said, led=led: said.get("led") == led, 5, since)["led"] for led in ("amber", "green")
    }
    done = hq.until(GATE, given["id"], "done")
    assert done["answer"] == "its lamp blinks amber and green for 10 s"
    assert done["answered_at_ms"] >= done["made_at_ms"]
    told = [one for one in hq.operator.get("happenings") if one["code"] == "command_done" and one["device"] == GATE]
    assert told[0]["detail"] == done["answer"]
    assert told[0]["place"]["entrance"] == "gate"
    assert not taken(world, VISA), "another button took it too"
    wait_until(lambda: button.light == "rest", 15, "the light is back at rest")


def test_an_open_alarm_keeps_its_light(world: World, hq: Headquarters) -> None:
    button = world.buttons[VISA]
    button.press()
    wait_until(lambda: button.light == "at_hq", 10, "the alarm at headquarters")
    since = len(button.said)
    given = hq.give(VISA, command="identify")
    failed = hq.until(VISA, given["id"], "failed")
    assert "alarm is open" in failed["answer"]
    assert not any("light" in said for said in button.said[since:])
    hq.operator.close_all()


def test_a_press_ends_the_blinking_at_once(world: World, hq: Headquarters) -> None:
    button = world.buttons[VISA]
    since = len(button.said)
    hq.give(VISA, command="identify")
    button.wait_for(lambda said: said.get("light") == "identify", 5, since)
    button.press()
    wait_until(lambda: button.light == "at_hq", 5, "the alarm is what the lamp shows")
    hq.operator.close_all()


def test_a_test_command_goes_all_the_way_and_back_and_is_never_taken_for_an_alarm(
    world: World, hq: Headquarters
) -> None:
    button = world.buttons[VISA]
    wait_until(lambda: button.light == "rest", 20, "the light at rest")
    given = hq.give(VISA, command="test")
    done = hq.until(VISA, given["id"], "done")
    assert done["answer"].startswith("headquarters' receipt for the test alarm was here after ")
    (incident,) = [one for one in hq.operator.get("incidents") if one["device"] == VISA]
    assert (incident["cause"], incident["state"]) == ("test", "raised")
    assert hq.state(VISA, hq.give(VISA, command="reboot")["id"])["state"] in ("waiting", "failed")
    hq.operator.close_all()
    wait_until(lambda: button.light == "rest", 20, "the light at rest again")


def test_a_technicians_presses_are_tests_once_granted_asked_for_at_the_button_and_confirmed(
    world: World, hq: Headquarters
) -> None:
    button = world.buttons[VISA]
    wait_until(lambda: button.light == "rest", 20, "the light at rest")

    def testing() -> str | None:
        found: str | None = next(child["testing"] for child in hq.operator.get("children") if child["id"] == VISA)
        return found

    def open_causes() -> list[str]:
        return [
            one["cause"] for one in hq.operator.get("incidents") if one["device"] == VISA and one["state"] != "closed"
        ]

    assert hq.post(VISA, command="testing", expires_in_s=3601).status_code == 409
    button.unplug()
    given = hq.give(VISA, command="testing", expires_in_s=600)
    assert hq.state(VISA, given["id"])["state"] == "waiting"
    button.start()  # its first heartbeat goes up at once, others about once a minute
    done = hq.until(VISA, given["id"], "done", 60)
    assert done["answer"].endswith("5 presses within 10 s, and their alarm closed, make further ones tests")
    wait_until(lambda: testing() == "granted", 60, "headquarters shows the grant", every_s=0.2)
    for _ in range(5):
        button.press()
    wait_until(lambda: button.light == "at_hq", 10, "the alarm at headquarters")
    wait_until(lambda: open_causes() == ["hold_up"], 10, "one alarm of five presses")
    hq.operator.close_all()
    wait_until(lambda: testing() == "on", 60, "headquarters shows that it is under test", every_s=0.2)
    assert "UNDER TEST" in hq.operator._http.get("/children").text
    assert button.light == "under_test"
    button.press()
    wait_until(lambda: open_causes() == ["test"], 10, "a test alarm")
    hq.operator.close_all()
    over = hq.give(VISA, command="testing_over")
    assert hq.until(VISA, over["id"], "done")["answer"] == "every press is an alarm"
    told = [one["code"] for one in hq.operator.get("happenings") if one["device"] == VISA]
    assert {"testing_begun", "testing_ended"} <= set(told)
    button.press()
    wait_until(lambda: open_causes() == ["hold_up"], 10, "a press is an alarm again")
    hq.operator.close_all()
    wait_until(lambda: testing() is None and button.light == "rest", 60, "rest again", every_s=0.2)


def test_a_command_goes_upon_a_heartbeat_of_late_and_a_grant_ends_when_headquarters_believes(tmp_path: Path) -> None:
    registry: Any = SimpleNamespace(children=lambda: {GATE: SimpleNamespace(kind="button")}, key_of=lambda _: KEY)
    sent: list[dict[int, Any]] = []
    journal = Journal(tmp_path / "station.db", [])
    journal.start()
    commands = Commands(HQ, journal, registry, lambda _, payload: sent.append(wire.unseal(payload).message))
    commands.give(GATE, wire.TEST_MODE, "ayesha", 1_000_000, None, 600)
    commands.heard(GATE, (3, 7), FRESH_MS + 1, 0, 1_000_000)
    assert sent == []
    commands.heard(GATE, (3, 7), 50_000, 0, 1_100_000)
    assert sent[0][wire.UPON] == [3, 7]
    assert wire.decode(sent[0][wire.DETAIL]) == {wire.TEST_FOR_S: 550}, "from that heartbeat on"
    journal.stop()


def test_a_reboot_is_answered_by_the_next_start(world: World, hq: Headquarters) -> None:
    button = world.buttons[VISA]
    wait_until(lambda: button.light == "rest", 20, "the light at rest")
    starts, since = button.starts, len(button.said)
    given = hq.give(VISA, command="reboot")
    done = hq.until(VISA, given["id"], "done", 40)
    boot = button.wait_for(lambda said: "started" in said, 5, since)["started"]["boot"]
    assert done["answer"].startswith(f"it started again: start {boot}, ")
    assert button.starts == starts + 1
    world.wait_ready()


def test_settings_change_over_the_air_and_outlast_a_power_cut(world: World, hq: Headquarters) -> None:
    given = hq.give(VISA, command="configuration", settings={"signal": "silent", "alarms_per_minute": 60})
    assert given["about"] == "signal silent, alarms_per_minute 60"
    done = hq.until(VISA, given["id"], "done")
    assert done["answer"] == "it has signal silent, alarms_per_minute 60 from now on"
    kept = (world.folder / VISA / "state" / "configuration").read_bytes()
    assert b"silent" in kept
    button = world.buttons[VISA]
    button.unplug()
    back = hq.give(VISA, command="configuration", settings={"signal": "visible"})
    button.start()
    hq.until(VISA, back["id"], "done", 40)
    assert b"visible" in (world.folder / VISA / "state" / "configuration").read_bytes()
    world.wait_ready()


@pytest.mark.parametrize("language", ["en", "ur"])
def test_an_operator_gives_commands_on_the_page_of_the_button(world: World, hq: Headquarters, language: str) -> None:
    browser = hq.operator._http
    browser.cookies.set("tocsin-language", language)
    page = browser.get(f"/children/{GATE}").text
    word, state = {"en": ("Blink", "Waiting"), "ur": ("بتی جھپکائیں", "بٹن کا انتظار")}[language]
    assert word in page
    assert f'href="/children/{GATE}"' in browser.get("/children").text
    form = {"command": "identify", "csrf": hq.operator._csrf}
    assert browser.post(f"/children/{GATE}/commands", data={"command": "identify"}).status_code == 403
    assert browser.post("/children/nobody/commands", data=form).status_code == 404
    assert browser.post(f"/children/{SITE}/commands", data=form).status_code == 409
    world.buttons[GATE].unplug()
    answer = browser.post(f"/children/{GATE}/commands", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/children/{GATE}")
    assert state in browser.get(f"/children/{GATE}").text
    world.buttons[GATE].start()
    wait_until(lambda: 'data-state="done"' in browser.get(f"/children/{GATE}").text, 40, "the answer on the page")
    assert "amber and green" in browser.get(f"/children/{GATE}").text
    changed = browser.post(f"/children/{GATE}/commands", data={**form, "command": "configuration", "signal": "audible"})
    assert changed.status_code == 303
    assert "signal audible" in browser.get(f"/children/{GATE}").text
    world.wait_ready()


def nowhere(world: World, secret: str) -> None:
    """The password is in no file of either station, nor in anything that the console says."""
    for station in (HQ, SITE):
        for path in [*(world.folder / station).rglob("*"), *world.folder.glob("*.log")]:
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    operator = Operator(world).sign_in()
    for what in ("happenings", "health", f"children/{GATE}/commands"):
        assert secret not in json.dumps(operator.get(what))


def test_a_button_without_a_radio_says_so(world: World, hq: Headquarters) -> None:
    given = hq.change_network(GATE, "Consulate", SECRET)
    assert (given["command"], given["about"], given["by"], given["state"]) == ("wifi", "Consulate", "rana", "waiting")
    failed = hq.until(GATE, given["id"], "failed")
    assert failed["answer"] == "this board has no radio: its network is the cable"
    nowhere(world, SECRET)


def test_a_button_changes_its_network_over_the_air_and_keeps_both_until_the_new_one_works() -> None:
    with radio_world() as world:
        hq, button = Headquarters(world), world.buttons[GATE]
        given = hq.change_network(GATE, "Consulate", SECRET)
        failed = hq.until(GATE, given["id"], "failed", 60)
        assert failed["answer"] == "Consulate: wrong password; it is back on the old network and keeps both"
        button.wait_for(lambda said: said.get("wifi", {}).get("state") == "joined", 20, len(button.said) - 5)
        world.wait_ready()
        put_on_air(world, {"Consulate": SECRET})
        hq.until(GATE, given["id"], "done", 90)
        world.wait_ready()
        kept = (world.folder / GATE / "state" / "wifi").read_bytes()
        assert SECRET.encode() in kept
        assert OLD.encode() not in kept
        put_on_air(world, {"Consulate": SECRET, "Annexe": SECRET + "!"})
        given = hq.change_network(GATE, "Annexe", SECRET + "!")
        done = hq.until(GATE, given["id"], "done", 60)
        assert done["answer"] == "it is on Annexe, and headquarters answers over it"
        beat = next(child for child in hq.operator.get("children") if child["id"] == GATE)
        assert beat["rssi_dbm"] == -61
        nowhere(world, SECRET)
        assert SECRET not in json.dumps(button.said)


def test_sent_while_it_is_unplugged_it_is_done_after_it_is_back(world: World, hq: Headquarters) -> None:
    button = world.buttons[GATE]
    button.unplug()
    given = hq.give(GATE, command="identify")
    newer = hq.give(GATE, command="identify")
    assert hq.state(GATE, given["id"])["state"] == "replaced"
    time.sleep(1)
    assert hq.state(GATE, newer["id"])["state"] == "waiting"
    since = len(button.said)
    button.start()
    hq.until(GATE, newer["id"], "done")
    assert len(taken(world, GATE, since)) == 1


@pytest.mark.parametrize("station", [SITE, HQ])
def test_a_station_restarts_in_between(world: World, hq: Headquarters, station: str) -> None:
    button = world.buttons[VISA]
    button.unplug()
    given = hq.give(VISA, command="identify")
    world.processes[f"station {station}"].kill()
    world.processes[f"broker {station}"].kill()
    since = len(button.said)
    button.start()
    fresh = Headquarters(world)
    fresh.until(VISA, given["id"], "done", 40)
    assert len(taken(world, VISA, since)) == 1


def test_one_that_is_not_answered_in_time_expires(world: World, hq: Headquarters) -> None:
    button = world.buttons[GATE]
    button.unplug()
    given = hq.give(GATE, command="identify", expires_in_s=1)
    hq.until(GATE, given["id"], "expired", 10)
    since = len(button.said)
    button.start()
    world.wait_ready()
    time.sleep(2)
    assert not taken(world, GATE, since)


def test_forged_and_replayed_commands_change_nothing_and_are_counted(world: World, hq: Headquarters) -> None:
    button = world.buttons[GATE]
    given = hq.give(GATE, command="identify")
    hq.until(GATE, given["id"], "done")
    with sqlite3.connect(world.folder / HQ / "state" / "station.db") as database:
        rows = database.execute("SELECT boot, seq FROM commands WHERE child = ? ORDER BY id", (GATE,)).fetchall()
    newest = rows[-1]
    wait_until(lambda: button.light == "rest", 20, "the light is back at rest")
    since = len(button.said)
    send_down(
        world,
        GATE,
        command(world, GATE, newest),
        command(world, GATE, rows[0]),
        command(world, GATE, (newest[0] + 9, 1), key=bytes(32)),
        command(world, GATE, (newest[0] + 9, 1), kid=SITE),
        command(world, GATE, (newest[0] + 9, 1), device=VISA),
        wire.encode({0: wire.COMMAND, 1: newest[0] + 9, 2: 1, 7: wire.IDENTIFY, 11: GATE}),
        command(world, GATE, (newest[0] + 9, 1), upon=[newest_beat(world, GATE)[0], 1]),
        b"rubbish",
    )
    wait_until(lambda: sum("refused" in said for said in button.said[since:]) >= 8, 10, "eight refusals")
    reasons = [said["refused"] for said in button.said[since:] if "refused" in said]
    for reason in (
        "answered long ago",
        "is older than",
        "MAC is wrong",
        f"from {SITE}",
        f"is for {VISA}",
        "kept on its way",
    ):
        assert any(reason in one for one in reasons), reasons
    assert not taken(world, GATE, since)
    assert not any(said.get("light") == "identify" for said in button.said[since:])


def test_a_wifi_command_needs_a_technician_and_a_network(world: World, hq: Headquarters) -> None:
    answer = hq.post(GATE, command="wifi", ssid="Consulate", password=SECRET)
    assert answer.status_code == 403
    assert SECRET not in answer.text
    path = f"{world.url}/api/v1/children/{GATE}/commands"
    bearer = {"Authorization": f"Bearer {hq.token()}"}
    for body, status in [
        ({"command": "wifi"}, 422),
        ({"command": "wifi", "ssid": "Consulate"}, 422),
        ({"command": "wifi", "ssid": "Consulate", "password": "short"}, 409),
        ({"command": "wifi", "ssid": "s" * 33, "password": SECRET}, 422),
        ({"command": "identify"}, 202),
    ]:
        answer = httpx.post(path, json=body, headers=bearer)
        assert answer.status_code == status, answer.text
        assert SECRET not in answer.text
        assert "short" not in answer.text
    assert httpx.get(path, headers=bearer).status_code == 200
    assert httpx.get(path, headers={"Authorization": "Bearer nonsense"}).status_code == 401


def test_who_may_give_commands(world: World, hq: Headquarters) -> None:
    stranger = httpx.Client(base_url=world.url)
    path = f"/api/v1/children/{GATE}/commands"
    assert stranger.post(path, json={"command": "identify"}).status_code == 401
    assert stranger.get(path).status_code == 401
    assert hq.operator._http.post(path, json={"command": "identify"}).status_code == 403, "no token of the session"
    assert hq.post("nobody", command="identify").status_code == 404
    assert hq.post(SITE, command="identify").status_code == 409
    assert hq.post(GATE, command="explode").status_code == 422
    assert hq.post(GATE, command="configuration").status_code == 422
    assert hq.post(GATE, command="configuration", settings={"signal": "loud"}).status_code == 422
    assert hq.post(GATE, command="identify", settings={"signal": "silent"}).status_code == 422
    site = Operator(world, f"http://127.0.0.1:{world.site_console}").sign_in()
    answer = site._http.post(path, json={"command": "identify"}, headers={"X-CSRF-Token": site._csrf})
    assert answer.status_code in (404, 409)
