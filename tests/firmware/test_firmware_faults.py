"""The ring of faults, and what headquarters hears of the last one."""

from __future__ import annotations

import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

import pytest

from firmware import faults
from firmware.door import RESTART
from firmware.faults import Faults
from firmware.flash import Flash
from tests.parts import PROJECT, micropython

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    def print_exception(problem: BaseException, file: TextIO) -> None:
        traceback.print_exception(problem, file=file)

    monkeypatch.setattr(sys, "print_exception", print_exception, raising=False)  # MicroPython's own
    return Faults(Flash(str(tmp_path / "state")))


def test_the_last_twenty_are_kept_with_their_time_and_start(ring: Faults) -> None:
    assert ring.all() == []
    for n in range(25):
        ring.boot = 100 + n
        ring.keep(n * 1000, RuntimeError("x" * 1000 + f" number {n}"))
    kept = ring.all()
    assert [one[:2] for one in kept] == [[100 + n, n * 1000] for n in range(5, 25)]
    assert all(one[2].rstrip().endswith(f"number {n}") and len(one[2]) <= faults.TEXT for n, one in enumerate(kept, 5))


def test_only_the_start_before_this_one_is_told_of(ring: Faults) -> None:
    ring.boot = 7
    ring.keep(61_000, RuntimeError("the loops are not read any more"))
    assert ring.last() is None
    ring.boot = 8
    assert ring.last() == "after 61 s: RuntimeError: the loops are not read any more"
    ring.boot = 9
    assert ring.last() is None


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}", b'[["x"'])
def test_a_damaged_record_is_as_good_as_none(ring: Faults, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state" / "errors").write_bytes(content)
    assert ring.all() == []
    ring.keep(1, ValueError("after all"))
    assert len(ring.all()) == 1


@pytest.mark.parametrize("problem", ["MemoryError", "OSError", "ValueError"])
def test_the_button_starts_again_also_when_the_fault_can_not_be_kept(tmp_path: Path, problem: str) -> None:
    script = f"""
from firmware import app

class Full:
    def __init__(self, flash):
        pass

    def keep(self, uptime_ms, problem):
        raise {problem}("no room")

def fails(told, flash):
    raise RuntimeError("whatever it is")

app.Faults, app.settings.read, app._message_key = Full, lambda: None, fails
app.main()
"""
    done = subprocess.run(
        [micropython(), "-c", script],
        cwd=tmp_path,
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "whatever it is" in done.stdout
    assert done.returncode == RESTART, done.stdout + done.stderr
