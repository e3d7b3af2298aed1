"""The journal's hash chain and its signed checkpoints: what was edited, deleted or cut off can be named. Pure but for a file.

Each entry carries SHA-256 over the entry before's and its own columns. Anybody who can write the database can compute
that anew, so every so often the station signs where the chain is, with the key of its certificate; a checkpoint is kept
in the database, in a file beside it, and in the parents' journals.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from firmware import wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

GENESIS = bytes(32)  # before the first entry
HASHED = ("id", "source", "boot", "seq", "kind", "happened_at_ms", "exact", "received_at_ms", "envelope", "hops")
"""The columns that an entry's link covers, in this order."""
MOST_FINDINGS = 20
CHECKPOINT_ENTRIES, CHECKPOINT_S = (
    1_000,
    600.0,
)  # beyond so many, or so long, a running station signs the next checkpoint
SLACK_ENTRIES, SLACK_S = 500, 60.0  # what a command beside it, or a clock that is set, may add
_RECEIVED = HASHED.index("received_at_ms")


def link(before: bytes, columns: Sequence[Any]) -> bytes:
    """The chain at an entry. before: at the entry before. columns: those of HASHED."""
    return hashlib.sha256(before + wire.encode(columns)).digest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the chain was. position: of the newest entry; count: of all up to it; cut: those up to it were deleted."""

    position: int
    cut: bool
    chain: bytes
    count: int
    at_ms: int
    signature: bytes = b""

    def statement(self, station: str) -> bytes:
        """What is signed."""
        fields = [self.position, int(self.cut), self.chain, self.count, self.at_ms]
        return wire.encode(["tocsin checkpoint 1", station, *fields])

    @property
    def line(self) -> str:
        """As one line of JSON."""
        fields = {"position": self.position, "cut": self.cut, "chain": self.chain.hex(), "count": self.count}
        return json.dumps({**fields, "at_ms": self.at_ms, "signature": self.signature.hex()})

    @classmethod
    def of_line(cls, line: str) -> Checkpoint:
        """From `line`. Raises ValueError."""
        try:
            said = json.loads(line)
            chain, signature = bytes.fromhex(said["chain"]), bytes.fromhex(said["signature"])
            return cls(
                int(said["position"]), bool(said["cut"]), chain, int(said["count"]), int(said["at_ms"]), signature
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no checkpoint: {line[:80]}") from error

    @property
    def detail(self) -> dict[int, Any]:
        """As the particulars of an event."""
        return dict(enumerate((self.position, int(self.cut), self.chain, self.count, self.at_ms, self.signature)))

    @classmethod
    def of_detail(cls, detail: Any) -> Checkpoint:
        """From `detail`. Raises ValueError."""
        fields: list[Any] = [detail.get(number) for number in range(6)] if isinstance(detail, dict) else []
        kinds = [type(one) for one in fields]
        if (
            kinds != [int, int, bytes, int, int, bytes]
            or len(fields[2]) != len(GENESIS)
            or min(fields[0], fields[3]) < 0
        ):
            raise ValueError("an event of a checkpoint carries none")
        position, cut, chain, count, at_ms, signature = fields
        return cls(position, bool(cut), chain, count, at_ms, signature)


@dataclass(frozen=True, slots=True)
class Sealer:
    """Signs a station's checkpoints and writes each to a file as well."""

    station: str
    key: ec.EllipticCurvePrivateKey
    file: Path

    def seal(self, position: int, chain: bytes, count: int, at_ms: int, *, cut: bool = False) -> Checkpoint:
        """A signed checkpoint."""
        bare = Checkpoint(position, cut, chain, count, at_ms)
        signature = self.key.sign(bare.statement(self.station), ec.ECDSA(SHA256()))
        return Checkpoint(position, cut, chain, count, at_ms, signature)

    def write_down(self, checkpoint: Checkpoint) -> None:
        """Appends it to the file. Raises OSError."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(checkpoint.line + "\n")


def written_down(file: Path) -> list[Checkpoint]:
    """The checkpoints of a file; a last line that a power cut tore is left out. Raises OSError, ValueError."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return [Checkpoint.of_line(line) for line in lines[:-1] if line.strip()]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written. position: the first entry that it is about."""

    position: int
    what: str  # edited, deleted, missing, recomputed, forged, unsealed
    words: str


@dataclass
class Verifier:
    """Holds the entries of a journal, fed in order, against the chain and its checkpoints.

    keys: whose signature on a checkpoint counts. checkpoints: from wherever they were kept.
    """

    station: str
    keys: Sequence[ec.EllipticCurvePublicKey]
    checkpoints: Iterable[Checkpoint]
    findings: list[Finding] = field(default_factory=list)
    entries: int = 0
    sealed: int = 0  # checkpoints that the chain was found to agree with

    def __post_init__(self) -> None:
        """Turns forged checkpoints away and finds where the journal should begin."""
        known: dict[int, dict[bytes, int]] = {}  # at a position: the chain, and when it was signed
        start = Checkpoint(0, cut=True, chain=GENESIS, count=0, at_ms=0)
        for one in set(self.checkpoints):
            if not self._is_signed(one):
                self._find(one.position, "forged", f"the checkpoint at {one.position} is not signed by {self.station}")
                continue
            known.setdefault(one.position, {})[one.chain] = one.at_ms
            if one.cut and one.position > start.position:
                start = one
        self._known = known
        self._newest = max(known, default=0)
        self._position, self._chain = start.position, start.chain
        self._sealed_at = start.position
        self._agreed: tuple[int, object, int] = (start.position, start.at_ms if known else None, 0)
        self._newest_ms: object = None

    @property
    def position(self) -> int:
        """Of the last entry that was fed."""
        return self._position

    @property
    def unsealed(self) -> int:
        """How many entries are beyond the last checkpoint that the chain agrees with."""
        return self.entries - self._agreed[2]

    def _is_signed(self, checkpoint: Checkpoint) -> bool:
        for key in self.keys:
            try:
                key.verify(checkpoint.signature, checkpoint.statement(self.station), ec.ECDSA(SHA256()))
            except InvalidSignature:
                continue
            return True
        return False

    def feed(self, rows: Iterable[Sequence[Any]]) -> None:
        """The next entries by position: each the columns of HASHED, then its chain."""
        position, chain, known = self._position, self._chain, self._known
        columns: list[Any] = []
        for *columns, said in rows:
            number = columns[0]
            if self._agreed[1] is None:  # no checkpoint: counted from the first entry
                self._agreed = (self._agreed[0], columns[_RECEIVED], 0)
            if number <= position:
                self._find(number, "inserted", f"entry {number} is before the point at which retention cut the journal")
                continue
            if link(chain, columns) != said:
                self._broken(position, number)
            self.entries += 1
            if number in known:
                self._sealed(number, said)
            elif self._newest > position + 1 and number > position + 1:
                self._skipped(position, number)
            position, chain = number, said if isinstance(said, bytes) else GENESIS
        self._position, self._chain = position, chain
        self._newest_ms = columns[_RECEIVED] if columns else self._newest_ms

    def _broken(self, before: int, number: int) -> None:
        if number > before + 1:
            some = f"{before + 1} to {number - 1} are" if number > before + 2 else f"{before + 1} is"
            self._find(before + 1, "deleted", f"entry {some} missing in front of {number}")
        else:
            self._find(number, "edited", f"entry {number} was edited, inserted, or put in another's place")

    def _sealed(self, number: int, chain: object) -> None:
        known = self._known[number]
        if isinstance(chain, bytes) and {chain} == known.keys():
            self.sealed += 1
            self._agreed = (number, known[chain], self.entries)
            self._sealed_at = number
            return
        if not self._has_named(self._sealed_at, number):
            words = (
                f"among the entries {self._sealed_at + 1} to {number} something was changed and the chain computed anew"
            )
            self._find(self._sealed_at + 1, "recomputed", f"{words}: the checkpoint at {number} says otherwise")
        self._sealed_at = number

    def _skipped(self, before: int, number: int) -> None:
        for position in sorted(set(self._known).intersection(range(before + 1, number))):
            words = f"entry {position} is missing: a checkpoint was signed there"
            if not self._has_named(before, position):
                self._find(position, "deleted", words)

    def _has_named(self, after: int, until: int) -> bool:
        """Whether something was found already about an entry there."""
        return any(one.what != "forged" and after < one.position <= until for one in self.findings)

    def end(self) -> list[Finding]:
        """After the last entry: what was found, by position."""
        if self._newest > self._position:
            first = self._position + 1
            some = f"{first} to {self._newest}" if self._newest > first else str(first)
            self._find(
                first, "missing", f"entries {some} at least are missing at the end: a checkpoint was signed there"
            )
        elif self._is_overdue() and not self._has_named(self._agreed[0], self._position):
            words = f"no checkpoint covers the last {self.unsealed:,} entries, though the station signs one every"
            self._find(
                self._agreed[0] + 1,
                "unsealed",
                f"{words} {CHECKPOINT_ENTRIES:,} entries or {CHECKPOINT_S / 60:.0f} minutes: checkpoints were removed, "
                "and any of these entries may have been changed",
            )
        return sorted(self.findings, key=lambda finding: finding.position)

    def _is_overdue(self) -> bool:
        """Whether so much is beyond the last checkpoint that a station would have signed another."""
        if self.unsealed > CHECKPOINT_ENTRIES + SLACK_ENTRIES:
            return True
        since, newest = self._agreed[1], self._newest_ms
        if not self.unsealed or not isinstance(since, int) or not isinstance(newest, int):
            return False
        return newest - since > (CHECKPOINT_S + SLACK_S) * 1000

    def _find(self, position: int, what: str, words: str) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(position, what, words))
