"""A mistake is named with its file, line and key; the commands do what they say on real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from demo.world import World
from gateway.broker import Watch
from gateway.cli import app
from gateway.settings import SettingsError, load

GOOD = 'station = "gw"\n[broker]\nport = 8883\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('station = "GW!"\n', "station.toml:1: station: must be 1 to 64"),
        ('station = "gw"\n[broker]\nport = 99999\n', "station.toml:3: broker.port"),
        ('station = "gw"\nrolle = "hq"\n', "station.toml:2: rolle: Extra inputs"),
        ('station = "gw"\nrole = "hq"\n', "message_key"),
        ('station = "gw"\ndatabase = "station.db"\n', "station.toml:2: database: must be postgresql+psycopg://"),
        ("station = \n", "station.toml: Invalid value"),
        ('station = "gw"\n[[parents]]\nid = "hq"\naddress = "a"\nmessage_key = "04ab"\n', "station.toml:5: parents.0.message_key"),
    ],
)  # fmt: skip
def test_every_mistake_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "station.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        load(path)
    assert says in str(error.value)


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(GOOD)
    assert load(path).store == tmp_path / "state" / "station.db"
    with pytest.raises(SettingsError, match="can't be read"):
        load(tmp_path / "nothing.toml")


def test_check_enrol_and_person_on_a_real_installation() -> None:
    world = World(buttons=())
    try:
        config = str(world.folder / "hq.toml")
        runner = CliRunner()
        checked = runner.invoke(app, ["check", "--config", config])
        assert checked.exit_code == 0
        assert world.hq_message_point.hex() in checked.output
        world.issue("b9").write_pem(world.folder / "b9")
        certificate = str(world.folder / "b9" / "cert.pem")
        wrong = runner.invoke(app, ["enrol", "--config", config, "--id", "b8", "--cert", certificate])
        assert wrong.exit_code == 1
        assert "not for b8" in wrong.output
        right = [
            "enrol",
            "--config",
            config,
            "--id",
            "b9",
            "--cert",
            certificate,
            "--site",
            "s",
            "--entrance-name",
            "Gate",
        ]
        nameless = runner.invoke(app, right)
        assert (nameless.exit_code, "--entrance" in nameless.output) == (1, True)
        assert runner.invoke(app, [*right, "--entrance", "gate"]).exit_code == 0
        placed = world.database().execute(
            "SELECT c.kind, s.name, e.name FROM children c JOIN sites s ON s.id = c.site "
            "JOIN entrances e ON e.site = c.site AND e.id = c.entrance WHERE c.id = 'b9'"
        )
        assert placed.fetchone() == ("button", "s", "Gate")
        other = world.authority.issue("b9")
        other.write_pem(world.folder / "other")
        again = runner.invoke(app, [*right[:6], str(world.folder / "other" / "cert.pem")])
        assert again.exit_code == 1
        assert "never used twice" in again.output
        short = runner.invoke(app, ["person", "--config", config, "amna"], input="short\n")
        assert short.exit_code == 1
        assert runner.invoke(app, ["person", "--config", config, "amna"], input="long enough 1\n").exit_code == 0
        assert "long enough" not in str(world.database().execute("SELECT * FROM people").fetchall())
    finally:
        world.close()


def test_the_brokers_log_is_read_for_who_and_why() -> None:
    watch = Watch()
    assert not watch.line("New connection from 10.0.0.9:40000 on port 8883.")
    assert watch.line("OpenSSL Error[0]: error:0A0000C7:SSL routines::peer did not return a certificate")
    assert not watch.line("Client <unknown> disconnected: Protocol error.")
    assert watch.line("Client connection from 10.0.0.8 failed: error:0A000086:SSL routines::certificate verify failed.")
    assert not watch.line(
        "Client connection from 10.0.0.7 failed: error:0A000126:SSL routines::unexpected eof while reading."
    )
    assert watch.line("Denied PUBLISH from b2 (d0, q1, r0, m1, 'tocsin/1/b1/alarm', ... (63 bytes))")
    assert watch.line("Client b2 disconnected due to oversize packet.")
    assert not watch.line("Client b2 disconnected.")
    assert not watch.line("Client b2 already connected, closing old connection.")
    for failed in ("Protocol error", "Connection timed out", "No route to host", "Broken pipe"):
        assert not watch.line(f"Client b2 disconnected: {failed}.")
    assert watch.line("Client b2 disconnected due to protocol error.")
    assert list(watch.refused) == [
        ("10.0.0.9", "it showed no certificate"),
        ("10.0.0.8", "its certificate is not of this authority, has expired, or is revoked"),
        ("b2", "it may not publish on that topic"),
        ("b2", "the message is too large"),
        ("b2", "the broker ended its connection: protocol error"),
    ]


POINT = "04" + "11" * 64
PARENTS = 'station = "gw"\n[[parents]]\nid = "hq"\n{hq}\nmessage_key = "' + POINT + '"\n[[parents]]\nid = "{id}"\n{other}\nmessage_key = "' + POINT + '"\n'  # fmt: skip


def parents(path: Path, hq: str, other: str = 'address = "10.0.0.9"', id_: str = "agency") -> Path:
    path = path / "station.toml"
    path.write_text(PARENTS.format(hq=hq, other=other, id=id_))
    return path


def test_a_parent_has_addresses_in_order_and_one_parent_is_the_headquarters(tmp_path: Path) -> None:
    several = 'addresses = ["hq1.example:8884", "10.0.0.2", "[2001:db8::2]:1", "2001:db8::3"]\nport = 9000'
    settings = load(parents(tmp_path, several))
    assert settings.parents[0].ways == [
        ("hq1.example", 8884), ("10.0.0.2", 9000), ("2001:db8::2", 1), ("2001:db8::3", 9000),
    ]  # fmt: skip
    assert settings.parents[1].ways == [("10.0.0.9", 8883)]
    assert settings.headquarters == "hq"
    assert load(parents(tmp_path, several, 'address = "a"\nheadquarters = true')).headquarters == "agency"
    assert load(parents(tmp_path, several + "\nheadquarters = false")).headquarters == "agency"


@pytest.mark.parametrize(
    ("hq", "other", "id_", "says"),
    [
        ("port = 1", 'address = "a"', "agency", "station.toml:2: parents.0: needs either address"),
        ('address = "a"\naddresses = ["b"]', 'address = "a"', "agency", "station.toml:2: parents.0: needs either"),
        ('addresses = ["a", "b:0"]', 'address = "a"', "agency", "station.toml:4: parents.0.addresses.1: must end with a port"),
        ('address = "a b"', 'address = "a"', "agency", "station.toml:4: parents.0.address: must be a name"),
        ('address = "https://a"', 'address = "a"', "agency", "station.toml:4: parents.0.address: must"),
        ('address = "a"', 'address = "a"', "hq", "station.toml:7: parents.1.id: hq is named already"),
        ('address = "a"\nheadquarters = true', 'address = "a"\nheadquarters = true', "agency",
         "station.toml:10: parents.1.headquarters: buttons have one headquarters"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_parent_is_named_with_its_line(tmp_path: Path, hq: str, other: str, id_: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(parents(tmp_path, hq, other, id_))
    assert says in str(error.value)
