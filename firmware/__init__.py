"""The button: firmware that runs on MicroPython, and whose pure modules also run on CPython."""

import gc

VERSION = "0.1.0"

if hasattr(gc, "threshold") and gc.mem_alloc() + gc.mem_free() < 200_000:  # type: ignore[attr-defined,unused-ignore]
    # MicroPython's heap is never compacted: where it is small, what stays must lie together, not scattered among what
    # goes. With this the whole starts in 72 KB every time; without, 256 bytes in one piece were missing now and then.
    gc.threshold(2048)  # type: ignore[attr-defined,unused-ignore]
