"""Real MicroPython mounts the file system of a factory image, as a board's flash, and runs what is on it.

argv: the file system's file, and a JSON file {path: [size, SHA-256 hex]}. Prints "mounted", the number of files compared,
and what the imported module says.
"""

import binascii
import hashlib
import json
import sys

import vfs

BLOCK = 4096


class Flash:
    def __init__(self, octets):
        self.octets = octets

    def readblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        buffer[:] = self.octets[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=None):
        if offset is None:
            self.ioctl(6, block)
            offset = 0
        at = block * BLOCK + offset
        self.octets[at : at + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.octets) // BLOCK
        if operation == 5:
            return BLOCK
        if operation == 6:
            self.octets[argument * BLOCK : (argument + 1) * BLOCK] = b"\xff" * BLOCK
        return 0


with open(sys.argv[1], "rb") as file:
    flash = Flash(bytearray(file.read()))
with open(sys.argv[2]) as file:
    expected = json.load(file)
vfs.mount(vfs.VfsLfs2(flash), "/flash")  # the defaults, as MicroPython's own start does
compared = 0
for path, (size, sha256) in expected.items():
    with open("/flash" + path, "rb") as file:
        octets = file.read()
    assert len(octets) == size and binascii.hexlify(hashlib.sha256(octets).digest()).decode() == sha256, path
    compared += 1
sys.path.insert(0, "/flash")
import probe_module

with open("/flash/state-of-things.txt", "w") as file:  # and it can be written to
    file.write("written by MicroPython" * 100)
vfs.umount("/flash")
vfs.mount(vfs.VfsLfs2(flash), "/flash")
with open("/flash/state-of-things.txt") as file:
    assert file.read() == "written by MicroPython" * 100
print("mounted", compared, probe_module.SAID)
