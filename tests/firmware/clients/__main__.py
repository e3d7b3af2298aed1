"""`make bench-firmware`: every client in turn, a table, which aims are met; the last line is JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from provisioning.pki import Authority
from tests.firmware.clients import peers
from tests.firmware.clients.measure import OURS, ClientError, Figures, Plan, Stand
from tests.parts import PROJECT

PAGE = PROJECT / "docs" / "firmware.md"
BEGIN, END = "<!-- make bench-firmware ARGS=--write -->\n", "<!-- end -->\n"
MODULES = ("session", "link", "mqtt", "names", "route", "vigil", "roll", "clock")
"""What of the firmware a client is: the rest has no counterpart in the others."""
MEMORY = Path("/dev/shm")  # where files are in memory: a button's flash knows no other programs that wait for the disk
WIDER = 1.8  # a heap at 64 bits over the same at the chip's 32

COLUMNS = {
    "TLS": lambda f: "mutual" if f.tls else "none",
    "publish → PUBACK p50 / p99, ms": lambda f: f"{f.puback_ms['p50']} / {f.puback_ms['p99']}",
    "killed: acknowledged": lambda f: f.killed.acknowledged,
    "lost": lambda f: f.killed.lost,
    "copies": lambda f: f.killed.copies,
    "first PUBACK after its return, s": lambda f: _or_never(f.killed.again_s),
    "frozen: lost": lambda f: f.frozen.lost,
    "frozen: copies": lambda f: f.frozen.copies,
    "first PUBACK after it thaws, s": lambda f: _or_never(f.frozen.again_s),
    "press on a dead link → PUBACK, s": lambda f: _or_never(f.dead_link_s),
    "button not read for, ms: killed / frozen / dead link": lambda f: (
        f"{f.killed.gap_ms} / {f.frozen.gap_ms} / {f.dead_link_gap_ms}"
    ),
    "heap of the connected client alone at 64 bits, KB": lambda f: f.heap_kb,
    "lines of code": lambda f: f.lines,
}


def _or_never(seconds: float | None) -> object:
    return "never" if seconds is None else seconds


def aims(ours: Figures, others: list[Figures]) -> dict[str, bool]:
    """What issue and page promise, and whether this run has it."""
    secured = [one.heap_kb for one in others if one.tls]
    return {
        "no press is lost": ours.killed.lost == ours.frozen.lost == 0,
        "publish to PUBACK under 5 ms p50": ours.puback_ms["p50"] < 5,
        "first PUBACK within 1 s of a killed broker's return": _within(ours.killed.again_s, 1),
        "a press on a dead link is acknowledged within 5 s": _within(ours.dead_link_s, 5),
        "a frozen broker is recovered from within 10 s": _within(ours.frozen.again_s, 10),
        "the button is read without a gap over 50 ms": max(
            ours.killed.gap_ms, ours.frozen.gap_ms, ours.dead_link_gap_ms
        )
        <= 50,
        "heap at most the leanest peer's + 20 KB, at 32 bits": not secured
        or (ours.heap_kb - min(secured)) / WIDER <= 20,
    }


def _within(seconds: float | None, bound: float) -> bool:
    return seconds is not None and seconds <= bound


def table(figures: dict[str, Figures], left_out: dict[str, str]) -> str:
    """The figures in Markdown, one column a client."""
    rows = [["", *figures], ["---"] * (len(figures) + 1)]
    rows += [[what, *(str(tell(one)) for one in figures.values())] for what, tell in COLUMNS.items()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"Left out: {client}: {why}." for client, why in left_out.items())])


def measure(names: list[str], plan: Plan, left_out: dict[str, str]) -> dict[str, Figures]:
    """Each client, one after the other; one that does not even connect is added to `left_out`."""
    authority = Authority.create()
    figures = {}
    for name in names:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            try:
                figures[name] = Stand(authority, Path(folder), name, plan).figures()
            except ClientError as problem:
                left_out[name] = str(problem)
                continue
        print(json.dumps(figures[name].told()), file=sys.stderr, flush=True)
        if name == OURS:
            figures[name].lines = sum(peers.lines(PROJECT / "firmware" / f"{module}.py") for module in MODULES)
        else:
            figures[name].lines = sum(map(peers.lines, peers.files_of(name)))
    return figures


def main() -> int:
    """Exit status 1: an aim is missed."""
    parser = argparse.ArgumentParser(prog="make bench-firmware")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(PROJECT)}")
    told = parser.parse_args()
    left_out = peers.get()
    names = [OURS, *(name for name in (*peers.PACKAGES, *peers.BY_HAND) if name not in left_out)]
    figures = measure(names, Plan(), left_out)
    shown = table(figures, left_out)
    print(shown)
    met = aims(figures[OURS], [one for name, one in figures.items() if name != OURS])
    for aim, is_met in met.items():
        print(f"{'met   ' if is_met else 'MISSED'} {aim}")
    if told.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{shown}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    counted: dict[str, Any] = {name: one.told() for name, one in figures.items()}
    print(
        json.dumps({"clients": counted, "left_out": left_out, "aims": met, "missed": sum(not m for m in met.values())})
    )
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
