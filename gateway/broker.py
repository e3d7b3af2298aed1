"""The station's broker: mosquitto's configuration, and the process that runs it and notes whom it turned away.

Brokers are pipes: nothing that mosquitto holds is relied on, so it keeps nothing on disk. What it does for us is TLS:
a certificate of our authority, not revoked, and its common name as the only name under which its owner can speak.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gateway import connections, keys, revocation, sealing
from gateway.enrolment import UnfitError
from gateway.notify import ServiceManager

if TYPE_CHECKING:
    from gateway.settings import Settings

_KEPT = 200
_ROUTINE = (b"Received P", b"Sending P")  # each packet of each message: nearly all that mosquitto says
_RELOAD_S = 5.0  # mosquitto says within milliseconds that it reads its files again
_ACL = """\
# Written by tocsin; every start writes it again.
pattern write tocsin/1/%u/alarm
pattern write tocsin/1/%u/event
pattern write tocsin/1/%u/heartbeat
pattern write tocsin/1/%u/presence
pattern read tocsin/1/%u/receipt
pattern read tocsin/1/%u/command

user {station}
topic read tocsin/1/+/alarm
topic read tocsin/1/+/event
topic read tocsin/1/+/heartbeat
topic read tocsin/1/+/presence
topic readwrite tocsin/1/+/receipt
topic readwrite tocsin/1/+/command
"""


class BrokerError(Exception):
    """The broker can't run; the text says what to do."""


def write_configuration(settings: Settings, key: Path | None = None) -> Path:
    """Writes mosquitto.conf and its ACL into the state folder; returns the former's path. Raises BrokerError.

    key: where mosquitto finds its private key, if that is not the identity's own file.
    """
    state, identity = settings.state, settings.identity
    state.mkdir(parents=True, exist_ok=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        if not (identity / name).is_file():
            message = f"{identity / name} is missing: the broker can't show who it is"
            raise BrokerError(message)
    acl = state / "mosquitto.acl"
    acl.write_text(_ACL.format(station=settings.station), encoding="utf-8")
    acl.chmod(0o600)
    lines = [
        "# Written by tocsin; every start writes it again.",
        "per_listener_settings false",
        "persistence false",  # the ends keep the promise, not the broker
        "max_queued_messages 10000",  # for the station's own session, while it restarts
        "max_queued_bytes 33554432",
        "max_inflight_messages 200",
        "max_packet_size 8192",  # a frame is 2,048 bytes at most
        f"user {pwd.getpwuid(os.geteuid()).pw_name}",  # who owns the key, and no other that mosquitto would change to
        "set_tcp_nodelay true",
        "sys_interval 0",
        "log_dest stderr",
        "log_timestamp false",
        "connection_messages true",
        *[f"log_type {kind}" for kind in ("error", "warning", "notice", "information", "debug")],
        f"acl_file {acl}",
        f"listener {settings.broker.port} {settings.broker.listen}",
        f"cafile {identity / 'ca.pem'}",
        f"certfile {identity / 'cert.pem'}",
        f"keyfile {key or identity / 'key.pem'}",
        "tls_version tlsv1.2",  # or later
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",  # nobody takes another's session by its client id
        "allow_anonymous false",
        *([f"crlfile {settings.revoked}"] if settings.revoked else []),
    ]
    path = state / "mosquitto.conf"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Watch:
    """Reads mosquitto's log for everything that was turned away."""

    _NEW = re.compile(r"New connection from (\S+?)(?::\d+)? on port")
    _FAILED = re.compile(r"Client connection from (\S+) failed: error:\w+:[^:]*:[^:]*:(.+?)\.?$")
    _AS = re.compile(r"New client connected from (\S+?)(?::(\d+))? as (\S+)")
    _DENIED = re.compile(r"Denied PUBLISH from (\S+) \(.*?'(.*?)', \.\.\. \((\d+) bytes\)\)")
    _LARGE = re.compile(r"Dropped too large PUBLISH from (\S+) \(.*?'(.*?)'(?:, \.\.\. \((\d+) bytes\))?")
    _ENDED = re.compile(r"Client (\S+) disconnected(?: due to|:) (.+?)\.?$")
    _TLS = re.compile(r"OpenSSL Error(?:\[\d+\])?: error:\w+:[^:]*:[^:]*:(.+)")
    _WHY: ClassVar = {
        "peer did not return a certificate": "it showed no certificate",
        "certificate verify failed": "its certificate is not of this authority, has expired, or is revoked",
        "tlsv1 alert unknown ca": "it does not trust this broker's certificate",
        "unsupported protocol": "it speaks a TLS version that is no longer safe",
        "wrong version number": "it does not speak TLS",
        "http request": "it does not speak TLS",
    }
    _ORDERLY = ("session taken over", "exceeded timeout")
    # What the system says of a link that failed; EPROTO is TLS without a farewell. "due to protocol error" is a refusal.
    _FAILING = tuple(
        f": {os.strerror(number)}"
        for number in (
            errno.EPROTO, errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ETIMEDOUT,
            errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN,
        )
    )  # fmt: skip

    def __init__(self, station: str = "") -> None:
        """station: the id of the station whose broker this is; its own end is no refusal."""
        self._station = station
        self._addresses: list[str] = []
        self.connected: dict[str, tuple[str, int]] = {}  # child -> the address and port of its newest connection
        self.refused: OrderedDict[tuple[str, str], list[object]] = OrderedDict()
        self.unwritten = True

    def line(self, text: str) -> bool:
        """Takes one line of the log; True if it told of a refusal."""
        if match := self._NEW.search(text):
            self._addresses = [*self._addresses[-50:], match[1]]
        elif match := self._AS.search(text):
            self.connected[match[3]] = match[1], int(match[2] or 0)
            if match[1] in self._addresses:
                self._addresses.remove(match[1])
        elif "unexpected eof while reading" in text:
            return False  # somebody left without a farewell: nobody was turned away
        elif match := self._TLS.search(text):
            who = " or ".join(sorted(set(self._addresses[-3:]))) or "?"  # whoever is still shaking hands
            return self.note(who, self._why(match[1]), text)
        elif match := self._FAILED.search(text):  # within the first octets, before it counts as a connection
            return self.note(match[1], self._why(match[2]), text)
        elif match := self._DENIED.search(text):
            return self.note(match[1], "it may not publish on that topic", f"{match[2]} ({match[3]} bytes)")
        elif match := self._LARGE.search(text):
            return self.note(match[1], "the message is too large", f"{match[2]} ({match[3]} bytes)")
        elif "<unknown>" in text and self._ENDED.search(text):
            del self._addresses[-1:]
        elif (
            (match := self._ENDED.search(text))
            and match[1] != self._station
            and not any(word in match[2] for word in self._ORDERLY)
            and not match[0].rstrip(".").endswith(self._FAILING)
        ):
            why = (
                "the message is too large" if "oversize" in match[2] else f"the broker ended its connection: {match[2]}"
            )
            return self.note(match[1], why, text)
        return False

    def _why(self, reason: str) -> str:
        return self._WHY.get(reason.strip(), f"TLS: {reason.strip()}")

    def note(self, who: str, why: str, sample: str) -> bool:
        """Counts a refusal; True."""
        count, _, _ = self.refused.pop((who, why), [0, 0, ""])
        self.refused[who, why] = [int(str(count)) + 1, time.time_ns() // 1_000_000, sample[:200]]
        if len(self.refused) > _KEPT:
            self.refused.popitem(last=False)
        self.unwritten = True
        return True

    def write(self, path: Path) -> None:
        """Puts all that is known where the station reads it, whole or not at all."""
        rows = [[who, why, *rest] for (who, why), rest in self.refused.items()]
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"broker": os.getpid(), "refused": rows}), encoding="utf-8")
        part.replace(path)
        self.unwritten = False


class Reread:
    """What mosquitto reads again while it runs: its certificate, and the lists of those who are revoked.

    Whose certificate is on a newer list loses its connection; everybody else's stays.
    """

    def __init__(self, settings: Settings, watch: Watch) -> None:
        self._station, self._lists, self._identity = settings.station, settings.revoked, settings.identity
        self._watch = watch
        self._seen = self._changed_at()
        self._revoked = self._read() or {}
        self._to_end: set[str | None] = set()
        self._asked_at: float | None = None

    def tend(self, process: subprocess.Popen[bytes]) -> bool:
        """Tells mosquitto to read again what has changed; False if it does not listen any more."""
        if self._asked_at is not None:
            return time.monotonic() - self._asked_at < _RELOAD_S
        now = self._changed_at()
        certificate, lists = (one != other for one, other in zip(now, self._seen, strict=True))
        self._seen = now
        revoked = self._read() if lists else None
        if revoked is not None:
            self._to_end |= {holder for serial, holder in revoked.items() if serial not in self._revoked}
            self._revoked = revoked
        if certificate or revoked is not None:
            self._asked_at = time.monotonic()
            process.send_signal(signal.SIGHUP)
        return True

    def begins(self, pid: int) -> bool:
        """Mosquitto has begun to read: whoever connects from now on is judged anew. False if nobody can be put out."""
        if self._asked_at is None:
            return True
        self._asked_at = None
        if self._to_end:
            whose = {address: child for child, address in self._watch.connected.items()}
            try:
                connections.end(pid, lambda address: self._is_meant(whose.get(address)))
            except OSError as error:
                sys.stderr.write(f"mosquitto starts anew, since single connections can't be ended here: {error}\n")
                return False
            self._to_end.clear()
        return True

    def _is_meant(self, owner: str | None) -> bool:
        """Whoever is revoked, or known to nobody; and all, if a list doesn't say whose certificates it takes back."""
        return owner is None or owner in self._to_end or (None in self._to_end and owner != self._station)

    def _read(self) -> dict[int, str | None] | None:
        """Who is revoked; None if no list would let anybody in, which is then no reason to read it."""
        if self._lists is None:
            return None
        try:
            authorities = keys.certificates(self._identity / "ca.pem")
            return revocation.revoked(self._lists.read_bytes(), authorities, datetime.now(UTC))
        except (UnfitError, keys.KeyFileError, OSError) as error:
            why = f"{error}: put the authority's newest list there; until then the one before it holds"
            sys.stderr.write(f"{self._lists}: {why}\n")
            self._watch.note(self._lists.name, why, str(self._lists))
            return None

    def _changed_at(self) -> tuple[int | None, int | None]:
        return _changed_at(self._identity / "cert.pem"), _changed_at(self._lists)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: no broker without its wrapper


def run(settings: Settings) -> int:
    """Runs mosquitto until it ends or SIGTERM comes; returns its exit status. A changed revocation list needs no restart."""
    mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if mosquitto is None:
        message = "mosquitto is not installed: apt install mosquitto"
        raise BrokerError(message)
    opened = _opened_key(settings)
    configuration = write_configuration(settings, Path(f"/proc/self/fd/{opened}") if opened is not None else None)
    watch = Watch(settings.station)
    service = ServiceManager()
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
    signal.signal(signal.SIGINT, lambda *_: ending.append(1))
    while True:
        reread = Reread(settings, watch)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)  # a slow reader must never hold up the broker
        fcntl.fcntl(reader, 1031, 1 << 20)  # F_SETPIPE_SZ
        process = subprocess.Popen(
            [mosquitto, "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stderr=writer,
            preexec_fn=_end_with_parent,
            pass_fds=() if opened is None else (opened,),
        )
        os.close(writer)
        (settings.state / "mosquitto.pid").write_text(str(process.pid), encoding="utf-8")
        status = _follow(process, reader, watch, settings, ending, reread, service)
        os.close(reader)
        if status is not None:
            service.stopping()
            return status


def _opened_key(settings: Settings) -> int | None:
    """A descriptor from which mosquitto reads its key, if that is sealed. Raises BrokerError."""
    path = settings.identity / "key.pem"
    try:
        if not path.exists() or not sealing.is_sealed(path):
            return None
        return sealing.without_a_name(sealing.plain(keys.private_key(path, sealing.passphrase(settings))))
    except keys.KeyFileError as error:
        raise BrokerError(str(error)) from error


def _changed_at(path: Path | None) -> int | None:
    return path.stat().st_mtime_ns if path and path.exists() else None


def _follow(
    process: subprocess.Popen[bytes],
    reader: int,
    watch: Watch,
    settings: Settings,
    ending: list[int],
    reread: Reread,
    service: ServiceManager,
) -> int | None:
    """Reads the broker's log until it ends. None: it was ended, since it could not be brought to use a newer list."""
    os.set_blocking(reader, False)
    rest = b""
    told = beat = 0.0
    restarting = listening = False
    tail: list[str] = []
    while True:
        try:
            octets = os.read(reader, 65536)
        except BlockingIOError:
            octets = None
        if octets:
            *lines, rest = (rest + octets).split(b"\n")
            for line in lines:
                if line.startswith(_ROUTINE):
                    continue
                text = line.decode(errors="replace")
                watch.line(text)
                listening |= text.startswith("mosquitto version ") and text.endswith(" running")
                tail = [*tail[-5:], text]
                if text == "Reloading config." and not reread.begins(process.pid) and not ending:
                    restarting = True
                    process.terminate()
        if watch.unwritten and time.monotonic() - told > 0.5:
            watch.write(settings.refusals)
            told = time.monotonic()
        if time.monotonic() - beat > 1 and process.poll() is None:
            beat = time.monotonic()
            service.beat(stuck=[], unready=[] if listening else ["mosquitto starts"], status="mosquitto listens")
        if octets == b"" or (octets is None and process.poll() is not None):
            status = process.wait()
            if restarting:
                return None
            if status and not ending:
                sys.stderr.write("mosquitto ended: " + " | ".join(tail) + "\n")
            return 0 if ending else status or 1
        if octets is None:
            if ending and process.poll() is None:
                process.terminate()
            elif not restarting and not reread.tend(process):
                restarting = True
                process.terminate()
            select.select([reader], [], [], 0.2)
