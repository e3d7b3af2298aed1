"""One board on a cable: `Board` at the raw REPL, `Console` while its firmware runs.

A file on the board is the old one or the new one, whatever moment the cable is pulled. Any failure of the link gives
the port back at once. Errors: BoardLost (unplugged, silent), BoardFault (the board raised, or what it holds is not what was
sent), PortFault, BoardNotFound, SelfTestFailed (the console did not say it).
"""

from __future__ import annotations

import ast
import base64
import binascii
import contextlib
import errno
import hashlib
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import serial

from provisioning import on_board, ports
from provisioning.errors import BoardFault, BoardLost, SelfTestFailed
from provisioning.rawrepl import END, OCTET_BITS, Raised, RawRepl

HOLD = b"tocsin-hold"  # firmware/bench.py: the next start goes to the prompt instead of running
BOOT_S = 8.0  # from reset to prompt takes 2.2 s on an ESP32
STEP_S = 8.0  # the longest that a board is quiet within an upload: writing a piece, hashing a file
# Octets of a file sent between two answers of the board. A large piece saves round trips; a lost octet in it stalls the
# board, and then the file is sent again in pieces that its input buffer (260 on an ESP32) holds whole.
PIECE, SMALL_PIECE = 4096, 144
LINES_KEPT = 12

Progress = Callable[[int, int], None]  # done, of: octets
Said = dict[str, Any]


def nothing(_done: int, _of: int) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class Facts:
    """What a board says of itself. firmware, identity, pending, point: None when it has none."""

    port: str
    chip: str
    machine: str
    mac: str
    micropython: str
    platform: str
    firmware: str | None
    identity: str | None
    pending: str | None
    point: str | None
    free_kb: int


class Board:
    """A board held at the raw REPL. A context manager; leaving it gives the port back and leaves the board at its prompt."""

    def __init__(self, repl: RawRepl) -> None:
        self._repl = repl
        self._loaded = False
        self._inflates = False

    @property
    def port(self) -> str:
        """The port's path."""
        return self._repl.path

    @classmethod
    def open(cls, port: str, *, timeout_s: float = 20, baud: int = ports.BAUD) -> Self:
        """Brings the board to the raw REPL, whatever it is doing, with a fresh interpreter.

        If our firmware was running, its watchdog would reset the board in a few seconds: so the board is started again, held.
        """
        return cls.at(RawRepl(ports.open_port(port, baud), port), timeout_s)

    @classmethod
    def at(cls, repl: RawRepl, timeout_s: float = 20) -> Self:
        """The same on a port that is open already. Closes it on failure."""
        board = cls(repl)
        end = time.monotonic() + timeout_s
        with board._guarded():
            repl.enter(end - time.monotonic())
            if repl.run(f"print({on_board.WATCHED})").strip() == b"True":
                board._hold(end)
            else:
                repl.soft_reset(max(2.0, end - time.monotonic()))
        return board

    def _hold(self, end: float) -> None:
        self._reset(HOLD)
        with contextlib.suppress(BoardLost):  # firmware that knows no holding runs on; it is stopped below as before
            self._repl.until(b">>> ", min(end, time.monotonic() + BOOT_S))
        self._repl.enter(max(2.0, end - time.monotonic()))
        self._repl.soft_reset()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Gives the port back when the link fails or the user gives up; an exception on the board is no reason."""
        try:
            yield
        except BoardFault:
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port back."""
        self._repl.close()

    # ---------------------------------------------------------------------------------------------- running

    def run(self, source: str, timeout_s: float = 10) -> str:
        """What `source` prints on the board. Raises Raised (a BoardFault) with the board's exception."""
        with self._guarded():
            return self._repl.run(source, timeout_s).decode("utf-8", "replace").replace("\r\n", "\n")

    def value(self, expression: str, timeout_s: float = 10) -> Any:
        """The value of a Python expression on the board, of a type that Python can write as a literal."""
        printed = self.run(f"print(repr(({expression})))", timeout_s)
        try:
            return ast.literal_eval(printed.strip())
        except (ValueError, SyntaxError):
            raise BoardFault(f"The board's answer to {expression} is {printed.strip()[:80]!r}, not a value.") from None

    def facts(self) -> Facts:
        """What the board says of itself; one round trip, and nothing but MicroPython is needed."""
        printed = self.run(on_board.FACTS)
        try:
            told = ast.literal_eval(printed)
        except (ValueError, SyntaxError):
            raise BoardFault(
                f"The board at {self.port} babbles ({printed[:60]!r}): run the same command again."
            ) from None
        machine, mac = told["machine"], told["mac"]
        return Facts(
            port=self.port,
            chip="virtual" if told["platform"] == "linux" else machine.rpartition(" with ")[2],
            machine=machine,
            mac=":".join(mac[at : at + 2] for at in range(0, len(mac), 2)),
            micropython=told["python"],
            platform=told["platform"],
            firmware=told["version"],
            identity=told["id"],
            pending=told["pending"],
            point=told["point"],
            free_kb=told["free"] // 1024,
        )

    def set_clock(self) -> None:
        """Sets the board's clock to this computer's UTC, and checks it."""
        now = datetime.now(UTC)
        fields = (now.year, now.month, now.day, now.weekday(), now.hour, now.minute, now.second, now.microsecond)
        told = self.value(f"[__import__('machine').RTC().datetime({fields}),__import__('machine').RTC().datetime()][1]")
        year, month, day, _, hour, minute, second, _ = told
        shown = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if abs((shown - now).total_seconds()) > STEP_S:
            raise BoardFault(f"The board's clock was set to {now:%F %T} and shows {shown:%F %T}: replace the board.")

    # ---------------------------------------------------------------------------------------------- files

    def _load(self) -> None:
        if not self._loaded:
            self.run(on_board.LOADER)
            self._inflates = bool(self.value("bool(deflate)"))
            self._loaded = True

    def read(self, path: str) -> bytes:
        """The octets of a file. Raises Raised with errno 2 if there is none."""
        self._load()
        return base64.b64decode(self.run(f"_t_get({path!r})", 120))

    def hashes(self, folder: str = "/") -> dict[str, str]:
        """SHA-256 in hex of every file below `folder` (or of the one file), by absolute path. Empty if there is none."""
        self._load()
        told = self.value(f"_t_tree({folder!r},{{}})", 60)
        return dict(sorted(told.items()))

    def remove(self, path: str) -> None:
        """Removes a file; one that is not there is as good as removed."""
        self._load()
        self.run(f"_t_gone({path!r})")

    def write(self, path: str, octets: bytes, progress: Progress = nothing) -> None:
        """Puts `octets` into the file at the absolute `path`; when this returns, the board has read them back and agreed.

        The old file stays until then. Raises BoardFault if the flash is full, or twice gave back something else.
        """
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is not an absolute path")
        with self._guarded():
            self._load()
            try:
                if self._put(path, octets, progress, PIECE):
                    return
            except BoardLost:
                # An octet was lost and the board waits for it; unless it is the board that was lost.
                if not self._repl.port.is_open:
                    raise
                self._start_over()
            if not self._put(path, octets, progress, SMALL_PIECE):
                raise BoardFault(
                    f"{path} reads back from the flash differently than it was sent, twice. The file that was there before "
                    "is unchanged. Use another cable and run the same command; if that does not help, replace the board."
                )

    def _start_over(self) -> None:
        self._repl.enter()
        self._repl.soft_reset()
        self._loaded = False
        self._load()

    def _put(self, path: str, octets: bytes, progress: Progress, piece: int) -> bool:
        """Sends a file; False if the board's hash of what it stored is another one, in which case it has dropped it."""
        cuts = range(0, len(octets), piece)
        packed = self._inflates and piece > SMALL_PIECE
        pieces = [_packed(octets[at : at + piece], deflate=packed) for at in cuts]
        end = time.monotonic() + STEP_S
        self._repl.start(f"_t_put({path!r},{[len(sent) for sent in pieces]},{packed})", end)
        try:
            for at, sent in zip(cuts, pieces, strict=True):
                end = time.monotonic() + STEP_S + len(sent) * OCTET_BITS * 2 / (self._repl.port.baudrate or ports.BAUD)
                self._expect(b"+", end)
                self._repl.send(sent, end)
                progress(at, len(octets))
            end = time.monotonic() + STEP_S * 4
            self._expect(b"=", end)
            told = self._repl.octets(64, end)
            agreed = told == hashlib.sha256(octets).hexdigest().encode()
            self._repl.send(b"y" if agreed else b"n", end)
            if agreed:
                self._repl.finish(end)
                progress(len(octets), len(octets))
            else:
                with contextlib.suppress(Raised):
                    self._repl.finish(end)
        except Raised as raised:
            if raised.errno != errno.ENOSPC:
                raise
            free = self.value("_t_free()")
            raise BoardFault(
                f"The board's flash is full: {path} needs {len(octets)} bytes beside what is there, and {free} are free. "
                "Nothing was changed. Erase the board (`tocsin provision retire`) or flash MicroPython again."
            ) from raised
        return agreed

    def _expect(self, mark: bytes, end: float) -> None:
        """The mark with which the board asks for more. Raises what the board raised instead."""
        came = self._repl.octets(1, end)
        if came == mark:
            return
        if came != END:
            raise BoardLost(
                f"The board at {self.port} answered {came!r} in the middle of a file. Run the same command again."
            )
        raised = self._repl.until(END, end)
        self._repl.until(b">", end)
        raise Raised(raised.decode("utf-8", "replace"))

    # ---------------------------------------------------------------------------------------------- restarting

    def _reset(self, mark: bytes) -> None:
        written = self._repl.run(f"import machine\nmachine.RTC().memory({mark!r})\nprint(machine.RTC().memory())")
        if ast.literal_eval(written.decode().strip()) != mark:
            raise BoardFault("The board's RTC memory does not keep what is written to it: replace the board.")
        self._repl.start("machine.reset()", time.monotonic() + STEP_S)

    def restart(self, mark: bytes = b"") -> Console:
        """Starts the board's firmware with `mark` in its RTC memory (firmware/bench.py). This Board is used up by it."""
        with self._guarded():
            self._reset(mark)
        return Console(self._repl)


def _packed(octets: bytes, *, deflate: bool) -> bytes:
    if deflate:
        packer = zlib.compressobj(9, zlib.DEFLATED, -12)
        octets = packer.compress(octets) + packer.flush()
    return binascii.b2a_base64(octets, newline=False)


class Console:
    """What running firmware says: `said` has every JSON line since the restart. A thread reads; `close` ends it."""

    def __init__(self, repl: RawRepl) -> None:
        self.said: list[Said] = []
        self._repl = repl
        self._looked = 0
        self._other: list[str] = []  # the last lines that are no JSON: the boot loader's, a traceback
        self._failure: Exception | None = None
        self._news = threading.Condition()
        self._start()

    def _start(self) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"console {self._repl.path}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port back; the board runs on."""
        self._stop()
        self._repl.close()

    def _stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _listen(self) -> None:
        line = bytearray()
        while not self._ending.is_set():
            try:
                line += self._repl.port.read(max(1, self._repl.port.in_waiting))
            except (OSError, TypeError) as problem:
                with self._news:
                    self._failure = self._repl.lost(problem)
                    self._news.notify_all()
                return
            *whole, line = line.split(b"\n")
            with self._news:
                for text in whole:
                    self._take(bytes(text).strip())
                self._news.notify_all()

    def _take(self, text: bytes) -> None:
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        if isinstance(said, dict):
            self.said.append(said)
        elif text:
            self._other = [*self._other, text.decode("utf-8", "replace")][-LINES_KEPT:]

    def wait_for(self, wanted: Callable[[Said], bool], timeout_s: float, what: str, since: int | None = None) -> Said:
        """The first line for which `wanted` is true, of those after the last one that was waited for.

        since: look from this index of `said` on instead. Raises BoardLost, or SelfTestFailed that `what` did not happen.
        """
        end = time.monotonic() + timeout_s
        with self._news:
            at = self._looked if since is None else since
            while True:
                while at < len(self.said):
                    at += 1
                    if wanted(self.said[at - 1]):
                        self._looked = at
                        return self.said[at - 1]
                if self._failure:
                    raise self._failure
                left = end - time.monotonic()
                if left <= 0:
                    raise SelfTestFailed(f"{what} did not happen within {timeout_s:g} s. {self._last_words()}")
                self._news.wait(left)

    def _last_words(self) -> str:
        if self.said:
            last = {name: value for name, value in self.said[-1].items() if name != "at"}
            return f"The button's last words: {json.dumps(last, ensure_ascii=False)}"
        if self._other:
            return f"The board's last words: {' / '.join(self._other[-3:])}"
        return "The board said nothing at all: is the firmware on it?"

    def power_cut(self) -> None:
        """Takes the chip's power away for a moment: its reset line, or where the port has none, machine.reset()."""
        port = self._repl.port
        if self._failure:
            raise self._failure
        try:
            port.dtr = False  # boot from the flash, not into the loader
            port.rts = True
            time.sleep(0.1)
            port.rts = False
        except (OSError, serial.SerialException):
            self._stop()
            self._repl.enter()
            self._repl.start("__import__('machine').reset()", time.monotonic() + STEP_S)
            self._start()

    def back_to_board(self) -> Board:
        """Stops the firmware and holds the board at the raw REPL again. This Console is used up by it."""
        self._stop()
        if self._failure:
            raise self._failure
        return Board.at(self._repl)
