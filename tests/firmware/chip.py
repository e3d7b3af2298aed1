"""A chip around the virtual board, for real MicroPython: why it started, and a watchdog that no program can talk out of it.

The watchdog is the kernel's timer: SIGALRM ends the process, whatever it is doing.
"""

import sys


class Module:
    """A module made of attributes."""

    def __init__(self, **names):
        for name in names:
            setattr(self, name, names[name])


class WDT:
    """Bites unless it is fed within `timeout` ms."""

    def __init__(self, timeout):
        import ffi

        self._alarm = ffi.open("libc.so.6").func("I", "alarm", "I")
        self._s = timeout // 1000
        self.feed()

    def feed(self):
        """Begins anew."""
        self._alarm(self._s)


sys.modules["machine"] = Module(WDT=WDT, reset_cause=lambda: 3)
