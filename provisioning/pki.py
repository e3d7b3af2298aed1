"""The certificate authority: signs the buttons' requests and the stations' certificates, and takes them back.

`Authority` lives in memory: the demo's and the tests' is one. `AuthorityFolder` (provisioning/authority.py) keeps
them on the technician's laptop, and remembers what they signed. P-256 and SHA-256 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from firmware.wire import is_id
from gateway import revocation
from provisioning.errors import AuthorityFault

Clock = Callable[[], datetime]
Days = tuple[float, float]  # valid from and to, in days from now

BUTTON_DAYS: Days = (-1, 3650)  # nobody renews a certificate on a wall: it is revoked, not left to run out
STATION_DAYS: Days = (-1, 825)
AUTHORITY_DAYS = 3650.0
_BACKDATED = timedelta(days=1)  # a broker or button whose clock is a little behind believes it all the same


def utc_now() -> datetime:
    """The laptop's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Identity:
    """A private key and the certificate for it.

    chain: certificates that lead from `ca` to older authorities (see AuthorityFolder.rotate), sent along by a broker.
    trusted: older authorities that a broker believes beside `ca`.
    """

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    ca: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    trusted: tuple[x509.Certificate, ...] = ()

    def write_pem(self, folder: Path) -> None:
        """key.pem, cert.pem (with its chain) and ca.pem (with the others), as mosquitto, paho and OpenSSL read them."""
        pem = serialization.Encoding.PEM
        self._write(folder, "pem", pem, joined((self.certificate, *self.chain)), joined((self.ca, *self.trusted)))

    def write_der(self, folder: Path) -> None:
        """key.der, cert.der and ca.der, as MicroPython reads them."""
        der = serialization.Encoding.DER
        self._write(folder, "der", der, self.certificate.public_bytes(der), self.ca.public_bytes(der))

    def _write(
        self, folder: Path, suffix: str, encoding: serialization.Encoding, certificate: bytes, ca: bytes
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / f"key.{suffix}"
        key.touch(mode=0o600)
        key.write_bytes(
            self.key.private_bytes(
                encoding, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        (folder / f"cert.{suffix}").write_bytes(certificate)
        (folder / f"ca.{suffix}").write_bytes(ca)


class Authority:
    """Signs certificates and revocation lists. Whatever it can't sign raises AuthorityFault."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock = utc_now) -> None:
        self.key = key
        self._clock = clock
        self.certificate = certificate
        self._revoked: dict[int, tuple[datetime, str]] = {}
        self._lists = 0

    @classmethod
    def create(
        cls, name: str = "Tocsin throw-away authority", *, days: float = AUTHORITY_DAYS, clock: Clock = utc_now
    ) -> Authority:
        """A new authority with a new key, valid for `days`."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = clock()
        # No path length: the authority that follows this one is signed by it (AuthorityFolder.rotate).
        certificate = _authority(_name(name), _name(name), key.public_key(), key.public_key()).not_valid_before(
            now - _BACKDATED
        )
        return cls(key, certificate.not_valid_after(now + timedelta(days=days)).sign(key, hashes.SHA256()), clock)

    @property
    def pem(self) -> bytes:
        """The authority's certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The authority's certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def name(self) -> str:
        """Its common name."""
        return common_name(self.certificate.subject) or "?"

    @property
    def expires_at(self) -> datetime:
        """When it ends, and with it whatever it signed."""
        return self.certificate.not_valid_after_utc

    def issue(
        self,
        name: str,
        *,
        server: bool = False,
        key: ec.EllipticCurvePrivateKey | None = None,
        days: Days = STATION_DAYS,
    ) -> Identity:
        """A certificate with common name and DNS name `name`.

        server: also good for a broker that others connect to. key: the subject's, a new one if None.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        return Identity(name, key, self._sign(name, key.public_key(), days, server=server), self.certificate)

    def sign_request(self, csr_der: bytes, device_id: str, days: Days = BUTTON_DAYS) -> x509.Certificate:
        """The certificate for a signing request in DER, made by the board `device_id`.

        The request must be signed by the P-256 key that it is for, and be for this name and no other. Nothing else in
        it is heeded: what the certificate allows is decided here.
        """
        try:
            request = x509.load_der_x509_csr(csr_der)
            is_signed = request.is_signature_valid
            key = request.public_key()
        except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise AuthorityFault(
                f"The signing request of {device_id} can't be read ({error}): run the same command again; "
                "if it stays so, load the firmware anew with `tocsin provision update`."
            ) from error
        if not is_id(device_id):
            raise AuthorityFault(f"{device_id!r} can't be an id: use 1 to 64 of a-z, 0-9, '-' and '.'.")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise AuthorityFault(f"The signing request of {device_id} is not for a P-256 key: nothing was signed.")
        if not is_signed:
            raise AuthorityFault(
                f"The signing request of {device_id} is not signed by the key that it is for: nothing was signed. "
                "It was altered on the way; run the same command again."
            )
        asked = common_name(request.subject)
        if asked != device_id or len(request.subject) != 1:
            raise AuthorityFault(
                f"The board asks for a certificate of {asked or request.subject.rfc4514_string()!r}, not of "
                f"{device_id}: nothing was signed. It is another board, or was half enrolled under another id: "
                f"look with `tocsin provision inspect`."
            )
        return self._sign(device_id, key, days, server=False)

    def renew(self, name: str, point: bytes, days: Days, *, server: bool = False) -> x509.Certificate:
        """Another certificate for a key that was certified before. point: the public key, 65 bytes."""
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError as error:
            raise AuthorityFault(f"What is known of {name} is not a P-256 key: nothing was signed.") from error
        return self._sign(name, key, days, server=server)

    def sign(self, octets: bytes) -> bytes:
        """ECDSA with SHA-256, in DER."""
        self._check_time()
        signature: bytes = self.key.sign(octets, ec.ECDSA(hashes.SHA256()))
        return signature

    def sign_successor(self, successor: Authority) -> x509.Certificate:
        """A certificate of the successor's name and key under this authority, as long as both are valid."""
        self._check_time()
        ends = min(self.expires_at, successor.expires_at)
        builder = _authority(
            successor.certificate.subject, self.certificate.subject, _public(successor.certificate), self._public
        )
        begins = successor.certificate.not_valid_before_utc
        return builder.not_valid_before(begins).not_valid_after(ends).sign(self.key, hashes.SHA256())

    def revoke(self, identity: Identity) -> None:
        """Puts a certificate on every list made by `crl` from now on."""
        self._revoked.setdefault(identity.certificate.serial_number, (self._clock(), identity.name))

    def crl(self) -> bytes:
        """The revocation list in PEM; each has a higher number than the one before."""
        self._lists += 1
        return self.list_of(self._revoked, self._lists)

    def list_of(self, revoked: dict[int, tuple[datetime, str]], number: int) -> bytes:
        """The revocation list in PEM for these serials: when, and whose certificates they were.

        It holds as long as the authority: a broker lets nobody in whose list has run out, and every button would be
        silenced because nobody made a new one in time.
        """
        now = self._check_time()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(max(now - _BACKDATED, self.certificate.not_valid_before_utc))
            .next_update(self.expires_at)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._public), critical=False)
        )
        for serial, (at, holder) in revoked.items():
            builder = builder.add_revoked_certificate(revocation.entry(serial, at, holder))
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @property
    def _public(self) -> ec.EllipticCurvePublicKey:
        return self.key.public_key()

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, days: Days, *, server: bool) -> x509.Certificate:
        now = self._check_time()
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])]
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(min(now + timedelta(days=days[1]), self.expires_at))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._public), critical=False)
            .add_extension(_usage(ca=False), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _check_time(self) -> datetime:
        now = self._clock()
        begins = self.certificate.not_valid_before_utc
        if now < begins:
            raise AuthorityFault(
                f"This laptop's clock says {_day(now)}, but the authority {self.name} began on {_day(begins)}: "
                "set the clock (`timedatectl`), then run the same command again. Nothing was signed."
            )
        if now >= self.expires_at:
            raise AuthorityFault(
                f"The authority {self.name} expired on {_day(self.expires_at)}, and this laptop's clock says "
                f"{_day(now)}. If the clock is right, make its successor with `tocsin provision ca rotate`; if it is not, set it "
                "(`timedatectl`) and run the same command again. Nothing was signed."
            )
        return now


def joined(certificates: Iterable[x509.Certificate]) -> bytes:
    """Certificates in PEM, one after another."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def common_name(name: x509.Name) -> str | None:
    """The one common name in a name; None if it has none or several."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else None


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _public(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AuthorityFault("The authority's certificate is not for a P-256 key.")
    return key


def _authority(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_usage(ca=True), critical=True)
    )
    if subject == issuer:
        return builder
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
