"""Looks a station's name up without keeping anybody waiting: the chip's own look-up holds everything up for 7 s a server.

One question by UDP to the name server that the network told of (RFC 1035). Nobody has to believe the answer: TLS proves who
is there. A system that does not tell its name server, as the virtual board's, looks names up by itself.
"""

import asyncio
import os
import socket

from firmware.vigil import RESOLVE_MS

PORT = 53

_A_OF_INTERNET = b"\0\1\0\1"


def question(number: bytes, name: str) -> bytes:
    """The question for the IPv4 address of `name`; number: two octets that the answer must repeat. OSError: no such name can be."""
    octets = number + b"\1\0\0\1\0\0\0\0\0\0"  # recursion desired, one question
    for label in name.encode().split(b"."):
        if not 0 < len(label) < 64:
            raise OSError("this can't be a host's name")
        octets += bytes((len(label),)) + label
    return octets + b"\0" + _A_OF_INTERNET


def answer(octets: bytes, number: bytes):
    """The address in digits that `octets` answer with, "" if there is none for the name; None if it is no answer to `number`."""
    if len(octets) < 12 or octets[:2] != number or not octets[2] & 0x80 or octets[4:6] != b"\0\1":
        return None
    try:
        at = _after_name(octets, 12) + 4
        for _ in range(octets[7]):
            at = _after_name(octets, at)
            length = octets[at + 8] << 8 | octets[at + 9]
            if len(octets) < at + 10 + length:
                return None
            if octets[at : at + 4] == _A_OF_INTERNET and length == 4:
                return ".".join([str(octet) for octet in octets[at + 10 : at + 14]])
            at += 10 + length
    except IndexError:
        return None
    return ""


def _after_name(octets: bytes, at: int) -> int:
    while octets[at]:
        if octets[at] >= 0xC0:
            return at + 2
        at += 1 + octets[at]
    return at + 1


def _server():
    """The name server's address in digits; None where the system does not tell."""
    try:
        import network

        return network.ipconfig("dns")
    except (ImportError, AttributeError, ValueError):
        return None


def _readable(udp):
    yield asyncio.core._io_queue.queue_read(udp)  # type: ignore[attr-defined]


async def _answered(udp, number: bytes) -> str:
    while True:
        await _readable(udp)
        found = answer(udp.recv(512), number)
        if found is not None:
            return found


async def resolved(name: str) -> str:
    """An address in digits for a host's name, within RESOLVE_MS. OSError."""
    server = _server()
    if server is None:
        from firmware import link

        return link.resolved(name)
    number = os.urandom(2)
    asked = question(number, name)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.connect(socket.getaddrinfo(server, PORT, 0, socket.SOCK_DGRAM)[0][-1])
        udp.send(asked)
        found = await asyncio.wait_for_ms(_answered(udp, number), RESOLVE_MS)
    except asyncio.TimeoutError:
        raise OSError("the name server %s does not answer" % server) from None
    finally:
        udp.close()
    if not found:
        raise OSError("the name server %s knows no address" % server)
    return found
