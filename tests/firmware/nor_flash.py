"""A NOR flash chip in memory whose power can go, with the board's file system LittleFS on it; for real MicroPython."""

import os

import vfs

BLOCK = 4096
BLOCKS = 24


class Chip:
    """NOR flash: erased octets are 0xff, and every operation after `left` more fails."""

    def __init__(self, octets):
        self.octets = octets
        self.left = 1 << 30

    def readblocks(self, block, buffer, offset=0):
        at = block * BLOCK + offset
        buffer[:] = self.octets[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=None):
        if offset is None:
            self.ioctl(6, block)
            offset = 0
        at = block * BLOCK + offset
        self.change(at, buffer)

    def change(self, at, new):
        if self.left <= 0:
            if self.left == 0:
                self.left = -1
                half = len(new) // 2
                self.octets[at : at + half] = new[:half]
            raise OSError(5)
        self.left -= 1
        self.octets[at : at + len(new)] = new

    def ioctl(self, operation, argument):
        if operation == 4:
            return BLOCKS
        if operation == 5:
            return BLOCK
        if operation == 6:
            self.change(argument * BLOCK, b"\xff" * BLOCK)
        return 0


def mounted(chip):
    """Mounts the chip at /flash as the board does, and works there."""
    vfs.mount(vfs.VfsLfs2(chip, progsize=32, readsize=32, lookahead=32), "/flash")
    os.chdir("/flash")


def formatted():
    """A chip with an empty file system."""
    chip = Chip(bytearray(b"\xff" * (BLOCK * BLOCKS)))
    vfs.VfsLfs2.mkfs(chip, progsize=32, readsize=32, lookahead=32)
    return chip


def unmounted():
    """Leaves the file system that `mounted` entered."""
    os.chdir("/")
    vfs.umount("/flash")
