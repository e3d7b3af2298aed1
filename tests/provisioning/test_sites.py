"""A site is described once; a mistake in its file is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from firmware.settings import Settings
from gateway import keys
from gateway.tomlfile import line_of
from provisioning import sites
from provisioning.errors import SetupFault
from provisioning.sites import Broker, Entrance, Headquarters, Site

POINT = keys.point(ec.generate_private_key(ec.SECP256R1()).public_key()).hex()


def a_site(**changes: object) -> Site:
    values: dict[str, object] = {
        "id": "khi-cn",
        "name": 'Consulate "North", Clifton',
        "name_ur": "قونصل خانہ، کلفٹن",
        "phone": "021 5550 123",
        "wifi": ["Consulate IoT", "پولیس"],
        "revocation_urls": ["https://gw.example:8443"],
        "hq": {"url": "https://hq.example:8443", "id": "hq", "message_key": POINT},
        "brokers": [{"address": "10.0.0.2", "name": "gw-khi-cn"}, {"address": "10.9.0.1", "port": 8884, "name": "hq"}],
        "entrances": [{"id": "main-gate", "name": "Main gate", "name_ur": "صدر دروازہ"}, {"id": "visa", "name": "Visa hall"}],
    }  # fmt: skip
    return Site.model_validate(values | changes)


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    path = sites.save(tmp_path, a_site())
    assert sites.load(tmp_path, "khi-cn") == a_site()
    assert sites.listed(tmp_path) == ["khi-cn"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    network=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
)
def test_any_name_can_be_kept(name: str, network: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    site = a_site(name=name, name_ur=name, wifi=[network])
    sites.save(folder, site)
    assert sites.load(folder, "khi-cn") == site


def test_a_new_site_begins_with_a_file_that_is_whole(tmp_path: Path) -> None:
    path = sites.begin(tmp_path, "lhr-us")
    site = sites.load(tmp_path, "lhr-us")
    assert site.entrance("main-gate").name_ur
    assert site.hq.ca == path.parent / "headquarters-ca.pem"
    text = path.read_text()
    assert "# where the police drive to" in text
    assert "password" not in text.split("\n", 1)[1]
    with pytest.raises(SetupFault, match="there already"):
        sites.begin(tmp_path, "lhr-us")
    with pytest.raises(SetupFault, match="no id and message_key"):
        site.button_settings("lhr-us-main-gate", site.entrances[0])
    known = site.with_headquarters("hq", POINT)
    sites.save(tmp_path, known)
    assert sites.load(tmp_path, "lhr-us") == known
    assert 'ca = "headquarters-ca.pem"' in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ('id = "visa"', 'id = "Visa hall"', 'id = "Visa hall"', "entrances.1.id: must be 1 to 64 of a-z"),
        ("port = 8884", "port = 88840", "port = 88840", "brokers.1.port: Input should be less than or equal to 65535"),
        ("port = 8884\n", "prt = 8884\n", "prt = 8884", "brokers.1.prt: Extra inputs are not permitted"),
        ('url = "https://hq', 'url = "http://hq', 'url = "http://hq', "hq.url: must start with https://"),
        ("phone =", "fone =", "fone =", "fone: Extra inputs are not permitted"),
        (POINT, POINT[:-2], "message_key =", "hq.message_key: must be a P-256 public key"),
        ('id = "khi-cn"', 'id = "khi-us"', 'id = "khi-us"', "id: is 'khi-us', but the file's name says 'khi-cn'"),
        ("پولیس", "پولیس" * 8, "wifi =", "wifi.1: the name of a Wi-Fi network has 1 to 32 octets"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: str, says: str) -> None:
    path = sites.save(tmp_path, a_site())
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SetupFault) as fault:
        sites.load(tmp_path, "khi-cn")
    (number,) = [n for n, there in enumerate(path.read_text().splitlines(), 1) if there.startswith(line)]
    assert str(fault.value).startswith(f"{path}:{number}: {says}")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "hq"\n', "", "brokers.1.name: Field required"),
        ('id = "visa"', 'id = "main-gate"', "main-gate is there twice"),
        ('id = "khi-cn"', "id = khi-cn", "Invalid value (at line 3"),
        ("Clifton", "Clifton\udcff", "it is not UTF-8"),
    ],
)
def test_what_is_missing_twice_or_no_toml_is_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = sites.save(tmp_path, a_site())
    path.write_text(path.read_text().replace(old, new), errors="surrogateescape")
    with pytest.raises(SetupFault) as fault:
        sites.load(tmp_path, "khi-cn")
    assert str(path) in str(fault.value)
    assert says in str(fault.value)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = sites.save(tmp_path, a_site())
    path.write_text(path.read_text().replace("8884", "0").replace('"visa"', '"V"'))
    with pytest.raises(SetupFault) as fault:
        sites.load(tmp_path, "khi-cn")
    assert len(str(fault.value).splitlines()) == 2


def test_the_line_of_a_key_is_found_in_tables_of_all_kinds() -> None:
    text = "a = 1\n[b]\nc.d = 2\n[[e]]\nx = 1\n  [[e]]  # second\nx = 2\n[e.f]\ny = 3\n"
    assert [line_of(text, where) for where in (
        ("a",), ("b", "c", "d"), ("e", 0, "x"), ("e", 1, "x"), ("e", 1, "none"), ("none",), ("a", 3),
    )] == [1, 3, 5, 7, 6, None, 1]  # fmt: skip


def test_an_unknown_site_and_entrance_are_told_with_what_is_there(tmp_path: Path) -> None:
    sites.save(tmp_path, a_site())
    with pytest.raises(SetupFault, match=r"khi-us is not set up .*set up: khi-cn"):
        sites.load(tmp_path, "khi-us")
    with pytest.raises(SetupFault, match=r"no entrance 'back' \(there: main-gate, visa\)"):
        sites.load(tmp_path, "khi-cn").entrance("back")
    for wrong in ("../khi-cn", "Khi", ""):
        with pytest.raises(SetupFault, match="can't be a site's id"):
            sites.load(tmp_path, wrong)


def test_the_firmware_understands_the_settings_of_a_button() -> None:
    site = a_site()
    quiet = site.entrances[0].model_copy(update={"contacts": "normally_closed", "signal": "silent"})
    settings = Settings(site.button_settings("khi-cn-main-gate", quiet))
    assert (settings.contacts, settings.signal) == ("normally_closed", "silent")
    assert settings.brokers == [["10.0.0.2", 8883, "gw-khi-cn"], ["10.9.0.1", 8884, "hq"]]
    assert settings.hq_message_key.hex() == POINT


def test_another_headquarters_under_the_same_address_is_not_taken_over_silently() -> None:
    other = keys.point(ec.generate_private_key(ec.SECP256R1()).public_key()).hex()
    assert a_site().with_headquarters("hq", POINT) == a_site()
    with pytest.raises(SetupFault, match="Ask headquarters which is right"):
        a_site().with_headquarters("hq", other)


def test_the_technicians_folder_is_where_it_was_said(tmp_path: Path) -> None:
    everything = {"TOCSIN_HOME": "/t", "XDG_CONFIG_HOME": "/x"}
    assert sites.home(tmp_path, everything) == tmp_path
    assert sites.home(None, everything) == Path("/t")
    assert sites.home(None, {"XDG_CONFIG_HOME": "/x"}) == Path("/x/tocsin")
    assert sites.home(None, {"XDG_CONFIG_HOME": "x"}) == Path.home() / ".config" / "tocsin"


def test_parts_can_be_built_in_code() -> None:
    built = Site(
        id="s",
        name="S",
        hq=Headquarters(url="http://127.0.0.1:8443/"),
        brokers=(Broker(address="127.0.0.1", name="gw"),),
        entrances=(Entrance(id="e", name="E"),),
    )
    assert built.hq.url == "http://127.0.0.1:8443"
    assert built.brokers[0].port == 8883
