"""An authority kept on a laptop: its sealed key, everything that it ever signed, and its successors.

    1/ca.pem key.pem            the first authority: certificate, and key sealed under the passphrase
    2/ca.pem key.pem cross.pem  its successor; cross.pem: the successor's certificate, signed by the one before
    index.jsonl                 one line for everything that was signed or revoked; only ever added to
    ca.pem revoked.pem          what stations need: `bundle` and the last `crl`

A certificate leaves only after its line is on the disk, so that whatever is out there can be revoked by its name.
Two programs may use one folder at once.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import keyfile
from provisioning import durable
from provisioning.errors import AuthorityFault
from provisioning.pki import (
    AUTHORITY_DAYS,
    BUTTON_DAYS,
    STATION_DAYS,
    Authority,
    Clock,
    Days,
    Identity,
    common_name,
    joined,
    utc_now,
)

# A clock that is less than this behind does no harm, since certificates begin a day early; one that was hours ahead when
# something was signed, and was then set right, does not stop the bench until the hours have passed.
_CLOCK_TOLERANCE = timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate in the index. sha256: of its DER, in hex. authority: the number of the one that signed it."""

    serial: int
    id: str
    not_after: datetime
    issued_at: datetime
    sha256: str
    authority: int
    revoked_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is neither expired nor revoked."""
        return self.revoked_at is None and now < self.not_after


class AuthorityFolder:
    """`create` or `open` makes one. Whatever can't be done raises AuthorityFault in words."""

    def __init__(self, path: Path, passphrase: str, clock: Clock) -> None:
        self.path = path
        self._passphrase = passphrase
        self._clock = clock
        self._loaded: dict[int, Authority] = {}

    @classmethod
    def create(
        cls, path: Path, passphrase: str, name: str, *, days: float = AUTHORITY_DAYS, clock: Clock = utc_now
    ) -> AuthorityFolder:
        """A new authority in a new folder."""
        if len(passphrase) < keyfile.LEAST_LENGTH:
            raise AuthorityFault(
                f"The passphrase is too short: use at least {keyfile.LEAST_LENGTH} characters, best four or five words."
            )
        folder = cls(path, passphrase, clock)
        durable.make_folder(path)
        with durable.locked(path / "lock"):
            if folder._generations():
                raise AuthorityFault(
                    f"{path} holds an authority already. To make its successor: `tocsin provision ca rotate`."
                )
            folder._keep(1, Authority.create(name, days=days, clock=clock))
            folder._publish()
        return folder

    @classmethod
    def open(cls, path: Path, passphrase: str, *, clock: Clock = utc_now) -> AuthorityFolder:
        """The authority that is there; the passphrase is tried at once."""
        folder = cls(path, passphrase, clock)
        with folder._alone():
            folder._current()
        return folder

    @property
    def certificate(self) -> x509.Certificate:
        """The current authority's: what a button that is enrolled now will trust."""
        return self._certificate(self._newest())

    @property
    def pem(self) -> bytes:
        """The current authority's certificate in PEM."""
        return joined([self.certificate])

    @property
    def der(self) -> bytes:
        """The current authority's certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def bundle(self) -> bytes:
        """For the stations' ca.pem: the current authority, and each older one that an unexpired certificate needs."""
        return joined(map(self._certificate, self._relied_on()))

    def issued(self, device_id: str | None = None) -> list[Issued]:
        """What was signed, the oldest first; for one id, or all."""
        return [one for one in self._read().values() if device_id in {None, one.id}]

    def issue(
        self,
        name: str,
        *,
        server: bool = False,
        key: ec.EllipticCurvePrivateKey | None = None,
        days: Days = STATION_DAYS,
    ) -> Identity:
        """A certificate for a station; see Authority.issue. It comes with its chain and the bundle."""
        with self._alone():
            identity = self._current().issue(name, server=server, key=key, days=days)
            self._note_issued(identity.certificate)
            return replace(identity, chain=self._chain(), trusted=tuple(map(self._certificate, self._relied_on()[1:])))

    def _chain(self) -> tuple[x509.Certificate, ...]:
        older = self._relied_on()[1:]
        successors = range(self._newest(), min(older, default=self._newest()), -1)
        return tuple(self._certificate(number, "cross.pem") for number in successors if self._crosses(number))

    def sign_request(self, csr_der: bytes, device_id: str, days: Days = BUTTON_DAYS) -> x509.Certificate:
        """The certificate for a board's signing request; see Authority.sign_request."""
        with self._alone():
            certificate = self._current().sign_request(csr_der, device_id, days)
            self._note_issued(certificate)
            return certificate

    def renew(
        self, name: str, point: bytes, days: Days = BUTTON_DAYS, *, server: bool = False
    ) -> tuple[x509.Certificate, ...]:
        """Another certificate for a key, and its chain; only for an id of which a certificate of ours still holds."""
        with self._alone():
            if not any(one.holds(self._clock()) for one in self.issued(name)):
                raise AuthorityFault(f"{self.path} signed no certificate of {name} that still holds: enrol it anew.")
            certificate = self._current().renew(name, point, days, server=server)
            self._note_issued(certificate)
            return certificate, *self._chain()

    def sign(self, octets: bytes) -> bytes:
        """The current authority's ECDSA signature with SHA-256, in DER: for what headquarters believes by it."""
        with self._alone():
            return self._current().sign(octets)

    def revoke(self, device_id: str, why: str = "") -> bytes:
        """Takes back every unexpired certificate of an id; returns the new `crl`. Again: only a new list."""
        with self._alone():
            known = self.issued(device_id)
            if not known:
                raise AuthorityFault(
                    f"{self.path} never signed a certificate of {device_id}: look for the id in `tocsin provision list`."
                )
            self._current_time()
            for one in known:
                if one.holds(self._clock()):
                    self._note(what="revoked", serial=f"{one.serial:x}", id=device_id, why=why)
            return self._publish()

    def crl(self) -> bytes:
        """The revocation lists in PEM, one of each authority that has not expired, with a higher number than ever before.

        A broker that is given several authorities needs a list of each, or it lets in nobody of the one without. An
        authority that left `bundle` still has one: a station whose ca.pem names it must learn of its last revocations.
        """
        with self._alone():
            return self._publish()

    def rotate(self, name: str | None = None, *, days: float = AUTHORITY_DAYS) -> None:
        """A new authority with a new key takes over; it is signed by the old one as well.

        A button on a wall trusts the one ca.der that it was enrolled with, and shows a certificate that the old
        authority signed. Neither can be changed from afar, and neither has to be: the old authority stays in `bundle` and
        `crl`, and can revoke, until the last certificate that it signed has expired or was revoked, and a station's
        new certificate comes with the chain that leads an old button from its ca.der to the new authority. A button
        that is enrolled from now on trusts the new authority only. So, in this order, before the next enrolment:
        every station gets `bundle` and `crl` (it lets in old and new buttons); then every station gets a new certificate
        with its chain from `issue` (old and new buttons believe it).

        If the old key was stolen, none of this helps the old buttons: they go on believing whoever holds it. They must
        be enrolled anew, one by one, and their old certificates revoked.
        """
        with self._alone():
            last = self._newest()
            base = re.sub(r" \d+$", "", common_name(self._certificate(last).subject) or "Tocsin authority")
            successor = Authority.create(name or f"{base} {last + 1}", days=days, clock=self._clock)
            if successor.certificate.subject in {self._certificate(number).subject for number in self._generations()}:
                raise AuthorityFault(f"An authority of the name {successor.name} was here before: choose another name.")
            old = self._load(last)
            is_over = self._clock() >= old.expires_at
            self._keep(last + 1, successor, None if is_over else old.sign_successor(successor))
            self._note(what="rotated", authority=last + 1)
            self._publish()

    # ---------------------------------------------------------------------------- what is on the disk

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._generations():
            raise AuthorityFault(f"There is no authority in {self.path}: make one with `tocsin provision ca init`.")
        durable.make_folder(self.path)
        with durable.locked(self.path / "lock"):
            yield

    def _generations(self) -> list[int]:
        return sorted(int(folder.name) for folder in self.path.glob("[0-9]*") if folder.name.isdigit())

    def _newest(self) -> int:
        return self._generations()[-1]

    def _keep(self, number: int, authority: Authority, cross: x509.Certificate | None = None) -> None:
        part = self.path / f"part-{secrets.token_hex(4)}"
        try:
            durable.make_folder(part)
            durable.write(part / "key.pem", keyfile.sealed(authority.key, self._passphrase))
            durable.write(part / "ca.pem", authority.pem)
            if cross:
                durable.write(part / "cross.pem", joined([cross]))
            part.rename(self.path / str(number))
        finally:
            shutil.rmtree(part, ignore_errors=True)
        durable.settle(self.path)

    def _certificate(self, number: int, name: str = "ca.pem") -> x509.Certificate:
        path = self.path / str(number) / name
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            raise AuthorityFault(f"{path} can't be used ({error}): put it back from a copy of the folder.") from error

    def _crosses(self, number: int) -> bool:
        return (self.path / str(number) / "cross.pem").exists()

    def _load(self, number: int) -> Authority:
        if number not in self._loaded:
            path = self.path / str(number) / "key.pem"
            try:
                path.chmod(0o600)
                key = keyfile.opened(path.read_bytes(), self._passphrase)
            except keyfile.WrongPassphraseError as error:
                raise AuthorityFault(
                    f"The passphrase does not open the authority's key ({path}): type it again. "
                    "Nobody can sign without it; if it is lost, a new authority must be made."
                ) from error
            except (OSError, ValueError) as error:
                raise AuthorityFault(
                    f"{path} can't be used ({error}): put it back from a copy of the folder."
                ) from error
            certificate = self._certificate(number)
            if certificate.public_key() != key.public_key():
                raise AuthorityFault(
                    f"{path} is not the key of ca.pem beside it: put both back from a copy of the folder."
                )
            self._loaded[number] = Authority(key, certificate, self._clock)
        return self._loaded[number]

    def _current(self) -> Authority:
        return self._load(self._newest())

    # -------------------------------------------------------------------------------------- the index

    @property
    def _index(self) -> Path:
        return self.path / "index.jsonl"

    def _lines(self) -> list[dict[str, str]]:
        lines = []
        for number, line in enumerate(durable.lines(self._index)[0], 1):  # an unfinished line was never acted upon
            try:
                entry = json.loads(line)
                datetime.fromisoformat(entry["at"])
            except (ValueError, TypeError, KeyError) as error:
                raise AuthorityFault(
                    f"{self._index}:{number}: this line is damaged: put the file back from a copy, or it is not known "
                    "what can be revoked."
                ) from error
            lines.append({key: str(value) for key, value in entry.items()})
        return lines

    def _read(self) -> dict[int, Issued]:
        found: dict[int, Issued] = {}
        for line in self._lines():
            at = datetime.fromisoformat(line["at"])
            if line["what"] == "issued":
                serial, ends = int(line["serial"], 16), datetime.fromisoformat(line["not_after"])
                found[serial] = Issued(serial, line["id"], ends, at, line["sha256"], int(line["authority"]))
            elif line["what"] == "revoked":
                serial = int(line["serial"], 16)
                found[serial] = replace(found[serial], revoked_at=at)
        return found

    def _note(self, **entry: str | int) -> None:
        at = self._current_time().isoformat(timespec="seconds")
        durable.append(self._index, json.dumps({"at": at, **entry}, ensure_ascii=False).encode())

    def _note_issued(self, certificate: x509.Certificate) -> None:
        self._note(
            what="issued",
            serial=f"{certificate.serial_number:x}",
            id=common_name(certificate.subject) or "",
            not_after=certificate.not_valid_after_utc.isoformat(),
            sha256=certificate.fingerprint(hashes.SHA256()).hex(),
            authority=self._newest(),
        )

    def _current_time(self) -> datetime:
        now = self._clock()
        last = max((datetime.fromisoformat(line["at"]) for line in self._lines()), default=now)
        if now < last - _CLOCK_TOLERANCE:
            raise AuthorityFault(
                f"This laptop's clock says {now:%Y-%m-%d %H:%M} UTC, but the authority was used on {last:%Y-%m-%d %H:%M} "
                "UTC: set the clock (`timedatectl`), then run the same command again. Nothing was signed."
            )
        return now

    # ------------------------------------------------------------------------------- what stations need

    def _relied_on(self) -> list[int]:
        now = self._clock()
        needed = {one.authority for one in self._read().values() if one.holds(now)}
        newest = self._newest()
        return [newest, *sorted((number for number in needed if number != newest), reverse=True)]

    def _not_over(self) -> list[int]:
        now, (*older, newest) = self._clock(), self._generations()
        return [newest, *(number for number in reversed(older) if now < self._certificate(number).not_valid_after_utc)]

    def _publish(self) -> bytes:
        self._current_time()
        known = self._read().values()
        number = 1 + max((int(line["number"]) for line in self._lines() if line["what"] == "list"), default=0)
        lists = []
        for authority in self._not_over():
            revoked = {
                one.serial: (one.revoked_at, one.id)
                for one in known
                if one.authority == authority and one.revoked_at is not None
            }
            lists.append(self._load(authority).list_of(revoked, number))
        self._note(what="list", number=number)
        durable.write(self.path / "ca.pem", self.bundle(), 0o644)
        durable.write(self.path / "revoked.pem", b"".join(lists), 0o644)
        return b"".join(lists)
