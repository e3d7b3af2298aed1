"""The authority signs what a board asks for, for the one name that was meant, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from provisioning.errors import AuthorityFault
from provisioning.pki import Authority

DAY = timedelta(days=1)


class Clock:
    """A laptop's clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def request(*names: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.DER)


def test_a_request_is_signed_for_its_key_and_name() -> None:
    authority, key = Authority.create(), ec.generate_private_key(ec.SECP256R1())
    certificate = authority.sign_request(request("khi-gate", key=key), "khi-gate")
    certificate.verify_directly_issued_by(authority.certificate)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=khi-gate"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["khi-gate"]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc > datetime.now(UTC) + 3600 * DAY


@pytest.mark.parametrize(
    ("csr", "says"),
    [
        (request("another"), "asks for a certificate of 'another'"),
        (request("khi-gate", "hq"), "not of khi-gate"),
        (request("khi-gate", key=ec.generate_private_key(ec.SECP384R1())), "not for a P-256 key"),
        (request("khi-gate", key=rsa.generate_private_key(65537, 2048)), "not for a P-256 key"),
        (request("khi-gate")[:-9], "can't be read"),
        (b"", "can't be read"),
    ],
)  # fmt: skip
def test_nothing_else_is_signed(csr: bytes, says: str) -> None:
    with pytest.raises(AuthorityFault, match=says):
        Authority.create().sign_request(csr, "khi-gate")


def test_a_request_that_was_altered_on_the_way_is_not_signed() -> None:
    csr = request("khi-gate")
    own = x509.load_der_x509_csr(csr).public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )  # fmt: skip
    foreign = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )  # fmt: skip
    with pytest.raises(AuthorityFault, match="not signed by the key"):
        Authority.create().sign_request(csr.replace(own, foreign), "khi-gate")


def test_what_the_request_asks_for_beyond_its_name_is_not_heeded() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "khi-gate")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hq")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = Authority.create().sign_request(csr.public_bytes(serialization.Encoding.DER), "khi-gate")
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["khi-gate"]


def test_an_expired_authority_says_so_and_signs_nothing() -> None:
    clock = Clock()
    authority = Authority.create(days=30, clock=clock)
    clock.now += 30 * DAY
    for attempt in (lambda: authority.sign_request(request("b1"), "b1"), lambda: authority.issue("hq"), authority.crl):
        with pytest.raises(AuthorityFault, match=r"expired on 2026-12-24.*ca rotate"):
            attempt()


def test_a_laptop_with_an_unset_clock_is_told_to_set_it() -> None:
    clock = Clock()
    authority = Authority.create(clock=clock)
    clock.now = datetime(2019, 1, 1, tzinfo=UTC)
    with pytest.raises(AuthorityFault, match=r"clock says 2019-01-01.*set the clock"):
        authority.sign_request(request("b1"), "b1")


def test_no_certificate_outlives_its_authority() -> None:
    authority = Authority.create(days=100)
    assert authority.sign_request(request("b1"), "b1").not_valid_after_utc == authority.expires_at
    assert authority.issue("hq").certificate.not_valid_after_utc == authority.expires_at


def test_lists_are_numbered_upwards_and_do_not_run_out() -> None:
    authority = Authority.create()
    identity = authority.issue("b1")
    first = x509.load_pem_x509_crl(authority.crl())
    authority.revoke(identity)
    second = x509.load_pem_x509_crl(authority.crl())
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (first, second)]
    assert numbers == [1, 2]
    assert second.is_signature_valid(authority.certificate.public_key())
    assert first.get_revoked_certificate_by_serial_number(identity.certificate.serial_number) is None
    assert second.get_revoked_certificate_by_serial_number(identity.certificate.serial_number)
    assert second.next_update_utc == authority.expires_at


def test_serials_are_not_counted() -> None:
    authority = Authority.create()
    serials = {authority.issue("b1").certificate.serial_number for _ in range(5)}
    assert len(serials) == 5
    assert min(serials).bit_length() > 100
