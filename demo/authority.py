"""A throw-away certificate authority: everything the demo and the tests need to be trusted, or not to be.

Its private key lives in memory only. A real installation's authority is kept offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True)
class Identity:
    """A private key and the certificate for it."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    ca: x509.Certificate

    def _key(self, encoding: serialization.Encoding) -> bytes:
        return self.key.private_bytes(
            encoding, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )

    def write_pem(self, folder: Path) -> None:
        """key.pem, cert.pem and ca.pem, as mosquitto, paho and OpenSSL read them."""
        self._write(folder, "pem", serialization.Encoding.PEM)

    def write_der(self, folder: Path) -> None:
        """key.der, cert.der and ca.der, as MicroPython reads them."""
        self._write(folder, "der", serialization.Encoding.DER)

    def _write(self, folder: Path, suffix: str, encoding: serialization.Encoding) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / f"key.{suffix}"
        key.touch(mode=0o600)
        key.write_bytes(self._key(encoding))
        (folder / f"cert.{suffix}").write_bytes(self.certificate.public_bytes(encoding))
        (folder / f"ca.{suffix}").write_bytes(self.ca.public_bytes(encoding))


class Authority:
    """Signs certificates and revocation lists. P-256 throughout."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate
        self._revoked: list[x509.RevokedCertificate] = []

    @classmethod
    def create(cls, name: str = "Tocsin throw-away authority") -> Authority:
        """A new authority with a new key, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @property
    def pem(self) -> bytes:
        """The authority's certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The authority's certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def issue(
        self,
        name: str,
        *,
        server: bool = False,
        key: ec.EllipticCurvePrivateKey | None = None,
        days: tuple[float, float] = (-1, 825),
    ) -> Identity:
        """A certificate with common name and DNS name `name`, valid from and to `days` from now.

        server: also good for a broker that others connect to. key: the subject's, a new one if None.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(ca=False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return Identity(name, key, certificate, self.certificate)

    def revoke(self, identity: Identity) -> None:
        """Puts a certificate on every list made by `crl` from now on."""
        self._revoked.append(
            x509.RevokedCertificateBuilder()
            .serial_number(identity.certificate.serial_number)
            .revocation_date(datetime.now(UTC))
            .build()
        )

    def crl(self) -> bytes:
        """The revocation list in PEM, valid for a year."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - timedelta(days=1))
            .next_update(now + timedelta(days=365))
        )
        for revoked in self._revoked:
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


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
