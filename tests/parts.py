"""Real parts for tests: where MicroPython is, free ports, processes that end with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).parents[1]


def micropython() -> str:
    """The MicroPython to test with: TOCSIN_MICROPYTHON, the project's own (`make micropython`), or the one on PATH."""
    cached = PROJECT / ".cache" / "bin" / "micropython"
    found = os.environ.get("TOCSIN_MICROPYTHON") or (str(cached) if cached.exists() else None)
    found = found or shutil.which("mpy") or shutil.which("micropython")
    assert found, "MicroPython is missing: run `make micropython`"
    return found


def micropython32() -> str | None:
    """A MicroPython whose objects are as large as on the chips; None where there is none (tools/setup.py)."""
    cached = PROJECT / ".cache" / "bin" / "micropython32"
    return str(cached) if cached.exists() else None


def chromium() -> str:
    """The browser to test with: TOCSIN_CHROMIUM, or the first on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("TOCSIN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert found, "Chromium is missing: install it, or name it in TOCSIN_CHROMIUM"
    return found


def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:  # noqa: ANN401 - as Popen's
    """A process, killed at the end of the block if it still runs."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
