"""What the pages say, in both languages, and how strictly a browser is told to treat them."""

from __future__ import annotations

import re
import string
from html.parser import HTMLParser

import pytest

from gateway.console.looks import STATIC, TEMPLATES
from gateway.console.words import IN, SCRIPT_KEYS, WORDS, Language
from gateway.desk import Link, Outcome, Refused, State
from gateway.vocabulary import CAUSES, CODES, HOWS, LOOPS
from tests.console.desk import CARS, GATE, HOSTILE, StandInDesk, button, furnished
from tests.console.visitor import Visitor

PAGES = (
    "/",
    "/children",
    "/sites",
    "/sites/clifton",
    "/sites/clifton/entrances/gate",
    "/happenings",
    "/history",
    "/health",
)
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Page(HTMLParser):
    """Finds what a strict page may not have, and elements that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.wrong += [f"{tag} is not closed" for tag in self.open]
        self.wrong += [f"id {one} comes twice" for one in {i for i in self.ids if self.ids.count(i) > 1}]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"] or "")
        if (
            tag == "style"
            or "style" in values
            or (tag == "script" and not (values.get("src") or "").startswith("/static/"))
        ):
            self.wrong.append(f"{tag} with a style or a script of its own")
        self.wrong += [f"{tag} {name}" for name in values if name.startswith("on")]
        self.wrong += [
            f"{tag} {name} {value}"
            for name, value in attrs
            if name in {"src", "href", "action"} and "//" in (value or "")
        ]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"unexpected </{tag}>")


@pytest.fixture(params=list(Language))
def language(request: pytest.FixtureRequest) -> Language:
    chosen: Language = request.param
    return chosen


def _signed_in(desk: StandInDesk, language: Language, name: str = "ayesha") -> Visitor:
    visitor = Visitor(desk)
    visitor.http.cookies.set("tocsin-language", language)
    assert visitor.sign_in(name).status_code == 303
    return visitor


# ------------------------------------------------------------------------------------------ both languages


def test_both_languages_have_every_word_with_the_same_marks() -> None:
    for key, texts in WORDS.items():
        assert len(texts) == len(Language), key
        assert all(text.strip() for text in texts), key
        english, urdu = ({name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts)
        assert english == urdu, key


def test_urdu_is_urdu() -> None:
    plain = {key for key, (_, urdu) in WORDS.items() if not re.search(r"[\u0600-\u06ff]", urdu)}
    assert plain == {"language.other", "unknown", "answer.done"}


def test_every_word_that_is_asked_for_is_there() -> None:
    asked = set(SCRIPT_KEYS)
    for path in TEMPLATES.iterdir():
        asked |= set(re.findall(r'\b(?:t|plain)\(["\']([\w. ]+)["\'][,)]', path.read_text()))
    for path in STATIC.glob("*.js"):
        in_script = set(re.findall(r'words\["([\w.]+)"\]', path.read_text()))
        assert in_script <= set(SCRIPT_KEYS), path.name
    assert asked <= set(WORDS)


def test_no_word_is_left_over() -> None:
    text = "".join(path.read_text() for path in (*TEMPLATES.iterdir(), *STATIC.glob("*.js")))
    text += "".join(path.read_text() for path in STATIC.parent.glob("*.py") if path.name != "words.py")
    by_name = (  # the rest of the key is known when the page is made
        "cause", "check", "column", "command", "command_state", "confirms", "error", "happening", "happenings", "health", "help", "history", "how", "kind", "link",
        "loop", "nav", "outcome", "role", "signal", "sound", "span", "standing", "state", "step", "entrance", "site", "testing",
    )  # fmt: skip
    assert [key for key in WORDS if key not in text and key.partition(".")[0] not in by_name] == []


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("state", State), ("outcome", Outcome), ("link", Link), ("cause", CAUSES.values()), ("how", HOWS.values()),
        ("loop", LOOPS.values()), ("happening", CODES.values()), ("role", ("hq", "site")), ("kind", ("button", "station")),
    ],
)  # fmt: skip
def test_everything_that_a_station_says_has_words(group: str, names: list[str]) -> None:
    assert not [name for name in names if f"{group}.{name}" not in WORDS]


def test_unknown_words_are_shown_as_they_are() -> None:
    assert IN[Language.UR].known("cause", "fire_alarm") == "fire alarm"


def test_values_are_isolated_and_escaped() -> None:
    words = IN[Language.EN]
    assert (
        words.html("ready", ready="<b>", all=2)
        == "<bdi>&lt;b&gt;</bdi> of <bdi>2</bdi> entrances can deliver a press now"
    )
    assert words.plain("ready.short", ready=1, all=2) == "\u20681\u2069 of \u20682\u2069 entrances ready"


@pytest.mark.parametrize("path", [*PAGES, "/incidents/5", "/nothing", "/sign-in"])
def test_every_page_is_whole_and_strict_in_both_languages(path: str, language: Language) -> None:
    desk = furnished()
    desk.press()
    desk.press(HOSTILE, "clifton-x", pressed_at_exact=False, how="contact_a")
    visitor = _signed_in(desk, language)
    if path == "/sign-in":
        visitor.http.cookies.delete("tocsin")
    answer = visitor.http.get(path)
    assert answer.status_code == (404 if path == "/nothing" else 200)
    assert f'<html lang="{language}" dir="{"rtl" if language is Language.UR else "ltr"}">' in answer.text
    assert Page(answer.text).wrong == []
    assert not re.search(r"\{\{|\{%|Undefined|>\s*None\s*<", answer.text)


@pytest.mark.parametrize("at_ms", [2**53 - 1, -(2**53)])
@pytest.mark.parametrize("path", ["/", "/children", "/children/far", "/happenings", "/history", "/incidents/{}"])
def test_a_time_that_no_calendar_has_breaks_no_page(path: str, at_ms: int) -> None:
    desk = furnished()
    one = desk.press(pressed_at_ms=at_ms, received_at_ms=at_ms)
    desk.hear(button("far", CARS, last_heard_ms=at_ms, maintenance_until_ms=at_ms))
    answer = _signed_in(desk, Language.EN).http.get(path.format(one.id))
    assert answer.status_code == 200, answer.text


def test_language_is_the_browsers_until_somebody_chooses(visitor: Visitor) -> None:
    urdu = {"accept-language": "ur-PK,ur;q=0.9,en;q=0.8"}
    assert 'dir="rtl"' in visitor.http.get("/sign-in", headers=urdu).text
    chosen = visitor.http.get("/language/en?to=/history", headers=urdu)
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/history")
    assert 'dir="ltr"' in visitor.http.get("/sign-in", headers=urdu).text
    assert visitor.http.get("/language/fr").status_code == 404


# ------------------------------------------------------------------------------------------ what they say


def test_open_alarm_tells_a_despatcher_everything(desk: StandInDesk, operator: Visitor) -> None:
    desk.press(how="contact_b")
    page = operator.http.get("/").text
    assert "<title>(1) Alarms · Diplomatic Protection, Karachi · Tocsin</title>" in page
    for told in ("Consulate, Clifton", "Main gate", "Hold-up", "Plot 20, Block 4, Clifton", "021 5550 123", "clifton-gate",
                 "contact B alone: check contact A", "Not acknowledged"):  # fmt: skip
        assert told in page


def test_urdu_alarm_uses_urdu_names_and_english_ones_where_nobody_entered_any(desk: StandInDesk) -> None:
    desk.press()
    desk.press(CARS, "clifton-cars")
    page = _signed_in(desk, Language.UR).http.get("/").text
    assert "<bdi>قونصل خانہ، کلفٹن</bdi>" in page
    assert "<bdi>صدر دروازہ</bdi>" in page
    assert "<bdi>Car park</bdi>" in page


def test_alarms_that_nobody_acknowledged_come_first(desk: StandInDesk, operator: Visitor) -> None:
    old = desk.press(pressed_at_ms=desk.now_ms() - 60_000)
    new = desk.press()
    desk.step(new.id, State.ACKNOWLEDGED, "bilal")
    page = operator.http.get("/").text
    assert page.index(f'data-incident="{old.id}"') < page.index(f'data-incident="{new.id}"')


def test_calm_page_says_what_it_can_rely_on(operator: Visitor, desk: StandInDesk) -> None:
    assert "No button is known yet" in operator.http.get("/").text
    desk.hear(button("a", GATE), button("b", GATE, link=Link.OFFLINE, why="Silent."), button("c", CARS))
    page = operator.http.get("/").text
    assert "No open alarms" in page
    assert "<bdi>2</bdi> of <bdi>2</bdi> entrances can deliver a press now" in page
    assert "rely" not in page.replace("relied", "rely").split("<main")[1], "one good button is enough for an entrance"
    desk.hear(button("c", CARS, link=Link.LATE, why="Nothing heard for 16 s."))
    page = operator.http.get("/").text
    assert "<bdi>1</bdi> of <bdi>2</bdi> entrances can deliver a press now" in page
    assert "These entrances can&#39;t be relied on now" in page
    assert "Nothing heard for 16 s." in page


def test_timeline_of_an_alarm_tells_who_did_what(desk: StandInDesk, operator: Visitor) -> None:
    number = desk.press(pressed_at_exact=False).id
    desk.step(number, State.ACKNOWLEDGED, "bilal", "called the guard")
    desk.step(number, State.CLOSED, "ayesha", "", Outcome.GENUINE)
    page = operator.http.get(f"/incidents/{number}").text
    for told in ("bilal", "called the guard", "Genuine", "at or before", "The button lost power after the press."):
        assert told in page


def test_buttons_show_trouble_first_and_what_is_not_known_as_a_dash(desk: StandInDesk, operator: Visitor) -> None:
    good = button("good", GATE, rssi_dbm=None, path="cable", spare="dead")
    bad = button(
        "bad", CARS, link=Link.TAMPERED, why="The enclosure is open.", tampered=True, battery_mv=3_300, rssi_dbm=-85
    )
    new = button("new", None, link=Link.NEVER_SEEN, loop=None, last_heard_ms=None, battery_mv=None, rssi_dbm=None)
    desk.hear(good, bad, new)
    page = operator.http.get("/children").text
    assert [page.index(f'data-child="{name}"') for name in ("bad", "new", "good")] == sorted(
        page.index(f'data-child="{name}"') for name in ("bad", "new", "good")
    )
    for told in ("The enclosure is open.", "OPEN", "3.3&nbsp;V", "weak", "cable", "Never heard", "Place not entered"):
        assert told in page
    assert page.count("Its second path is dead") == 1


def test_filter_finds_every_word_in_either_language(desk: StandInDesk, operator: Visitor) -> None:
    desk.hear(button("a", GATE), button("b", CARS, link=Link.OFFLINE))
    for sought, found in (
        ("clifton GATE", ["a"]),
        ("offline", ["b"]),
        ("صدر", ["a"]),
        ("clifton", ["a", "b"]),
        ("zzz", []),
    ):
        page = operator.http.get("/children", params={"q": sought}).text
        assert sorted(re.findall(r'data-child="(\w+)"', page)) == found, sought


def test_long_lists_are_paged(desk: StandInDesk, operator: Visitor) -> None:
    for _ in range(120):
        desk.happen("started", "gw-clifton", GATE)
    first = operator.http.get("/happenings").text
    older = re.search(r'href="(/happenings\?before=\d+)"', first)
    assert older
    second = operator.http.get(older[1]).text
    keys = [set(re.findall(r'<tr data-key="(\d+)"', page)) for page in (first, second)]
    assert (len(keys[0]), len(keys[1])) == (100, 20)
    assert not keys[0] & keys[1]
    for _ in range(51):
        desk.press()
    older = re.search(r'href="(/history\?before=\d+)"', operator.http.get("/history").text)
    assert older
    assert operator.http.get(older[1]).text.count("<tr data-key") == 1


def test_health_names_who_was_refused_why_and_how_often(desk: StandInDesk, operator: Visitor) -> None:
    desk.refused = (Refused("198.51.100.7", "The certificate is revoked.", 41_207, desk.now_ms(), "CN=<script>"),)
    page = operator.http.get("/health").text
    for told in ("198.51.100.7", "The certificate is revoked.", "41207", "CN=&lt;script&gt;"):
        assert told in page


def test_names_that_are_code_are_shown_as_text(language: Language) -> None:
    desk = StandInDesk()
    desk.name = "<script>alert(0)</script>"
    desk.press(HOSTILE, "<i>device</i>", cause="<b>cause</b>")
    desk.hear(button("<i>device</i>", HOSTILE, link=Link.FAULTY, why="<script>why</script>", firmware="<u>9</u>"))
    desk.happen("<s>code</s>", "<i>device</i>", HOSTILE, "<i>subject</i>", "<script>detail</script>")
    desk.step(1, State.ACKNOWLEDGED, "ayesha", "</script><script>alert(3)</script>")
    operator = _signed_in(desk, language)
    for path in (*PAGES, "/incidents/1"):
        page = operator.http.get(path).text
        assert not re.search(r"<(script(?! type=\"module\" src=\"/static/)|img|i|u|s|b)\b", page), path
    assert "&lt;script&gt;alert(0)&lt;/script&gt;" in operator.http.get("/").text


# ------------------------------------------------------------------------------------------ how browsers treat them


def test_every_answer_is_strict(operator: Visitor) -> None:
    for path in ("/", "/sign-in", "/nothing", "/healthz", "/api/v1/incidents", "/static/style.css?v=1"):
        headers = operator.http.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "strict-transport-security" not in headers, "only over TLS"
        assert ("no-store" in headers.get("cache-control", "")) == (not path.startswith("/static/"))


def test_tls_console_insists_on_tls(desk: StandInDesk) -> None:
    assert "max-age=" in Visitor(desk, secure=True).http.get("/sign-in").headers["strict-transport-security"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/incidents/99", 404), ("GET", "/incidents/x", 404), ("GET", "/incidents/-1", 404),
     ("GET", f"/incidents/{2**70}", 404), ("PUT", "/", 405), ("GET", "/history?before=x", 422), ("GET", "/static/../app.py", 404),
     ("GET", "/static/%2e%2e/app.py", 404)],
)  # fmt: skip
def test_mistakes_are_told_on_a_page(operator: Visitor, method: str, path: str, status: int) -> None:
    answer = operator.http.request(method, path)
    assert answer.status_code == status
    assert "<h1>" in answer.text
    assert Page(answer.text).wrong == []


def test_what_is_too_long_is_refused_unread(operator: Visitor) -> None:
    assert operator.http.post("/sign-in", content=b"x" * 20_000).status_code == 413
    answer = operator.http.post("/sign-in", content=(b"x" * 1_000 for _ in range(100)))
    assert answer.status_code in {400, 403, 413, 422, 500}


def test_failure_is_told_calmly_and_without_particulars(desk: StandInDesk, operator: Visitor) -> None:
    desk.broken = True
    answer = operator.http.get("/")
    assert answer.status_code == 500
    assert "Alarms are still received" in answer.text
    assert "journal" not in answer.text
    assert answer.headers["content-security-policy"]
