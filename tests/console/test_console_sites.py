"""The pages of sites and entrances: what everybody reads, and what an administrator changes there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gateway.console.words import IN, Language
from gateway.enrolment import Enrolment, Standing
from tests.console.desk import CLIFTON, GATE, StandInDesk
from tests.console.test_console_pages import Page
from tests.console.visitor import Visitor, hidden


@pytest.fixture
def admin(desk: StandInDesk) -> Visitor:
    visitor = Visitor(desk)
    assert visitor.sign_in("admin").status_code == 303
    return visitor


def typed(html: str) -> dict[str, list[str]]:
    """What the form holds, as a browser would send it."""
    form = html[html.index('class="site-form"') :]
    form = form[: form.index("</form>")]
    values: dict[str, list[str]] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        values.setdefault(re.search(r'name="([^"]*)"', tag)[1], []).append(re.search(r'value="([^"]*)"', tag)[1])  # type: ignore[index]
    for name, text in re.findall(r'<textarea name="([^"]*)"[^>]*>([^<]*)</textarea>', form):
        values.setdefault(name, []).append(text)
    return values


def save(visitor: Visitor, path: str, form: dict[str, list[str]]) -> object:
    files = [(name, (None, text)) for name, texts in form.items() for text in texts]
    return visitor.http.post(path, files=files)


def test_the_alarm_s_page_says_where_whom_and_how_at_once_in_both_languages(
    desk: StandInDesk, operator: Visitor
) -> None:
    incident = desk.press()
    page = operator.http.get(f"/incidents/{incident.id}").text
    for text in (
        'href="geo:24.81331,67.03054"', "24.81331° N, 67.03054° E", 'href="tel:0215550123"', "Rabia Aslam", "Head of security",
        'href="tel:+92215550124"', "Two dogs in the yard", "پلاٹ 20", 'href="/sites/clifton/entrances/gate"',
    ):  # fmt: skip
        assert text in page
    assert page.index("Rabia Aslam") < page.index(IN[Language.EN].raw("incident.timeline"))
    assert Page(page).wrong == []
    operator.http.cookies.set("tocsin-language", "ur")
    urdu = operator.http.get(f"/incidents/{incident.id}").text
    assert urdu.index("صدر دروازے کی چابیاں") < urdu.index("Two dogs in the yard")
    unknown = desk.press(replace(GATE, site="unknown"))
    assert IN[Language.UR].raw("card.phone") in operator.http.get(f"/incidents/{unknown.id}").text


def test_an_administrator_changes_a_site_and_takes_it_back(desk: StandInDesk, admin: Visitor) -> None:
    form = typed(admin.http.get("/sites/clifton").text)
    form["plan"], form["contact_name"][2], form["contact_phone"][2] = ["Ring twice.\r\nKeys: left."], "Gate", "15"
    form["entrance_id"][-1], form["entrance_name"][-1] = "cars", "Car park"
    form["contact_phone"][1] = form["contact_role"][1] = form["contact_name"][1] = ""
    answer = save(admin, "/sites/clifton", form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sites/clifton")
    site = desk.known_sites["clifton"]
    assert (site.plan, [one.phone for one in site.contacts]) == ("Ring twice.\nKeys: left.", ["021 5550 123", "15"])
    assert [one.id for one in site.entrances] == ["cars", "gate", "visa"]
    assert {name for name, _, _ in desk.changes["clifton"][0].fields} == {"plan", "contacts", "entrance cars"}
    save(admin, "/sites/clifton", {**typed(admin.http.get("/sites/clifton").text), "address": ["Plot 21"]})
    page = admin.http.get("/sites/clifton").text
    assert Page(page).wrong == []
    assert 'action="/sites/clifton/changes/2/undo"' in page
    undone = admin.http.post("/sites/clifton/changes/2/undo", data={"csrf": admin.csrf})
    assert (undone.status_code, desk.known_sites["clifton"].address) == (303, CLIFTON.address)
    assert desk.changes["clifton"][-1].by == "admin"


def test_mistakes_keep_what_was_typed_and_say_what_to_enter(desk: StandInDesk, admin: Visitor) -> None:
    form = typed(admin.http.get("/sites/clifton").text)
    form |= {"position": ["here"], "address": ["<b>Plot</b> 22"], "name": [""]}
    answer = save(admin, "/sites/clifton", form)
    assert answer.status_code == 422
    for text in ("is no position", "a site needs a name", "&lt;b&gt;Plot&lt;/b&gt; 22", 'value="here"'):
        assert text in answer.text
    assert Page(answer.text).wrong == []
    assert desk.known_sites["clifton"] == CLIFTON
    long = {**form, "position": [""], "name": ["x"], "plan_ur": ["کلفٹن " * 330], "notes": ["کلفٹن " * 330]}
    assert save(admin, "/sites/clifton", long).status_code == 303


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(desk: StandInDesk, admin: Visitor) -> None:
    form = typed(admin.http.get("/sites/clifton").text)
    desk.change_site("clifton", {"plan": "New plan"}, "bilal")
    answer = save(admin, "/sites/clifton", {**form, "plan": ["My plan"]})
    assert answer.status_code == 422
    assert "changed by bilal meanwhile" in answer.text
    assert "My plan" in answer.text
    assert desk.known_sites["clifton"].plan == "New plan"
    assert save(admin, "/sites/clifton", {**typed(answer.text), "plan": ["Both plans"]}).status_code == 303


def test_a_new_site_needs_a_name_and_a_short_name_of_its_own(desk: StandInDesk, admin: Visitor) -> None:
    form = typed(admin.http.get("/sites/new/form").text)
    for short, says in (("clifton", "Consulate, Clifton"), ("Two Words", "1 to 64")):
        refused = save(admin, "/sites/new/form", {**form, "id": [short], "name": ["Post"]})
        assert (refused.status_code, says in refused.text) == (422, True)
    made = save(admin, "/sites/new/form", {**form, "id": ["airport"], "name": ["Post, Airport"]})
    assert made.headers["location"] == "/sites/airport"
    assert desk.known_sites["airport"].name == "Post, Airport"
    assert "Post, Airport" in admin.http.get("/sites").text


def test_only_administrators_change_sites(
    desk: StandInDesk, operator: Visitor, viewer: Visitor, admin: Visitor
) -> None:
    form = typed(admin.http.get("/sites/clifton").text)
    for visitor in (operator, viewer):
        page = visitor.http.get("/sites/clifton").text
        assert "Two dogs in the yard" in page
        assert "site-form" not in page
        assert save(visitor, "/sites/clifton", form | {"csrf": [visitor.csrf]}).status_code == 403
        assert visitor.http.post("/sites/clifton/changes/1/undo", data={"csrf": visitor.csrf}).status_code == 403
        assert visitor.http.get("/sites/new/form").status_code == 403
        headers = {"x-csrf-token": visitor.csrf}
        assert visitor.http.put("/api/v1/sites/clifton", json={"plan": "x"}, headers=headers).status_code == 403
    assert save(admin, "/sites/clifton", form | {"csrf": ["forged"]}).status_code == 403
    assert desk.known_sites["clifton"] == CLIFTON
    incident = desk.press()
    assert admin.step(incident.id, state="acknowledged").status_code == 200


def test_programs_read_and_change_sites(desk: StandInDesk, admin: Visitor) -> None:
    assert [one["id"] for one in admin.http.get("/api/v1/sites").json()] == ["clifton"]
    headers = {"x-csrf-token": admin.csrf}
    put = admin.http.put("/api/v1/sites/clifton", json={"address": "Plot 21"}, headers=headers)
    assert (put.status_code, put.json()["address"]) == (200, "Plot 21")
    stale = admin.http.put("/api/v1/sites/clifton?seen=0", json={"address": "Plot 22"}, headers=headers)
    assert (stale.status_code, "changed by admin meanwhile" in stale.text) == (409, True)
    wrong = admin.http.put("/api/v1/sites/clifton", json={"position": "x"}, headers=headers)
    assert wrong.status_code == 422
    assert [one["by"] for one in admin.http.get("/api/v1/sites/clifton/changes").json()] == ["admin"]


def test_an_entrance_shows_every_button_that_it_had(desk: StandInDesk, operator: Visitor) -> None:
    old = Enrolment(
        id="clifton-gate", kind="button", site="clifton", site_name="", site_name_ur="", entrance="gate", entrance_name="",
        entrance_name_ur="", address="", phone="", point="04", state=Standing.RETIRED, mac="", by="usman", replaces=None,
        enrolled_at_ms=1, expires_at_ms=None, retired_at_ms=2, why="replaced by clifton-gate-2",
    )  # fmt: skip
    new = replace(
        old, id="clifton-gate-2", state=Standing.ENROLLED, replaces="clifton-gate", retired_at_ms=None, why=""
    )
    desk.buttons += [new, old]
    before, after = desk.press(), desk.press(device="clifton-gate-2")
    desk.happen("loop_cut", "clifton-gate", GATE)
    page = operator.http.get("/sites/clifton/entrances/gate").text
    for text in (
        "replaced by clifton-gate-2",
        f'href="/incidents/{before.id}"',
        f'href="/incidents/{after.id}"',
        "loop_cut",
    ):
        assert text in page
    assert page.index('data-button="clifton-gate-2"') < page.index('data-button="clifton-gate"')
    assert Page(page).wrong == []
    assert operator.http.get("/sites/clifton/entrances/nowhere").status_code == 404
    assert operator.http.get("/sites/nowhere").status_code == 404
    assert hidden(page, "csrf") == operator.csrf
