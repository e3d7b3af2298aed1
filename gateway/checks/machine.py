"""The machine under a station: its state folder and disk, mosquitto, ports, clock."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import DatabaseError

from gateway import database, dates, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.checks.look import Finding, Look

LITTLE_DISK_MB, LEAST_DISK_MB = 1_000, 200
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)  # no station is older than this program
OLDEST_MOSQUITTO = (2, 0, 11)
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


def state(look: Look) -> Iterator[Finding]:
    """The state folder: whether it can be written, has room, and a journal that can be read."""
    folder, what = look.settings.state, "state"
    there = folder
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        yield look.say("mistake", what, f"{there} is no folder: the journal is kept in it", "state")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} can't be written by {_user()}: nothing could be journaled; chown it to the station's user"
        yield look.say("mistake", what, text, "state")
        return
    free = shutil.disk_usage(there).free >> 20
    if free < LEAST_DISK_MB:
        yield look.say("mistake", what, f"{free} MB free at {there}: make room", "state")
    elif free < LITTLE_DISK_MB:
        yield look.say("warning", what, f"{free} MB free at {there}: make room soon", "state")
    else:
        made = "" if folder.exists() else "; the first start makes it"
        yield look.say("good", what, f"{folder}: {free} MB free{made}", "state")
    yield from _people(look)


def _people(look: Look) -> Iterator[Finding]:
    if look.settings.role != "hq" or look.settings.console is None or not look.settings.is_begun:
        return
    engine = database.open_database(look.settings.store, writes=False)
    try:
        with engine.connect() as connection:
            operators = connection.execute(
                select(func.count()).select_from(schema.people).where(schema.people.c.role == "operator")
            ).scalar()
    except DatabaseError as error:
        yield look.say("mistake", "journal", f"{look.settings.store} can't be read: {error.orig}", "state")
        return
    finally:
        engine.dispose()
    if not operators:
        yield look.say("warning", "people", "nobody may work alarms yet: `tocsin person NAME` adds an operator")


def mosquitto(look: Look) -> Iterator[Finding]:
    """Whether there is a mosquitto, and one of the versions that are tested."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        yield look.say("mistake", "mosquitto", "not installed: apt install mosquitto")
        return
    said = subprocess.run([found, "-h"], capture_output=True, text=True, check=False, timeout=10).stdout
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        yield look.say("warning", "mosquitto", f"{found} does not tell its version: is it mosquitto?")
        return
    version = tuple(int(part) for part in match.groups())
    if version < OLDEST_MOSQUITTO:
        wanted = ".".join(map(str, OLDEST_MOSQUITTO))
        yield look.say("warning", "mosquitto", f"{match[0]}: older than {wanted}, which is tested; upgrade it")
    else:
        yield look.say("good", "mosquitto", match[0])


def port_free(look: Look, where: tuple[str, str], what: str, listen: str, port: int) -> Iterator[Finding]:
    """Whether a port can be listened on; who has it, if somebody has."""
    try:
        found = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        text = f"{listen!r} is no address of this machine: 0.0.0.0 is all of them, 127.0.0.1 this machine alone"
        yield look.say("mistake", what, text, where[0], "listen")
        return
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except PermissionError:
            text = f"{port} is for root alone: use one from 1024 up"
            yield look.say("mistake", what, text, *where)
            return
        except OSError as error:
            yield _taken(look, where, what, listen, port, error)
            return
    yield look.say("good", what, f"{port} is free", *where)


def _taken(look: Look, where: tuple[str, str], what: str, listen: str, port: int, error: OSError) -> Finding:
    if error.errno != errno.EADDRINUSE:
        text = f"{listen}:{port} can't be listened on: {error.strerror}: is it an address of this machine?"
        return look.say("mistake", what, text, where[0], "listen")
    holder = _holder(port)
    if holder is None:
        text = f"{port} is taken by a program of another user: `ss -tlnp` as root names it; if it is this station, good"
        return look.say("warning", what, text, *where)
    pid, command = holder
    if str(look.settings.state / "mosquitto.conf") in command or _is_ours(look, pid, command):
        return look.say("good", what, f"{port} is in use by this station, which runs (process {pid})", *where)
    named = " ".join(command)[:80]
    return look.say(
        "mistake", what, f"{port} is taken by process {pid} ({named}): end it, or choose another port", *where
    )


def _is_ours(look: Look, pid: int, command: list[str]) -> bool:
    if "station" not in command:
        return False
    try:
        store = look.settings.store
        return isinstance(store, Path) and any(
            fd.resolve() == store.resolve() for fd in Path(f"/proc/{pid}/fd").iterdir()
        )
    except OSError:
        return False


def clock(look: Look) -> Iterator[Finding]:
    """Whether the time can be right."""
    if look.now < EARLIEST:
        text = f"it is {look.now:%Y-%m-%d} here: no certificate will be believed; set the clock"
        yield look.say("mistake", "clock", text)
        return
    newest = _newest_entry(look)
    if newest is not None and newest - look.now > timedelta(minutes=1):
        text = f"it is {look.now:%Y-%m-%d %H:%M} UTC here, but the journal's last entry is of {newest:%Y-%m-%d %H:%M}: set it"
        yield look.say("mistake", "clock", text)
    elif _unsynchronized():
        yield look.say("warning", "clock", "nothing keeps it right: set up NTP (systemd-timesyncd or chrony)")
    else:
        yield look.say("good", "clock", "kept right by NTP")


def _newest_entry(look: Look) -> datetime | None:
    if not look.settings.is_begun:
        return None
    engine = database.open_database(look.settings.store, writes=False)
    newest = schema.journal.c
    try:
        with engine.connect() as connection:
            at = connection.execute(select(newest.received_at_ms).order_by(newest.id.desc()).limit(1)).scalar()
    except DatabaseError:
        return None  # told with the state folder
    finally:
        engine.dispose()
    return None if at is None else dates.utc(at)


def _user() -> str:
    return f"user {os.geteuid()}"


def _holder(port: int) -> tuple[int, list[str]] | None:
    """Who listens on a port: process id and command; None: a process that this user may not look into."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        table = Path("/proc/net") / name
        for row in table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []:
            fields = row.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # LISTEN
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return int(process.name), [part for part in command if part]
        except OSError:
            continue  # another user's, or just ended
    return None


def _unsynchronized() -> bool:
    """Whether the kernel knows of nobody who keeps its clock right (adjtimex(2))."""
    asked = ctypes.create_string_buffer(512)  # struct timex with modes 0: only asks
    return ctypes.CDLL(None).adjtimex(asked) in {TIME_ERROR, -1}
