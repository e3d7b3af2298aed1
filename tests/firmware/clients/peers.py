"""The clients that ours is measured beside, from their public packages, in .cache/peers."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.parts import PROJECT

PEERS = PROJECT / ".cache" / "peers"
PIP = PROJECT / ".cache" / "uv" / "bin" / "pip"

PACKAGES = {
    "umqtt.simple": ("micropython-umqtt.simple==1.3.4", "umqtt/simple.py", "8555d2f654deb8eb"),
    "umqtt.robust": ("micropython-umqtt.robust==1.0", "umqtt/robust.py", "950d64b9aaa369a9"),
    "mqtt_async": ("micropython-mqtt-async==0.7b4", "mqtt_async.py", "aa141c07364f7712"),
}
"""By client: its package on PyPI, the file that is the client, and what that file's SHA-256 begins with."""
BY_HAND = {"mqtt_as": "mqtt_as/__init__.py"}
"""Those that no package registry has: measured if somebody put them there, with MicroPython's own installer (mip)."""


def get() -> dict[str, str]:
    """Fetches what is missing; by client that can't be had, why."""
    missing = {}
    for client, (package, name, digest) in PACKAGES.items():
        if not (PEERS / name).exists():
            why = _from_registry(package, name, digest)
            if why:
                missing[client] = why
    for client, name in BY_HAND.items():
        if not (PEERS / name).exists():
            missing[client] = f"no package registry has it: mip can put it into {PEERS.relative_to(PROJECT)}"
    return missing


def _from_registry(package: str, name: str, digest: str) -> str:
    """One file of a source package: pip can't build what was made for MicroPython's old installer, only unpack it."""
    unpacked = PEERS / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            [PIP, "download", "--no-deps", "--no-clean", "--no-binary", ":all:", "--dest", unpacked, package],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TMPDIR": str(unpacked)},
        )
        found = sorted(unpacked.glob(f"pip-*/*/{name}"))
        if not found:
            return f"pip does not get {package}: {done.stderr.strip().splitlines()[-1:]}"
        octets = found[0].read_bytes()
        if not hashlib.sha256(octets).hexdigest().startswith(digest):
            return f"{package} is not what it was: its {name} has another SHA-256"
        (PEERS / name).parent.mkdir(parents=True, exist_ok=True)
        (PEERS / name).write_bytes(octets)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return ""


def files_of(client: str) -> list[Path]:
    """The files that are the client."""
    if client == "umqtt.robust":  # a part of simple, which it needs
        return [*files_of("umqtt.simple"), PEERS / PACKAGES[client][1]]
    return [PEERS / (BY_HAND[client] if client in BY_HAND else PACKAGES[client][1])]


def lines(path: Path) -> int:
    """Lines of code: neither blank, nor a comment or a docstring."""
    text = path.read_text(encoding="utf-8")
    written = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            written -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(written)
