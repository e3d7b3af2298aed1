"""What was done to which board, by whom: a log that can only grow, and that shows if anybody has altered it.

One line of JSON for each thing done. A line carries its number, the SHA-256 of the line before, and a signature by this
bench's own P-256 key, made at the first use. Beside the log lies its head, signed too: the number and SHA-256 of the last
line, so that lines can't be taken from the end. `verify` needs the public key alone, so whoever audits keeps a copy of it.

What it can't show: whoever has the laptop and its key can write a whole new log. Copy the last line elsewhere from time to
time (headquarters' registry has the certificate of every button as well).
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from provisioning import durable
from provisioning.errors import SetupFault
from provisioning.pki import Clock, utc_now

_OWN = frozenset({"n", "at", "who", "did", "board", "before", "signature", "cut"})
_START = "0" * 64  # stands for the line before the first
_ECDSA = ec.ECDSA(hashes.SHA256())
_ENTRY, _HEAD = b"tocsin bench entry\n", b"tocsin bench head\n"  # signed along, so that neither passes for the other


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. entries: whole lines. line: the first that is wrong, counted from 1; None: none is.

    cut: the last line was not finished when the power went; the next entry repairs that, and nothing was altered.
    """

    entries: int
    line: int | None = None
    what: str = ""
    cut: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether nothing was altered, removed or reordered."""
        return self.line is None

    def __str__(self) -> str:
        if self.line is not None:
            return f"line {self.line}: {self.what}"
        cut = "; the last line was cut off by a loss of power, and the next entry will say so" if self.cut else ""
        return f"{self.entries} entries, none of them altered, removed or reordered{cut}"


class BenchLog:
    """The log in a technician's folder. Two programs may write at once; one instance may be used by several threads."""

    def __init__(self, folder: Path, *, who: str | None = None, clock: Clock = utc_now) -> None:
        self.path = folder / "bench.jsonl"
        self._key_path = folder / "bench-key.pem"
        self._head_path = folder / "bench-head.json"
        self._lock = folder / ".bench.lock"
        self._who = who or f"{_user()}@{socket.gethostname()}"
        self._clock = clock

    def append(self, did: str, board: str, **details: Any) -> dict[str, Any]:
        """Writes an entry, on the disk when this returns; returns it. Raises SetupFault.

        did: what was done, in one word. board: the chip's MAC, or the id if there was none to ask. details: anything that
        JSON can hold. No secrets.
        """
        if taken := _OWN & details.keys():
            raise ValueError(f"{', '.join(sorted(taken))}: the log's own")
        durable.make_folder(self.path.parent)
        with durable.locked(self._lock):
            lines, rest = durable.lines(self.path)
            key = self._key(is_new=not lines)
            head = _number(self._head_path.read_bytes()) if self._head_path.exists() else 0
            # After lines were taken away the count goes on from where it was: the gap stays to be seen.
            entry: dict[str, Any] = {
                "n": max(head, _number(lines[-1]) if lines else 0) + 1,
                "at": self._clock().isoformat(timespec="seconds"),
                "who": self._who,
                "did": did,
                "board": board,
                **details,
                "before": _sha256(lines[-1]) if lines else _START,
            }
            if rest:
                entry["cut"] = rest.decode(errors="replace")
            line = _signed(_ENTRY, entry, key)
            durable.append(self.path, line)
            last = {"n": entry["n"], "sha256": _sha256(line)}
            durable.write(self._head_path, _signed(_HEAD, last, key) + b"\n")
            return entry

    def entries(self) -> list[dict[str, Any]]:
        """Every entry that can be read, the oldest first; see `verify` for whether they can be believed."""
        found = []
        for line in durable.lines(self.path)[0]:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                found.append({name: value for name, value in entry.items() if name not in {"before", "signature"}})
        return found

    def public_key(self) -> bytes:
        """This bench's public key in PEM, to be kept elsewhere by whoever audits. Raises SetupFault."""
        durable.make_folder(self.path.parent)
        with durable.locked(self._lock):
            key = self._key(is_new=not durable.lines(self.path)[0])
        return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify(self) -> Verdict:
        """Whether the log is what this bench wrote. Raises SetupFault if there is a log, but its key is gone."""
        if not self.path.exists() and not self._head_path.exists():
            return Verdict(0)
        with durable.locked(self._lock):
            return verify(self.path, self._key(is_new=False).public_key(), self._head_path)

    def _key(self, *, is_new: bool) -> ec.EllipticCurvePrivateKey:
        if is_new and not self._key_path.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            durable.write(self._key_path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        try:
            self._key_path.chmod(0o600)
            key = load_pem_private_key(self._key_path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise SetupFault(
                f"{self._key_path} can't be used ({error}): put it back from a copy. If it is lost, move {self.path} and "
                f"{self._head_path.name} elsewhere and keep them: a new log begins with a new key."
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SetupFault(f"{self._key_path} holds another kind of key: put it back from a copy.")
        return key


def verify(path: Path, public: ec.EllipticCurvePublicKey | bytes, head_path: Path | None = None) -> Verdict:
    """Looks at every line of a log. public: the bench's public key, or that in PEM. Raises SetupFault if it is no such key.

    Without its head (head_path) a log does not show whether lines are missing at its end.
    """
    if isinstance(public, bytes):
        public = _public_key(public)
    lines, rest = durable.lines(path)
    last, before = 0, _START
    for number, line in enumerate(lines, 1):
        entry = _opened(_ENTRY, line, public)
        if entry is None:
            return Verdict(len(lines), number, "it was altered, or this bench did not write it")
        if entry["n"] > last + 1:
            gone = f"entry {last + 1} was" if entry["n"] == last + 2 else f"entries {last + 1} to {entry['n'] - 1} were"
            return Verdict(len(lines), number, f"it is entry {entry['n']}: {gone} removed from before it")
        if entry["n"] <= last or entry["before"] != before:
            return Verdict(len(lines), number, f"it is entry {entry['n']}, and does not follow the line before it")
        last, before = entry["n"], _sha256(line)
    if head_path is not None and (what := _wrong_with_head(head_path, public, lines, last)):
        return Verdict(len(lines), len(lines) + 1, what)
    return Verdict(len(lines), cut=bool(rest))


def _wrong_with_head(path: Path, public: ec.EllipticCurvePublicKey, lines: list[bytes], last: int) -> str:
    try:
        head = _opened(_HEAD, path.read_bytes().rstrip(b"\n"), public)
    except FileNotFoundError:
        # Without power after the first line was written, and before its head was.
        return "" if len(lines) <= 1 else f"{path.name} is missing, so that lines may have been removed from the end"
    if head is None:
        return f"{path.name} was altered, so that lines may have been removed from the end"
    if head["n"] > last:
        return f"the entries up to {head['n']} that stood here were removed from the end"
    known = dict(
        zip(range(last, last - 2, -1), reversed(lines), strict=False)
    )  # the head may be one line behind, not more
    if head["n"] not in known or head["sha256"] != _sha256(known[head["n"]]):
        return f"{path.name} is not the head of this log, so that lines may have been removed from the end"
    return ""


def _signed(kind: bytes, entry: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    signature = base64.b64encode(key.sign(kind + _canonical(entry), _ECDSA)).decode()
    return _canonical({**entry, "signature": signature})


def _opened(kind: bytes, line: bytes, public: ec.EllipticCurvePublicKey) -> dict[str, Any] | None:
    """The entry in a line that this bench wrote; None: it did not, or not so."""
    try:
        entry = json.loads(line)
        signature = base64.b64decode(entry["signature"], validate=True)
        signed = {name: value for name, value in entry.items() if name != "signature"}
        public.verify(signature, kind + _canonical(signed), _ECDSA)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
        return None
    return entry if _canonical(entry) == line else None


def _canonical(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _number(line: bytes) -> int:
    try:
        return int(json.loads(line)["n"])
    except (ValueError, KeyError, TypeError):
        return 0


def _public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise SetupFault(f"The bench's public key can't be read: {error}.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SetupFault("The bench's public key is not an elliptic-curve key.")
    return key


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "?"
