"""Writing MicroPython into a chip, with esptool as a process of its own.

esptool is GPL-2.0-or-later, so it is run and never imported. It is believed only so far: a write counts when the process
ended well *and* said that the chip's MD5 of what it holds is right. Every call has a total deadline; a child that is
still there at the end of a call, for whatever reason, is ended. Faults come in the words of errors.py.
"""

import hashlib
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from provisioning import ports
from provisioning.board import Progress, nothing
from provisioning.errors import BoardLost, FlashFault, PortFault, ProvisioningError, SetupFault, WrongBoard
from provisioning.images import Image

Before = Literal["default-reset", "usb-reset", "no-reset"]
After = Literal["hard-reset", "no-reset"]

EFUSE_BLOCK0 = 0x3FF5A000  # ESP32 Technical Reference Manual, eFuse controller: seven words that can be read
DETACHED = ("ESPTOOL", "ESPEFUSE", "ESPSECURE", "ESPRESSIF", "ESPPORT", "ESPBAUD")
LAST_WORDS = 400


@dataclass(frozen=True)
class Chip:
    """What answered in download mode.

    family: "ESP32", "ESP32-S3" …; name: the exact part; revision: "3.0"; mac: lower case with colons; flash_mb: None when
    the flash did not say. encrypted, secure_boot: None when they could not be read (not an ESP32).
    """

    family: str
    name: str
    revision: str
    mac: str
    flash_mb: int | None
    encrypted: bool | None = None
    secure_boot: bool | None = None


@dataclass(frozen=True)
class Ended:
    """How a tool's process ended: its status, and everything that it printed."""

    status: int
    said: str


def probe(port: str, *, before: Before = "default-reset", after: After = "hard-reset", timeout_s: float = 60) -> Chip:
    """Which chip is at `port`, in download mode, without writing anything.

    Raises BoardLost when nothing answers, PortFault when the port can't be opened.
    """
    link = ["--port", port, "--no-stub"]
    deadline = time.monotonic() + timeout_s
    chip = _chip([*link, "--before", before, "--after", "no-reset", "flash-id"], port, timeout_s)
    if chip.family != "ESP32":
        return chip
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "efuse.bin"
        arguments = [*link, "--chip", "esp32", "--before", "no-reset", "--after", after]
        _esptool([*arguments, "dump-mem", hex(EFUSE_BLOCK0), "28", str(kept)], port, deadline - time.monotonic())
        words = [int.from_bytes(kept.read_bytes()[at : at + 4], "little") for at in range(0, 28, 4)]
    return Chip(
        chip.family,
        chip.name,
        chip.revision,
        chip.mac,
        chip.flash_mb,
        encrypted=bool(((words[0] >> 20) & 0x7F).bit_count() & 1),
        secure_boot=bool(words[6] & 0x30),
    )


def check(chip: Chip, image: Image) -> None:
    """Raises WrongBoard when writing this image would not work on this chip, or would end it. esptool itself lets a plain
    image through to a chip whose encryption was turned on but not yet closed.
    """
    if chip.family != image.pin.chip:
        raise WrongBoard(
            f"This is an {chip.family} ({chip.mac}); the firmware is for an {image.pin.chip}. Take the right board"
        )
    if chip.encrypted or chip.secure_boot:
        raise WrongBoard(
            f"This board ({chip.mac}) is locked: it takes signed updates over the network only. Nothing was written"
        )
    if chip.flash_mb is not None and chip.flash_mb * 1024 * 1024 < image.pin.offset + image.pin.size:
        raise WrongBoard(
            f"The flash of this board has {chip.flash_mb} MB, too little for the image. Take a board with 4 MB"
        )


def write(
    port: str,
    image: Image,
    progress: Progress = nothing,
    *,
    before: Before = "default-reset",
    after: After = "hard-reset",
    baud: int = 460800,
    erase_all: bool = False,
    timeout_s: float = 240,
    cancelled: threading.Event | None = None,
) -> None:
    """Writes a pinned image and has the chip prove it by MD5.

    progress: octets of the image done, of its size; the last call says all of it only after the proof. The file is read
    once, its SHA-256 compared with the pin, and the octets that were compared are what esptool gets.
    Raises FlashFault, WrongBoard, BoardLost, PortFault.
    """
    with _checked(image) as path:
        size = image.pin.size
        progress(0, size)

        def watch(line: str) -> None:
            if found := re.match(r"Writing at 0x[0-9a-f]+ .*?([\d.]+)%", line):
                progress(min(size - 1, int(size * float(found[1]) / 100)), size)

        arguments = ["--chip", "esp32", "--port", port, "--baud", str(baud), "--before", before, "--after", after]
        arguments += ["write-flash", "--compress", *(["--erase-all"] if erase_all else []), hex(image.pin.offset)]
        said = _esptool([*arguments, str(path)], port, timeout_s, watch, cancelled)
    if "Hash of data verified." not in said:
        raise FlashFault(f"{port}: esptool ended without the chip's proof of what was written: run the same again")
    progress(size, size)


def verify(port: str, image: Image, *, before: Before = "default-reset", timeout_s: float = 120) -> None:
    """Compares the chip's flash with the image, writing nothing; FlashFault when they differ."""
    with _checked(image) as path:
        arguments = ["--chip", "esp32", "--port", port, "--before", before, "--after", "hard-reset", "verify-flash"]
        said = _esptool([*arguments, hex(image.pin.offset), str(path)], port, timeout_s)
    if "Verification successful" not in said:
        raise FlashFault(f"{port}: esptool did not confirm what is in the flash: run the same again")


def erase(port: str, *, before: Before = "default-reset", timeout_s: float = 180) -> None:
    """Makes the whole flash empty: firmware, files, identity. Takes about 15 s on a 4 MB board."""
    arguments = ["--chip", "esp32", "--port", port, "--before", before, "--after", "hard-reset", "erase-flash"]
    if "erased successfully" not in _esptool(arguments, port, timeout_s):
        raise FlashFault(f"{port}: esptool did not confirm that the flash is empty: run the same again")


def tool(
    module: str,
    arguments: Sequence[str],
    timeout_s: float,
    line: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Ended:
    """Runs `python -m module` for at most timeout_s seconds, handing each line that it prints to `line`.

    It runs in an empty folder and without the tools' own environment variables, so that no configuration that happens to
    lie about changes what it does. Raises TimeoutError at the deadline and InterruptedError when `cancelled` is set;
    then, as after any exception here, the child was ended.
    """
    environment = {name: text for name, text in os.environ.items() if not name.startswith(DETACHED)}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "160", "NO_COLOR": "1"}
    deadline = time.monotonic() + timeout_s
    lines: queue.Queue[str | None] = queue.Queue()
    said: list[str] = []
    with (
        tempfile.TemporaryDirectory() as empty,
        subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=empty,
            env=environment,
            start_new_session=True,  # Ctrl-C at the terminal is for us; we end the child
        ) as child,
    ):
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            while True:
                if cancelled is not None and cancelled.is_set():
                    raise InterruptedError
                try:
                    text = lines.get(timeout=min(0.1, max(0.01, deadline - time.monotonic())))
                except queue.Empty:
                    if time.monotonic() >= deadline:
                        raise TimeoutError from None
                    continue
                if text is None:
                    break
                said.append(text)
                if line:
                    line(text)
            status = child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            reader.join()
    return Ended(status, "\n".join(said))


def _read(said: Iterable[bytes], lines: "queue.Queue[str | None]") -> None:
    for octets in said:
        lines.put(octets.decode(errors="replace").rstrip("\r\n"))
    lines.put(None)


@contextmanager
def _checked(image: Image) -> Iterator[Path]:
    """A private copy of the image's file, whose octets are those that were pinned."""
    try:
        octets = image.path.read_bytes()
    except OSError as fault:
        raise SetupFault(f"{image.path} can't be read ({fault.strerror}): give the image again with --image") from fault
    if len(octets) != image.pin.size or hashlib.sha256(octets).hexdigest() != image.pin.sha256:
        raise FlashFault(f"{image.path} changed since it was checked against its pin: nothing was written")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "image.bin"
        copy.write_bytes(octets)
        yield copy


def _esptool(
    arguments: list[str],
    port: str,
    timeout_s: float,
    line: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> str:
    ended = _ended(arguments, port, timeout_s, line, cancelled)
    if ended.status:
        raise fault(ended.said, port)
    return ended.said


def _ended(
    arguments: list[str],
    port: str,
    timeout_s: float,
    line: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Ended:
    try:
        return tool("esptool", arguments, max(1.0, timeout_s), line, cancelled)
    except TimeoutError:
        raise BoardLost(
            f"{port}: the chip stopped answering, {timeout_s:.0f} s were not enough. Unplug the board, plug it in again, and "
            "run the same command; if it happens again, use another cable"
        ) from None
    except InterruptedError:
        raise BoardLost(
            f"{port}: stopped as asked. The flash may hold half an image: run the same command again"
        ) from None


def fault(said: str, port: str) -> ProvisioningError:
    """What a failed esptool or espefuse said, as one of ours. The first rule that fits wins."""
    if opening := re.search(r"Could not open [^\n]*\n\((?:\[Errno (\d+)\])?([^\n]*)\)", said):
        number = int(opening[1]) if opening[1] else None
        return ports.fault(OSError(number, opening[2]) if number else ValueError(opening[2]), port)
    for pattern, kind, words in RULES:
        if found := re.search(pattern, said, re.IGNORECASE):
            return kind(f"{port}: " + words.format(*found.groups()))
    if "No module named" in said:
        return SetupFault("esptool is not installed: pip install 'tocsin[provision]'")
    last = said.rpartition("fatal error occurred:")[2].strip() or said.strip()
    return FlashFault(f"{port}: esptool failed: {last[-LAST_WORDS:]}")


RULES: list[tuple[str, type[ProvisioningError], str]] = [
    (
        r"This chip is (\S+), not (\S+)\.",
        WrongBoard,
        "this is an {0}; the firmware is for an {1}. Nothing was written. Take the right board",
    ),
    (
        r"(Unexpected chip (?:ID|magic) value \S+)\.",
        WrongBoard,
        "this is not a chip that esptool knows ({0}). Nothing was written. Take the right board",
    ),
    (
        r"'[^'\n]*' (requires chip revision[^\n]*?|is not an? [^\n]*?)\. Use --force",
        WrongBoard,
        "the image {0}. Nothing was written. Take another board",
    ),
    (
        r"Secure Boot V1 detected|Detected flash encryption|Active security features|Flash Encryption configuration",
        WrongBoard,
        "the board is locked: a plain image would end it. Nothing was written. It takes signed updates over the network only",
    ),
    (
        r"will not fit in (\d+) bytes of flash",
        WrongBoard,
        "the flash of this board is too small for the image ({0} octets). Take a board with 4 MB",
    ),
    (
        r"MD5 of file does not match|written flash region is empty|verification failed",
        FlashFault,
        "the flash does not hold what was sent (MD5 differs). Run the same command again; if it happens again, put the board aside",
    ),
    (
        r"Failed to (?:write|enter)[^\n(]*\(result was (\w+)(?:: ([^\n)]*))?\)",
        FlashFault,
        "the chip could not write its flash ({1}, {0}). Run the same command again; if it happens again, put the board aside",
    ),
    (
        r"Lost connection|serial exception error|Errno 5\]|Errno 6\]|device disconnected|Device not configured",
        BoardLost,
        "the board was unplugged or its cable lost contact. Plug it in again and run the same command: this step starts over",
    ),
    (
        r"TX path seems to be down",
        BoardLost,
        "the chip waits for a download but does not hear: the cable's or the adapter's TX line is open. Use another cable",
    ),
    (
        r"Failed to connect|No serial data received|Wrong boot mode",
        BoardLost,
        "the chip does not answer. Hold BOOT while plugging in (or while tapping EN), then run the same command (a locked board never answers)",
    ),
    (r"Failed to set baud rate", PortFault, "the adapter can't go that fast: use another adapter or cable"),
    (
        r"stream stopped|transfer stopped|Invalid head of packet|stopped responding|No more data|start stub|write timeout",
        BoardLost,
        "the talk with the chip broke off. Run the same command; if it happens again, use a shorter cable",
    ),
]


def _chip(arguments: list[str], port: str, timeout_s: float) -> Chip:
    """What esptool learned of the chip, even where its flash did not answer then."""
    ended = _ended(arguments, port, timeout_s)
    family = re.search(r"^Connected to (\S+) on ", ended.said, re.MULTILINE)
    name = re.search(r"^Chip type:\s+(.+?)(?: \(revision v([\d.]+)\))?$", ended.said, re.MULTILINE)
    mac = re.search(r"^(?:BASE )?MAC:\s+((?:[0-9a-f]{2}:){5}[0-9a-f]{2})", ended.said, re.MULTILINE)
    flash = re.search(r"^Detected flash size: (\d+)MB", ended.said, re.MULTILINE)
    if not (family and name and mac):
        raise fault(ended.said, port)
    return Chip(family[1], name[1], name[2] or "", mac[1], int(flash[1]) if flash else None)
