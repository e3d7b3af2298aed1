"""The message key: P-256 and HKDF against `cryptography`, and the cache in flash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import example, given, settings
from hypothesis import strategies as st

from provisioning.pki import Authority
from firmware import keys, p256, wire
from firmware.flash import Flash
from firmware.network import not_before

if TYPE_CHECKING:
    from pathlib import Path

SCALARS = st.integers(1, p256.N - 1)


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as an uncompressed point."""
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def der_of(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    """The private key in DER."""
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


@settings(max_examples=60)
@given(SCALARS, SCALARS)
@example(1, 1)
@example(2, 1)
@example(3, 1)
@example(p256.N - 1, 1)
@example(p256.N - 2, 3)
@example((p256.N + 1) // 2, 2)
@example(2**255, 2**254)
def test_shared_secret_is_the_one_of_cryptography(ours: int, theirs: int) -> None:
    mine, their = (ec.derive_private_key(number, ec.SECP256R1()) for number in (ours, theirs))
    assert p256.shared(ours, point_of(their)) == mine.exchange(ec.ECDH(), their.public_key())


@settings(max_examples=30)
@given(
    st.binary(min_size=32, max_size=32),
    st.sampled_from(["b1", "khi-cn-b1", "b" * 64]),
    st.sampled_from(["hq", "x.y-z"]),
)
def test_message_key_is_hkdf_of_cryptography(shared: bytes, child: str, parent: str) -> None:
    info = b"tocsin/1 message key\0" + child.encode() + b"\0" + parent.encode()
    assert wire.message_key(shared, child, parent) == HKDF(hashes.SHA256(), 32, None, info).derive(shared)


@pytest.mark.parametrize("form", [serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8])
def test_private_key_is_read_from_both_der_forms(form: serialization.PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert keys.private_number(der_of(key, form)) == key.private_numbers().private_value


def test_what_is_not_a_p256_key_is_refused_in_words() -> None:
    good = der_of(ec.derive_private_key(5, ec.SECP256R1()), serialization.PrivateFormat.TraditionalOpenSSL)
    larger = der_of(ec.generate_private_key(ec.SECP384R1()), serialization.PrivateFormat.TraditionalOpenSSL)
    for octets in (b"", b"-----BEGIN EC PRIVATE KEY-----", larger, *(good[:n] for n in range(len(good)))):
        with pytest.raises(p256.KeyFault):
            keys.private_number(octets)


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1))
def test_points_off_the_curve_are_refused(x: int, y: int) -> None:
    with pytest.raises(p256.KeyFault, match="not a point"):
        p256.shared(5, b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))


def test_other_forms_of_points_and_scalars_are_refused() -> None:
    point = point_of(ec.derive_private_key(5, ec.SECP256R1()))
    for bad in (b"", point[:-1], point + b"\0", b"\x02" + point[1:], b"\x03" + point[1:33]):
        with pytest.raises(p256.KeyFault, match="uncompressed"):
            p256.shared(5, bad)
    for number in (0, p256.N, -1):
        with pytest.raises(p256.KeyFault, match="order"):
            p256.shared(number, point)


def test_message_key_is_computed_once_and_again_for_another_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = Flash(str(tmp_path))
    hq = ec.generate_private_key(ec.SECP256R1())
    first, second = (Authority.create().issue("b1") for _ in range(2))
    ders = [der_of(identity.key, serialization.PrivateFormat.TraditionalOpenSSL) for identity in (first, second)]

    def expected(identity_key: ec.EllipticCurvePrivateKey) -> bytes:
        return wire.message_key(hq.exchange(ec.ECDH(), identity_key.public_key()), "b1", "hq")

    assert keys.message_key(flash, ders[0], "b1", "hq", point_of(hq)) == expected(first.key)
    with monkeypatch.context() as patch:
        patch.setattr(p256, "shared", lambda *_: pytest.fail("computed twice"))
        assert keys.message_key(flash, ders[0], "b1", "hq", point_of(hq)) == expected(first.key)
    assert keys.message_key(flash, ders[1], "b1", "hq", point_of(hq)) == expected(second.key)
    flash.write("message-key", b"half a key")
    assert keys.message_key(flash, ders[1], "b1", "hq", point_of(hq)) == expected(second.key)


def test_start_of_validity_is_read_from_a_certificate() -> None:
    identity = Authority.create().issue("b1")
    start = identity.certificate.not_valid_before_utc
    der = identity.certificate.public_bytes(serialization.Encoding.DER)
    assert not_before(der) == (start.year, start.month, start.day, start.hour, start.minute, start.second)
