"""A PostgreSQL server of the tests' own: on a socket in a folder of its own, as somebody who is not root."""

from __future__ import annotations

import getpass
import glob
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from demo.process import _end_with_parent, wait_until
from gateway import database

NAME = "tocsin"


def programs() -> Path | None:
    """The folder of initdb and postgres; None: they are not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    on_path = shutil.which("initdb")
    return Path(found[-1]).parent if found else Path(on_path).parent if on_path else None


def _user() -> str:
    """Who runs it: whoever runs the tests, but for root, whom PostgreSQL refuses."""
    if os.geteuid():
        return getpass.getuser()
    known = {one.pw_name for one in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Server:
    """Started when it is made; `close` ends it and deletes its folder."""

    def __init__(self) -> None:
        found = programs()
        assert found, "PostgreSQL is missing: run `python3 tools/setup.py test`"
        self._folder = Path(tempfile.mkdtemp(prefix="tocsin-pg-", dir="/tmp"))
        user = _user()
        if not os.geteuid():
            shutil.chown(self._folder, user)
        options = {"cwd": self._folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if not os.geteuid():
            options |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        made = [found / "initdb", "-D", "data", "-U", NAME, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(made, check=True, **options)  # type: ignore[call-overload]
        self._run = [
            found / "postgres",
            "-D",
            "data",
            "-k",
            str(self._folder),
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
        ]
        self._options = options
        self._numbers = itertools.count(1)
        try:
            self.start()
            self._do("CREATE DATABASE whole")
            database.prepare(self.url("whole"))
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Starts it, again too."""
        self._process = subprocess.Popen(
            [*self._run, "-c", "max_connections=60"],
            preexec_fn=_end_with_parent,
            **self._options,  # type: ignore[call-overload]
        )
        wait_until(self._answers, 60, "PostgreSQL answers", every_s=0.1)

    def url(self, name: str) -> str:
        """Of a database, as in a station's settings."""
        return f"postgresql+psycopg://{NAME}@/{name}?host={self._folder}"

    def fresh(self) -> str:
        """The URL of a new database, with every table."""
        name = f"fresh{next(self._numbers)}"
        self._do(f"CREATE DATABASE {name} TEMPLATE whole")
        return self.url(name)

    def empty(self) -> str:
        """The URL of a new database without any table."""
        name = f"empty{next(self._numbers)}"
        self._do(f"CREATE DATABASE {name}")
        return self.url(name)

    def _do(self, statement: str) -> None:
        with psycopg.connect(self._place("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def _place(self, name: str) -> str:
        return f"host={self._folder} user={NAME} dbname={name} connect_timeout=5"

    def _answers(self) -> bool:
        assert self._process.poll() is None, "PostgreSQL ended"
        try:
            psycopg.connect(self._place("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Ends it, as a power cut would."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def close(self) -> None:
        """Ends it for good."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
