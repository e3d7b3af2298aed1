"""What tests of a board's enrolment have in common: the technician's side of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path


from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from firmware import enrolment, keys, p256
from provisioning.pki import Authority
from tests.parts import PROJECT, micropython

DER = serialization.Encoding.DER
AUTHORITY = Authority.create()
HQ = p256.public(7).hex()
ID = "khi-cn-b1"


def told(device: str, **changes: object) -> str:
    settings = {
        "id": device,
        "board": "virtual",
        "brokers": [["10.0.0.1", 8883, "khi"]],
        "hq": "hq",
        "hq_message_key": HQ,
    }
    return json.dumps({**settings, **changes})


def deliver(device: str, request: bytes) -> None:
    """What the technician's tool does with a request."""
    new = Path("identity.new")
    (new / "cert.der").write_bytes(AUTHORITY.sign_request(request, device).public_bytes(DER))
    (new / "ca.der").write_bytes(AUTHORITY.der)
    (new / "settings.json").write_text(told(device), encoding="utf-8")


def enrol(device: str) -> None:
    deliver(device, enrolment.request(device))
    assert enrolment.complete() == device


def files() -> dict[str, bytes]:
    """Everything on the board."""
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def on_micropython(script: str, folder: Path, *, heap_kb: int = 2000, modules: Path = PROJECT) -> str:
    """What a script of this folder prints, run in `folder`."""
    done = subprocess.run(
        [micropython(), "-X", f"heapsize={heap_kb}k", str(PROJECT / "tests" / "firmware" / script)],
        cwd=folder,
        env={"MICROPYPATH": f"{modules}:.frozen"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def check_pair(private: bytes, request: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """A key and its request, looked at by `cryptography`."""
    key = serialization.load_der_private_key(private, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    assert private == key.private_bytes(DER, form, serialization.NoEncryption())
    assert keys.private_number(private) == key.private_numbers().private_value
    csr = x509.load_der_x509_csr(request)
    assert csr.is_signature_valid
    assert csr.public_key() == key.public_key()
    assert isinstance(csr.signature_hash_algorithm, hashes.SHA256)
    (attribute,) = csr.subject
    assert (attribute.oid, attribute.value) == (NameOID.COMMON_NAME, name)
    assert b"\x0c" + bytes([len(name)]) + name.encode() in request, "the name is a UTF8String"
    public = key.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return public
