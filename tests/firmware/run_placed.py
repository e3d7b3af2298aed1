"""The whole button as the chip runs it, with its modules compiled. Runs on MicroPython, in a button's folder.

    micropython -X heapsize=… run_placed.py firmware.romfs   executed where they lie, as in an image with the firmware in it
    micropython -X heapsize=… run_placed.py folder           copied into the heap, as from a file system

    … holes KB       after the start no free block of the heap is larger than 8 KB; and something may ask for KB in one piece

The image is mapped into memory outside the heap, as a chip's flash is.
"""

import asyncio
import gc
import os
import sys

HOLE = 8000
LIMIT = 8192
_kept = []


def place(path):
    """Makes the modules in `path` importable."""
    if not path.endswith(".romfs"):
        sys.path.insert(0, path)
        return
    import ffi
    import uctypes
    import vfs

    libc = ffi.open("libc.so.6")
    size = os.stat(path)[6]
    file = libc.func("i", "open", "si")(path, 0)
    at = libc.func("p", "mmap", "pLiiiL")(None, size, 1, 2, file, 0)  # PROT_READ, MAP_PRIVATE
    vfs.mount(vfs.VfsRom(uctypes.bytearray_at(at, size)), "/rom")
    sys.path.insert(0, "/rom")


def make_holes():
    """Fills the heap, and frees every second piece of HOLE bytes again."""
    gc.collect()
    large = [None] * 2000
    for size in (HOLE, 1024, 128):
        n = 0
        try:
            while True:
                piece = bytearray(size)
                if size == HOLE:
                    large[n] = piece
                    n += 1
                else:
                    _kept.append(piece)
        except MemoryError:
            pass
        piece = None
    for n in range(1, len(large), 2):
        large[n] = None
    _kept.append(large)
    gc.collect()


def is_whole():
    """Whether the heap has a free block over the limit."""
    try:
        bytearray(LIMIT + 1)
    except MemoryError:
        return False
    return True


async def keep_holes(wanted):
    """Makes them, looks that they stay, and asks for `wanted` bytes at once."""
    for _ in range(5):  # what is freed meanwhile may join two of them
        make_holes()
        if not is_whole():
            break
    else:
        raise RuntimeError("the heap has no holes")
    print('{"holes": %d}' % gc.mem_free())
    await asyncio.sleep_ms(2000)
    bytearray(wanted)
    while True:
        await asyncio.sleep_ms(1000)
        if is_whole():
            raise RuntimeError("the heap has grown together again")


place(sys.argv[1])
from firmware import app

if len(sys.argv) > 3:
    feed = app._feed

    async def _feed(button, board, roll):
        """The watchdog's task, and the holes."""
        await asyncio.gather(feed(button, board, roll), keep_holes(int(sys.argv[3]) * 1024))

    app._feed = _feed
app.main()
