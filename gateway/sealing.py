"""A station's private keys at rest: sealed on the disk under a passphrase that is kept apart from them.

The passphrase is the first line of the file that `key_file` names, or of the systemd credential `tocsin-key`. Keys that
are not sealed are used as they are. A sealed key is opened in memory alone: mosquitto, which can't be given a passphrase,
reads its key from a file without a name (memfd_create) that ends with it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway import keyfile, keys
from gateway.keys import KeyFileError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from gateway.settings import Settings

CREDENTIAL = "tocsin-key"
LEAST_LENGTH = 20  # characters: a machine reads it, so it can be random
_MAKE_ONE = "make one with: (umask 077; head -c 32 /dev/urandom | base64 > FILE)"


def passphrase(settings: Settings) -> str | None:
    """What the station's keys are sealed under; None: nothing is set. Raises KeyFileError for one that can't be used."""
    path = settings.key_file
    if path is not None:
        try:
            mode = path.stat().st_mode & 0o777
        except OSError as error:
            raise KeyFileError(
                f"{path}: the passphrase of the station's keys can't be read: {error.strerror}"
            ) from error
        if mode & 0o077:
            raise KeyFileError(f"{path}: others may read it (mode {mode:03o}): chmod 600 {path}")
    elif folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / CREDENTIAL
        if not path.exists():
            return None
    else:
        return None
    try:
        first = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: the passphrase of the station's keys can't be read: {error}") from error
    if len(first) < LEAST_LENGTH:
        raise KeyFileError(
            f"{path}: its first line has {len(first)} characters, and {LEAST_LENGTH} are needed: {_MAKE_ONE}"
        )
    return first


def files(settings: Settings) -> list[Path]:
    """The station's own private keys: of its identity, and of its messages."""
    return [settings.identity / "key.pem", *([settings.message_key] if settings.message_key else [])]


def is_sealed(path: Path) -> bool:
    """Whether the key in a file can't be used without a passphrase."""
    try:
        return b"ENCRYPTED" in path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: can't be read: {error.strerror}") from error


def seal(path: Path, secret: str) -> None:
    """Seals the key in a file, in place: the old file goes only when the new one, read back, opens to the same key."""
    key = keys.private_key(path)
    _replace(path, key, keyfile.sealed(key, secret), secret)


def unseal(path: Path, secret: str) -> None:
    """Puts a plain key into the place of a sealed one, as carefully."""
    key = keys.private_key(path, secret)
    _replace(path, key, plain(key), None)


def plain(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key in PEM, for a place that nobody else can read."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _replace(path: Path, key: ec.EllipticCurvePrivateKey, octets: bytes, secret: str | None) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        owner = path.stat()
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with suppress(PermissionError):
                os.fchown(handle, owner.st_uid, owner.st_gid)
            os.write(handle, octets)
            os.fsync(handle)
        finally:
            os.close(handle)
        if keys.private_key(new, secret).private_numbers() != key.private_numbers():
            raise KeyFileError(f"{new} does not hold what was written: {path} stays as it is. Look at the disk")
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyFileError(f"{path}: can't be changed, and stays as it is: {error.strerror}") from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def without_a_name(octets: bytes) -> int:
    """A descriptor of a file in memory that only who inherits it can read; it is /proc/self/fd/<number> there."""
    handle = os.memfd_create("tocsin-key", 0)
    os.write(handle, octets)
    return handle
