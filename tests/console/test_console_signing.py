"""Who gets in, who does not, and for how long."""

from __future__ import annotations

import base64
import json

import pytest

from gateway.console.lockout import LIMITS, LONGEST_WAIT_MS, Lockout
from gateway.console.sessions import LIFE_MS, VISIT_MS, Sessions
from gateway.console.signing import WAITING, BusyError, Signing
from tests.console.desk import PASSWORD, SECRET, StandInDesk
from tests.console.visitor import Visitor

PAGES = ("/", "/children", "/happenings", "/history", "/health", "/incidents/1")


def test_operator_signs_in_and_comes_to_the_page_that_was_asked_for(visitor: Visitor) -> None:
    asked = visitor.http.get("/history?before=40")
    assert asked.headers["location"] == "/sign-in?to=/history%3Fbefore%3D40"
    assert visitor.sign_in(to="/history?before=40").headers["location"] == "/history?before=40"
    assert "Ayesha Khan" in visitor.http.get("/").text


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_for_people_who_signed_in(visitor: Visitor, path: str) -> None:
    answer = visitor.http.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize(
    "path", ["session", "station", "incidents", "history", "children", "happenings", "health", "live"]
)
def test_the_api_is_for_people_who_signed_in(visitor: Visitor, path: str) -> None:
    answer = visitor.http.get(f"/api/v1/{path}")
    assert answer.status_code == 401
    assert answer.json() == {"error": {"status": 401, "message": "Sign in first."}}


@pytest.mark.parametrize(("name", "password"), [("ayesha", "wrong"), ("nobody", PASSWORD), ("AYESHA' OR 1=1 --", "x")])
def test_wrong_name_and_wrong_password_are_told_alike(visitor: Visitor, name: str, password: str) -> None:
    answer = visitor.sign_in(name, password)
    assert answer.status_code == 401
    assert "The name or the password is wrong." in answer.text
    assert "tocsin=" not in answer.headers.get("set-cookie", "").replace("tocsin-visit=", "")
    assert PASSWORD not in answer.text


def test_guessing_is_locked_out_with_the_wait_in_words_and_ends_by_itself(desk: StandInDesk, visitor: Visitor) -> None:
    for _ in range(LIMITS["both"]):
        assert visitor.sign_in(password="guess").status_code == 401
    locked = visitor.sign_in()
    assert locked.status_code == 429, "even the right password waits"
    assert 0 < int(locked.headers["retry-after"]) <= 60
    assert "Too many wrong tries. Try again in" in locked.text
    assert visitor.sign_in("bilal").status_code == 303, "a colleague is not kept out"
    visitor.http.cookies.clear()
    desk.ahead_ms += 61_000
    assert visitor.sign_in().status_code == 303


def test_lock_out_is_told_to_programs_too(visitor: Visitor) -> None:
    for _ in range(LIMITS["both"]):
        assert visitor.http.post("/api/v1/session", json={"name": "ayesha", "password": "x"}).status_code == 401
    answer = visitor.http.post("/api/v1/session", json={"name": "ayesha", "password": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["retry-after"].isdecimal()


def test_every_further_failure_doubles_the_wait_up_to_a_quarter_of_an_hour() -> None:
    lockout, waits = Lockout(), []
    for _ in range(LIMITS["both"] + 6):
        lockout.failed("a", "::1", 0)
        waits.append(lockout.wait_ms("a", "::1", 0))
    assert waits[: LIMITS["both"] - 1] == [0, 0, 0, 0]
    assert waits[LIMITS["both"] - 1 :] == [
        60_000,
        120_000,
        240_000,
        480_000,
        LONGEST_WAIT_MS,
        LONGEST_WAIT_MS,
        LONGEST_WAIT_MS,
    ]


def test_one_address_that_tries_many_names_is_locked_out_and_others_are_not() -> None:
    lockout = Lockout()
    for number in range(LIMITS["address"]):
        lockout.failed(f"name-{number}", "192.0.2.1", 0)
    assert lockout.wait_ms("somebody", "192.0.2.1", 0) > 0
    assert lockout.wait_ms("somebody", "192.0.2.2", 0) == 0


def test_lock_out_forgets_the_oldest_when_a_flood_of_names_comes() -> None:
    lockout = Lockout()
    for number in range(5_000):
        lockout.failed(f"name-{number}", f"address-{number}", number)
    assert len(lockout._tries) == 10_000


def test_sign_in_form_of_another_site_is_refused(visitor: Visitor) -> None:
    visitor.http.get("/sign-in")
    answer = visitor.http.post("/sign-in", data={"name": "ayesha", "password": PASSWORD, "csrf": "made up"})
    assert answer.status_code == 403
    assert "This page was open too long" in answer.text
    cross = {"origin": "https://elsewhere.example"}
    assert visitor.http.post("/sign-in", data={}, headers=cross).status_code == 403
    plain = visitor.http.post(
        "/api/v1/session",
        content=json.dumps({"name": "ayesha", "password": PASSWORD}),
        headers={"content-type": "text/plain"},
    )
    assert plain.status_code == 422, "a form of another site can send text, not JSON"


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
def test_sign_in_is_no_springboard_to_another_site(visitor: Visitor, where: str) -> None:
    assert visitor.sign_in(to=where).headers["location"] == "/"
    assert visitor.http.get("/language/ur", params={"to": where}).headers["location"] == "/"


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(desk: StandInDesk) -> None:
    cookies = Visitor(desk, secure=True).sign_in().headers.get_list("set-cookie")
    session = next(cookie for cookie in cookies if cookie.startswith("__Host-tocsin="))
    for mark in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert mark in session


def test_sign_out_ends_every_copy_of_the_cookie(operator: Visitor) -> None:
    copy = operator.http.cookies["tocsin"]
    assert operator.http.post("/sign-out", data={"csrf": "x"}).status_code == 403
    assert operator.http.post("/sign-out", data={"csrf": operator.csrf}).headers["location"] == "/sign-in"
    operator.http.cookies.set("tocsin", copy)
    assert operator.http.get("/").status_code == 303


def test_session_ends_with_the_shift(desk: StandInDesk, operator: Visitor) -> None:
    desk.ahead_ms += LIFE_MS - 60_000
    assert operator.http.get("/").status_code == 200
    desk.ahead_ms += 61_000
    assert operator.http.get("/").status_code == 303


def test_person_who_may_no_longer_sign_in_is_out_at_once(desk: StandInDesk, operator: Visitor) -> None:
    desk.people.pop("ayesha")
    assert operator.http.get("/").status_code == 303


def _forgeries(cookie: str) -> dict[str, str]:
    payload, signature = cookie.split(".")
    identity = json.loads(base64.urlsafe_b64decode(payload + "=="))
    other = base64.urlsafe_b64encode(json.dumps([identity[0], "bilal", identity[2]]).encode()).rstrip(b"=").decode()
    return {
        "another name": f"{other}.{signature}",
        "no signature": f"{payload}.",
        "a flipped signature": f"{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "signed with another station's secret": Sessions(b"another station's secret").begin("ayesha", 10**13)[1],
        "three parts": f"{cookie}.x",
        "not base64": "!!!.???",
        "nothing": "",
        "letters of other scripts": "الف.ب",
        "a sign-in form's token": Sessions(SECRET).visit(10**13),
    }


@pytest.mark.parametrize("forgery", _forgeries(Sessions(SECRET).begin("ayesha", 10**13)[1]))
def test_forged_session_opens_nothing(desk: StandInDesk, forgery: str) -> None:
    sessions = Sessions(SECRET)
    _, cookie = sessions.begin("ayesha", desk.now_ms())
    assert sessions.read(cookie, desk.now_ms())
    forged = _forgeries(cookie)[forgery]
    assert sessions.read(forged, desk.now_ms()) is None
    visitor = Visitor(desk)
    answer = visitor.http.get("/", headers={b"cookie": b"tocsin=" + forged.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 303


def test_token_of_one_session_is_not_good_for_another() -> None:
    sessions = Sessions(SECRET)
    one, other = (sessions.begin("ayesha", 0)[0] for _ in range(2))
    assert sessions.genuine(one, sessions.token(one))
    assert not sessions.genuine(one, sessions.token(other))
    assert not sessions.genuine(one, "")


def test_sign_in_form_grows_old() -> None:
    sessions = Sessions(SECRET)
    visit = sessions.visit(0)
    assert sessions.visited(visit, visit, VISIT_MS - 1)
    assert not sessions.visited(visit, visit, VISIT_MS)
    assert not sessions.visited(visit, sessions.visit(0), 0)
    assert not sessions.visited("", "", 0)


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Sessions(b"short")


def test_a_rush_of_sign_ins_is_turned_away_rather_than_piled_up(desk: StandInDesk) -> None:
    signing = Signing(desk)
    for _ in range(WAITING):
        signing._room.acquire()
    with pytest.raises(BusyError):
        signing.sign_in("ayesha", PASSWORD, "::1")
    signing._room.release()
    assert signing.sign_in("ayesha", PASSWORD, "::1")
