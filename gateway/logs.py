"""What a station says of itself: one line a happening, with the identity (device/boot/seq) of the alarm at every hop.

Text for people, JSON for programs. Nothing waits for a slow log: a thread of its own writes the lines; what finds no
room, or comes faster than anybody reads, is counted and told. No secret is ever handed to a log.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = ("text", "json")
ROOM = 10_000  # lines that wait to be written
PATIENCE_S = 2.0
PER_S, AT_ONCE = 200, 2_000  # lines of hops, for alarms and for all else apart
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

_hops = logging.getLogger("tocsin")


class Allowance:
    """How many lines may be written: `per_s` in the long run, `at_once` after a quiet time. Pure; times in seconds."""

    def __init__(self, per_s: float, at_once: int) -> None:
        self._per_s, self._most = per_s, at_once
        self._left, self._since = float(at_once), 0.0
        self.left_out = 0

    def take(self, now_s: float) -> bool:
        """Whether one more line may be written at `now_s`; if not, it is counted in `left_out`."""
        self._left = min(self._most, self._left + (now_s - self._since) * self._per_s)
        self._since = now_s
        if self._left < 1:
            self.left_out += 1
            return False
        self._left -= 1
        return True


_allowances = {True: Allowance(PER_S, AT_ONCE), False: Allowance(PER_S, AT_ONCE)}


def left_out() -> int:
    """Lines of hops that were not written since the start, because too many came at once."""
    return sum(allowance.left_out for allowance in _allowances.values())


def hop(what: str, identity: tuple[str, int, int] | None, *, alarm: bool = False, **fields: object) -> None:
    """Tells what became of a message here. identity: (device, boot, seq); alarm: whether it is one."""
    if _hops.isEnabledFor(logging.INFO) and _allowances[alarm].take(time.monotonic()):
        about = {} if identity is None else {"id": "/".join(map(str, identity)), "kind": "alarm" if alarm else "event"}
        _hops.info(what, extra={"fields": {**about, **fields}})


class TextLines(logging.Formatter):
    """`time LEVEL what key=value …`: one line, whatever characters a stranger sent; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        fields = getattr(record, "fields", {})
        told = "".join(f" {name}={_value(value)}" for name, value in fields.items() if value is not None)
        line = f"{_time(record)} {record.levelname} {_printable(record.getMessage())}{told}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return line + "".join(f"\n    {_printable(part)}" for part in trace.splitlines())


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, the hop's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        fields = getattr(record, "fields", {})
        told: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in fields.items() if value is not None}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class Outlet(logging.Handler):
    """Writes lines from a thread of its own; errors at once, as the process may end on them."""

    def __init__(self, stream: TextIO, *, priorities: bool = False) -> None:
        """priorities: begin each line with `<n>`, which systemd's journal takes for its priority (sd-daemon(3))."""
        super().__init__()
        self._stream = stream
        self._priorities = priorities
        self._lines: deque[str] = deque()
        self._some = threading.Event()
        self._writing = threading.Lock()
        self._counting = threading.Lock()
        self._lost = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes one record; never waits, unless it tells of an error."""
        line = self.format(record)
        if self._priorities:
            mark = f"<{_PRIORITIES.get(record.levelno, 6)}>"
            line = "\n".join(mark + part for part in line.split("\n"))
        if len(self._lines) < ROOM:
            self._lines.append(line)
        else:
            with self._counting:
                self._lost += 1
        self._some.set()
        if record.levelno >= logging.ERROR:
            self.flush()

    def flush(self) -> None:
        """Writes what waits, unless whoever reads the log has stopped reading."""
        if self._writing.acquire(timeout=PATIENCE_S):
            try:
                self._write_all()
            finally:
                self._writing.release()

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            with self._writing:
                self._write_all()

    def _write_all(self) -> None:
        while self._lines:
            line = self._lines.popleft()  # only here, under the lock: what is taken is written before `flush` returns
            with self._counting:
                lost, self._lost = self._lost, 0
            if lost:
                line += f"\n{lost} lines of the log found no room and are not here"
            with suppress(OSError, ValueError):  # whoever read the log is gone: the station works on
                self._stream.write(f"{line}\n")
                self._stream.flush()


def begin(form: str | None, environment: Mapping[str, str] = os.environ) -> None:
    """Sends every log line of this process to standard error. form: text, json; None: JSON under systemd, else text."""
    under_systemd = "JOURNAL_STREAM" in environment
    outlet = Outlet(sys.stderr, priorities=under_systemd)
    outlet.setFormatter(JsonLines() if (form or ("json" if under_systemd else "text")) == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [outlet]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it tells of its start in words for developers


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: object) -> str:
    text = str(value)
    return (
        text
        if text and text.isprintable() and not set(text) & set(' "=')
        else _printable(json.dumps(text, ensure_ascii=False))
    )


def _printable(text: str) -> str:
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )
