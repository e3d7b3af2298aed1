"""MQTT packets: as the standard has them, strict about what comes in, and alike on both Pythons."""

from __future__ import annotations

import json
import random
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import mqtt
from tests.firmware.run_inbox import packets
from tests.parts import PROJECT, micropython

TOPIC = "tocsin/1/khi-cn-b1/receipt"
PIECES = st.lists(st.binary(max_size=300), max_size=8)
MESSAGES = st.tuples(st.binary(max_size=1024), st.integers(0, 1), st.integers(1, 65535))

WELL = {
    "20020000": [[mqtt.CONNACK]],
    "4002fffe": [[mqtt.PUBACK, 0xFFFE]],
    "9004000a0101": [[mqtt.SUBACK, 10]],
    "d000": [[mqtt.PINGRESP]],
    "3003000161": [[mqtt.PUBLISH, "a", "", 0]],
    "3b0700026162000768": [[mqtt.PUBLISH, "ab", "68", 7]],
    "30040002c3a9d000": [[mqtt.PUBLISH, "é", "", 0], [mqtt.PINGRESP]],
    "d0": [],
    "": [],
}
ILL = {
    "20020005": "not authorised",
    "200200ff": "reason 255",
    "20020100": "clean",
    "20030000": "",  # not in full yet
    "2003000000": "not for a button",
    "9003000180": "refuses a subscription",
    "9003000102": "refuses a subscription",
    "90020001": "not for a button",
    "d100": "reserved flags",
    "d00100": "not for a button",
    "4003000100": "not for a button",
    "0000": "not for a button",
    "f000": "not for a button",
    "c000": "not for a button",
    "62020001": "reserved flags",
    "3000": "within its header",
    "300100": "within its header",
    "30020000": "within its header",
    "3003000261": "within its header",
    "320400016100": "within its header",
    "32050001610000": "packet id 0",
    "34050001610001": "QoS",
    "36050001610001": "QoS",
    "3803000161": "QoS",
    "30030001ff": "UTF-8",
    "300400026123": "no topic may have",
    "30030001" + "2b": "no topic may have",
    "3003000100": "no topic may have",
    "30ffffffff7f": "malformed",
    "30ffffff7f": "too long",
    "30fe1f": "too long",
}


def board(streams: list[list[bytes]]) -> list[list[list[object] | str]]:
    """What MicroPython reads in each stream."""
    result = subprocess.run(
        [micropython(), str(PROJECT / "tests" / "firmware" / "run_inbox.py")],
        input=json.dumps([[piece.hex() for piece in stream] for stream in streams]).encode(),
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        check=True,
        timeout=30,
    )
    answer: list[list[list[object] | str]] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize(("octets", "expected"), WELL.items())
def test_packets_of_a_broker_are_read(octets: str, expected: list[list[object]]) -> None:
    assert packets([bytes.fromhex(octets)]) == expected


@pytest.mark.parametrize(("octets", "why"), [(octets, why) for octets, why in ILL.items() if why])
def test_packets_that_no_broker_may_send_a_button_are_refused(octets: str, why: str) -> None:
    (refusal,) = packets([bytes.fromhex(octets)])
    assert why in str(refusal)


def test_a_packet_of_2048_octets_is_read_and_one_of_2049_is_not() -> None:
    body = b"\x00\x01a" + bytes(mqtt.MAX_PACKET - 6)
    whole = b"\x30" + bytes((len(body) & 127 | 128, len(body) >> 7)) + body
    assert len(whole) == mqtt.MAX_PACKET
    assert len(packets([whole + mqtt.PINGREQ])) == 2  # the second is a refusal: a broker does not ask
    (refusal,) = packets([b"\x30" + bytes((len(body) + 1 & 127 | 128, len(body) + 1 >> 7)) + body])
    assert "2049" in str(refusal)


@given(PIECES)
def test_any_octets_are_read_or_refused(pieces: list[bytes]) -> None:
    packets(pieces)


@given(st.lists(MESSAGES, max_size=12), st.integers(1, 700))
def test_messages_survive_being_cut_anywhere(messages: list[tuple[bytes, int, int]], size: int) -> None:
    stream = b"".join(
        mqtt.publish(TOPIC, payload, qos, retain=False, packet_id=number) for payload, qos, number in messages
    )
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert packets(pieces) == [
        [mqtt.PUBLISH, TOPIC, payload.hex(), number if qos else 0] for payload, qos, number in messages
    ]


@pytest.mark.timeout(30)
def test_micropython_reads_as_cpython_does() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    known = [bytes.fromhex(octets) for octets in [*WELL, *ILL]]
    streams = [[octets] for octets in known]
    for _ in range(400):
        octets = bytearray(b"".join(draw.choices(known, k=4)))
        for _ in range(draw.randrange(3)):
            octets[draw.randrange(len(octets))] = draw.randrange(256) if octets else 0
        cut = draw.randrange(len(octets) + 1)
        streams.append([bytes(octets[:cut]), bytes(octets[cut:])])
    assert board(streams) == [packets(stream) for stream in streams]


def test_packets_of_a_button_are_as_the_standard_has_them() -> None:
    assert mqtt.connect("b1", 8, "t", b"w") == bytes.fromhex("1014 0004 4d515454 04 2e 0008 0002 6231 0001 74 0001 77")
    assert mqtt.subscribe(10, ["a", "é"]) == bytes.fromhex("820b 000a 0001 61 01 0002 c3a9 01")
    assert mqtt.publish("a", b"xy", 0, retain=True, packet_id=9) == bytes.fromhex("3105 0001 61 7879")
    assert mqtt.publish("a", b"xy", 1, retain=False, packet_id=9) == bytes.fromhex("3207 0001 61 0009 7879")
    assert mqtt.puback(0x1234) == bytes.fromhex("4002 1234")
    assert mqtt.publish("a", bytes(125), 0, retain=False, packet_id=0)[:3] == bytes.fromhex("308001")


def test_a_message_too_long_to_send_is_refused() -> None:
    with pytest.raises(mqtt.MqttError, match="too long to send"):
        mqtt.publish(TOPIC, bytes(mqtt.MAX_PACKET), 1, retain=False, packet_id=1)
