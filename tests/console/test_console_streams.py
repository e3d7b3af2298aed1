"""What open pages are told as it happens, over a real server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from demo.process import wait_until
from gateway.console import live as live_module
from gateway.console.live import Board, Watchers, steady
from gateway.console.roll import NOTHING, Roll
from gateway.desk import Link, State
from tests.console.desk import CARS, GATE, HOSTILE, PASSWORD, Server, StandInDesk, button, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.desk import Child, Happening


class Follower:
    """One stream, read event by event."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.id = ""

    def next(self, name: str, within_s: float = 5) -> Any:
        """The next event of that name; others are passed over."""
        deadline, event = time.monotonic() + within_s, ""
        for line in self._lines:
            if line.startswith("id: "):
                self.id = line.removeprefix("id: ")
            elif line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == name:
                return json.loads(line.removeprefix("data: "))
            assert time.monotonic() < deadline, f"no {name} in {within_s} s"
        raise AssertionError(f"the stream ended without {name}")


@contextmanager
def following(client: httpx.Client, path: str) -> Iterator[Follower]:
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200, answer.status_code
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Follower(answer.iter_lines())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    desk = StandInDesk()
    desk.hear(button("clifton-gate", GATE))
    with serving(desk) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as one:
        signed = one.post("/api/v1/session", json={"name": "ayesha", "password": PASSWORD}).json()
        one.headers["x-csrf-token"] = signed["csrf"]
        yield one


def test_an_outage_is_told_once_and_its_end_once(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    desk, looks = StandInDesk(), threading.Semaphore(0)
    monkeypatch.setattr(live_module, "PACE_S", 0.01)

    def away() -> Any:
        looks.release()
        raise OSError("the server is away")

    def told(count: int) -> list[tuple[str, bool]]:
        wait_until(lambda: len(caplog.records) >= count, 10, "it is told")
        return [(one.getMessage().split(",")[0], bool(one.exc_info)) for one in caplog.records]

    caplog.set_level("WARNING", live_module.__name__)
    passing, fault = ("the console can't see the station", False), ("the console can't see the station", True)
    with serving(desk):
        for known, begun in ((("the server is away", 1), passing), (None, fault)):
            caplog.clear()
            with monkeypatch.context() as outage:
                outage.setattr(desk, "unreadable", lambda _, known=known: known)
                outage.setattr(desk, "open_incidents", away)
                while looks.acquire(blocking=False):
                    pass
                assert all(looks.acquire(timeout=10) for _ in range(5))
                assert told(1) == [begun]
            assert told(2) == [begun, ("the console sees the station again", False)]


def test_alarm_reaches_an_open_page_well_within_a_second(server: Server, client: httpx.Client) -> None:
    with following(client, "/live?view=alarms&lang=en") as page:
        page.next("beat")
        for _ in range(5):
            before = time.monotonic()
            number = server.desk.press(HOSTILE).id
            told = page.next("list")
            assert time.monotonic() - before < 1
            assert str(number) in told["order"]
            card = told["items"][str(number)]
            assert "&lt;img src=x" in card
            assert "<img" not in card
            summary = page.next("summary")
            assert number in [one["id"] for one in summary["raised"]]
            time.sleep(0.02)


def test_page_that_was_away_gets_what_changed_since(server: Server, client: httpx.Client) -> None:
    server.desk.press()
    with following(client, "/live?view=alarms&lang=en") as page:
        page.next("list")
        page.next("beat")
        stamp = page.id
    missed = server.desk.press().id
    with following(client, f"/live?view=alarms&lang=en&since={stamp}") as page:
        assert list(page.next("list")["items"]) == [str(missed)]
    for nonsense in ("", "0-0", "zz-1-2-3-4-5-6", f"{stamp}9-"):
        with following(client, f"/live?view=alarms&lang=en&since={nonsense}") as page:
            assert len(page.next("list")["items"]) > 1


def test_viewers_cards_have_no_buttons(server: Server) -> None:
    number = server.desk.press().id
    with httpx.Client(base_url=server.url, timeout=10) as viewer:
        viewer.post("/api/v1/session", json={"name": "viewer", "password": PASSWORD})
        with following(viewer, "/live?view=alarms&lang=en") as page:
            assert "data-step" not in page.next("list")["items"][str(number)]


def test_step_reaches_every_page(server: Server, client: httpx.Client) -> None:
    number = server.desk.press().id
    with (
        following(client, "/live?view=alarms&lang=ur") as cards,
        following(client, f"/live?view=incident&lang=en&number={number}") as one,
    ):
        cards.next("beat")
        one.next("beat")
        server.desk.step(number, State.ACKNOWLEDGED, "bilal")
        while 'data-state="acknowledged"' not in cards.next("list")["items"][str(number)]:
            """The press itself may still be on its way to the page."""
        while "bilal" not in (parts := one.next("parts"))["incident"]:
            """Likewise."""
        assert 'data-step="acknowledged"' not in parts["steps"]


def test_button_in_trouble_reaches_the_table_and_a_heartbeat_moves_only_its_age(
    server: Server, client: httpx.Client
) -> None:
    with following(client, "/live?view=children&lang=en") as page:
        page.next("list")
        page.next("beat")
        server.desk.hear(button("clifton-gate", GATE, last_heard_ms=server.desk.now_ms(), uptime_ms=1, rssi_dbm=-59))
        assert list(page.next("heard")) == ["clifton-gate"]
        server.desk.hear(button("clifton-gate", GATE, link=Link.FAULTY, why="The button's wire is cut.", loop="cut"))
        assert "wire is cut" in page.next("list")["items"]["clifton-gate"]
        server.desk.hear(button("clifton-gate", GATE))


def test_program_follows_in_json(server: Server, client: httpx.Client) -> None:
    with following(client, "/api/v1/live?topics=incidents&topics=happenings") as stream:
        stream.next("beat")
        number = server.desk.press(CARS, "clifton-cars").id
        assert number in [one["id"] for one in stream.next("incidents")["incidents"]]
        server.desk.happen("loop_cut", "clifton-cars", CARS)
        assert stream.next("happenings")["happenings"][0]["code"] == "loop_cut"
    assert client.get("/api/v1/live?topics=weather").status_code == 422


def test_sign_out_ends_the_stream(server: Server, client: httpx.Client) -> None:
    with following(client, "/live?view=alarms&lang=en") as page:
        page.next("beat")
        assert client.delete("/api/v1/session").status_code == 204
        assert page.next("ended") == {"why": "signed_out"}


def test_person_who_loses_their_role_is_let_go(server: Server, client: httpx.Client) -> None:
    person = server.desk.people["ayesha"]
    try:
        with following(client, "/live?view=alarms&lang=en") as page:
            page.next("beat")
            server.desk.people["ayesha"] = server.desk.people["viewer"]
            assert page.next("ended") == {"why": "signed_out"}
    finally:
        server.desk.people["ayesha"] = person


def test_newest_tabs_win(server: Server, client: httpx.Client) -> None:
    with following(client, "/live?view=alarms&lang=en") as oldest:
        oldest.next("beat")
        streams = [client.stream("GET", "/live?view=health&lang=en") for _ in range(Watchers.MOST_A_SESSION)]
        for stream in streams:
            stream.__enter__()
        assert oldest.next("ended") == {"why": "elsewhere"}
        for stream in streams:
            stream.__exit__(None, None, None)


def test_station_that_does_not_answer_gives_no_beat_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "FRESH_S", 0.6)
    monkeypatch.setattr("gateway.console.streams.BEAT_S", 0.2)
    with serving(StandInDesk()) as server, httpx.Client(base_url=server.url, timeout=10) as client:
        client.post("/api/v1/session", json={"name": "ayesha", "password": PASSWORD})
        monkeypatch.setattr(live_module, "LOOK_S", 0.2)
        with following(client, "/live?view=alarms&lang=en") as page:
            page.next("beat")
            server.desk.broken = True
            silent = time.monotonic() + 4
            for line in page._lines:
                if line == "event: silent":
                    break
                assert time.monotonic() < silent, "beats went on although the station did not answer"
            server.desk.broken = False
            number = server.desk.press().id
            assert str(number) in page.next("list")["items"], "what happened meanwhile is told"
            page.next("beat")


def test_console_stops_with_pages_open() -> None:
    with serving(StandInDesk()) as server, httpx.Client(base_url=server.url, timeout=10) as client:
        client.post("/api/v1/session", json={"name": "ayesha", "password": PASSWORD})
        with following(client, "/live?view=alarms&lang=en") as page:
            page.next("beat")
            before = time.monotonic()
            server.app.state.console.live.stop()
            assert not [line for line in page._lines if line.startswith("event: ended")]
            assert time.monotonic() - before < 2


# ------------------------------------------------------------------------------------------ pure parts


def test_roll_tells_exactly_what_changed() -> None:
    roll: Roll[str] = Roll()
    assert roll.since(NOTHING).order == ()
    assert roll.update([("a", "1"), ("b", "1")])
    seen = roll.version
    assert not roll.since(seen)
    assert not roll.update([("a", "1"), ("b", "1")])
    assert roll.update([("a", "1"), ("b", "2")])
    assert (roll.since(seen).order, roll.since(seen).items) == (None, {"b": "2"})
    assert roll.update([("b", "2")])
    assert (roll.since(seen).order, roll.since(seen).items) == (("b",), {"b": "2"})
    assert roll.since(NOTHING).items == {"b": "2"}


def test_stamp_of_another_process_means_nothing() -> None:
    board, other = Board(), Board()
    assert board.seen(board.stamp()) == [0] * 6
    assert board.seen(other.stamp()) == [NOTHING] * 6


def test_healthy_row_stays_still() -> None:
    one = button("a", GATE, rssi_dbm=-58, battery_mv=3_921, last_heard_ms=1, uptime_ms=1)
    other = button("a", GATE, rssi_dbm=-61, battery_mv=3_938, last_heard_ms=2, uptime_ms=2)
    assert steady(one) == steady(other)


def test_looks_at_many_children_leave_most_of_the_time_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "PACE_S", 0.05)
    looks = []

    class Slow(StandInDesk):
        def children(self) -> Sequence[Child]:
            looks.append(time.monotonic())
            time.sleep(0.1)
            self._tell("children", "happenings")  # there is always something new
            return super().children()

        def happenings(self, before: int | None = None, limit: int = 100) -> Sequence[Happening]:
            told.append(time.monotonic())
            return super().happenings(before, limit)

    told: list[float] = []

    async def follow() -> None:
        live = live_module.Live(Slow())
        live.start()
        try:
            end = time.monotonic() + 15
            while len(looks) < 2 and time.monotonic() < end:
                await asyncio.sleep(0.02)
        finally:
            live.stop()
            live.join()

    asyncio.run(follow())
    assert looks[1] - looks[0] > 0.1 * live_module.CHILDREN_REST
    assert told[0] < looks[1]
