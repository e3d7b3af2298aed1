"""A button's flash, as files that a power cut can leave half written: what firmware/flash.py works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.engine import Machine

ENOENT = 2


class _File:
    """One open file."""

    __slots__ = ("_disk", "_name")

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk, self._name = disk, name

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self) -> bytes:
        return self._disk.files[self._name]

    def write(self, octets: bytes) -> None:
        self._disk.put(self._name, octets)

    def flush(self) -> None:
        pass


class Disk:
    """Files by name. A rename takes effect entirely or not at all; a write may stop anywhere."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.owner: Machine | None = None

    def open(self, path: str, mode: str) -> _File:
        name = path.rpartition("/")[2]
        if mode == "rb" and name not in self.files:
            raise OSError(ENOENT, "there is no such file")
        return _File(self, name)

    def put(self, name: str, octets: bytes) -> None:
        owner = self.owner
        if owner is not None and owner.fuse is not None:
            self.files[name] = octets[: owner.engine.chance.randrange(len(octets))]
            owner.burn()
        self.files[name] = octets

    def mkdir(self, _folder: str) -> None:
        pass

    def listdir(self, _folder: str) -> list[str]:
        return list(self.files)

    def rename(self, old: str, new: str) -> None:
        self._burn()
        self.files[new.rpartition("/")[2]] = self.files.pop(old.rpartition("/")[2])

    def remove(self, path: str) -> None:
        self._burn()
        name = path.rpartition("/")[2]
        if name not in self.files:
            raise OSError(ENOENT, "there is no such file")
        del self.files[name]

    def _burn(self) -> None:
        if self.owner is not None:
            self.owner.burn()
