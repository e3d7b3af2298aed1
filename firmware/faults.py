"""The last faults that ended the firmware, in the flash: for whoever reads the board, and for headquarters at the next start."""

import io
import json
import sys

KEPT = 20
TEXT = 300  # characters of each traceback, the end of it: with KEPT of them under 8 KB, which is one block of the heap
_NAME = "errors"


class Faults:
    """A ring of KEPT faults, each [start, ms since that start, the end of its traceback], oldest first."""

    def __init__(self, flash) -> None:
        self._flash = flash
        self.boot = 0  # of this start, as soon as it is known

    def all(self) -> list:
        """The faults that were kept; none where the record is damaged."""
        try:
            kept = json.loads(self._flash.read(_NAME) or b"[]")
        except ValueError:
            return []
        return kept if isinstance(kept, list) else []

    def keep(self, uptime_ms: int, problem) -> None:
        """Adds an exception; not if the flash itself is the problem."""
        text = io.StringIO()
        sys.print_exception(problem, text)
        kept = self.all()[1 - KEPT :]
        kept.append([self.boot, uptime_ms, text.getvalue()[-TEXT:]])
        try:
            self._flash.write(_NAME, json.dumps(kept).encode())
        except OSError:
            pass

    def last(self):
        """In a line, the fault that ended the start before this one; None if none did."""
        kept = self.all()
        if not kept or kept[-1][0] != self.boot - 1:
            return None
        return "after %d s: %s" % (kept[-1][1] // 1000, kept[-1][2].strip().split("\n")[-1])
