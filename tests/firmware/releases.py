"""Releases for tests: small ones of made-up files, and the real firmware under a new number, as it is or spoiled."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from gateway import keys, releases
from provisioning import release
from tests.parts import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

KEY = ec.generate_private_key(ec.SECP256R1())
POINT = keys.point(KEY.public_key())
FILES = {"firmware/app.mpy": b"app" * 100, "firmware/boards/virtual.mpy": b"board" * 40, "firmware/loop.mpy": b"l"}


def small(version: str = "0.2.0", boards: tuple[str, ...] = ("virtual",), mpy: int = 0) -> releases.Release:
    """Three files of a few hundred octets; mpy 0: for CPython."""
    return releases.read(release.signed(version, list(boards), FILES, KEY, mpy), POINT)


def real(folder: Path, version: str, *changes: tuple[str, str, str]) -> releases.Release:
    """The firmware of this project under another version; changes: (module, text, the text in its place)."""
    project = folder / version
    shutil.copytree(PROJECT / "firmware", project / "firmware")
    for module, old, new in (("__init__", 'VERSION = "', f'VERSION = "{version}"\n_WAS = "'), *changes):
        path = project / "firmware" / f"{module}.py"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    return releases.read(release.made(project, KEY), POINT)
