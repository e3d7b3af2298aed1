"""Names are looked up without holding the button up: real MicroPython, and a name server that the test plays."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import names
from tests.parts import PROJECT, micropython

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = b"\x12\x34"
HEAD = NUMBER + b"\x81\x80\0\1\0\2\0\0\0\0"
ASKED = b"\3khi\3gov\0" + b"\0\1\0\1"
ALIAS = b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\4\1x\xc0\x0c"
ADDRESS = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\1\2\3"


def test_an_address_is_found_behind_an_alias() -> None:
    assert names.answer(HEAD + ASKED + ALIAS + ADDRESS, NUMBER) == "10.1.2.3"
    assert names.answer(HEAD + ASKED + ADDRESS + ALIAS, NUMBER) == "10.1.2.3"


def test_what_answers_something_else_is_no_answer() -> None:
    whole = HEAD + ASKED + ALIAS + ADDRESS
    assert names.answer(whole, b"\x12\x35") is None
    assert names.answer(NUMBER + b"\1\0" + whole[4:], NUMBER) is None  # a question
    for length in range(len(whole)):
        assert names.answer(whole[:length], NUMBER) is None
    assert names.answer(NUMBER + b"\x81\x83\0\1\0\0\0\0\0\0" + ASKED, NUMBER) == ""


@given(st.binary(max_size=80))
def test_any_octets_are_an_answer_or_none(octets: bytes) -> None:
    names.answer(HEAD + octets, NUMBER)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, "."])
def test_what_can_be_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(OSError, match="host's name"):
        names.question(NUMBER, name)


@contextlib.contextmanager
def server() -> Iterator[int]:
    """A name server that knows one name, is silent about another, and lies before it answers; its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    octets, whence = udp.recvfrom(512)
                    if b"silent" in octets:
                        continue
                    for lie in (b"", b"\xff" * 40, octets, bytes((octets[0] ^ 1,)) + octets[1:]):
                        udp.sendto(lie, whence)
                    known = b"khi" in octets
                    head = octets[:2] + b"\x81\x80\0\1\0" + bytes((known,)) + b"\0\0\0\0"
                    udp.sendto(head + octets[12:] + (ADDRESS if known else b""), whence)

        threading.Thread(target=serve, daemon=True).start()
        yield udp.getsockname()[1]


def test_a_look_up_takes_its_time_and_no_more_and_stops_nobody() -> None:
    with server() as port:
        done = subprocess.run(
            [
                micropython(),
                str(PROJECT / "tests" / "firmware" / "run_names.py"),
                str(port),
                "khi.gov",
                "silent",
                "ru.gov",
            ],
            env={"MICROPYPATH": f"{PROJECT}:.frozen"},
            capture_output=True,
            check=True,
            timeout=20,
        )
    result = json.loads(done.stdout)
    assert result["answers"] == [
        "10.1.2.3",
        "the name server 127.0.0.1 does not answer",
        "the name server 127.0.0.1 knows no address",
    ]
    assert result["worst_ms"] < 500
