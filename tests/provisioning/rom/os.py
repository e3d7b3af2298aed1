# Found before the built-in one. A rooted VfsPosix garbles rename(absolute, absolute) before 1.29 (both paths share one
# buffer), so one of them is made relative; and free space is that of a chip's flash, not of this computer's disk.
from uos import *  # noqa: F403
import uos as _os
import _chip


def rename(old, new):
    if old[:1] == "/" and new[:1] == "/":
        here = _os.getcwd()
        _os.chdir("/")
        try:
            _os.rename(old[1:], new)
        finally:
            _os.chdir(here)
    else:
        _os.rename(old, new)


def ilistdir(path="."):
    """As a chip's file system lists: with sizes, and without what only this stand-in has mounted."""
    for name, kind, node in _os.ilistdir(path):
        if path != "/" or name != "rom":
            yield (name, kind, node, _os.stat((path if path[-1:] == "/" else path + "/") + name)[6])


def listdir(path="."):
    return [entry[0] for entry in ilistdir(path)]


def statvfs(path):
    free = max(0, _chip.FLASH - _chip.used()) // _chip.BLOCK
    return (_chip.BLOCK, _chip.BLOCK, _chip.FLASH // _chip.BLOCK, free, free, 0, 0, 0, 0, 255)
