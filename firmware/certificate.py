"""The request for a button's certificate (PKCS #10, RFC 2986), and what the certificate that comes back says.

Neither is verified here: whoever signs the request checks it, and the brokers check the certificate. What the button
must know for itself is for whom and for which key a certificate was made.
"""

from firmware import der, ecdsa, p256

_COMMON_NAME = b"\x55\x04\x03"  # 2.5.4.3
_EC_KEY = b"\x2a\x86\x48\xce\x3d\x02\x01"  # 1.2.840.10045.2.1
_P256 = b"\x2a\x86\x48\xce\x3d\x03\x01\x07"  # 1.2.840.10045.3.1.7
_ECDSA_SHA256 = b"\x2a\x86\x48\xce\x3d\x04\x03\x02"  # 1.2.840.10045.4.3.2


class CertificateFault(ValueError):
    """What is wrong with a certificate or a request, in one sentence."""


def _oid(octets: bytes) -> bytes:
    return der.element(der.OID, octets)


def private_key(private: int, point: bytes) -> bytes:
    """A private key in DER (SEC 1; RFC 5915) with its curve and its point: what `keys.private_number` reads."""
    return der.element(
        der.SEQUENCE,
        der.integer(1),
        der.element(der.OCTETS, private.to_bytes(32, "big")),
        der.element(der.TAGGED_0, _oid(_P256)),
        der.element(der.TAGGED_1, der.element(der.BITS, b"\0", point)),
    )


def request(private: int, point: bytes, name: str) -> bytes:
    """A request in DER for a certificate with the common name `name`, signed with the key that it is for."""
    common_name = der.element(der.SEQUENCE, _oid(_COMMON_NAME), der.element(der.UTF8, name.encode()))
    wanted = der.element(
        der.SEQUENCE,
        der.integer(0),
        der.element(der.SEQUENCE, der.element(der.SET, common_name)),
        der.element(
            der.SEQUENCE,
            der.element(der.SEQUENCE, _oid(_EC_KEY), _oid(_P256)),
            der.element(der.BITS, b"\0", point),
        ),
        der.element(der.TAGGED_0),
    )
    signature = ecdsa.sign(private, wanted)
    algorithm = der.element(der.SEQUENCE, _oid(_ECDSA_SHA256))
    return der.element(der.SEQUENCE, wanted, algorithm, der.element(der.BITS, b"\0", signature))


def _common_name(name: der.Der) -> str:
    """The common name in a distinguished name; it must have one and no more."""
    found = []
    while name.octets:
        parts = name.take(der.SET)
        while parts.octets:
            part = parts.take(der.SEQUENCE)
            if part.take(der.OID).octets == _COMMON_NAME:
                found.append(part.take(der.UTF8 if part.has(der.UTF8) else der.PRINTABLE).octets)
    if len(found) != 1:
        raise der.DerFault("there are %d common names, and there must be one" % len(found))
    return found[0].decode()


def _point(key: der.Der):
    """The point, 65 bytes, in a SubjectPublicKeyInfo; None if it is a key of another kind."""
    algorithm = key.take(der.SEQUENCE)
    if algorithm.take(der.OID).octets != _EC_KEY or algorithm.octets != _oid(_P256):
        return None
    point = key.take(der.BITS).octets
    if len(point) != 66 or point[:2] != b"\0\4":
        return None
    return point[1:]


def of_request(octets: bytes) -> tuple:
    """(common name, point) that a request is for. Raises CertificateFault."""
    try:
        wanted = der.Der(octets).take(der.SEQUENCE).take(der.SEQUENCE)
        wanted.take(der.INTEGER)
        return _common_name(wanted.take(der.SEQUENCE)), _point(wanted.take(der.SEQUENCE))
    except ValueError as problem:  # also a name that is not UTF-8
        raise CertificateFault("it is not a certificate request in DER: %s" % problem) from None


def _issuer(octets: bytes) -> der.Der:
    """A cursor at the issuer of a certificate in DER."""
    outer = der.Der(octets)
    parts = outer.take(der.SEQUENCE)
    outer.end()
    signed = parts.take(der.SEQUENCE)
    if signed.has(der.TAGGED_0):
        signed.take(der.TAGGED_0)  # the version
    signed.take(der.INTEGER)  # the serial number
    signed.take(der.SEQUENCE)  # the signature's algorithm
    return signed


def _subject(octets: bytes) -> der.Der:
    """A cursor at the subject of a certificate in DER."""
    signed = _issuer(octets)
    signed.take(der.SEQUENCE)
    signed.take(der.SEQUENCE)  # its validity
    return signed


def of_certificate(octets: bytes) -> tuple:
    """(common name, point) that a certificate was issued for. Raises CertificateFault."""
    try:
        signed = _subject(octets)
        name = _common_name(signed.take(der.SEQUENCE))
        point = _point(signed.take(der.SEQUENCE))
    except ValueError as problem:
        raise CertificateFault("it is not a certificate in DER: %s" % problem) from None
    if point is None or not p256.is_point(point):
        raise CertificateFault("its public key is not a key of P-256")
    return name, point


def names(octets: bytes) -> tuple:
    """(issuer, subject) of a certificate, each the octets of its distinguished name. Raises CertificateFault."""
    try:
        return _issuer(octets).take(der.SEQUENCE).octets, _subject(octets).take(der.SEQUENCE).octets
    except der.DerFault as problem:
        raise CertificateFault("it is not a certificate in DER: %s" % problem) from None


def check_form(octets: bytes) -> None:
    """Raises CertificateFault unless this is a certificate in DER, of whatever name and key."""
    try:
        signed = _subject(octets)
        signed.take(der.SEQUENCE)
        signed.take(der.SEQUENCE)
    except der.DerFault as problem:
        raise CertificateFault("it is not a certificate in DER: %s" % problem) from None
