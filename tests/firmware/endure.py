"""What years do to a button's memory: `make endure`, or `python -m tests.firmware.endure --heartbeats N --reconnects N --lies N`.

On the 32-bit MicroPython where there is one. The last line of the output is JSON; the exit status is 1 if something grew.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from firmware import wire
from provisioning.pki import Authority
from tests.firmware.bench import Bench, Post
from tests.firmware.far_ends import Way
from tests.firmware.test_button_end_to_end import connected
from tests.parts import PROJECT, micropython, micropython32, running

MOST_GROWN = 1024
"""Bytes by which the heap in use may be larger in the second half than in the first: what is used varies by that much."""
MOST_GROWN_PROCESS_KB = 512
"""The same of the whole process, where TLS has its memory. A leak of one session in ten would be far more."""
QUICK = "from firmware import vigil; vigil.LASTED_MS = 1; from firmware import app; app.main()"


def grown(samples: list[int]) -> int:
    """By how much the largest of the second half exceeds the largest of the first."""
    half = len(samples) // 2
    return max(samples[half:]) - max(samples[:half])


def _run(script: str, heap_kb: int, folder: Path, *told: int) -> dict[str, Any]:
    folder.mkdir(parents=True)
    path = PROJECT / "tests" / "firmware" / script
    done = subprocess.run(
        [micropython32() or micropython(), "-X", f"heapsize={heap_kb}k", str(path), *map(str, told)],
        cwd=folder,
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def heartbeats(count: int, folder: Path) -> dict[str, Any]:
    """run_heartbeats.py's result, and `grown`."""
    result = _run("run_heartbeats.py", 300, folder, count)
    return {**result, "grown": grown(result["alloc"])}


def lies(first: int, count: int, folder: Path) -> dict[str, Any]:
    """run_lies.py's result."""
    return _run("run_lies.py", 4000, folder, first, count)


def reconnects(count: int, folder: Path) -> dict[str, Any]:
    """A whole button that loses its TLS connection `count` times, as soon as it is up again."""
    samples = list[int]()
    resident = list[int]()
    bench = Bench(Authority.create(), folder)
    with bench.broker(), connected(bench) as peer, Way(bench.port) as way:
        post = Post(peer, "endures", bench.enrol("endures"))
        place = bench.place("endures")
        path = bench.folder / "endures" / "settings.json"
        told = json.loads(path.read_text(encoding="utf-8"))
        told["brokers"][0][1] = way.port
        path.write_text(json.dumps(told), encoding="utf-8")
        command = [micropython32() or micropython(), "-X", "heapsize=400k", "-c", QUICK]
        began = time.monotonic()
        with running(command, **place, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            for n in range(count + 1):
                beat = post.until("heartbeat", lambda beat, n=n: beat[wire.RECONNECTS] >= n)
                if n and n % (count // 10) == 0:
                    samples.append(-beat[wire.HEAP])
                    pages = Path(f"/proc/{process.pid}/statm").read_text(encoding="utf-8").split()[1]
                    resident.append(int(pages) * 4)
                way.cut()
        took_s = time.monotonic() - began
    return {
        "reconnects": count,
        "grown": grown(samples),
        "grown_process_kb": grown(resident),
        "free": [-sample for sample in samples],
        "resident_kb": resident,
        "ms_each": round(took_s * 1000 / count),
    }


def main() -> int:
    """Runs all three; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heartbeats", type=int, default=1_000_000)
    parser.add_argument("--reconnects", type=int, default=1000)
    parser.add_argument("--lies", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tocsin-endure-") as scratch:
        folder = Path(scratch)
        print(f"seed {asked.seed}, {'32' if micropython32() else '64'}-bit MicroPython", flush=True)
        told_lies = lies(asked.seed, asked.lies, folder / "lies")
        print(json.dumps(told_lies), flush=True)
        reconnected = reconnects(asked.reconnects, folder)
        print(json.dumps(reconnected), flush=True)
        beaten = heartbeats(asked.heartbeats, folder / "heartbeats")
        print(json.dumps(beaten), flush=True)
    grew = (
        max(beaten["grown"], reconnected["grown"], told_lies["grown"]) > MOST_GROWN
        or reconnected["grown_process_kb"] > MOST_GROWN_PROCESS_KB
    )
    summary = {
        "heartbeats": asked.heartbeats,
        "reconnects": asked.reconnects,
        "lies": asked.lies,
        "grown_bytes": [beaten["grown"], reconnected["grown"], told_lies["grown"]],
        "grown_process_kb": reconnected["grown_process_kb"],
        "grew": grew,
    }
    print(json.dumps(summary))
    return int(grew)


if __name__ == "__main__":
    sys.exit(main())
