"""Bringing a release of the firmware to many buttons, a few at a time, and stopping when one does not come back.

What is to be done is one record in the station's table, which the shell writes and the running station follows; how far
each button is, its command says. Never two buttons of one site at the same time: the other entrances stay as they are.
A button that refuses, takes the old firmware back, or is not heard any more halts the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from firmware import release, wire
from gateway import database, releases, schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.exchange import Exchange
    from gateway.journal import Journal
    from gateway.registry import Registry
    from gateway.releases import Release
    from gateway.settings import Settings

RUNNING, HALTED, STOPPED, DONE = "running", "halted", "stopped", "done"
HEARD_MS = (
    150_000  # a button is offered nothing that was not heard for so long: behind a station, each is once a minute
)
SILENT_MS = 900_000  # one that has been offered the release and is not heard for so long does not come back
AT_ONCE = 5

_KEY = "rollout"
_T = schema.commands.c


class RolloutRefusedError(Exception):
    """Why no rollout begins, in a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The newest rollout. children: in the order in which they are offered it. why: in which words it ended."""

    version: str
    children: tuple[str, ...]
    at_once: int
    by: str
    made_at_ms: int
    state: str = RUNNING
    why: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one button is. state: of its command; "" if it was offered nothing yet."""

    child: str
    state: str
    answer: str
    given_at_ms: int


def read(connection: Connection) -> Rollout | None:
    """The newest rollout, if there ever was one."""
    text = database.kept(connection, _KEY)
    if not text:
        return None
    fields = json.loads(text)
    return Rollout(**{**fields, "children": tuple(fields["children"])})


def write(connection: Connection, rollout: Rollout) -> None:
    """Keeps a rollout in the place of the one before."""
    database.upsert(connection, schema.station, {"key": _KEY, "value": json.dumps(asdict(rollout))}, ["key"])


def progress(connection: Connection, rollout: Rollout) -> list[Progress]:
    """How far each of its buttons is."""
    rows = connection.execute(
        select(_T.child, _T.state, _T.answer, _T.made_at_ms)
        .where(_T.code == wire.UPDATE, _T.made_at_ms >= rollout.made_at_ms, _T.child.in_(rollout.children))
        .order_by(_T.id)
    ).all()
    newest = {row.child: row for row in rows}
    return [
        Progress(child, newest[child].state, newest[child].answer, newest[child].made_at_ms)
        if child in newest
        else Progress(child, "", "", 0)
        for child in rollout.children
    ]


def versions(connection: Connection) -> dict[str, str]:
    """What runs on each button, by the newest heartbeat that was kept."""
    rows = connection.execute(select(schema.latest.c.child, schema.latest.c.message)).all()
    found = {row.child: wire.decode(row.message).get(wire.FIRMWARE) for row in rows}
    return {child: version for child, version in found.items() if isinstance(version, str)}


def chosen(buttons: Sequence[str], running: Mapping[str, str], version: str, percent: float) -> tuple[str, ...]:
    """So many of these buttons, at least one, of those that do not run the version yet; in an order of the version's own.

    The same call after a part is done goes on with others.
    """
    order = sorted(buttons, key=lambda child: hashlib.sha256(f"{version} {child}".encode()).digest())
    have = [child for child in order if running.get(child) == version]
    wanted = math.ceil(len(order) * percent / 100) - (len(have) if percent < 100 else 0)
    return tuple(child for child in order if running.get(child) != version)[: max(0, wanted)]


def next_step(
    rollout: Rollout, done: Sequence[Progress], heard_ms: Mapping[str, int], site_of: Mapping[str, str], now_ms: int
) -> tuple[Rollout, list[str]]:
    """The rollout as it is now, and whom to offer the release. heard_ms: when each button was heard last. All in UTC, ms."""
    for one in done:
        if one.state in ("failed", "expired", "replaced"):
            why = one.answer or (
                "it did not answer in time" if one.state == "expired" else "its command was taken back"
            )
            return _ended(rollout, HALTED, f"{one.child}: {why}"), []
        if one.state == "waiting" and now_ms - max(heard_ms.get(one.child, 0), one.given_at_ms) > SILENT_MS:
            return _ended(rollout, HALTED, f"{one.child} has not been heard for {SILENT_MS // 60_000} minutes"), []
    if all(one.state == "done" for one in done):
        return _ended(rollout, DONE, f"all {len(done)} run it"), []
    under_way = [one.child for one in done if one.state == "waiting"]
    busy = {site_of.get(child, child) for child in under_way}
    offers: list[str] = []
    for one in done:
        site = site_of.get(one.child, one.child)
        is_heard = now_ms - heard_ms.get(one.child, 0) <= HEARD_MS
        if not one.state and site not in busy and is_heard and len(under_way) + len(offers) < rollout.at_once:
            offers.append(one.child)
            busy.add(site)
    return rollout, offers


def _ended(rollout: Rollout, state: str, why: str) -> Rollout:
    return Rollout(rollout.version, rollout.children, rollout.at_once, rollout.by, rollout.made_at_ms, state, why)


class Store:
    """The releases that headquarters took in: a file each, checked again whenever it is read."""

    def __init__(self, folder: Path, key: bytes | None) -> None:
        """key: the public point that releases are signed with; None: there is none in the settings."""
        self._folder = folder
        self._key = key

    def take(self, octets: bytes) -> Release:
        """Checks a release and keeps it. Raises RolloutRefusedError, OSError."""
        found = self._checked(octets)
        path = self._folder / f"{found.version}.release"
        if path.exists() and path.read_bytes() != octets:
            raise RolloutRefusedError(
                f"another release {found.version} was taken in before: give this one a new version"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(octets)
        part.replace(path)
        return found

    def _checked(self, octets: bytes) -> Release:
        if self._key is None:
            raise RolloutRefusedError(
                'set release_key = "04…" in the settings: `tocsin provision release-key` prints it'
            )
        try:
            return releases.read(octets, self._key)
        except wire.WireError as problem:
            raise RolloutRefusedError(f"{problem}: nothing was taken in") from problem

    def versions(self) -> list[str]:
        """Those that are here, oldest first."""
        found = [path.name.removesuffix(".release") for path in self._folder.glob("*.release")]
        return sorted(found, key=release.number)

    def read(self, version: str) -> Release:
        """A release that was taken in. Raises RolloutRefusedError."""
        try:
            octets = (self._folder / f"{version}.release").read_bytes()
        except OSError as problem:
            raise RolloutRefusedError(
                f"there is no release {version} here: take it in with `tocsin update take`"
            ) from problem
        return self._checked(octets)


def store_of(settings: Settings) -> Store:
    """Where headquarters keeps releases."""
    key = bytes.fromhex(settings.release_key) if settings.release_key else None
    return Store(settings.state / "releases", key)


class Rollouts:
    """Follows the newest rollout, from the running station's own loop, and answers buttons that ask for pieces."""

    def __init__(self, store: Store, journal: Journal, registry: Registry, exchange: Exchange) -> None:
        self._store = store
        self._journal = journal
        self._registry = registry
        self._exchange = exchange
        self._releases: dict[bytes, Release] = {}

    def step(self, now_ms: int) -> None:
        """Goes on by what the buttons answered. now_ms: UTC."""
        with self._journal.readers.connect() as connection:
            rollout = read(connection)
            if rollout is None or rollout.state in (DONE, HALTED):
                return
            done = progress(connection, rollout)
        if rollout.state == STOPPED:
            for one in done:
                if one.state == "waiting" and self._exchange.commands.waits(one.child, wire.UPDATE):
                    self._exchange.commands.withdraw(one.child, wire.UPDATE, now_ms)
            return
        heard = {child: report.heard_at_ms for child, report in self._exchange.reports.items()}
        sites = {child: known.place.site for child, known in self._registry.working().items() if known.place}
        after, offers = next_step(rollout, done, heard, sites, now_ms)
        try:
            for child in offers:
                self._offer(child, rollout)
        except (RolloutRefusedError, KeyError) as problem:
            after = _ended(rollout, HALTED, str(problem))
        if after.state != rollout.state:
            self._journal.now(lambda connection: write(connection, after))
            self._exchange.event(wire.ROLLOUT, "", f"{after.version} {after.state}: {after.why}"[:400])

    def _offer(self, child: str, rollout: Rollout) -> None:
        found = self._store.read(rollout.version)
        self._exchange.offer_update(child, found.version, found.offer, rollout.by)

    def wanted(self, child: str, message: Mapping[int, Any]) -> None:
        """A believed heartbeat asks for pieces; it gets them while its command waits for an answer."""
        digest, at = message[wire.WANTED]
        if not self._exchange.commands.waits(child, wire.UPDATE):
            return
        found = self._release(digest)
        if found is None:
            return
        number = message[wire.BOOT], message[wire.SEQ]
        for start in range(at, min(at + wire.PIECES * wire.PIECE_BYTES, len(found.octets)), wire.PIECE_BYTES):
            piece = found.octets[start : start + wire.PIECE_BYTES]
            self._exchange.commands.piece(child, number, [digest, start, piece])

    def _release(self, digest: bytes) -> Release | None:
        if digest not in self._releases:
            try:
                for version in self._store.versions():
                    found = self._store.read(version)
                    self._releases[found.digest[:8]] = found
            except RolloutRefusedError:
                return None
        return self._releases.get(digest)
