"""Secrets are kept by name and are found nowhere in the clear."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

from provisioning import vault as room
from provisioning.errors import SetupFault
from provisioning.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSPHRASE = "correct horse battery"
WITH = {"TOCSIN_PASSPHRASE": PASSPHRASE, "TOCSIN_VAULT": "file"}


class Desktop(KeyringBackend):
    """A desktop's keyring, in memory."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("Failed to unlock the collection!")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise KeyringLocked("Failed to unlock the collection!")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError(username)


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    before, made = keyring.get_keyring(), Desktop()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.fixture
def no_desktop() -> Iterator[None]:
    from keyring.backends import fail

    before = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(before)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_COST", 10)


def test_the_keyring_is_used_where_there_is_one(tmp_path: Path, desktop: Desktop) -> None:
    vault = Vault(tmp_path, environ={})
    vault.put(room.wifi_password("Consulate IoT", "khi-cn"), "s3cret")
    assert desktop.kept == {("tocsin", "wifi/khi-cn/Consulate IoT"): "s3cret"}
    assert vault.get("wifi/khi-cn/Consulate IoT") == "s3cret"
    assert "keyring" in vault.place
    vault.forget("wifi/khi-cn/Consulate IoT")
    vault.forget("wifi/khi-cn/Consulate IoT")
    assert vault.get("wifi/khi-cn/Consulate IoT") is None
    assert list(tmp_path.iterdir()) == []


def test_a_locked_keyring_is_told(tmp_path: Path, desktop: Desktop) -> None:
    desktop.locked = True
    for attempt in (lambda: Vault(tmp_path, environ={}).get("a"), lambda: Vault(tmp_path, environ={}).put("a", "b")):
        with pytest.raises(SetupFault, match=r"Failed to unlock.*unlock it .*TOCSIN_VAULT=file"):
            attempt()


def test_without_a_keyring_there_is_one_sealed_file(tmp_path: Path, no_desktop: None) -> None:
    vault = Vault(tmp_path / "home", environ={"TOCSIN_PASSPHRASE": PASSPHRASE})
    assert vault.get("authority/khi") is None
    vault.put("authority/khi", "four good words here")
    vault.put("token/https://hq", "t0ken")
    (file,) = [path for path in (tmp_path / "home").iterdir() if path.stat().st_size]
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(word in file.read_bytes() for word in (b"four good", b"t0ken", b"authority", b"token"))
    again = Vault(tmp_path / "home", environ={"TOCSIN_PASSPHRASE": PASSPHRASE})
    assert [again.get(name) for name in ("authority/khi", "token/https://hq")] == ["four good words here", "t0ken"]
    again.forget("token/https://hq")
    assert [vault.get(name) for name in ("authority/khi", "token/https://hq")] == ["four good words here", None]


def test_a_sealed_file_stays_in_use_when_a_keyring_appears(tmp_path: Path, desktop: Desktop) -> None:
    Vault(tmp_path, environ=WITH).put("a", "b")
    assert Vault(tmp_path, environ={"TOCSIN_PASSPHRASE": PASSPHRASE}).get("a") == "b"
    assert desktop.kept == {}


def test_a_person_is_asked_once_and_twice_for_a_new_passphrase(tmp_path: Path) -> None:
    asked: list[tuple[str, bool]] = []

    def ask(what: str, new: bool) -> str:
        asked.append((what, new))
        return PASSPHRASE

    environ = {"TOCSIN_VAULT": "file"}
    vault = Vault(tmp_path, ask, environ)
    for n in range(3):
        vault.put(f"s{n}", "x")
    assert [new for _, new in asked] == [True]
    assert Vault(tmp_path, ask, environ).get("s2") == "x"
    assert [new for _, new in asked] == [True, False]


def test_a_wrong_passphrase_is_told_and_asked_for_again(tmp_path: Path) -> None:
    Vault(tmp_path, environ=WITH).put("a", "b")
    with pytest.raises(SetupFault, match="does not open .*correct TOCSIN_PASSPHRASE"):
        Vault(tmp_path, environ=WITH | {"TOCSIN_PASSPHRASE": "incorrect horse"}).get("a")
    answers = iter(["incorrect horse", PASSPHRASE])
    vault = Vault(tmp_path, lambda _what, _new: next(answers), {"TOCSIN_VAULT": "file"})
    with pytest.raises(SetupFault, match="type it again") as fault:
        vault.put("a", "c")
    assert "incorrect" not in str(fault.value)
    assert vault.get("a") == "b"


def test_a_short_new_passphrase_nobody_to_ask_and_a_strange_setting_are_told(tmp_path: Path) -> None:
    with pytest.raises(SetupFault, match="too short"):
        Vault(tmp_path, environ=WITH | {"TOCSIN_PASSPHRASE": "short"}).put("a", "b")
    with pytest.raises(SetupFault, match="put it into TOCSIN_PASSPHRASE"):
        Vault(tmp_path, environ={"TOCSIN_VAULT": "file"}).put("a", "b")
    with pytest.raises(SetupFault, match="must be keyring, file or auto"):
        Vault(tmp_path, environ={"TOCSIN_VAULT": "safe"})


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"head": "{}", "nonce": "", "sealed": ""}'])
def test_a_damaged_file_is_told(tmp_path: Path, damage: bytes) -> None:
    Vault(tmp_path, environ=WITH).put("a", "b")
    (tmp_path / "vault.json").write_bytes(damage)
    with pytest.raises(SetupFault, match=r"vault.json can't be used .*put it back from a copy"):
        Vault(tmp_path, environ=WITH).get("a")


def test_an_altered_file_does_not_open(tmp_path: Path) -> None:
    Vault(tmp_path, environ=WITH).put("a", "b")
    file = tmp_path / "vault.json"
    file.write_bytes(file.read_bytes().replace(b'\\"version', b' \\"version'))  # the key's head is sealed as well
    with pytest.raises(SetupFault, match="does not open"):
        Vault(tmp_path, environ=WITH).get("a")


def test_no_secret_shows_when_a_vault_is_printed(tmp_path: Path) -> None:
    vault = Vault(tmp_path, environ=WITH)
    vault.put("a", "sesame")
    assert not any(word in f"{vault!r} {vault} {vault.place}" for word in ("sesame", PASSPHRASE))


def _put(folder: Path, first: int) -> None:
    vault = Vault(folder, environ=WITH)
    for n in range(first, first + 20):
        vault.put(f"s{n}", str(n))


def test_two_programs_put_at_once(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_put, args=(tmp_path, first)) for first in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    vault = Vault(tmp_path, environ=WITH)
    assert [vault.get(f"s{n}") for n in range(40)] == [str(n) for n in range(40)]
