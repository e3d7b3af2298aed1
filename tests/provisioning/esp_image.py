"""Images for an ESP32 as a MicroPython build makes them, small: bootloader, partition table, application.

Everything that a checker looks at is true (segments, checksum, appended SHA-256, MD5 of the table); the code is noise.
esptool's own `image-info` is the oracle for that.
"""

import hashlib
import random
import struct

STOCK = (
    ("nvs", 1, 2, 0x9000, 0x6000, 0),
    ("phy_init", 1, 1, 0xF000, 0x1000, 0),
    ("factory", 0, 0, 0x10000, 0x1F0000, 0),
)
VFS = ("vfs", 1, 0x81, 0x200000, 0x200000, 0)


def program(segments, chip=0, oldest=0, entry=0x40080000):
    """Header, segments of (address, octets), checksum, and the digest of all that."""
    head = struct.pack("<BBBBI", 0xE9, len(segments), 2, 0x20, entry)
    head += struct.pack("<B3xHBHH4xB", 0xEE, chip, oldest // 100, oldest, 65535, 1)
    body, checksum = b"", 0xEF
    for address, octets in segments:
        octets += b"\0" * (-len(octets) % 4)
        body += struct.pack("<II", address, len(octets)) + octets
        for octet in octets:
            checksum ^= octet
    whole = head + body
    whole += b"\0" * (15 - len(whole) % 16) + bytes([checksum])
    return whole + hashlib.sha256(whole).digest()


def description(version="v1.25.0", project="micropython"):
    return struct.pack(
        "<III4x32s32s16s16s32s32s80x", 0xABCD5432, 0, 0, version.encode(), project.encode(), b"", b"", b"v5.2.2", b""
    )


def table(partitions):
    rows = b"".join(
        struct.pack("<2sBBII16sI", b"\xaa\x50", kind, subtype, offset, size, name.encode(), flags)
        for name, kind, subtype, offset, size, flags in partitions
    )
    return (rows + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(rows).digest()).ljust(3072, b"\xff")


def image(
    chip=0, oldest=0, version="v1.25.0", project="micropython", vfs=VFS, size=40_000, seed=1, text=b"", sign=None
):
    """The whole, as it stands in the flash from 0x1000. sign: makes a signed program of a program (for a locked board)."""
    noise = random.Random(seed)
    sign = sign or (lambda octets: octets)
    code = bytes(noise.choices(range(256), weights=[20] + [1] * 255, k=size))
    boot = sign(program([(0x3FFF0030, noise.randbytes(2000)), (0x40078000, noise.randbytes(6000))], chip, oldest))
    application = program([(0x3F400020, description(version, project) + text), (0x400D0020, code)], chip, oldest)
    octets = boot.ljust(0x7000, b"\xff") + table((*STOCK, *((vfs,) if vfs else ())))
    return octets.ljust(0xF000, b"\xff") + sign(application)
