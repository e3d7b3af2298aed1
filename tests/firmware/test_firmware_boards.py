"""The board files: the real one on stand-ins for its chip, the virtual one's door."""

from __future__ import annotations

import subprocess
from pathlib import Path

from provisioning.pki import Authority
from tests.parts import micropython

PROJECT = Path(__file__).parents[2]


def test_olimex_board_reads_by_ratio_and_lights_active_low(tmp_path: Path) -> None:
    Authority.create().issue("b1").write_der(tmp_path / "identity")
    done = subprocess.run(
        [micropython(), "-X", "heapsize=2m", str(PROJECT / "tests" / "firmware" / "run_olimex.py")],
        cwd=tmp_path,
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == "passed\n", done.stdout + done.stderr
