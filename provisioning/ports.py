"""Serial ports: which there are, opening one for us alone, and an errno as a sentence that says what to do.

Identity is never the port's: USB serial numbers repeat ("0001"). It is the chip's MAC, which the board itself tells.
"""

from __future__ import annotations

import errno
import os
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import serial
from serial.tools import list_ports

from provisioning.errors import BoardLost, BoardNotFound, PortFault, ProvisioningError

BAUD = 115200
READ_S = 0.05  # the longest that one read waits; every deadline above it is a sum of such reads
WRITE_S = 2.0  # the longest that one write of a few hundred octets may take
LET_GO_S = 2.0  # for programs that only look at every new port for a moment
_PROC = Path("/proc")

NOTHING_APPEARS = (
    "No board is to be seen. Check, in this order: the cable (many only charge: try one that is known to carry files); "
    "another USB socket, without a hub; the driver (`sudo dmesg --follow`, plug in: a line must name cp210x, ch341 or "
    "cdc_acm); brltty, which takes CH340 and CP2102 adapters for Braille displays (`sudo apt remove brltty`, plug in again)."
)


@dataclass(frozen=True)
class Port:
    """One port that may have a board behind it. vendor, product: what the adapter calls itself, or empty."""

    path: str
    vendor: str = ""
    product: str = ""

    def __str__(self) -> str:
        """The path, and the adapter's own words."""
        named = " ".join(part for part in (self.vendor, self.product) if part)
        return f"{self.path} ({named})" if named else self.path


def candidates(extra: Sequence[str] = ()) -> list[Port]:
    """USB serial ports, then `extra` paths and URLs (rfc2217://…, which can't be looked at without opening them)."""
    found = [
        Port(port.device, port.manufacturer or "", port.product or "")
        for port in sorted(list_ports.comports())
        if port.device.startswith(("/dev/ttyUSB", "/dev/ttyACM")) or port.vid is not None
    ]
    known = {port.path for port in found}
    return found + [Port(path) for path in extra if path not in known and ("://" in path or Path(path).exists())]


def wait_for_any(extra: Sequence[str] = (), timeout_s: float = 10) -> list[Port]:
    """The candidates, as soon as there is one. Raises BoardNotFound with what to check when none appears in time."""
    end = time.monotonic() + timeout_s
    while True:
        if found := candidates(extra):
            return found
        if time.monotonic() > end:
            raise BoardNotFound(NOTHING_APPEARS)
        time.sleep(0.2)


def open_port(path: str, baud: int = BAUD) -> serial.Serial:
    """The port, open for us alone. Raises what `fault` makes of the errno; PortFault also names who else holds it."""
    if "://" not in path:
        try:
            if Path(path).exists() and not Path(path).is_char_device():
                raise BoardNotFound(f"{path} is not a serial port.")
            _wait_until_free(path)
        except OSError as problem:
            raise fault(problem, path) from problem
    try:
        if "://" in path:
            port: serial.Serial = serial.serial_for_url(path, baud, timeout=READ_S)
        else:
            port = serial.Serial(path, baud, timeout=READ_S, write_timeout=WRITE_S, exclusive=True)
    except (OSError, ValueError) as problem:
        raise fault(problem, path) from problem
    _keep_lines_up(port)
    return port


def _wait_until_free(path: str) -> None:
    """Locks are not asked: many terminal programs take none. Raises PortFault that names who has the port open."""
    end = time.monotonic() + LET_GO_S
    while other := holder(path):
        if time.monotonic() > end:
            raise _busy(path, other)
        time.sleep(0.1)


def _keep_lines_up(port: serial.Serial) -> None:
    """Closing the port must not drop DTR and RTS one after the other: on most boards that is a reset."""
    try:
        descriptor = port.fileno()
        attributes = termios.tcgetattr(descriptor)
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    except (OSError, termios.error):
        return  # a network port has no such lines here


def errno_of(problem: BaseException | None) -> int | None:
    """The errno in an exception or in what caused it: pyserial wraps some errors without theirs."""
    while problem is not None:
        number = getattr(problem, "errno", None)
        if isinstance(number, int):
            return number
        problem = problem.__cause__ or problem.__context__
    return None


def fault(problem: BaseException, path: str) -> ProvisioningError:
    """What an error of the port means, and what to do."""
    number = errno_of(problem)
    if number in {errno.EACCES, errno.EPERM}:
        return PortFault(
            f"No permission for {path}: this user is not in the group dialout. "
            "Run `sudo usermod -aG dialout $USER`, sign out and in again, then run the same command."
        )
    if number in {errno.EAGAIN, errno.EBUSY}:
        return _busy(path, holder(path))
    if number in {errno.ENOENT, errno.ENODEV} or (number == errno.ENXIO and not Path(path).exists()):
        return BoardNotFound(f"{path} is not there: is the board unplugged? Plug it in and run the same command.")
    if isinstance(problem, ValueError):
        return BoardNotFound(f"{path} is not a serial port: {problem}")
    if number in {errno.EIO, errno.ENXIO, errno.EBADF, errno.ENOTTY} or "disconnected" in str(problem):
        return BoardLost(
            f"{path} was unplugged: plug it in again and run the same command, which continues where it was."
        )
    said = os.strerror(number) if number else str(problem)
    return BoardLost(f"{path} failed ({said}): plug the board in again and run the same command.")


def _busy(path: str, other: str | None) -> PortFault:
    if other:
        return PortFault(f"{path} is held by {other}: end that program, then run the same command.")
    return PortFault(
        f"{path} is held by another program of another user: `sudo lsof {path}` names it. End it, then run the same command."
    )


def holder(path: str) -> str | None:
    """Who else has the port open, as "screen (process 812)"; None: nobody that this user may see."""
    wanted = Path(path).stat().st_rdev
    if not wanted:
        return None
    for process in sorted(_PROC.iterdir()):
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            links = list((process / "fd").iterdir())
        except OSError:
            continue  # another user's, or it has just ended
        for link in links:
            try:
                # The link's text first: looking at what other descriptors lead to may block or wake things up.
                leads = str(link.readlink())
                if leads.endswith(" (deleted)"):
                    continue  # a device that is gone; another one has its number by now
                if leads.startswith("/dev/") and link.stat().st_rdev == wanted:
                    name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"{name} (process {process.name})"
            except OSError:
                continue
    return None
