"""A release on its way into a slot of the flash: every octet is checked before any of it can ever be started.

Loaded only while there is something to download: it takes room that the button needs for other things.
"""

import hashlib
import os
import sys

from firmware import VERSION, ecdsa, release, wire

READ = 512  # octets of a file at a time

_EEXIST = 17


def mpy_version() -> int:
    """Which bytecode this MicroPython loads; 0 in CPython."""
    return getattr(sys.implementation, "_mpy", 0) & 0xFF


class Download:
    """One release on its way into a slot's folder. looks: how often the slot was looked through."""

    def __init__(self, offer: tuple, slot: str, files=os, opener=open) -> None:
        self.version, self._head_size, self._size, digest = offer
        self.digest = digest
        self.manifest = None
        self.at = 0  # the offset that comes next; None: nothing more is needed
        self.looks = 0
        self._slot = slot
        self._files = files
        self._open = opener
        self._head = bytearray()
        self._file = None
        self._hash = None
        self._left = 0
        self._path = ""
        self._sha256 = b""

    @property
    def head(self) -> bool:
        """Whether the whole head is here, and has not been judged."""
        return self.manifest is None and len(self._head) == self._head_size

    def take(self, at: int, octets: bytes) -> None:
        """A piece; one that does not come next is left alone. Raises WireError for a wrong file, and OSError."""
        if at != self.at or not octets:
            return
        if self.manifest is None:
            octets = octets[: self._head_size - len(self._head)]
            self._head += octets
            self.at = None if self.head else len(self._head)
            return
        while octets and self.at is not None:
            piece = octets[: self._left]
            octets = octets[len(piece) :]
            self._file.write(piece)
            self._hash.update(piece)
            self._left -= len(piece)
            self.at += len(piece)
            if not self._left:
                self._finish()
                if self.at is not None and not self._next(self.at):
                    return

    def judge(self, key: bytes, board: str, newest: str):
        """A generator that yields None between short steps, to the end if the head is good; else raises WireError."""
        head = bytes(self._head)
        if hashlib.sha256(head).digest() != self.digest:
            raise wire.WireError("its head is not the one that was offered")
        signature, octets = head[: release.SIGNATURE], head[release.SIGNATURE :]
        good = False
        for good in ecdsa.verifying(key, hashlib.sha256(release.SIGNED + octets).digest(), signature):
            if good is None:
                yield None
        if not good:
            raise wire.WireError("it is not signed with the key of releases that this button knows")
        manifest = release.Manifest(octets)
        if manifest.version != self.version or manifest.size + self._head_size != self._size:
            raise wire.WireError("its manifest is not what was offered")
        check_version(manifest.version, newest)
        if board not in manifest.boards:
            raise wire.WireError("it is not for a board %s" % board)
        if manifest.mpy != mpy_version():
            raise wire.WireError("it is for another MicroPython: bytecode %s, here %s" % (manifest.mpy, mpy_version()))
        self._head = bytearray()
        self.manifest = manifest

    def look(self):
        """A generator that yields None between short steps: finds which files are missing; `at` is the first one's place."""
        self.close()
        at, found = self._head_size, None
        wanted = {}
        for path, size, digest in self.manifest.files:
            wanted[path] = at
            if found is None:
                done = None
                for done in self._is_whole(path, size, digest):
                    yield None
                if not done:
                    found = at
            at += size
        for path in self._strays(wanted):
            self._files.remove(path)
            yield None
        self.at = found
        self.looks += 1
        if found is not None:
            self._begin(found)

    def _is_whole(self, path: str, size: int, digest: bytes):
        """A generator of False between steps, then whether the file in the slot is this one."""
        try:
            file = self._open(self._slot + "/" + path, "rb")
        except OSError:
            return
        sha256, length = hashlib.sha256(), 0
        with file:
            octets = file.read(READ)
            while octets:
                sha256.update(octets)
                length += len(octets)
                yield False
                octets = file.read(READ)
        yield length == size and sha256.digest() == digest

    def _strays(self, wanted) -> list:
        """What lies in the slot and is not in the release."""
        strays = []
        for folder in ("firmware", "firmware/boards"):
            try:
                names = self._files.listdir(self._slot + "/" + folder)
            except OSError:
                continue
            for name in names:
                path = folder + "/" + name
                if path not in wanted and path != "firmware/boards":
                    strays.append(self._slot + "/" + path)
        return strays

    def _next(self, at: int) -> bool:
        """Goes on with the file that begins at `at` without a new look; False: it was the last, and the slot is looked through."""
        if at >= self._size:
            self.at = None
            return False
        self._begin(at)
        return True

    def _begin(self, at: int) -> None:
        """Opens the file whose place in the release is `at`."""
        start = self._head_size
        for path, size, digest in self.manifest.files:
            if start == at:
                self._path, self._left, self._sha256 = path, size, digest
            start += size
        parts = (self._slot + "/" + self._path).split("/")
        for n in range(1, len(parts)):
            try:
                self._files.mkdir("/".join(parts[:n]))
            except OSError as problem:
                if problem.errno != _EEXIST:
                    raise
        self._file = self._open(self._slot + "/new", "wb")
        self._hash = hashlib.sha256()

    def _finish(self) -> None:
        """The file under way is all here."""
        self._file.flush()
        self.close()
        if self._hash.digest() != self._sha256:
            raise wire.WireError("%s is not the file that was signed" % self._path)
        self._files.rename(self._slot + "/new", self._slot + "/" + self._path)

    def close(self) -> None:
        """Lets go of the file under way."""
        if self._file is not None:
            self._file.close()
            self._file = None


def check_version(version: str, newest: str) -> None:
    """Raises WireError unless this version is newer than what runs, and not older than what ever ran."""
    new = release.number(version)
    if new <= release.number(VERSION) or (newest and new < release.number(newest)):
        raise wire.WireError("%s is not newer than %s" % (version, newest or VERSION))
