"""`make provision-demo`: a bare board becomes a trusted button, on this machine, and proves it at a real headquarters."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from demo.workshop import SITE_ID, Hands, Workshop
from demo.world import PROJECT
from tests.provisioning.virtual_board import VirtualBoard


def say(text: str) -> None:
    """Tells the person at the terminal; standard output is kept for the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main() -> int:
    """Runs it; the exit status is 0 only if the test alarm came back from headquarters."""
    cache = PROJECT / ".cache" / "demo"
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="workshop-", dir=cache))
    began = time.monotonic()
    try:
        say("Starting headquarters and a gateway, making an authority, giving the technician a token …")
        with Workshop(folder) as shop, VirtualBoard(folder / "board") as board:
            say(f"A bare board is plugged in at {board.path}. The technician types:")
            say(f"\n  tocsin provision new --site {SITE_ID} --entrance main-gate --port {board.path}\n")
            hands = Hands(board.pins)

            def hears(line: str) -> None:
                sys.stderr.write(line)
                sys.stderr.flush()
                hands.hears(line)

            done = shop.run("new", "--site", SITE_ID, "--entrance", "main-gate", "--port", str(board.path), hears=hears)
            told = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
            result = {
                "seconds": round(told.get("seconds", time.monotonic() - began), 1),
                "steps": [step["step"] for step in told.get("steps", [])],
                "test_alarm": told.get("test_alarm"),
            }
    except KeyboardInterrupt:
        say("\nStopped; every process has ended.")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0 if done.returncode == 0 and result["test_alarm"] == "hq" else 1


if __name__ == "__main__":
    sys.exit(main())
