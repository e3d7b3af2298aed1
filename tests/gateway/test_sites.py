"""Sites: what may be entered, who changed what, undone, made again from the journal, and moved out of an older database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select
from typer.testing import CliRunner

from firmware import wire
from gateway import database, schema, sitebook, sites
from gateway.cli import app
from gateway.enrolment import RegistryRefusedError, UnfitError, UnknownChildError
from gateway.reception import _told
from gateway.sitebook import Author, ChangedMeanwhileError
from gateway.vocabulary import SITE_BY, SITE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

RABIA = Author("rabia", official=True, at_ms=1_000)
USMAN = Author("usman", official=False, at_ms=2_000)
WHOLE = {
    "name": "Consulate", "name_ur": "قونصل خانہ", "address": "Plot 20", "position": "24.81331, 67.03054",
    "contacts": "Rabia Aslam; head; 021 5550 123\nGuard room; ; +92 (21) 5550-124 ext 7", "plan": "Keys: guard room.\nTwo dogs.",
    "plan_ur": "چابیاں گارڈ روم میں۔ " * 90, "entrance main-gate": "Main gate; صدر دروازہ; 24.81300, 67.03000",
}  # fmt: skip


@pytest.fixture
def connection(store: Path | str) -> Iterator[Connection]:
    database.prepare(store)
    engine = database.open_database(store, writes=True)
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def table(connection: Connection, name: str) -> list[Any]:
    return sorted(tuple(row) for row in connection.execute(select(schema.metadata.tables[name])))


def test_what_is_entered_is_what_is_shown(connection: Connection) -> None:
    made, told = sitebook.change(connection, "khi-cn", WHOLE, RABIA)
    assert (
        sitebook.one(connection, "khi-cn") == made == sites.site_of("khi-cn", {k: v.strip() for k, v in WHOLE.items()})
    )
    assert made.position is not None
    assert (made.position.uri, made.position.spoken) == ("geo:24.81331,67.03054", "24.81331° N, 67.03054° E")
    assert [sites.phone_uri(one.phone) for one in made.contacts] == ["tel:0215550123", "tel:+92215550124;ext=7"]
    assert all(len(wire.seal({0: 2, 1: 1, 2: 1, 3: 0, 7: code, 8: about, 9: detail}, "h" * 64, bytes(32))) <= 1024
               for code, about, detail in told)  # fmt: skip
    assert sitebook.change(connection, "khi-cn", WHOLE, RABIA)[1] == []


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("name", " ", "needs a name"),
        ("plan", "x" * 2001, "has 2001 characters, and at most 2000"),
        ("position", "24.8", "latitude and longitude in degrees with a comma"),
        ("position", "24.8 E, 67 N", "is no position"),
        ("position", "124.8, 67", "more than 90 degrees"),
        ("position", "24, 67, 1", "is no position"),
        ("contacts", "Rabia; head", "contact 1 (Rabia): has no telephone number"),
        ("contacts", "Rabia; head; ring the bell", "'ring the bell' is no telephone number"),
        ("contacts", "a; b; 15; d", "further semicolons"),
        ("contacts", "15\n" * 21, "at most 20"),
        ("entrance Main", "Gate", "can't be an entrance's id"),
        ("entrance gate", "; صدر", "an entrance needs a name"),
        ("entrance gate", "Gate;;91,0", "more than 90"),
        ("colour", "red", "no field 'colour'"),
    ],
)
def test_what_can_t_be_kept_says_what_to_enter_and_changes_nothing(
    connection: Connection, field: str, text: str, says: str
) -> None:
    sitebook.change(connection, "khi-cn", WHOLE, RABIA)
    before = table(connection, "sites"), table(connection, "site_changes")
    with pytest.raises(UnfitError) as refused:
        sitebook.change(connection, "khi-cn", {"address": "elsewhere", field: text}, RABIA)
    assert f"{field}: " in str(refused.value)
    assert says in str(refused.value)
    assert (table(connection, "sites"), table(connection, "site_changes")) == before


def test_positions_are_taken_as_people_write_them() -> None:
    for text in ("24.8138, 67.03", "24.81380,67.03000", "24.8138° N, 67.03° e", "+24.8138N,67.03E"):
        assert sites.clean("position", text) == "24.81380, 67.03000"
    assert sites.clean("position", "33.5 S, 70.6 W") == "-33.50000, -70.60000"
    assert sites.clean("contacts", "021 5550 123\n\n; ;\n") == "; ; 021 5550 123"


def test_the_history_says_who_changed_what_and_undoes_it(connection: Connection) -> None:
    sitebook.change(connection, "khi-cn", WHOLE, RABIA)
    sitebook.change(connection, "khi-cn", {"address": "Plot 21", "plan": ""}, Author("bilal", official=True, at_ms=9))
    newest = sitebook.changes(connection, "khi-cn")[0]
    assert (newest.number, newest.by, newest.at_ms) == (2, "bilal", 9)
    assert newest.fields == (("address", "Plot 20", "Plot 21"), ("plan", WHOLE["plan"], ""))
    with pytest.raises(ChangedMeanwhileError, match="was changed by bilal meanwhile"):
        sitebook.change(connection, "khi-cn", {"address": "Plot 22"}, RABIA, seen=1)
    made, told = sitebook.undo(connection, "khi-cn", 2, RABIA)
    assert (made.address, made.plan, len(told)) == ("Plot 20", WHOLE["plan"], 1)
    assert sitebook.changes(connection, "khi-cn")[0].number == 3
    with pytest.raises(RegistryRefusedError, match="began with this change"):
        sitebook.undo(connection, "khi-cn", 1, RABIA)
    sitebook.change(connection, "khi-cn", {"address": "Plot 23"}, RABIA)
    with pytest.raises(RegistryRefusedError, match="address was changed again since"):
        sitebook.undo(connection, "khi-cn", 3, RABIA)
    with pytest.raises(UnknownChildError):
        sitebook.undo(connection, "khi-cn", 9, RABIA)


def test_the_events_alone_make_the_same_tables_again(connection: Connection) -> None:
    told = sitebook.change(connection, "khi-cn", WHOLE, RABIA)[1]
    told += sitebook.settle(connection, "khi-cn", "visa", {"entrance_name": "Visa hall", "phone": "15"}, USMAN)
    told += sitebook.undo(connection, "khi-cn", 2, RABIA)[1]
    told += sitebook.change(connection, "khi-cn", {"name": "Consulate General", "plan_ur": "دو کتے"}, RABIA)[1]
    names = ("sites", "contacts", "entrances", "site_changes")
    before = {name: table(connection, name) for name in names}
    assert all(before.values())
    events = [(site, wire.decode(wire.encode(detail))) for _, site, detail in told]
    sitebook.change(connection, "khi-air", {"name": "Airport"}, RABIA)
    for order in (events, events[::-1]):  # retention puts what it would delete at the end
        assert sitebook.rebuild(connection, order) == 1
        assert {name: [row for row in table(connection, name) if "khi-air" not in row] for name in names} == before
    assert [site.id for site in sitebook.every(connection)] == ["khi-air", "khi-cn"]


def test_a_technician_fills_in_and_overwrites_no_administrator(connection: Connection) -> None:
    laptop = {"site_name": "Consulate", "address": "Plot 2", "phone": "15", "entrance_name": "Gate"}
    sitebook.settle(connection, "khi-cn", "gate", laptop, USMAN)
    sitebook.settle(connection, "khi-cn", "gate", laptop | {"address": "Plot 20", "phone": "16"}, USMAN)
    found = sitebook.one(connection, "khi-cn")
    assert found is not None
    assert (found.name, found.address, [one.phone for one in found.contacts]) == ("Consulate", "Plot 20", ["16"])
    sitebook.change(connection, "khi-cn", {"address": "Plot 21", "contacts": "Rabia; head; 17"}, RABIA)
    told = sitebook.settle(connection, "khi-cn", "visa", laptop | {"site_name_ur": "قونصل خانہ"}, USMAN)
    found = sitebook.one(connection, "khi-cn")
    assert found is not None
    assert (found.address, found.name_ur, [one.phone for one in found.contacts]) == ("Plot 21", "قونصل خانہ", ["17"])
    assert [one.id for one in found.entrances] == ["gate", "visa"]
    assert len(told) == 1


def test_an_entrance_with_a_button_is_not_removed(connection: Connection) -> None:
    sitebook.change(connection, "khi-cn", WHOLE | {"entrance visa": "Visa hall"}, RABIA)
    row = {"id": "b1", "kind": "button", "site": "khi-cn", "entrance": "visa"}
    connection.execute(schema.children.insert().values(row))
    with pytest.raises(RegistryRefusedError, match="b1 is or was there"):
        sitebook.change(connection, "khi-cn", {"entrance visa": ""}, RABIA)
    made, _ = sitebook.change(connection, "khi-cn", {"entrance main-gate": ""}, RABIA)
    assert [one.id for one in made.entrances] == ["visa"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_database_is_moved_and_nothing_is_lost(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where: Path | str = tmp_path / "station.db"
    if kind == "postgresql":
        where = request.getfixturevalue("postgres").empty()
    names = "id kind point site site_name site_name_ur entrance entrance_name entrance_name_ur address phone".split()
    old = schema.Table("children", schema.MetaData(), *(schema.Column(name) for name in names))
    rows = [
        ("gw", "station", b"p", "khi-cn", "Consulate", "", "", "", "", "Plot 20", "021 5550 123"),
        ("b1", "button", b"q", "khi-cn", "Consulate", "قونصل خانہ", "gate", "Main gate", "صدر دروازہ", "Plot 20", ""),
        ("b2", "button", b"r", "khi-cn", "Konsulat; old", "", "gate", "Great gate", "", "Plot 21", "15"),
        ("b3", "button", b"s", "", "", "", "", "", "", "", ""),
    ]
    engine = database.open_database(where, writes=True)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(database.__file__).with_name("migrations")))
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.execute(old.insert(), [dict(zip(names, row, strict=True)) for row in rows])
    for _ in range(2):  # the second start finds nothing to do
        database.prepare(where)
    with engine.connect() as connection:
        (site,) = sitebook.every(connection)
        children = table(connection, "children")
    engine.dispose()
    assert (site.name, site.name_ur, site.address) == ("Consulate", "قونصل خانہ", "Plot 20")
    assert [one.phone for one in site.contacts] == ["021 5550 123"]
    assert [(one.id, one.name, one.name_ur) for one in site.entrances] == [("gate", "Main gate", "صدر دروازہ")]
    for lost in ("Konsulat, old", "Plot 21", "telephone was also: 15", "entrance gate was also named: Great gate"):
        assert lost in site.notes
    assert children == [
        ("b1", "button", b"q", "khi-cn", "gate", None, 0), ("b2", "button", b"r", "khi-cn", "gate", None, 0),
        ("b3", "button", b"s", "", "", None, 0), ("gw", "station", b"p", "khi-cn", "", None, 0),
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------- from a shell

SETTINGS = 'station = "hq"\nrole = "hq"\nmessage_key = "message-key.pem"\n'
FILE = """
[[sites]]
id = "khi-cn"
name = "Consulate"
position = "24.8, 67.0"
plan = '''
Keys: guard room.
'''
[[sites.contacts]]
name = "Rabia"
phone = "15"
[[sites.entrances]]
id = "gate"
name = "Main gate"
[[sites]]
id = "khi-air"
name = "Airport"
"""


def tocsin(folder: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["site", words[0], "--config", str(folder / "hq.toml"), *words[1:]])
    return result.exit_code, result.output


def test_sites_from_a_shell(tmp_path: Path) -> None:
    (tmp_path / "hq.toml").write_text(SETTINGS)
    (tmp_path / "sites.toml").write_text(FILE)
    (tmp_path / "plan.txt").write_text("چابیاں گارڈ روم میں", encoding="utf-8")
    assert tocsin(tmp_path, "import", str(tmp_path / "sites.toml")) == (0, "2 sites are as sites.toml says\n")
    assert "khi-air  Airport  0 entrances; lacks address, position" in tocsin(tmp_path, "list")[1]
    code, said = tocsin(
        tmp_path, "change", "khi-cn", "--plan-ur", f"@{tmp_path}/plan.txt", "--entrance", "visa; Visa hall"
    )
    assert (code, said) == (0, "khi-cn is entered as Consulate; lacks address\n")
    shown = tocsin(tmp_path, "show", "khi-cn")[1]
    for line in (
        "position: 24.80000, 67.00000",
        "contacts: Rabia; ; 15",
        "plan_ur: چابیاں",
        "entrance visa: Visa hall",
    ):
        assert line in shown
    assert tocsin(tmp_path, "undo", "khi-cn", "2")[0] == 0
    assert "visa" not in tocsin(tmp_path, "show", "khi-cn")[1]
    assert "entrance visa: 'Visa hall; ; ' -> ''" in tocsin(tmp_path, "show", "khi-cn", "--history")[1]
    journal = sqlite3.connect(tmp_path / "state" / "station.db")
    envelopes = [wire.unseal(row[0]).message for row in journal.execute("SELECT envelope FROM journal ORDER BY id")]
    assert [one[wire.CODE] for one in envelopes] == [wire.SITE_CHANGED] * 4
    for words, says in (
        (("add", "khi-cn", "--name", "x"), "is entered already"), (("change", "x", "--name", "x"), "is not entered"),
        (("change", "khi-cn"), "nothing to change"), (("add", "Khi Cn", "--name", "x"), "can't be a site's short name"),
        (("add", "new", "--name", "x", "--position", "here"), "position: 'here' is no position"), (("show", "x"), "not entered"),
        (("undo", "khi-cn", "77"), "no change 77"),
    ):  # fmt: skip
        code, said = tocsin(tmp_path, *words)
        assert (code, says in said) == (1, True), said
    (tmp_path / "wrong.toml").write_text(FILE + 'address = "A"\nphone = "1"\nposition = "x"\n')
    code, said = tocsin(tmp_path, "import", str(tmp_path / "wrong.toml"))
    assert code == 1
    assert "wrong.toml:20: sites.1.position" in said
    assert "wrong.toml:19: sites.1.phone: Extra inputs" in said
    assert "Airport  0 entrances; lacks address" in tocsin(tmp_path, "list")[1]
    many = "\n".join(f'[[sites.entrances]]\nid = "e{n}"\nname = "E"' for n in range(sites.MOST_ENTRANCES))
    another = '[[sites]]\nid = "khi-air"\nname = "Another"\n[[sites]]\nid = "khi-cn"\nname = "Consulate"\n'
    (tmp_path / "wrong.toml").write_text(another + many)  # one too many only with the gate that it has
    code, said = tocsin(tmp_path, "import", str(tmp_path / "wrong.toml"))
    assert (code, "nothing was changed: khi-cn: a site has at most" in said) == (1, True), said
    assert "khi-air  Airport  " in tocsin(tmp_path, "list")[1], "the site before it was changed"
    (tmp_path / "wrong.toml").write_text(FILE + FILE)
    assert "khi-air, khi-cn is there twice" in tocsin(tmp_path, "import", str(tmp_path / "wrong.toml"))[1]


@pytest.mark.parametrize(
    "fields", [5, None, "x", [5], [["a", "b"]], [["address", "Plot 20", "0", 1]], [["a", 5, 0, None]]]
)
def test_whatever_a_station_below_tells_of_a_site_is_shown_or_left_out(fields: object) -> None:
    assert _told({SITE_FIELDS: fields}).startswith("by ?; ")
    assert _told({SITE_BY: "rabia", SITE_FIELDS: [["plan", "Keys", 1, 3]]}) == "by rabia; plan (2 of 3): Keys"
