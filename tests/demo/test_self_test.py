"""The self-test says yes only when every press arrived, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.parts import PROJECT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def started(presses: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "demo", "--presses", str(presses)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_press_arrives_and_the_last_line_says_so() -> None:
    process = started(3)
    printed, said = process.communicate(timeout=90)
    assert process.returncode == 0, said
    result = json.loads(printed.splitlines()[-1])
    assert (result["presses"], result["at_hq"], result["receipts"]) == (3, 3, 3)


def test_an_interrupted_self_test_is_no_success() -> None:
    process = started(500)
    assert process.stderr
    for line in process.stderr:
        if "press 1 of" in line:
            break
    process.send_signal(signal.SIGTERM)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert printed == ""
