"""The stand-in for an ESP32 on a cable: a pty behind which real MicroPython runs on a flash folder.

    folder/flash    the file system: "/" to the board        folder/port    the serial port (a link to the pty)
    folder/state    the rest of the chip: efuse.json (its MAC), nvs.json, air.json, RTC memory

With power on it runs boot.py and main.py with real sockets and TLS; Ctrl-C leads to the prompt, machine.reset() starts
again, and a power cut is SIGKILL. Nothing here knows our own client: mpremote talks to it as well. What is not as on
silicon: a boot takes `boot_s` instead of 2.2 s, octets come in bursts of 32, and there are no DTR and RTS.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import queue
import re
import select
import signal
import subprocess
import termios
import threading
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.parts import micropython

HERE = Path(__file__).resolve().parent
FLASH = 2 * 1024 * 1024
BURST = 32  # octets moved at a time on a line of limited speed: 2.8 ms at 115200 baud
UNREAD = 260  # octets that a chip keeps for a program that does not read its UART
CALM_S = 1.0  # after an interrupt, the time before another one is passed on
POWER_ON, HARD, WATCHDOG = 1, 2, 3
BOOTS = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x%x (%s),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\nload:0x3fff0030,len:4892\r\n"
BABBLE = b"\x00\xfe\x80 rst cause:2, boot mode:(3,6) wdt reset load 0x40100000, len 31036 chksum 0x10 \xff\r\n"

_LIBC = ctypes.CDLL(None)


@dataclass
class Faults:
    """What is wrong with the board or its cable; may be changed while it runs, what concerns the chip from its next start.

    cut_after: octets from the host after which the plug is pulled. babble: it only talks. silent: it never answers.
    wrong_hashes: its SHA-256 is wrong. flash: octets that its flash takes. no_paste: a MicroPython without raw paste.
    drop_at: the octet from the host, counted from now, that gets lost.
    """

    cut_after: int | None = None
    babble: bool = False
    silent: bool = False
    wrong_hashes: bool = False
    flash: int | None = None
    no_paste: bool = False
    drop_at: int | None = None


class _Line:
    """One direction of a cable: when it may carry more."""

    def __init__(self, baud: int) -> None:
        self._octet_s = 10 / baud if baud else 0.0
        self.burst = BURST if baud else 4096
        self.free_at = 0.0

    def carried(self, octets: int) -> None:
        """`octets` were put on the line now."""
        self.free_at = max(self.free_at, time.monotonic() - 0.02) + octets * self._octet_s

    def wait_s(self) -> float:
        """Until it may carry more."""
        return max(0.0, self.free_at - time.monotonic())


class VirtualBoard:
    """One board. All that happens to it happens in one thread of its own, which its processes end with."""

    def __init__(
        self,
        folder: Path,
        *,
        mac: str = "240ac4000001",
        baud: int = 0,
        boot_s: float = 0.1,
        faults: Faults | None = None,
        program: str | None = None,
    ) -> None:
        """mac: 12 hex digits. baud: speed of the line, 0 without limit. program: MicroPython, else the tests' own."""
        self.folder = folder.resolve()
        self.flash, self.state = self.folder / "flash", self.folder / "state"
        self.path = self.folder / "port"
        self.faults = faults or Faults()
        self.from_host = 0  # octets
        self.starts = 0  # of the chip, soft resets included
        for part in (self.flash, self.state):
            part.mkdir(parents=True, exist_ok=True)
        if not (self.state / "efuse.json").exists():
            (self.state / "efuse.json").write_text(json.dumps({"mac": mac}), encoding="utf-8")
        self._program = program or micropython()
        self._boot_s = boot_s
        self._in, self._out = _Line(baud), _Line(baud)
        self._thread: threading.Thread | None = None
        self._wishes: queue.Queue[tuple[Callable[[], None], threading.Event]] = queue.Queue()
        self._master: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._to_host = bytearray()
        self._unread = bytearray()
        self._readings: dict[str, Any] = {}
        self._listening, self._executing = False, True
        self._interrupted_at = -CALM_S
        self._boot_at: float | None = None
        self._start_as = "hard"
        self._cause = POWER_ON
        self._bites_at: float | None = None
        self._last_was_return = False
        self._babbles_at = 0.0

    # ---------------------------------------------------------------------------------------------- the door

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Plugs it in: from here on the port exists."""
        self._ending = False
        self._wake_in, self._wake_out = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"board {self.folder.name}", daemon=True)
        self._thread.start()
        self.plug()

    def stop(self) -> None:
        """Unplugs it and ends its processes."""
        if self._thread is None:
            return
        self.unplug()
        self._do(lambda: setattr(self, "_ending", True))
        self._thread.join()
        self._thread = None
        os.close(self._wake_in)
        os.close(self._wake_out)

    def plug(self) -> None:
        """Puts the cable in: power, and a new pty under the same name."""
        self._do(self._plug)

    def unplug(self) -> None:
        """Pulls the cable: no power, and who has the port open gets EIO."""
        self._do(self._unplug)

    @property
    def plugged(self) -> bool:
        """Whether the cable is in."""
        return self._master is not None

    def wait_for_prompt(self, timeout_s: float = 10) -> None:
        """Until the chip has booted and waits at a prompt; clients without patience need that. Raises TimeoutError."""
        self._wait_until_it_is(executing=False, timeout_s=timeout_s)

    def wait_for_program(self, timeout_s: float = 10) -> None:
        """Until the chip has booted and runs a program. Raises TimeoutError."""
        self._wait_until_it_is(executing=True, timeout_s=timeout_s)

    def _wait_until_it_is(self, *, executing: bool, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while self._child is None or not self._listening or self._executing is not executing:
            if time.monotonic() > end:
                raise TimeoutError(f"the virtual board is not {'running' if executing else 'at its prompt'} in time")
            time.sleep(0.005)

    @property
    def pid(self) -> int | None:
        """Of the process that is the chip, while it has power and has booted."""
        child = self._child
        return child.pid if child else None

    def power_cut(self) -> None:
        """Takes the chip's power away for a moment; the serial adapter stays, as one with a supply of its own does."""
        self._do(lambda: (self._power_off(), self._power_on()))

    def pins(self, **readings: object) -> None:
        """What the pins of firmware/boards/virtual.py read from now on, across restarts."""
        self._do(lambda: self._set_pins(readings))

    def air(self, *networks: dict[str, Any]) -> None:
        """The wireless networks around it: ssid, password, rssi, up."""
        new = self.state / "air.new"
        new.write_text(json.dumps({"networks": list(networks)}), encoding="utf-8")
        new.replace(self.state / "air.json")

    def _do(self, wish: Callable[[], Any]) -> None:
        """Has the board's thread do something, and waits until it is done."""
        done = threading.Event()
        self._wishes.put((wish, done))
        os.write(self._wake_out, b".")
        if not done.wait(20):
            raise TimeoutError("the virtual board's thread does not answer")

    # ---------------------------------------------------------------------------------------------- power and cable

    def _plug(self) -> None:
        if self._master is not None:
            return
        self._master, slave = os.openpty()
        tty.setraw(slave, termios.TCSANOW)
        os.set_blocking(self._master, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)  # so that nobody but a client holds the port
        self.from_host = 0
        self._power_on()

    def _unplug(self) -> None:
        self._power_off()
        master, self._master = self._master, None
        if master is not None:
            self.path.unlink(missing_ok=True)
            os.close(master)

    def _power_on(self) -> None:
        (self.state / "rtc_memory").unlink(missing_ok=True)
        (self.state / "rtc_clock").write_text(str(946_684_800 - int(time.time())), encoding="utf-8")  # 2000-01-01
        self._to_host.clear()
        self._boot(POWER_ON)

    def _power_off(self) -> None:
        self._end_child()
        self._boot_at = self._bites_at = None
        self._to_host.clear()

    def _boot(self, cause: int) -> None:
        name = {POWER_ON: b"POWERON_RESET", HARD: b"SW_CPU_RESET", WATCHDOG: b"TG1WDT_SYS_RESET"}[cause]
        self._say(BOOTS % (cause, name))
        self._cause, self._start_as = cause, "hard"
        self._bites_at = None
        self._boot_at = time.monotonic() + self._boot_s

    def _start_child(self) -> None:
        self._boot_at = None
        if self.faults.babble or self.faults.silent:
            return
        self._uart_in, self._uart_out = os.pipe()
        self._control_in, self._control_out = os.pipe()
        for descriptor in (self._uart_out, self._control_in):
            os.set_blocking(descriptor, False)
        environment = {
            **os.environ,
            "CHIP_UART": str(self._uart_in),
            "CHIP_CONTROL": str(self._control_out),
            "CHIP_STATE": str(self.state),
            "CHIP_ROM": str(HERE / "rom"),
            "CHIP_FLASH": str(self.faults.flash or FLASH),
            "CHIP_LIMITED": "0" if self.faults.flash is None else "1",
            "CHIP_WRONG_HASHES": str(int(self.faults.wrong_hashes)),
            "CHIP_PASTE": str(int(not self.faults.no_paste)),
            "CHIP_START": self._start_as,
            "CHIP_CAUSE": str(self._cause),
        }
        self._child = subprocess.Popen(
            [self._program, "-X", "heapsize=2m", str(HERE / "unix_repl.py")],
            cwd=self.flash,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            pass_fds=(self._uart_in, self._control_out),
            preexec_fn=_end_with_parent,
        )
        self.starts += 1
        os.close(self._control_out)
        os.set_blocking(self._child.stdin.fileno(), False)
        self._listening, self._executing = False, True
        self._interrupted_at = -CALM_S
        if self._readings:
            self._set_pins({})

    def _end_child(self) -> int:
        """Its exit status; what it said before is passed on."""
        child, self._child = self._child, None
        if child is None:
            return 0
        if child.poll() is None:
            child.kill()
        status = child.wait()
        for stream in (child.stdin, child.stdout):
            stream.close()
        for descriptor in (self._uart_in, self._uart_out, self._control_in):
            os.close(descriptor)
        return status

    def _child_ended(self) -> None:
        status = self._child.wait()
        self._take_control()
        bites_at = self._bites_at
        unread = self._take_unread()
        self._end_child()
        if status in {11, 12}:  # a soft reset keeps the watchdog, and what the UART has received
            self._say(b"MPY: soft reboot\r\n")
            self._start_as = "soft" if status == 11 else "raw"
            self._bites_at = bites_at
            self._unread = unread
            self._boot_at = time.monotonic() + (self._boot_s if status == 11 else 0)
        else:
            if status != 10:
                self._say(b"Guru Meditation Error: Core  0 panic'ed (status %d)\r\n" % status)
            self._boot(HARD)

    def _take_unread(self) -> bytearray:
        waiting = bytearray()
        os.set_blocking(self._uart_in, False)
        with contextlib.suppress(BlockingIOError):
            waiting += os.read(self._uart_in, 65536)
        return waiting + self._unread

    # ---------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._ending:
            self._obey()
            if self._boot_at is not None and time.monotonic() >= self._boot_at:
                self._start_child()
            if self._bites_at is not None and time.monotonic() >= self._bites_at:
                self._end_child()
                self._boot(WATCHDOG)
            if self.faults.babble and time.monotonic() >= self._babbles_at:
                self._babbles_at = time.monotonic() + 0.02
                self._say(BABBLE)
            self._turn()
        self._end_child()

    def _obey(self) -> None:
        while True:
            try:
                wish, done = self._wishes.get_nowait()
            except queue.Empty:
                return
            try:
                wish()
            finally:
                done.set()

    def _turn(self) -> None:
        """Waits until something may move, and moves it."""
        poll = select.poll()
        poll.register(self._wake_in, select.POLLIN)
        child = self._child
        if child is not None:
            poll.register(self._control_in, select.POLLIN)
            if len(self._to_host) < 65536:
                poll.register(child.stdout, select.POLLIN)
        waits = [0.05]
        master = self._master
        if master is not None:
            interest = 0
            if self._in.wait_s() == 0:
                interest |= select.POLLIN
            else:
                waits.append(self._in.wait_s())
            if self._to_host:
                if self._out.wait_s() == 0:
                    interest |= select.POLLOUT
                else:
                    waits.append(self._out.wait_s())
            if interest:
                poll.register(master, interest)
        if self._boot_at is not None:
            waits.append(max(0.0, self._boot_at - time.monotonic()))
        ready = dict(poll.poll(max(0, min(waits)) * 1000 + (1 if min(waits) else 0)))
        if self._wake_in in ready:
            os.read(self._wake_in, 64)
        if child is not None and self._control_in in ready:
            self._take_control()
        happened = ready.get(master, 0) if master is not None else 0
        if happened & select.POLLHUP and not happened & select.POLLIN:
            self._to_host.clear()  # nobody has the port open: the adapter drops what comes
            time.sleep(0.005)
        elif happened:
            if happened & select.POLLOUT and self._to_host:
                self._to_line()
            if happened & select.POLLIN:
                self._from_line()
        if self._child is child and child is not None and child.stdout.fileno() in ready:
            octets = child.stdout.read(4096)
            if octets:
                self._say(self._cooked(octets))
            else:
                self._child_ended()

    def _to_line(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                sent = os.write(self._master, self._to_host[: self._out.burst])
            except OSError as problem:
                if problem.errno != errno.EIO:
                    raise
                return
            del self._to_host[:sent]
            self._out.carried(sent)

    def _from_line(self) -> None:
        room = self._in.burst
        if self.faults.cut_after is not None:
            room = max(1, min(room, self.faults.cut_after - self.from_host))
        try:
            octets = os.read(self._master, room)
        except OSError:
            return  # nobody has the port open, or there was nothing after all
        self._in.carried(len(octets))
        before = self.from_host
        self.from_host += len(octets)
        if self.faults.cut_after is not None and self.from_host >= self.faults.cut_after:
            self.faults.cut_after = None
            self._unplug()
            return
        lost_at = self.faults.drop_at
        if lost_at is not None and before <= lost_at < self.from_host:
            octets = octets[: lost_at - before] + octets[lost_at - before + 1 :]
            self.faults.drop_at = None
        self._receive(octets)

    def _receive(self, octets: bytes) -> None:
        """What the UART does with what comes: Ctrl-C interrupts a program, all else waits for a reader."""
        if self._child is None:
            return  # no power, or the boot loader runs: lost, as on a chip
        self._take_control()
        if not self._listening:
            return
        at = octets.rfind(b"\x03")
        if self._executing and at >= 0:
            self._unread.clear()
            octets = octets[at + 1 :]
            if time.monotonic() - self._interrupted_at > CALM_S:
                self._interrupted_at = time.monotonic()
                self._child.send_signal(signal.SIGINT)
        self._unread += octets
        self._feed()

    def _feed(self) -> None:
        """To the chip what its UART received; a program that does not read gets the first UNREAD octets when it does."""
        if not self._unread:
            return
        with contextlib.suppress(BlockingIOError):
            if self._executing and len(self._unread) + self._queued() > 65536:
                del self._unread[UNREAD:]
                return
            sent = os.write(self._uart_out, self._unread)
            del self._unread[:sent]

    def _queued(self) -> int:
        count = fcntl.ioctl(self._uart_in, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(count, "little")

    def _take_control(self) -> None:
        try:
            told = os.read(self._control_in, 4096)
        except BlockingIOError:
            return
        for word in told.replace(b"x", b"x;").replace(b"r", b"r;").split(b";"):
            if word in {b"x", b"r"}:
                self._listening, self._executing = True, word == b"x"
                self._interrupted_at = -CALM_S
            elif word[:1] == b"w":
                self._bites_at = time.monotonic() + int(word[1:]) / 1000
        self._feed()

    def _say(self, octets: bytes) -> None:
        self._to_host += octets
        if self.faults.babble:
            del self._to_host[65536:]

    def _cooked(self, octets: bytes) -> bytes:
        """A chip's UART sends CR LF where the unix port writes LF."""
        cooked = re.sub(rb"(?<!\r)\n", b"\r\n", octets)
        if self._last_was_return and octets[:1] == b"\n":
            cooked = cooked[1:]
        self._last_was_return = octets.endswith(b"\r")
        return cooked

    def _set_pins(self, readings: dict[str, object]) -> None:
        self._readings.update(readings)
        if self._child is not None:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                self._child.stdin.write(json.dumps(readings or self._readings).encode() + b"\n")


def _end_with_parent() -> None:
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.setpgid(0, 0)
