"""The set-up finds what is there, gets what is missing, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import setup

DEB822 = """Types: deb
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.example/debian-security
Suites: bookworm-security
Components: main
"""


@pytest.mark.parametrize(
    ("text", "numbers"), [("1.25.0+ds-1", (1, 25, 0)), ("1.24.1", (1, 24, 1)), ("3.4", (3, 4)), ("", ())]
)
def test_versions_are_compared_by_number(text: str, numbers: tuple[int, ...]) -> None:
    assert setup.version_of(text) == numbers


def test_debian_is_found_in_either_form_of_aptitudes_lists(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    (lists / "debian.sources").write_text(DEB822)
    assert setup.debian_source("bookworm", tmp_path) == "http://deb.example/debian"
    (lists / "debian.sources").unlink()
    (tmp_path / "sources.list").write_text(
        "# deb x\ndeb [arch=amd64] http://old.example/debian bookworm main contrib\n"
    )
    assert setup.debian_source("bookworm", tmp_path) == "http://old.example/debian"
    with pytest.raises(setup.SetupError, match=r"MicroPython 1\.24"):
        setup.debian_source("noble", tmp_path)


def test_pips_index_and_certificate_are_told_to_uv(tmp_path: Path) -> None:
    there = tmp_path / "simple"
    there.mkdir()
    listing = (
        "global.index-url='https://index.example/simple'\n"
        f"global.extra-index-url='file://{there} file:///not/there'\n"
        ":env:.cert='/etc/ssl/house.crt'\n"
    )
    settings = setup.pip_settings(listing)
    assert settings["UV_DEFAULT_INDEX"] == "https://index.example/simple"
    assert settings["UV_INDEX"] == f"file://{there}"
    assert settings["SSL_CERT_FILE"] == "/etc/ssl/house.crt"


def test_services_are_kept_from_starting_and_the_policy_is_taken_away_even_after_a_failure(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with pytest.raises(RuntimeError), setup.no_services([], policy):
        assert subprocess.run([str(policy)], check=False).returncode == 101
        raise RuntimeError
    assert not policy.exists()


def test_an_existing_policy_stays_as_it_was(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    with setup.no_services([], policy):
        assert "104" in policy.read_text()
    assert policy.exists()


def test_a_stamp_changes_with_any_of_its_files(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("a==1")
    before = setup.stamp(lock)
    assert setup.stamp(lock) == before
    lock.write_text("a==2")
    assert setup.stamp(lock) != before


def test_a_failed_step_shows_the_end_of_its_log() -> None:
    with pytest.raises(setup.SetupError, match="no such thing"):
        setup.run("a-test", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])


def test_the_locks_name_no_place_and_give_a_hash_for_everything() -> None:
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-typings.lock"):
        text = (setup.PROJECT / name).read_text()
        assert "://" not in text
        pinned = [line for line in text.splitlines() if "==" in line]
        assert pinned
        assert text.count("--hash=sha256:") >= len(pinned)


def test_a_second_run_does_nothing_and_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(setup.PROJECT / "tools" / "setup.py"), "test"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
