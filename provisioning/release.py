"""Makes and signs a release of the firmware (docs/firmware.md, Update).

The private key of releases is in a file of its own, which no station and no button ever needs.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from firmware import release, wire
from gateway import keys, releases
from provisioning import bundle
from provisioning.errors import SetupFault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MPY = 6  # the bytecode that mpy-cross makes, and every MicroPython since 1.19 loads


def new_key(path: Path) -> bytes:
    """Makes the private key of releases, readable by its owner alone; its public point. Raises SetupFault."""
    key = ec.generate_private_key(ec.SECP256R1())
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(octets)
    except OSError as problem:
        raise SetupFault(f"The key of releases can't be made: {problem}. Name a file that does not exist.") from problem
    return keys.point(key.public_key())


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file that nobody else can read. Raises SetupFault."""
    try:
        if path.stat().st_mode & 0o077:
            raise SetupFault(f"{path} can be read by others: run chmod 600 on it.")
        return keys.private_key(path)
    except (OSError, keys.KeyFileError) as problem:
        raise SetupFault(f"{problem}: make a key of releases with `tocsin release key`.") from problem


def made(project: Path, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The release of the firmware in a project's folder, for every board there is. Raises SetupFault."""
    boards = sorted({path.stem for path in (project / "firmware" / "boards").glob("*.py")} - {"__init__"})
    files: dict[str, bytes] = {}
    for board in boards:
        files |= bundle.build(project, board)
    del files[bundle.MAIN]  # it and the loader stay what provisioning installed
    source = (project / "firmware" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^VERSION = "(.+)"$', source, re.MULTILINE)
    try:
        return signed(found[1] if found else "", boards, {path[1:]: files[path] for path in files}, key)
    except wire.WireError as problem:
        raise SetupFault(f"This is no release: {problem}.") from problem


def signed(
    version: str, boards: list[str], files: Mapping[str, bytes], key: ec.EllipticCurvePrivateKey, mpy: int = MPY
) -> bytes:
    """Files, by their paths on the board, as a signed release. Raises WireError for one that no button would take."""
    listed = [[path, len(files[path]), hashlib.sha256(files[path]).digest()] for path in sorted(files)]
    manifest = release.manifest(version, boards, mpy, listed)
    r, s = utils.decode_dss_signature(key.sign(release.SIGNED + manifest, ec.ECDSA(hashes.SHA256())))
    octets = r.to_bytes(32, "big") + s.to_bytes(32, "big") + manifest + b"".join(files[path] for path in sorted(files))
    releases.read(octets, keys.point(key.public_key()))
    return octets
