"""Which path carries: years of outages in a moment, then a whole button that changes its path under an alarm."""

from __future__ import annotations

import contextlib
import json
import queue
import random
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from firmware import paths, vigil, wire
from firmware.paths import CABLE, CALM_MS, LONGEST_CALM_MS, LOOK_MS, MISSES, RADIO, STRIKES, Paths
from firmware.route import Route
from provisioning.pki import Authority
from tests.firmware.bench import Bench, Button, Peer
from tests.firmware.roads import Roads
from tests.firmware.test_firmware_docs import constants
from tests.parts import PROJECT, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OPEN_MS, URGENT_OPEN_MS = (int(constants("session")[name]) for name in ("OPEN_MS", "URGENT_OPEN_MS"))
CONNECT_MS = 600
DAY_MS = 86_400_000
NOTICE_MS = vigil.PING_MS + vigil.TRUST_MS


class Life:
    """A button between a cable and a radio, with the patience that its session has (vigil.py, session.py)."""

    def __init__(self, *, spare: bool = True) -> None:
        self.paths = Paths()
        self.paths.expect(RADIO, spare)
        self.now_ms = 0
        self.up_ms: int | None = None
        self.works = {CABLE, RADIO} if spare else {CABLE}
        self.refuses: set[int] = set()
        self.without: set[int] = set() if spare else {RADIO}
        self.changes: list[tuple[int, int]] = []  # (when, to which path)
        self.news: list[tuple[int, int, int, str]] = []

    @property
    def carries(self) -> int | None:
        """The path that the session is up on."""
        return None if self.up_ms is None else self.paths.at

    def step(self, most_ms: int = 250) -> None:
        """The next thing that happens, `most_ms` later at rest."""
        for path in (CABLE, RADIO):
            self.paths.seen(path, None if path in self.without else f"10.0.{path}.2", "no network is in reach")
        if self.up_ms is None:
            self._try()
        elif self.paths.at not in self.works or self.paths.at in self.without:
            self.now_ms += vigil.URGENT_TRUST_MS if self.paths.urgent else NOTICE_MS
            self._ended(answered=self.paths.at in self.refuses)
        else:
            self.now_ms += most_ms
            look = self.paths.look(self.now_ms)
            if look is not None:
                self.paths.looked(look, self.now_ms, look in self.works and look not in self.without)
            to = self.paths.change(self.now_ms)
            if to is not None:
                self.paths.changed(to)
                self.up_ms = None
        while self.paths.news:
            self.news.append((self.now_ms, *self.paths.news.pop(0)))

    def _try(self) -> None:
        at = self.paths.choose(self.now_ms)
        if self.paths.address() is not None and at in self.works:
            self.now_ms += CONNECT_MS
            self.up_ms = self.now_ms
            self.paths.came_up(self.now_ms)
            if not self.changes or self.changes[-1][1] != at:
                self.changes.append((self.now_ms, at))
            return
        refused = at in self.refuses or self.paths.address() is None
        open_ms = URGENT_OPEN_MS if self.paths.urgent else OPEN_MS
        self.now_ms += vigil.FIRST_MS if refused else open_ms
        self._ended(answered=at in self.refuses)

    def _ended(self, *, answered: bool) -> None:
        self.paths.ended(0 if self.up_ms is None else self.now_ms - self.up_ms, answered, False, "it was silent")
        self.up_ms = None

    def until(self, carries: int, within_ms: int) -> int:
        """Steps until a path carries; how long that took, ms."""
        began = self.now_ms
        while self.carries != carries:
            assert self.now_ms - began <= within_ms, (self.paths.at, self.changes[-5:], self.news[-5:])
            self.step()
        return self.now_ms - began

    def live(self, ms: int, step_ms: int = 250) -> None:
        end = self.now_ms + ms
        while self.now_ms < end:
            self.step(step_ms)


@pytest.fixture
def life() -> Life:
    made = Life()
    made.until(CABLE, CONNECT_MS)
    made.live(3 * LOOK_MS)
    return made


def told(life: Life) -> list[tuple[int, int]]:
    """(event, path) of the news so far."""
    return [(event, path) for _, event, path, _ in life.news]


def test_the_cable_carries_while_both_are_well_and_nothing_is_told(life: Life) -> None:
    life.live(DAY_MS, LOOK_MS)
    assert life.changes == [(CONNECT_MS, CABLE)]
    assert life.news == []
    assert life.paths.told() == (wire.BY_CABLE, wire.SPARE_READY)


@pytest.mark.parametrize("pulled", [False, True], ids=["swallows", "without address"])
def test_with_an_alarm_pending_a_dead_path_costs_three_seconds_at_most(life: Life, pulled: bool) -> None:
    for dead, well in ((CABLE, RADIO), (RADIO, CABLE)):
        life.works = {well}
        life.without = {dead} if pulled else set()
        life.paths.urgent = True
        assert life.until(well, 3000 + CONNECT_MS) <= 3000 + CONNECT_MS
        life.paths.urgent = False
        life.works, life.without = {CABLE, RADIO}, set()
        life.live(LOOK_MS)


def test_with_an_alarm_pending_a_try_over_a_dead_path_costs_three_seconds_at_most() -> None:
    for dead, well in ((CABLE, RADIO), (RADIO, CABLE)):
        life = Life()
        life.works = {well}
        life.paths.at = dead
        life.paths.urgent = True
        assert life.until(well, 3000 + CONNECT_MS) <= 3000 + CONNECT_MS


def test_at_rest_headquarters_hears_the_button_again_before_its_deadline_and_is_told_why(life: Life) -> None:
    life.works = {RADIO}
    assert life.until(RADIO, 14_000) <= NOTICE_MS + CONNECT_MS
    assert life.news[0][1:] == (wire.PATH_CHANGED, RADIO, "it was silent")
    assert life.paths.told() == (wire.BY_WIFI, wire.SPARE_DEAD)


def test_the_cable_is_taken_again_once_it_answers_calmly_and_never_under_an_alarm(life: Life) -> None:
    life.works = {RADIO}
    life.until(RADIO, 14_000)
    life.paths.urgent = True
    life.works = {CABLE, RADIO}
    life.live(DAY_MS, LOOK_MS)
    assert life.carries == RADIO, "what works is not left while headquarters lacks an alarm"
    life.paths.urgent = False
    assert life.until(CABLE, CALM_MS + 3 * LOOK_MS) >= CALM_MS
    assert told(life) == [(wire.PATH_CHANGED, RADIO), (wire.SPARE_BACK, CABLE), (wire.PATH_CHANGED, CABLE)]


def test_what_was_seen_of_the_cable_before_an_alarm_says_nothing_after_it(life: Life) -> None:
    life.works = {RADIO}
    life.until(RADIO, 14_000)
    life.works = {CABLE, RADIO}
    life.live(CALM_MS - LOOK_MS)
    life.paths.urgent = True
    life.live(CALM_MS)
    assert life.carries == RADIO
    life.live(3_600_000, LOOK_MS)
    life.paths.urgent = False
    life.live(CALM_MS - LOOK_MS)
    assert life.carries == RADIO
    life.until(CABLE, 3 * LOOK_MS)


def test_one_look_without_an_answer_makes_the_cable_wait_anew(life: Life) -> None:
    life.works = {RADIO}
    life.until(RADIO, 14_000)
    for _ in range(50):
        life.works = {CABLE, RADIO}
        life.live(CALM_MS - LOOK_MS)
        life.works = {RADIO}
        life.live(LOOK_MS + 250)
        assert life.carries == RADIO


def test_a_cable_that_disappoints_is_waited_for_twice_as_long_each_time_and_forgiven_when_it_lasts(life: Life) -> None:
    waits = []
    for _ in range(14):
        life.works = {RADIO}
        life.until(RADIO, 14_000)
        life.works = {CABLE, RADIO}
        waits.append(life.until(CABLE, LONGEST_CALM_MS + DAY_MS))
        life.live(60_000)
    assert waits == sorted(waits)
    assert waits[0] < CALM_MS + 3 * LOOK_MS
    assert LONGEST_CALM_MS <= waits[-1] < LONGEST_CALM_MS + 3 * LOOK_MS
    life.live(paths.WELL_MS)
    life.works = {RADIO}
    life.until(RADIO, 14_000)
    life.works = {CABLE, RADIO}
    life.until(CABLE, CALM_MS + 3 * LOOK_MS)


def test_a_spare_path_that_dies_is_told_before_it_is_needed_and_so_is_its_return(life: Life) -> None:
    life.works = {CABLE}
    life.live((MISSES + 1) * LOOK_MS)
    assert life.carries == CABLE
    assert [news[1:] for news in life.news] == [(wire.SPARE_LOST, RADIO, "no station answers over it")]
    assert life.paths.told() == (wire.BY_CABLE, wire.SPARE_DEAD)
    life.live(DAY_MS, LOOK_MS)
    assert len(life.news) == 1
    life.works = {CABLE, RADIO}
    life.live(2 * LOOK_MS)
    assert told(life)[1:] == [(wire.SPARE_BACK, RADIO)]
    life.without = {RADIO}
    life.live((MISSES + 1) * LOOK_MS)
    assert life.news[-1][1:] == (wire.SPARE_LOST, RADIO, "no network is in reach")


def test_a_lost_look_is_no_dead_path(life: Life) -> None:
    for _ in range(100):
        life.works = {CABLE}
        life.live(LOOK_MS)
        life.works = {CABLE, RADIO}
        life.live(LOOK_MS + 250)
    assert life.news == []


def test_a_button_with_a_cable_alone_misses_no_spare_and_stays_on_it() -> None:
    life = Life(spare=False)
    for works in ({CABLE}, set(), {CABLE}):
        life.works = works
        life.live(3600_000)
    assert life.news == []
    assert life.carries == CABLE
    assert life.paths.told() == (wire.BY_CABLE, wire.NO_SPARE)


def test_a_brokers_restart_does_not_change_the_path(life: Life) -> None:
    life.works, life.refuses = set(), {CABLE, RADIO}
    for _ in range(STRIKES - 1):
        life.step()
    life.works, life.refuses = {CABLE, RADIO}, set()
    life.live(60_000)
    assert life.changes == [(CONNECT_MS, CABLE)]
    life.works, life.refuses = {RADIO}, {CABLE}
    assert life.until(RADIO, 14_000), "a path whose other end only ever refuses is left all the same"


def test_a_trial_takes_the_session_to_the_radio_and_then_back_at_once(life: Life) -> None:
    life.paths.forced = RADIO
    life.until(RADIO, 2000)
    life.live(40_000)
    assert life.carries == RADIO
    life.paths.forced = None
    life.until(CABLE, 2000)
    life.works = {CABLE}
    life.paths.forced = RADIO
    life.live(20_000)
    assert life.carries is None
    life.paths.urgent, life.paths.forced = True, None  # a press comes first: wifi.py gives the trial up
    life.until(CABLE, 3000 + CONNECT_MS)


@pytest.mark.parametrize("addresses", [1, 2, 3, 4])
def test_every_address_is_tried_over_both_paths_and_the_second_try_changes_both(addresses: int) -> None:
    route, chosen, tried = Route(addresses), Paths(), []
    for path in (CABLE, RADIO):
        chosen.seen(path, "10.0.0.2", "")
    for _ in range(2 * addresses):
        tried.append((chosen.choose(0), route.at))
        route.ended(0)
        chosen.ended(0, False, not route.at and addresses % 2 == 0, "")
    assert sorted(tried) == [(path, address) for path in (CABLE, RADIO) for address in range(addresses)]
    assert tried[1] == (RADIO, 1 % addresses)


def test_ten_years_of_outages_keep_every_promise() -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    chance = random.Random(seed)
    life = Life()
    outages = 0
    while life.now_ms < 10 * 365 * DAY_MS:
        life.live(chance.choice([20_000, 300_000]))
        life.live(chance.randrange(DAY_MS, 20 * DAY_MS), DAY_MS)  # nothing happens: look once a day
        life.live(6 * LOOK_MS)
        if life.paths.urgent:
            life.paths.urgent = False
        if life.works == {CABLE, RADIO}:
            life.until(CABLE, LONGEST_CALM_MS + 4 * LOOK_MS)
        known = len(life.news)
        carried = life.carries
        life.works = chance.choice([{CABLE}, {RADIO}, set(), {CABLE, RADIO}])
        life.refuses = {path for path in (CABLE, RADIO) if path not in life.works and chance.random() < 0.3}
        life.paths.urgent = chance.random() < 0.5
        outages += 1
        if not life.works:
            life.live(chance.randrange(1000, 3_600_000), 5000)
            assert life.carries is None or life.carries == carried
            life.works = {chance.choice([CABLE, RADIO])}
            life.until(*life.works, OPEN_MS + STRIKES * 1000 + CONNECT_MS + NOTICE_MS)
        elif carried is not None and carried not in life.works and not life.refuses:
            took_ms = life.until(*life.works, 14_000)
            assert took_ms <= CONNECT_MS + (3000 if life.paths.urgent else NOTICE_MS)
        elif carried in life.works and life.works != {CABLE, RADIO}:
            life.paths.urgent = False
            life.live((MISSES + 2) * LOOK_MS)
            assert life.carries in life.works
            assert life.paths.told()[1] == wire.SPARE_DEAD
            assert len(life.news) == known or life.news[-1][1] == wire.SPARE_LOST
    assert outages > 200
    assert len(life.news) < 20 * outages


# ------------------------------------------------------------------------------------------- a whole button

BY_CABLE, BY_RADIO = "127.0.0.2", "127.0.0.3"  # the addresses of its two interfaces (air/network.py)
QUICK = """from firmware import app, paths
paths.LOOK_MS, paths.CALM_MS = 400, 2500
app.main()
"""


class Site:
    """A button with a cable and a radio before a real broker, two roads to it, and its headquarters."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(Authority.create(), folder)
        self.roads = Roads(self.bench.port)
        self.alarms: Counter[tuple[int, int]] = Counter()
        self.events: list[dict[int, Any]] = []
        self.beat: dict[int, Any] = {}
        self.answers = True

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        with self.bench.broker(), self.roads:
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    peer = Peer(self.bench.port, self.bench.authority.issue("hq"), self.bench.folder / "hq")
                    break
            with peer:
                self.post = self.bench.post(peer, "b-paths")
                folder = self.bench.folder / "b-paths"
                told = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
                told |= {"brokers": [["127.0.0.1", self.roads.port, "khi-cn"]], "wifi": [["Consulate", "password"]]}
                (folder / "settings.json").write_text(json.dumps(told), encoding="utf-8")
                air = {"Consulate": {"password": "password", "rssi": -61}, "cable": True}
                (folder / "air.json").write_text(json.dumps(air), encoding="utf-8")
                (folder / "main.py").write_text(QUICK, encoding="utf-8")
                place = self.bench.place("b-paths")
                place["env"] = {"MICROPYPATH": f"{PROJECT / 'tests' / 'firmware' / 'air'}:{PROJECT}:.frozen"}
                command = [*self.bench.command()[:-1], "main.py"]
                with running(command, **place, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                    self.button = Button(process)
                    yield

    def until(self, condition: Callable[[], object], within_s: float = 30) -> float:
        """Plays headquarters until a condition holds; how long it took, s."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < within_s, (self.beat, self.events, self.alarms, self.button.drain()[-12:])
            with contextlib.suppress(queue.Empty):
                topic, payload = self.post.peer.came.get(timeout=0.02)
                self._take(topic.rpartition("/")[2], payload)
        return time.monotonic() - began

    def _take(self, lane: str, payload: bytes) -> None:
        if lane not in ("alarm", "event", "heartbeat"):
            return
        message = wire.unseal(payload).message
        number = message[wire.BOOT], message[wire.SEQ]
        if lane == "alarm":
            self.alarms[number] += 1
        elif lane == "event":
            self.events.append(message)
        else:
            self.beat = message
        if self.answers or lane != "alarm":
            self.post.receipt(number, wire.AT_HQ)

    def states(self, path: int, spare: int) -> bool:
        return (self.beat.get(wire.PATH), self.beat.get(wire.SPARE)) == (path, spare)

    def told(self) -> list[tuple[int, str]]:
        """The events about paths, each once."""
        seen = {(event[wire.BOOT], event[wire.SEQ]): event for event in self.events}
        return [(event[wire.CODE], event[wire.SUBJECT]) for _, event in sorted(seen.items()) if event[wire.CODE] >= 60]


def test_a_whole_button_changes_its_path_over_and_back_and_every_press_arrives_exactly_once(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.at_work():
        site.until(lambda: site.states(wire.BY_CABLE, wire.SPARE_READY))
        assert wire.RSSI not in site.beat

        site.roads.close_road(BY_RADIO)
        site.until(lambda: (wire.SPARE_LOST, "Wi-Fi") in site.told())
        site.until(lambda: site.states(wire.BY_CABLE, wire.SPARE_DEAD))
        site.roads.open_road(BY_RADIO)
        site.until(lambda: (wire.SPARE_BACK, "Wi-Fi") in site.told())

        site.roads.close_road(BY_CABLE)
        pressed_s = time.monotonic()
        first = site.button.press()
        site.until(lambda: first in site.alarms)
        assert time.monotonic() - pressed_s < 5, "two seconds of distrust, then another way"
        site.until(lambda: (wire.PATH_CHANGED, "Wi-Fi") in site.told())
        site.until(lambda: site.states(wire.BY_WIFI, wire.SPARE_DEAD))
        assert site.beat[wire.RSSI] == -61

        site.answers = False
        second = site.button.press()
        site.until(lambda: second in site.alarms)
        site.roads.open_road(BY_CABLE)
        held_s = time.monotonic()
        site.until(lambda: time.monotonic() - held_s > 4)
        assert (wire.PATH_CHANGED, "the cable") not in site.told(), "what works is not left under an alarm"
        site.answers = True
        site.until(lambda: any("changing the path" in line.get("session", "") for line in site.button.drain()))
        site.button._let_go = False  # that it was let go is among the lines just read
        third = site.button.press()
        site.until(lambda: third in site.alarms)
        site.until(lambda: (wire.PATH_CHANGED, "the cable") in site.told())
        site.until(lambda: site.states(wire.BY_CABLE, wire.SPARE_READY))
        assert site.alarms[first] == site.alarms[third] == 1
        assert set(site.alarms) == {first, second, third}
