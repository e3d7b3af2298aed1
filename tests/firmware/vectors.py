"""Makes tests/vectors.json: what any implementation of docs/protocol.md must write, read and refuse.

    python -m tests.firmware.vectors

Byte strings are {"bytes": hex}, maps {"map": [[key, value], …]}; the rest is plain JSON. No random number goes in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from firmware import p256, wire

FILE = Path(__file__).parents[1] / "vectors.json"
KEY = bytes(range(32))
KID = "khi-cn-b1"
ALARM = {0: 1, 1: 3, 2: 1, 3: 12, 5: 1}

VALUES: list[Any] = [
    *(0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1, 2**64 - 1),
    *(-1, -24, -25, -256, -257, -65537, -(2**32)),
    *("", "a", "Größe", "\U0001f514 \uffff\ud7ff\ue000\x7f\x80", "سفارت", "x" * 23, "x" * 24, "x" * 256),
    *(b"", b"\0", bytes(23), bytes(24), bytes(300)),
    *(True, False, None),
    *([], [1, [2, [3, [4]]]][1:], [[[[]]]], list(range(64))),
    *({}, {0: 1}, {23: 0, 24: 1, 255: 2, 256: 3, 65536: 4}, {0: {1: {2: {3: 4}}}}, {n: n for n in range(64)}),
    {0: [1, b"\xff", "z", None, True, {7: -1}], 30: [[1, 2, 3], [1, 9, 0]]},
]

REFUSED_CBOR = {
    "nothing at all": "",
    "a number in one byte too many": "1817",
    "a number in two bytes too many": "1900ff",
    "a number in four bytes too many": "1a0000ffff",
    "a number in eight bytes too many": "1b00000000ffffffff",
    "a negative number in one byte too many": "3817",
    "a length in one byte too many": "580141",
    "a text length in two bytes too many": "79000161",
    "a list length in one byte too many": "980100",
    "a map length in one byte too many": "b8010000",
    "an indefinite byte string": "5f4100ff",
    "an indefinite text": "7f6161ff",
    "an indefinite list": "9f00ff",
    "an indefinite map": "bf0000ff",
    "a lone break": "ff",
    "reserved additional information 28": "1c",
    "reserved additional information 29": "3d",
    "reserved additional information 30": "5e",
    "a half float": "f93c00",
    "a single float": "fa3f800000",
    "a double float": "fb3ff0000000000000",
    "a float that is a whole number inside a map": "a100f90000",
    "undefined": "f7",
    "an unassigned simple value": "e0",
    "a simple value in two bytes": "f8ff",
    "false in two bytes": "f814",
    "a tag": "c100",
    "a tag inside a list": "81c100",
    "a repeated key": "a200000001",
    "a repeated long key": "a2181e00181e01",
    "keys out of order": "a201000000",
    "a negative key": "a12000",
    "a text key": "a1616100",
    "a byte string key": "a1414100",
    "a key in one byte too many": "a1181700",
    "a cut number": "19ff",
    "a cut head": "1a",
    "a cut byte string": "4400ff",
    "a cut text": "6261",
    "a cut list": "8200",
    "a cut map": "a2000001",
    "a map without its value": "a100",
    "a byte string longer than memory": "5bffffffffffffffff",
    "a list longer than memory": "9bffffffffffffffff",
    "a map longer than memory": "bbffffffffffffffff",
    "65 entries in a list": "9841" + "00" * 65,
    "65 entries in a map": "b841" + "".join(wire.encode(n).hex() + "00" for n in range(65)),
    "five levels of lists": "8181818180",
    "five levels of maps": "a100a100a100a100a0",
    "five levels, mixed": "81a10081a10080",
    "a thousand levels": "81" * 1000,
    "text that is not UTF-8": "62c328",
    "text with a surrogate": "63eda080",
    "text with a letter in two bytes": "62c1a1",
    "text with a letter in three bytes": "63e081a1",
    "text with a zero in two bytes": "62c080",
    "text beyond the last character": "64f4908080",
    "text with a lone continuation": "6180",
    "text cut in a character": "61c3",
    "something after a number": "0000",
    "something after a map": "a000",
}


def spelled(value: Any) -> Any:  # noqa: ANN401 - any CBOR value
    """`value` in the vectors' JSON spelling."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"map": [[key, spelled(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return [spelled(item) for item in value]
    return value


MESSAGES: list[dict[int, Any]] = [
    ALARM,
    {**ALARM, 3: 2**53 - 1, 4: 2, 6: 2},
    {0: 2, 1: 3, 2: 2, 3: 310, 7: 2, 8: "A"},
    {0: 2, 1: 3, 2: 3, 3: 0, 7: 8, 9: 17},
    {0: 3, 1: 3, 2: 4, 20: 0, 21: 0, 22: 4050, 23: 1, 24: -61, 25: 98000, 26: 5000, 27: 1, 28: "0.1.0", 29: 1,
     30: [[3, 1, 2]], 31: 4, 32: 0, 35: 0},
    {0: 3, 1: 9, 2: 4, 26: 5000, 33: 40, 34: 37, 38: [0, [["khi-cn-b1", 2], ["khi-cn-b2", 3]]]},
    {0: 3, 1: 9, 2: 5, 26: 9000, 33: 900, 34: 2, 38: [866, [["b%02d" % n, 255] for n in range(32)]]},
    {0: 4, 1: 3, 2: 1, 10: 2, 11: KID},
    {0: 4, 1: 3, 2: 1, 10: 2, 11: "khi-cn", 39: [["khi-cn-b1", 7200]]},
    {0: 4, 1: 3, 2: 1, 10: 2, 11: "khi-cn", 39: []},
    {0: 4, 1: 2**32 - 1, 2: 2**32 - 1, 10: 5, 11: "a" * 64},
    {0: 5, 1: 9, 2: 9, 7: 1, 11: KID},
    {0: 5, 1: 9, 2: 10, 7: 2, 9: bytes(range(112)), 11: KID},
    {0: 2, 1: 3, 2: 9, 3: 0, 7: 10, 9: {0: 9, 1: 10, 5: "wrong password"}},
    {0: 6, 13: b"\xd1\x84", 14: [["khi-cn", 1795483904046]]},
    {0: 7, 1: 3, 2: 5, 12: 1},
    {**ALARM, 200: {0: "unknown fields", 1: [True, None]}},
]  # fmt: skip


NETWORKS = [("Consulate", "correct horse battery"), ("سفارت", ""), ("s" * 32, "p" * 63)]


def masked_networks() -> list[dict[str, Any]]:
    """Details of the command wifi, masked by another implementation of AES-CTR."""
    key = wire.command_key(KEY)
    rows = []
    for (boot, seq), (name, password) in zip([(9, 10), (1, 2**32 - 1), (2**32 - 1, 1)], NETWORKS, strict=True):
        octets = wire.encode([name, password])
        plain = bytes([len(octets)]) + octets + bytes(111 - len(octets))
        counter = boot.to_bytes(4, "big") + seq.to_bytes(4, "big") + bytes(8)
        masked = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor().update(plain)
        rows.append(
            {"boot": boot, "seq": seq, "name": name, "password": password, "key": key.hex(), "hex": masked.hex()}
        )
    return rows


def sealed(payload: bytes, protected: bytes | None = None, unprotected: bytes = b"\xa0", key: bytes = KEY) -> bytes:
    """An envelope around any octets, with a right MAC: to try what else may be wrong with it."""
    protected = wire.encode({1: 5, 4: KID.encode()}) if protected is None else protected
    body = b"\x84\x64MAC0" + wire.encode(protected) + b"\x40" + wire.encode(payload)
    tag = wire.hmac_sha256(key, body)
    return b"\xd1\x84" + wire.encode(protected) + unprotected + wire.encode(payload) + wire.encode(tag)


def refused_envelopes() -> dict[str, bytes]:
    """Envelopes that are not to be taken apart, each with a right MAC where it has one at all."""
    good = wire.seal(ALARM, KID, KEY)
    fields = enumerate(("kind", "boot", "seq", "age"))
    without = {name: {key: value for key, value in ALARM.items() if key != field} for field, name in fields}
    refused = {
        "an untagged COSE_Mac0": good[1:],
        "a COSE_Mac (tag 97)": b"\xd8\x61" + good[1:],
        "a tag 17 in two bytes": b"\xd8\x11" + good[1:],
        "an array of three": b"\xd1\x83" + good[2:-34],
        "an array of five": b"\xd1\x85" + good[2:] + b"\x00",
        "an indefinite array": b"\xd1\x9f" + good[2:] + b"\xff",
        "an envelope cut by one byte": good[:-1],
        "an envelope with one byte more": good + b"\0",
        "a MAC of 31 bytes": good[:-34] + b"\x58\x1f" + good[-31:],
        "a MAC of 8 bytes (HMAC 256/64)": good[:-34] + b"\x48" + good[-8:],
        "an unprotected header": sealed(wire.encode(ALARM), unprotected=b"\xa1\x04\x41\x61"),
        "an algorithm other than HMAC 256/256": sealed(wire.encode(ALARM), wire.encode({1: 4, 4: KID.encode()})),
        "no kid": sealed(wire.encode(ALARM), wire.encode({1: 5})),
        "a third header": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: KID.encode(), 5: b""})),
        "a kid that is text": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: KID})),
        "a kid with a capital": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: b"KHI"})),
        "a kid with a slash": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: b"a/b"})),
        "a kid with a plus": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: b"a+"})),
        "a kid of 65 letters": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: b"a" * 65})),
        "an empty kid": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: b""})),
        "a kid that is not UTF-8": sealed(wire.encode(ALARM), wire.encode({1: 5, 4: b"\xff"})),
        "a protected header that is a list": sealed(wire.encode(ALARM), wire.encode([1, 5])),
        "an empty protected header": sealed(wire.encode(ALARM), b""),
        "a payload that is a list": sealed(wire.encode([1])),
        "an empty payload": sealed(b""),
        "a payload with something after it": sealed(wire.encode(ALARM) + b"\0"),
        "a payload in another order": sealed(bytes.fromhex("a5010300010201030c0501")),
        "an envelope beyond 2,048 bytes": sealed(wire.encode({**ALARM, 200: bytes(2000)})),
        "kind 0": sealed(wire.encode({**ALARM, 0: 0})),
        "kind true": sealed(wire.encode({**ALARM, 0: True})),
        "an unknown kind": sealed(wire.encode({**ALARM, 0: 8})),
        "boot true": sealed(wire.encode({**ALARM, 1: True})),
        "boot beyond 32 bits": sealed(wire.encode({**ALARM, 1: 2**32})),
        "a negative seq": sealed(wire.encode({**ALARM, 2: -1})),
        "an age beyond 53 bits": sealed(wire.encode({**ALARM, 3: 2**53})),
        "a cause that is text": sealed(wire.encode({**ALARM, 5: "hold-up"})),
        "stage 6": sealed(wire.encode({0: 4, 1: 1, 2: 1, 10: 6, 11: KID})),
        "a receipt without device": sealed(wire.encode({0: 4, 1: 1, 2: 1, 10: 2})),
        "a device that is no id": sealed(wire.encode({0: 4, 1: 1, 2: 1, 10: 2, 11: "../b"})),
        "presence 2": sealed(wire.encode({0: 7, 1: 1, 2: 1, 12: 2})),
        "a frame whose envelope is text": sealed(wire.encode({0: 6, 13: "", 14: []})),
        "a hop of three": sealed(wire.encode({0: 6, 13: b"", 14: [["a", 1, 2]]})),
        "a hop whose station is no id": sealed(wire.encode({0: 6, 13: b"", 14: [["A", 1]]})),
        "a digest of one": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 38: [0]})),
        "a digest without its list": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 38: [0, 0]})),
        "a digest with a negative number": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 38: [-1, []]})),
        "a digest that names no id": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 38: [0, [["B", 1]]]})),
        "a digest with a state beyond 255": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 38: [0, [["b", 256]]]})),
        "a digest with 33 names": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 38: [0, [["b", 1]] * 33]})),
        "a maintenance that is a map": sealed(wire.encode({0: 4, 1: 1, 2: 1, 10: 2, 11: KID, 39: {0: 1}})),
        "a maintenance without seconds": sealed(wire.encode({0: 4, 1: 1, 2: 1, 10: 2, 11: KID, 39: [["b"]]})),
        "a shown alarm of two": sealed(wire.encode({0: 3, 1: 1, 2: 1, 26: 1, 30: [[1, 1]]})),
    }
    return refused | {f"an alarm without {name}": sealed(wire.encode(message)) for name, message in without.items()}


def build() -> dict[str, Any]:
    """The contents of tests/vectors.json."""
    privates = [1, 2, 3, 0xC0FFEE, p256.N - 1, int.from_bytes(KEY, "big")]
    point = bytes.fromhex(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )  # the generator of P-256
    return {
        "about": "docs/protocol.md; made by tests/firmware/vectors.py",
        "key": KEY.hex(),
        "kid": KID,
        "values": [{"value": spelled(value), "hex": wire.encode(value).hex()} for value in VALUES],
        "envelopes": [{"message": spelled(m), "hex": wire.seal(m, KID, KEY).hex()} for m in MESSAGES],
        "refused_cbor": [{"what": what, "hex": octets} for what, octets in REFUSED_CBOR.items()],
        "refused_envelopes": [{"what": what, "hex": octets.hex()} for what, octets in refused_envelopes().items()],
        "networks": masked_networks(),
        "message_keys": [
            {
                "private": f"{private:064x}",
                "point": point.hex(),
                "child": KID,
                "parent": "hq",
                "shared": p256.shared(private, point).hex(),
                "key": wire.message_key(p256.shared(private, point), KID, "hq").hex(),
            }
            for private in privates
        ],
    }


def text() -> str:
    """The file's text: one vector a line."""
    lists = {name: value for name, value in build().items() if isinstance(value, list)}
    plain = {name: value for name, value in build().items() if not isinstance(value, list)}
    parts = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in plain.items()]
    for name, vectors in lists.items():
        rows = ",\n".join("  " + json.dumps(vector, ensure_ascii=False) for vector in vectors)
        parts.append(f" {json.dumps(name)}: [\n{rows}\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
