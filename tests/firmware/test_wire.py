"""The wire format: the same on both Pythons, readable by any COSE library, and never an exception but WireError."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycose.algorithms import HMAC256
from pycose.headers import KID, Algorithm
from pycose.keys.symmetric import SymmetricKey
from pycose.messages.mac0message import Mac0Message

from firmware import wire
from tests.firmware import run_vectors, vectors
from tests.parts import micropython

PROJECT = Path(__file__).parents[2]
KEY = vectors.KEY

LEAVES = st.one_of(
    st.integers(-(2**64), 2**64 - 1),
    st.binary(max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.booleans(),
    st.none(),
)


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=5) | st.dictionaries(st.integers(0, 2**32), children, max_size=5)


VALUES = LEAVES | nested(LEAVES | nested(LEAVES | nested(LEAVES | nested(LEAVES))))
NUMBERS = st.integers(0, 2**32 - 1)
ALARMS = st.fixed_dictionaries(
    {0: st.just(1), 1: NUMBERS, 2: NUMBERS, 3: st.integers(0, 2**53 - 1), 5: st.integers(0, 255)},
    optional={4: NUMBERS, 6: st.integers(0, 2), 100: LEAVES},
)


def by_pycose(octets: bytes, key: bytes = KEY) -> Mac0Message:
    """An envelope as pycose reads it, its MAC verified."""
    tagged = cbor2.loads(octets)
    assert tagged.tag == Mac0Message.cbor_tag
    # Not CoseMessage.decode: pycose 1.1 asks for list and dict where cbor2 6 gives what can't be changed.
    protected, unprotected, payload, tag = tagged.value
    message = Mac0Message.from_cose_obj([protected, dict(unprotected), payload, tag], True)  # noqa: FBT003 - pycose's
    message.key = SymmetricKey(k=key)
    assert message.verify_tag()
    return message


def test_committed_vectors_are_fresh() -> None:
    assert vectors.FILE.read_text(encoding="utf-8") == vectors.text(), "run `python -m tests.firmware.vectors`"


def test_vectors_pass_on_cpython() -> None:
    results = list(run_vectors.check(json.loads(vectors.FILE.read_text(encoding="utf-8"))))
    assert [what for what, passed in results if not passed] == []


def test_vectors_pass_on_micropython() -> None:
    done = subprocess.run(
        [micropython(), "-X", "heapsize=2m", "tests/firmware/run_vectors.py", "tests/vectors.json"],
        cwd=PROJECT,
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@given(VALUES)
def test_encoding_is_the_deterministic_one_of_cbor2(value: Any) -> None:  # noqa: ANN401 - any CBOR value
    octets = wire.encode(value)
    assert octets == cbor2.dumps(value, canonical=True)
    assert wire.decode(octets) == value


@given(st.binary(max_size=80))
@example(bytes.fromhex("5bffffffffffffffff"))
@example(b"\x81" * 2000)
def test_decoding_never_raises_anything_but_wire_error(octets: bytes) -> None:
    try:
        value = wire.decode(octets)
    except wire.WireError:
        return
    assert wire.encode(value) == octets, "there is a second spelling of a message"


@given(ALARMS, st.data())
def test_a_changed_envelope_is_refused_or_not_believed(message: dict[int, Any], data: st.DataObject) -> None:
    octets = bytearray(wire.seal(message, "b1", KEY))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= data.draw(st.integers(1, 255))
    try:
        envelope = wire.unseal(bytes(octets))
    except wire.WireError:
        return
    assert not envelope.sealed_with(KEY)


@given(st.binary(max_size=200))
def test_unsealing_never_raises_anything_but_wire_error(octets: bytes) -> None:
    for start in (b"", b"\xd1\x84", b"\xd1\x84\x47\xa2\x01\x05\x04\x42b1\xa0"):
        try:
            wire.unseal(start + octets)
        except wire.WireError:
            continue
        pytest.fail("an envelope without a MAC was taken apart")


@given(ALARMS)
def test_pycose_and_cbor2_read_our_envelopes(message: dict[int, Any]) -> None:
    octets = wire.seal(message, "khi-cn-b1", KEY)
    read = by_pycose(octets)
    assert read.payload is not None
    assert cbor2.loads(read.payload) == message
    assert read.phdr[KID] == b"khi-cn-b1"
    assert read.phdr[Algorithm] is HMAC256
    tagged = cbor2.loads(octets)
    assert tagged.tag == 17
    assert cbor2.loads(tagged.value[0]) == {1: 5, 4: b"khi-cn-b1"}


@given(ALARMS)
def test_we_read_envelopes_of_pycose(message: dict[int, Any]) -> None:
    header = {Algorithm: HMAC256, KID: b"khi-cn-b1"}
    made = Mac0Message(header, payload=cbor2.dumps(message, canonical=True), key=SymmetricKey(k=KEY))
    envelope = wire.unseal(made.encode())
    assert envelope.sealed_with(KEY)
    assert not envelope.sealed_with(bytes(32))
    assert (envelope.kid, envelope.message) == ("khi-cn-b1", message)
    assert made.encode() == wire.seal(message, "khi-cn-b1", KEY)


def test_a_stream_of_messages_is_not_one_message() -> None:
    stream = io.BytesIO()
    for _ in range(2):
        cbor2.dump({0: 1}, stream)
    with pytest.raises(wire.WireError, match="something follows"):
        wire.decode(stream.getvalue())


def test_the_press_by_hand_in_the_protocol_page_is_right() -> None:
    page = (PROJECT / "docs" / "protocol.md").read_text(encoding="utf-8")
    rows = {
        name: bytes.fromhex(octets)
        for name, octets in re.findall(r"^(payload|header|MAC|message) +((?:[0-9a-f]+ ?)+)$", page, re.MULTILINE)
    }
    envelope = wire.seal(vectors.ALARM, "khi-cn-b1", bytes(range(32)))
    assert rows["payload"] == wire.encode(vectors.ALARM)
    assert rows["header"] == wire.encode({1: 5, 4: b"khi-cn-b1"})
    assert rows["MAC"] == envelope[-32:]
    assert rows["message"] == envelope
    by_pycose(rows["message"])
