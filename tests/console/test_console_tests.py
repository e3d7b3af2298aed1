"""A technician's test alarm: shown, worked and recorded like an alarm, and never taken for one."""

from __future__ import annotations

import re

import httpx
import pytest

from gateway.console.listing import apart, urgent_first
from gateway.console.words import Language
from gateway.desk import Outcome, State
from tests.console.desk import CARS, GATE, PASSWORD, VISA, StandInDesk, furnished, serving
from tests.console.test_console_pages import Page
from tests.console.test_console_streams import following
from tests.console.visitor import Visitor

MARK = {Language.EN: "TEST, no emergency", Language.UR: "آزمائش، ہنگامی حالت نہیں"}


def signed_in(desk: StandInDesk, language: Language = Language.EN) -> Visitor:
    visitor = Visitor(desk)
    visitor.http.cookies.set("tocsin-language", language)
    assert visitor.sign_in().status_code == 303
    return visitor


@pytest.mark.parametrize("language", list(Language))
def test_a_test_is_marked_on_every_page_where_it_is_shown(language: Language) -> None:
    desk = furnished()
    number = desk.press(cause="test").id
    visitor = signed_in(desk, language)
    for path in ("/", "/children", "/happenings", "/history", "/health", f"/incidents/{number}"):
        page = visitor.http.get(path).text
        assert Page(page).wrong == []
        assert MARK[language] in page, path
        assert 'data-raised=""' in page, "nothing sounds"
        assert f'data-raised-tests="{number}"' in page
        assert re.search(r'rel="icon" href="/static/icon\.svg', page), "the icon stays calm"
        assert "banner raised" not in page
        assert re.search(r'data-count="open" hidden', page)
    assert '<p class="tests">' in visitor.http.get("/").text
    assert 'class="raised"' not in visitor.http.get("/history").text


def test_title_counts_tests_apart(desk: StandInDesk, operator: Visitor) -> None:
    def title(path: str = "/") -> str:
        found = re.search(r"<title>(.*?) ·", operator.http.get(path).text)
        assert found
        return found[1]

    test = desk.press(cause="test").id
    assert title() == "(1 test) Alarms"
    assert title(f"/incidents/{test}") == f"(1 test) Test alarm \u2068{test}\u2069"
    desk.press(VISA)
    desk.press(CARS)
    assert title("/health") == "(2) (1 test) Health"
    desk.step(test, State.ACKNOWLEDGED, "bilal")
    assert title() == "(2) Alarms"
    assert title("/history").startswith("(2) ")


def test_an_alarm_comes_before_every_test_whatever_their_state(desk: StandInDesk, operator: Visitor) -> None:
    old = desk.press(VISA, pressed_at_ms=desk.now_ms() - 3_600_000).id
    desk.step(old, State.RESPONDING, "bilal")
    tests = [desk.press(cause="test").id for _ in range(3)]
    desk.step(tests[0], State.ACKNOWLEDGED, "bilal")
    page = operator.http.get("/").text
    order = [int(number) for number in re.findall(r'<article class="card [^"]*" data-key="(\d+)"', page)]
    assert order == [old, tests[2], tests[1], tests[0]]
    assert "1 open alarm<" in page
    assert "<bdi>3</bdi> open test alarms" in page
    banner = operator.http.get("/health").text
    assert "Visa hall" in banner.split('class="banner')[1].split("</a>")[0]
    assert MARK[Language.EN] not in banner, "the banner is the alarm's alone"


def test_only_the_cause_test_is_a_test(desk: StandInDesk) -> None:
    made = [desk.press(cause=cause) for cause in ("hold_up", "test", "TEST", "", "99", "duress", "medical")]
    opened = apart(urgent_first(made))
    assert [incident.cause for incident in opened.tests] == ["test"]
    assert len(opened.alarms) == 6
    assert urgent_first(made)[-1].cause == "test"


def test_a_test_alarm_is_closed_as_a_test(desk: StandInDesk, operator: Visitor) -> None:
    test, alarm = desk.press(cause="test").id, desk.press().id
    pages = [operator.http.get(f"/incidents/{number}").text for number in (test, alarm)]
    assert [re.findall(r'value="(\w+)" checked', page) for page in pages] == [["test"], []]
    desk.step(test, State.CLOSED, "ayesha", "", Outcome.TEST)
    page = operator.http.get("/history").text
    row = page.split(f'data-incident="{test}"')[1].split("</tr>")[0]
    assert MARK[Language.EN] in row
    assert ">Test<" in row


def test_calm_page_says_that_the_last_alarm_was_a_test(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press(cause="test").id
    page = operator.http.get("/").text
    assert "<h1>No open alarms</h1>" in page
    assert "1 open test alarm<" in page
    desk.step(number, State.CLOSED, "ayesha", "", Outcome.TEST)
    page = operator.http.get("/").text
    assert "Last alarm (a test)" in page
    desk.press(GATE)
    assert "open test" not in operator.http.get("/").text


def test_open_pages_are_told_apart_too() -> None:
    desk = StandInDesk()
    with serving(desk) as server, httpx.Client(base_url=server.url, timeout=10) as client:
        client.post("/api/v1/session", json={"name": "ayesha", "password": PASSWORD})
        with following(client, "/live?view=alarms&lang=en") as page:
            page.next("beat")
            test = desk.press(cause="test").id
            told = page.next("summary")
            assert (told["mark"], told["open"], told["tests"]) == ("(1 test) ", 0, 1)
            assert told["raised"] == []
            assert told["raised_tests"] == [
                {"id": test, "say": "Test alarm, no emergency: \u2068Consulate, Clifton, Main gate\u2069."}
            ]
            alarm = desk.press(VISA).id
            order = page.next("list")["order"]
            assert order == [str(alarm), str(test)]
            told = page.next("summary")
            assert (told["mark"], told["open"], told["tests"]) == ("(1) (1 test) ", 1, 1)
            assert [one["id"] for one in told["raised"]] == [alarm]
