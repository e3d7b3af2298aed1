"""Power cuts on a real LittleFS while an update is downloaded and armed, and its trial kept; for real MicroPython.

Cut at every program and erase operation of the flash, the last one torn in half, then mounted again. Prints "passed" and
the number of cuts when the old firmware was the one to start until the new one was whole, and the record never damaged.
"""

import hashlib

from firmware import release, wire
from firmware.download import Download, mpy_version
from firmware.flash import Flash
from firmware.slots import Slots
from tests.firmware.nor_flash import Chip, formatted, mounted, unmounted

FILES = (("firmware/app.mpy", b"a" * 700), ("firmware/boards/virtual.mpy", b"b" * 300))
MANIFEST = release.manifest(
    "9.0.0",
    ["virtual"],
    mpy_version(),
    [[path, len(octets), hashlib.sha256(octets).digest()] for path, octets in FILES],
)
HEAD = bytes(release.SIGNATURE) + MANIFEST
WHOLE = HEAD + b"".join([octets for _, octets in FILES])
OFFER = ("9.0.0", len(HEAD), len(WHOLE), hashlib.sha256(HEAD).digest())


def downloaded(slot):
    """A download whose head was judged, with nothing taken yet; the signature is tested elsewhere."""
    download = Download(OFFER, slot)
    download.take(0, HEAD)
    download.manifest = release.Manifest(MANIFEST)
    list(download.look())
    return download


def story():
    """The update, from the first piece to the receipt on trial."""
    record = Slots(Flash("state"))
    download = downloaded(record.spare)
    _open.append(download)
    while download.at is not None:
        at = download.at
        download.take(at, WHOLE[at : at + wire.PIECE_BYTES])
    list(download.look())
    assert download.at is None
    record.arm((1, 1))
    if Slots(Flash("state")).choose() != "slot-a":
        raise OSError("the power went when the start on trial was counted")
    Slots(Flash("state")).confirm("9.0.0")


def is_whole(slot):
    """Whether the slot holds the release."""
    download = downloaded(slot)
    whole = download.at is None
    download.close()
    return whole


_open = []  # downloads, so that no file of theirs is closed by the collector, which can't write to this flash


def cut_after(octets, operations):
    """Runs the story with the power gone after so many operations; whether it came to its end."""
    chip = Chip(bytearray(octets))
    mounted(chip)
    chip.left = operations
    ended = False
    try:
        story()
        ended = True
    except OSError:
        pass
    chip.left = 1 << 30
    unmounted()
    mounted(Chip(chip.octets))
    record = Slots(Flash("state"))
    if record.trial or record.confirmed:
        assert is_whole("slot-a"), "a slot that is not whole would start"
    if ended:
        assert record.confirmed == "slot-a"
    elif not record.confirmed:
        story()  # with power it gets there, whatever the cut left
        assert Slots(Flash("state")).confirmed == "slot-a"
    unmounted()
    return ended


fresh = formatted()
mounted(fresh)
Flash("state")
unmounted()
cuts = 0
while not cut_after(fresh.octets, cuts):
    cuts += 1
print("passed", cuts)
