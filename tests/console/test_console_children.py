"""The children page: coverage by site; a page for each child; maintenance, which only an operator sets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.console.listing import coverage, troubled
from gateway.desk import Link
from tests.console.desk import CARS, GATE, VISA, StandInDesk, button, furnished
from tests.console.visitor import Visitor

AIRPORT = replace(GATE, site="airport", site_name="Consular post, Airport")


@pytest.fixture
def desk() -> StandInDesk:
    return furnished()


@pytest.fixture
def visitor(desk: StandInDesk) -> Visitor:
    visitor = Visitor(desk)
    assert visitor.sign_in().status_code == 303
    return visitor


def test_an_entrance_counts_if_any_of_its_buttons_can_deliver_and_the_worst_site_comes_first() -> None:
    covers = coverage(
        [
            button("gate-1", GATE, link=Link.OFFLINE),
            button("gate-2", GATE),
            button("visa", VISA, link=Link.LATE),
            button("cars", CARS, link=Link.MAINTENANCE),
            button("airport", AIRPORT, link=Link.TAMPERED),
            button("no-place", None),
        ]
    )
    assert [(cover.site, cover.ready, cover.entrances) for cover in covers] == [
        ("airport", 0, 1), ("clifton", 1, 3), ("", 1, 1),
    ]  # fmt: skip
    assert sorted(child.id for child in covers[1].unable) == ["cars", "visa"]


def test_maintenance_is_no_trouble_and_has_no_colour(desk: StandInDesk, visitor: Visitor) -> None:
    assert troubled([button("a", GATE, link=Link.MAINTENANCE), button("b", GATE, link=Link.FAULTY)]) == 1
    desk.maintain("clifton-gate", desk.now_ms() + 3_600_000, "ayesha")
    page = visitor.http.get("/children").text
    row = page[page.index('data-child="clifton-gate"') : page.index("</tr>", page.index('data-child="clifton-gate"'))]
    assert "fault" not in row
    assert "trouble" not in row
    assert "under maintenance until" in row


@pytest.mark.parametrize(("language", "word"), [("en", "of"), ("ur", "تیار")])
def test_the_page_says_what_each_site_can_deliver(visitor: Visitor, language: str, word: str) -> None:
    visitor.http.cookies.set("tocsin-language", language)
    page = visitor.http.get("/children").text
    sites_part = page[page.index('data-part="sites"') : page.index("<table")]
    assert 'data-site="clifton"' in sites_part
    assert 'data-site="airport" class="trouble"' in sites_part
    assert word in sites_part


def test_programs_get_the_same(visitor: Visitor) -> None:
    covers = {cover["site"]: cover for cover in visitor.http.get("/api/v1/coverage").json()}
    assert (covers["clifton"]["ready"], covers["clifton"]["entrances"]) == (2, 3)
    assert [child["id"] for child in covers["airport"]["unable"]] == ["airport-gate"]


def test_an_operator_puts_a_child_under_maintenance_on_its_page_and_ends_it(
    desk: StandInDesk, visitor: Visitor
) -> None:
    path = "/children/clifton-gate"
    assert "Begin maintenance" in visitor.http.get(path).text
    answer = visitor.http.post(f"{path}/maintenance", data={"minutes": "60", "csrf": visitor.csrf})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    child = desk.child("clifton-gate")
    assert child
    assert child.maintenance_until_ms
    assert 3_590_000 < child.maintenance_until_ms - desk.now_ms() <= 3_600_000
    page = visitor.http.get(path).text
    assert "End it now" in page
    assert "by ayesha" in page
    visitor.http.post(f"{path}/maintenance", data={"minutes": "0", "csrf": visitor.csrf})
    assert desk.child("clifton-gate").link is Link.ONLINE  # type: ignore[union-attr]


def test_the_api_begins_and_ends_it_too(desk: StandInDesk, visitor: Visitor) -> None:
    path, headers = "/api/v1/children/clifton-gate/maintenance", {"x-csrf-token": visitor.csrf}
    until_ms = desk.now_ms() + 60_000
    answer = visitor.http.put(path, json={"until_ms": until_ms}, headers=headers)
    assert (answer.status_code, answer.json()["maintenance_until_ms"]) == (200, until_ms)
    late = visitor.http.put(path, json={"until_ms": 1}, headers=headers)
    assert (late.status_code, late.json()["error"]["message"]) == (
        409, "the end of a maintenance must lie in the future.",
    )  # fmt: skip
    assert visitor.http.delete(path, headers=headers).json()["link"] == "online"
    assert visitor.http.put(path, json={"until_ms": until_ms}).status_code == 403
    assert (
        visitor.http.put(
            path.replace("clifton-gate", "nobody"), json={"until_ms": until_ms}, headers=headers
        ).status_code
        == 404
    )


def test_a_viewer_sees_it_and_sets_nothing(desk: StandInDesk) -> None:
    viewer = Visitor(desk)
    viewer.sign_in("viewer")
    assert "Begin maintenance" not in viewer.http.get("/children/clifton-gate").text
    data = {"minutes": "60", "csrf": viewer.csrf}
    assert viewer.http.post("/children/clifton-gate/maintenance", data=data).status_code == 403
    assert viewer.http.get("/children/nobody").status_code == 404
