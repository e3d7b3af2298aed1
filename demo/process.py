"""Processes that end with the program that started them, and are started again when they fall, as a service manager would."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO

RESTART_S = 0.3
_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.setpgid(0, 0)  # Ctrl-C is for the program in front, which then ends these in order


class Process:
    """One process of the system. log: where its standard error goes, and its output unless `piped`."""

    def __init__(
        self, name: str, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, piped: bool = False
    ) -> None:
        self.name = name
        self.starts = 0
        self._command = list(command)
        self._cwd = cwd
        self._env = {**os.environ, **env}
        self._log = log
        self._piped = piped
        self._wanted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def start(self) -> None:
        """Starts it, and from now on starts it again whenever it ends by itself."""
        with self._lock:
            self._wanted = True
            if not self.running:
                self._spawn()

    def _spawn(self) -> None:
        with self._log.open("ab") as log:
            # PDEATHSIG follows the thread that forks, so every start comes from a thread that lives as long as we do.
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._piped else log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 it only calls two system calls
            )
        self.starts += 1
        self.started(self._process)

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """For who wants to talk with it."""

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def stdin(self) -> IO[bytes] | None:
        """Its standard input, if piped."""
        return self._process.stdin if self._process else None

    def kill(self) -> None:
        """SIGKILL; it will be started again unless `stop` is called."""
        with self._lock:
            if self._process and self.running:
                self._process.kill()
                self._process.wait()

    def release(self) -> None:
        """No longer starts it again."""
        with self._lock:
            self._wanted = False

    def look_after(self) -> None:
        """Starts it again if it ended by itself."""
        with self._lock:
            if self._wanted and not self.running:
                self._spawn()

    def stop(self, timeout_s: float = 8, *, kill: bool = False) -> None:
        """Ends it for good: SIGTERM (or SIGKILL), then SIGKILL after `timeout_s`."""
        with self._lock:
            self._wanted = False
            if self._process is None:
                return
            if self.running:
                self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class Keeper:
    """Looks after processes from one thread. All of them must be started through it."""

    def __init__(self) -> None:
        self._processes: list[Process] = []
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def keep(self, *processes: Process) -> None:
        """Looks after `processes` from now on."""
        self._processes.extend(processes)

    def _run(self) -> None:
        while not self._ending.wait(RESTART_S):
            for process in list(self._processes):
                process.look_after()
        self._ended.wait()  # what this thread started ends with it

    def stop(self) -> None:
        """Ends every process, the last one first."""
        self._ending.set()
        for process in self._processes:
            process.release()
        for process in reversed(self._processes):
            process.stop()
        self._ended.set()
        self._thread.join()


def wait_until(condition: object, timeout_s: float, what: str, *, every_s: float = 0.02) -> None:
    """Waits until `condition()` is true. Raises TimeoutError that says `what` did not happen."""
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            message = f"{what} did not happen within {timeout_s:g} s"
            raise TimeoutError(message)
        time.sleep(every_s)
