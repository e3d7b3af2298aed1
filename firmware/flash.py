"""Small files that are whole or absent, whatever moment the power goes.

A file is written beside its place, flushed to the flash, and renamed over the old one: LittleFS and POSIX both make a
rename take effect entirely or not at all. On LittleFS a file of less than 128 bytes lies in its directory's own block,
so that writing a record is one short commit.
"""

import os

_NEW = "new"  # the file being written; what a power cut leaves of it is written over next time
_ENOENT = 2
_EEXIST = 17


class Flash:
    """The files of one folder, which is made if it is missing. Raises OSError when the storage does."""

    def __init__(self, folder: str, files=os, opener=open) -> None:
        self._folder = folder
        self._files = files
        self._open = opener
        try:
            files.mkdir(folder)
        except OSError as problem:
            if problem.errno != _EEXIST:
                raise

    def names(self):
        """The names of the whole files, one by one: a list of thousands has no room on the chip."""
        if hasattr(self._files, "ilistdir"):
            for entry in self._files.ilistdir(self._folder):
                if entry[0] != _NEW:
                    yield entry[0]
        else:
            for name in self._files.listdir(self._folder):
                if name != _NEW:
                    yield name

    def read(self, name: str):
        """The octets of a file; None when there is none."""
        try:
            with self._open(self._folder + "/" + name, "rb") as file:
                return file.read()
        except OSError:
            return None

    def write(self, name: str, octets: bytes) -> None:
        """Puts `octets` into a file. When this returns, they survive a power cut."""
        path = self._folder + "/" + _NEW
        with self._open(path, "wb") as file:
            file.write(octets)
            file.flush()  # on the unix port and on LittleFS alike this reaches the storage
        self._files.rename(path, self._folder + "/" + name)

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is as good as removed."""
        try:
            self._files.remove(self._folder + "/" + name)
        except OSError as problem:
            if problem.errno != _ENOENT:
                raise
