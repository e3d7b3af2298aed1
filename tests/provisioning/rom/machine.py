# What firmware and bench use of a chip's `machine`; the built-in one of the unix port has nothing of it.
import binascii
import time

import ffi
import uos as _os

import _chip

_exit = ffi.open(None).func("v", "_exit", "i")

PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5


def unique_id():
    return binascii.unhexlify(_chip.load("efuse.json")["mac"])


def reset():
    _exit(10)  # as on silicon: nothing after this runs, no `finally`, no clean-up


def soft_reset():
    raise SystemExit


def reset_cause():
    return int(_os.getenv("CHIP_CAUSE"))


def freq(*_):
    return 240_000_000


class RTC:
    """Memory that a reset keeps and a power cut does not, and a clock of the chip's own that starts in 2000."""

    def memory(self, octets=None):
        if octets is None:
            return _chip.read("rtc_memory") or b""
        if len(octets) > 2048:
            raise ValueError("buffer too long")
        _chip.write("rtc_memory", bytes(octets))

    def datetime(self, fields=None):
        now_s = time.time()
        if fields is None:
            shown = time.gmtime(now_s + int(_chip.read("rtc_clock") or b"0"))
            return (shown[0], shown[1], shown[2], shown[6], shown[3], shown[4], shown[5], 0)
        year, month, day, _, hour, minute, second, _ = fields
        utc_s = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
        _chip.write("rtc_clock", str(int(utc_s - now_s)).encode())


def _days(year, month, day):
    """Since 1970."""
    if month < 3:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469


class WDT:
    """A watchdog that nothing stops: whoever owns the chip resets it when it is not fed."""

    def __init__(self, _id=0, timeout=5000):
        self._timeout = timeout
        self.feed()

    def feed(self):
        _chip.tell(b"w%d;" % self._timeout)
