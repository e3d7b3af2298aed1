"""Private keys at rest: sealed in place, opened by a station and its broker alone, and never left plain on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import HQ, SITE, World
from gateway import broker, keyfile, keys, sealing
from gateway.cli import app
from gateway.keys import KeyFileError
from gateway.settings import load
from tests.operator import Operator

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "a passphrase that a machine reads"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "_ROUNDS", 70_000)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "identity").mkdir()
    for path in (tmp_path / "identity" / "key.pem", tmp_path / "message-key.pem"):
        path.write_bytes(sealing.plain(ec.generate_private_key(ec.SECP256R1())))
        path.chmod(0o600)
    (tmp_path / "secret").write_text(SECRET + "\nits second line is a remark\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "hq.toml").write_text(
        'station = "hq"\nrole = "hq"\nmessage_key = "message-key.pem"\nkey_file = "secret"\n'
    )
    return tmp_path


def tocsin(folder: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--config", str(folder / "hq.toml")])
    return result.exit_code, result.output


def numbers(path: Path, secret: str | None = None) -> ec.EllipticCurvePrivateNumbers:
    return keys.private_key(path, secret).private_numbers()


def test_keys_are_sealed_in_place_and_back(folder: Path) -> None:
    paths = sealing.files(load(folder / "hq.toml"))
    assert [path.name for path in paths] == ["key.pem", "message-key.pem"]
    before = [numbers(path) for path in paths]
    code, said = tocsin(folder, "keys", "seal")
    assert (code, said.count("is sealed now")) == (0, 2)
    assert tocsin(folder, "keys", "seal")[1].count("is sealed already") == 2
    for path, was in zip(paths, before, strict=True):
        assert b"ENCRYPTED" in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        assert numbers(path, SECRET) == was
        with pytest.raises(KeyFileError, match="no passphrase is set: name its file with key_file"):
            keys.private_key(path)
        with pytest.raises(KeyFileError, match="does not open this key"):
            keys.private_key(path, "another passphrase altogether")
    assert tocsin(folder, "keys", "unseal")[0] == 0
    assert [numbers(path) for path in paths] == before
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "hq.toml", "key.pem", "message-key.pem", "secret",
    ]  # fmt: skip


def test_a_key_that_can_t_be_read_back_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "message-key.pem"
    before = path.read_bytes()
    other = ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setattr(keyfile, "sealed", lambda _key, _secret: sealing.plain(other))
    with pytest.raises(KeyFileError, match="stays as it is"):
        sealing.seal(path, SECRET)
    monkeypatch.setattr(keyfile, "sealed", lambda _key, _secret: b"torn")
    with pytest.raises(KeyFileError):
        sealing.seal(path, SECRET)
    assert path.read_bytes() == before
    assert not list(folder.glob(".*.new"))


def test_the_passphrase_is_kept_apart_and_from_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "secret").chmod(0o640)
    assert "chmod 600" in tocsin(folder, "keys", "seal")[1]
    (folder / "secret").chmod(0o600)
    (folder / "secret").write_text("short\n")
    assert "has 5 characters, and 20 are needed" in tocsin(folder, "keys", "seal")[1]
    (folder / "hq.toml").write_text('station = "hq"\nrole = "hq"\nmessage_key = "message-key.pem"\n')
    assert "no passphrase is set" in tocsin(folder, "keys", "seal")[1]
    assert not sealing.is_sealed(folder / "message-key.pem")
    (folder / "credentials").mkdir()
    (folder / "credentials" / sealing.CREDENTIAL).write_text(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder / "credentials"))
    assert tocsin(folder, "keys", "seal")[0] == 0
    assert sealing.is_sealed(folder / "message-key.pem")


@pytest.mark.faults
def test_headquarters_and_a_site_run_on_sealed_keys_and_leave_no_plain_one() -> None:
    world = World(buttons=("b1",))
    try:
        files = [world.folder / name / "identity" / "key.pem" for name in (HQ, SITE)]
        plain = [path.read_bytes() for path in (*files, world.folder / "message-key.pem")]
        (world.folder / "secret").write_text(SECRET)
        (world.folder / "secret").chmod(0o600)
        for name in (HQ, SITE):
            toml = world.folder / f"{name}.toml"
            toml.write_text('key_file = "secret"\n' + toml.read_text(encoding="utf-8"), encoding="utf-8")
            sealed = CliRunner().invoke(app, ["keys", "seal", "--config", str(toml)])
            assert sealed.exit_code == 0, sealed.output
        world.start()
        operator = Operator(world).sign_in()
        world.buttons["b1"].press()
        wait_until(lambda: operator.get("incidents"), 10, "the press at headquarters")
        mosquitto = world.mosquitto_pid(HQ)
        assert "keyfile /proc/self/fd/" in (world.folder / HQ / "state" / "mosquitto.conf").read_text()
        assert "memfd:tocsin-key" in " ".join(os.readlink(one) for one in _descriptors(mosquitto))
        bodies = [b"".join(octets.splitlines()[1:-1]) for octets in plain]
        for path in world.folder.rglob("*"):
            if path.is_file() and path.name not in {"secret"}:
                octets = path.read_bytes().replace(b"\n", b"")
                assert not any(body in octets for body in bodies), path
        assert SECRET not in " ".join(path.read_text(errors="replace") for path in world.folder.glob("*.log"))
    finally:
        world.close()


def _descriptors(pid: int) -> list[str]:
    return [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]


def test_a_broker_says_what_it_lacks(folder: Path) -> None:
    assert tocsin(folder, "keys", "seal")[0] == 0
    settings = load(folder / "hq.toml").model_copy(update={"key_file": None})
    with pytest.raises(broker.BrokerError, match="no passphrase is set"):
        broker.run(settings)
