"""MicroPython's raw REPL over a serial port: run source on the board, get what it prints or the exception that it raised.

Everything has one total deadline. Nothing is printed, and no signal or main thread is needed, so several boards can be
worked on from threads. Protocol: MicroPython's documentation, "The MicroPython REPL", raw and raw-paste mode.
"""

from __future__ import annotations

import os
import re
import secrets
import time

import serial

from provisioning import ports
from provisioning.errors import BoardFault, BoardLost

INTERRUPT, RAW, FRIENDLY, END, PASTE = b"\x03", b"\x01", b"\x02", b"\x04", b"\x05A\x01"
PROMPT = b"raw REPL; CTRL-B to exit\r\n>"
ASK_AGAIN_S = 0.4  # a booting board drops what it is sent
INSIST_S = 0.003
KEPT = 65536  # octets of an endless print that are kept while looking for the prompt
PLAIN_PIECE = 256  # plain raw REPL has no flow control: a piece is what a board's input buffer takes…
PLAIN_PAUSE_S = 0.01  # …and then it needs a moment
POSIX_ERRNOS = 34  # the errnos that mean the same on every system
OCTET_BITS = 10  # start bit, 8 bits, stop bit

_ERRNO = re.compile(r"^OSError: (?:\[Errno )?(-?\d+)")


class Raised(BoardFault):
    """The board's Python raised. traceback: all of it. errno: the OSError's, else None."""

    def __init__(self, traceback: str) -> None:
        self.traceback = traceback.strip()
        last = self.traceback.splitlines()[-1] if self.traceback else "an exception without a text"
        found = _ERRNO.match(last)
        self.errno = int(found[1]) if found else None
        words = f" ({os.strerror(self.errno)})" if self.errno and 0 < self.errno <= POSIX_ERRNOS else ""
        super().__init__(f"The board says: {last}{words}")


class RawRepl:
    """One board's raw REPL. `enter` first. A failure of the port closes it, so that the next attempt finds it free."""

    def __init__(self, port: serial.Serial, path: str) -> None:
        self.port = port
        self.path = path
        self.can_paste = True
        self._came = bytearray()

    def close(self) -> None:
        """Gives the port back."""
        self.port.close()

    # -------------------------------------------------------------------------------------- octets and deadlines

    def lost(self, why: BaseException) -> Exception:
        """Closes the port; the error to raise for a failure of it."""
        self.port.close()
        return ports.fault(why, self.path)

    def send(self, octets: bytes, end: float) -> None:
        """Writes all of it before `end` (monotonic seconds)."""
        try:
            for start in range(0, len(octets), PLAIN_PIECE):
                self._in_time(end, "takes nothing any more")
                self.port.write(octets[start : start + PLAIN_PIECE])
        except serial.SerialTimeoutException:
            raise self._silent("takes nothing any more") from None
        except (OSError, TypeError) as problem:  # TypeError: pyserial, when another thread closes the port meanwhile
            raise self.lost(problem) from problem

    def _read(self) -> None:
        try:
            self._came += self.port.read(max(1, self.port.in_waiting))
        except (OSError, TypeError) as problem:
            raise self.lost(problem) from problem

    def _in_time(self, end: float, what: str) -> None:
        if time.monotonic() > end:
            raise self._silent(what)

    def _silent(self, what: str) -> BoardLost:
        tail = bytes(self._came[-60:]).decode("ascii", "replace").strip()
        said = f" (its last words: {tail!r})" if tail else ""
        return BoardLost(
            f"The board at {self.path} {what}{said}. Unplug it, plug it in again and run the same command."
        )

    def until(self, wanted: bytes, end: float, what: str = "does not answer", keep: int | None = None) -> bytes:
        """What came before `wanted`. keep: only so many octets are remembered of a flood."""
        looked = 0
        while True:
            at = self._came.find(wanted, max(0, looked - len(wanted)))
            if at >= 0:
                before = bytes(self._came[:at])
                del self._came[: at + len(wanted)]
                return before
            if keep is not None and len(self._came) > keep:
                del self._came[: len(self._came) - len(wanted)]
            looked = len(self._came)
            self._in_time(end, what)
            self._read()

    def octets(self, count: int, end: float, what: str = "stopped in the middle of an answer") -> bytes:
        """The next `count` octets."""
        while len(self._came) < count:
            self._in_time(end, what)
            self._read()
        taken = bytes(self._came[:count])
        del self._came[:count]
        return taken

    def waiting(self) -> bool:
        """Whether something came that nobody has taken yet."""
        try:
            return bool(self._came) or bool(self.port.in_waiting)
        except (OSError, TypeError) as problem:
            raise self.lost(problem) from problem

    # ---------------------------------------------------------------------------------------------- entering

    def enter(self, timeout_s: float = 10) -> None:
        """To the raw REPL from whatever the board is doing: booting, running, at a prompt, raw, in a half-sent paste.

        Raises BoardLost if it does not get there: silent, or it talks without end and is not MicroPython.
        """
        end = time.monotonic() + timeout_s
        heard = False
        insisting = False
        while True:
            self._came.clear()
            soon = min(end, time.monotonic() + ASK_AGAIN_S)
            try:
                if insisting:
                    self._insist(soon)
                else:
                    self.send(b"\r" + INTERRUPT + INTERRUPT, end)
                    self.send(b"\r" + RAW, end)
                self.until(PROMPT, soon, keep=KEPT)
                self._settle(time.monotonic() + ASK_AGAIN_S)
            except BoardLost:
                if not self.port.is_open:
                    raise
                heard = heard or bool(self._came)
                insisting = not insisting
                if time.monotonic() >= end:
                    self.port.close()
                    raise self._no_repl(heard) from None
            else:
                return

    def _insist(self, end: float) -> None:
        """Ctrl-C again and again: a program that ends or resets the board at once is only met while it starts."""
        asked_at = 0.0
        while time.monotonic() < end and PROMPT not in self._came:
            self.send(INTERRUPT, end)
            if time.monotonic() - asked_at > INSIST_S * 10:
                asked_at = time.monotonic()
                self.send(b"\r" + RAW, end)
            time.sleep(INSIST_S)
            if self.waiting():
                self._read()
                del self._came[:-KEPT]

    def _settle(self, end: float) -> None:
        """Drops everything stale: what follows the answer to a question that was never asked before is fresh."""
        nonce = secrets.token_hex(6)
        self.send(f"print('{nonce[:6]}'+'{nonce[6:]}')".encode() + END, end)
        self.until(nonce.encode() + b"\r\n" + END + END + b">", end)

    def _no_repl(self, heard: bool) -> BoardLost:
        if not heard:
            return BoardLost(
                f"The board at {self.path} is silent. Press its reset button and run the same command; if it stays silent, "
                "it has no MicroPython yet (flash it first), or this port belongs to something else."
            )
        tail = bytes(self._came[-40:])
        if b"invalid header: 0xffffffff" in self._came:
            return BoardLost(f"The board at {self.path} is blank: flash MicroPython first.")
        return BoardLost(
            f"What is at {self.path} talks, but gives no MicroPython prompt (it says {tail!r}). Press its reset button and "
            "run the same command; if that does not help, flash MicroPython again."
        )

    def soft_reset(self, timeout_s: float = 10) -> None:
        """A fresh interpreter, still at the raw REPL; main.py does not run."""
        end = time.monotonic() + timeout_s
        self.send(END, end)
        self.until(b"soft reboot\r\n", end)
        self.until(PROMPT, end)
        self._settle(end)

    # ---------------------------------------------------------------------------------------------- running

    def start(self, source: str, end: float) -> None:
        """Gives the board `source` to run; what it prints is read with `octets` and `until`, its end with `finish`."""
        text = source.encode()
        if self.can_paste and self._paste(text, end):
            return
        for at in range(0, len(text), PLAIN_PIECE):
            self.send(text[at : at + PLAIN_PIECE], end)
            time.sleep(PLAIN_PAUSE_S)
        self.send(END, end)
        if (answer := self.octets(2, end)) != b"OK":
            raise self._garbled(answer)

    def _paste(self, text: bytes, end: float) -> bool:
        """Raw paste; False, and never again, on a MicroPython without it."""
        self.send(PASTE, end)
        answer = self.octets(2, end)
        if answer != b"R\x01":
            self.can_paste = False
            if answer not in {b"R\x00", b"ra"}:
                raise self._garbled(answer)
            self.until(b">", end)  # of the prompt that follows either refusal
            return False
        window = int.from_bytes(self.octets(2, end), "little")
        if not window:
            raise self._garbled(b"\x00\x00")
        left, at = window, 0
        while at < len(text):
            while left == 0 or self.waiting():
                mark = self.octets(1, end)
                if mark == END:  # the compiler has had enough; why comes as the exception
                    self.send(END, end)
                    return True
                if mark != b"\x01":
                    raise self._garbled(mark)
                left += window
            self.send(text[at : at + left], end)
            at, left = at + left, max(0, left - (len(text) - at))
        self.send(END, end)
        while (mark := self.octets(1, end)) != END:
            if mark != b"\x01":
                raise self._garbled(mark)
        return True

    def finish(self, end: float) -> bytes:
        """What the board printed until it had finished. Raises Raised with its exception."""
        printed = self.until(END, end, "did not finish in time")
        raised = self.until(END, end)
        self.until(b">", end)
        if raised:
            raise Raised(raised.decode("utf-8", "replace"))
        return printed

    def run(self, source: str, timeout_s: float = 10) -> bytes:
        """What `source` prints. timeout_s: for the board's work; what the cable needs for the source is added."""
        end = time.monotonic() + timeout_s + len(source) * OCTET_BITS * 2 / (self.port.baudrate or ports.BAUD)
        self.start(source, end)
        return self.finish(end)

    def _garbled(self, answer: bytes) -> BoardLost:
        return BoardLost(
            f"The board at {self.path} answered out of turn ({answer!r} {bytes(self._came[:40])!r}). "
            "Unplug it, plug it in again and run the same command."
        )
