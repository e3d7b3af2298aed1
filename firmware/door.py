"""The button's door for people and tests: one JSON line for everything it does.

On the virtual board it is standard output, on hardware the USB console. A line is written in one piece or not at all:
nobody has to read, and a reader who stops must not stop the button. What was not written is counted.
"""

import json
import select
import sys
import time

RESTART = 70  # EX_SOFTWARE of sysexits.h: "start me again"
_PIECE = 4096  # a pipe that takes more at all takes as much as this at once (PIPE_BUF)


class Door:
    """Standard output, never waited for."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(sys.stdout, select.POLLOUT)
        self._unsaid = 0

    def tell(self, name: str, value, **more) -> None:
        """Writes {"at": UTC ns, name: value, …}, or counts a line that nobody takes."""
        line = {"at": time.time_ns(), name: value}
        line.update(more)
        if self._unsaid:
            line["unsaid"] = self._unsaid
        octets = (json.dumps(line) + "\n").encode()
        if len(octets) <= _PIECE and self._takes():
            try:
                sys.stdout.buffer.write(octets)
            except OSError:
                self._unsaid += 1
            else:
                self._unsaid = 0
        else:
            self._unsaid += 1

    def _takes(self) -> bool:
        for _, event in self._poll.poll(0):
            return bool(event & select.POLLOUT) and not event & (select.POLLERR | select.POLLHUP)
        return False

    def restart(self) -> None:
        """Ends this start: the chip resets; as a process it ends with RESTART, and a supervisor starts it again."""
        reset = _reset()
        if reset is None:
            sys.exit(RESTART)
        reset()

    def give_up(self, status: int) -> None:
        """Ends this start where starting again would change nothing: as a process with `status`.

        On hardware it returns, for main.py to end at the prompt: there sys.exit() starts the firmware again, for ever.
        """
        if _reset() is None:
            sys.exit(status)


def _reset():
    """What resets the chip; None in a process."""
    try:
        from machine import reset
    except ImportError:
        return None
    return reset
