"""A bare board becomes a button of an entrance. Every step looks first, acts only where it must, and verifies.

So the answer to every interruption is the same command again. The order keeps two promises: a board gets a working
identity only after headquarters was told of it (or the request file was written), and what headquarters was told of lapses
within the hour unless the board speaks up.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from provisioning import bundle, flash, images, label, ports, selftest, sites, vault
from provisioning.board import Board, Facts
from provisioning.errors import (
    BoardLost,
    BoardNotFound,
    ProvisioningError,
    SelfTestFailed,
    SetupFault,
)
from provisioning.identity import board_name, enrol, may_become, retire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioning.authority import AuthorityFolder
    from provisioning.benchlog import BenchLog
    from provisioning.board import Console
    from provisioning.hq import Headquarters
    from provisioning.sites import Entrance, Site
    from provisioning.teller import Teller

BENCH_MARK = b"tocsin-bench"
LEAST_MICROPYTHON = (1, 24)
CONFIRM_S = 20
FORMAT_S = 3  # MicroPython's first start, which makes the file system
FIRST_START_S = 40
PERSON_S = 120


@dataclass
class Bench:
    """What a technician works with. hq: None when working offline."""

    folder: Path
    project: Path
    authority: AuthorityFolder
    vault: vault.Vault
    log: BenchLog
    hq: Headquarters | None
    technician: str


@dataclass
class Wanted:
    """One run's task. port: None finds the board. image: a file or folder with a MicroPython image, or None.

    replaces: which button of the entrance makes room, where it has several, or headquarters can't be asked.
    """

    site: Site
    entrance: Entrance
    port: str | None = None
    extra_ports: Sequence[str] = ()
    image: Path | None = None
    replace: bool = False
    replaces: str | None = None
    another: bool = False
    tests: bool = True
    before: flash.Before = "default-reset"


@dataclass
class Result:
    """What came of a run. test_alarm: "hq", "gateway" (offline) or None when no test was wanted."""

    device: str = ""
    mac: str = ""
    port: str = ""
    test_alarm: str | None = None
    enrolment: str = ""  # "enrolled", "pending", "request"
    files: list[Path] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    seconds: float = 0.0


def find(teller: Teller, port: str | None, extra: Sequence[str] = ()) -> str:
    """The port to work on: the one named, or the only one there is. Raises BoardNotFound with the list of several."""
    with teller.step("find", "Looking for a board") as now:
        if port is not None:
            now.text = port
            return port
        found = ports.wait_for_any(extra)
        if len(found) > 1:
            lines = "\n".join(f"  {one}: {described(one.path)}" for one in found)
            raise BoardNotFound(f"There are {len(found)} boards. Name one with --port:\n{lines}")
        now.text = str(found[0])
        return found[0].path


def described(port: str) -> str:
    """What is at a port, for a person to choose by; the board runs on afterwards."""
    try:
        board = Board.open(port)
        facts = board.facts()
        leave(board)
    except ProvisioningError as error:
        return str(error).split("\n", maxsplit=1)[0]
    runs = f"button {facts.identity}" if facts.identity else f"MicroPython {facts.micropython}, no button"
    return f"{facts.chip} {facts.mac}, {runs}"


def leave(board: Board) -> None:
    """Gives a board back running: what was a button a moment ago must not stand at its prompt."""
    try:
        board.restart().close()
    except ProvisioningError:
        board.close()


def opened(teller: Teller, wanted: Wanted, port: str) -> tuple[Board, Facts]:
    """The board at its prompt, with a MicroPython that is new enough; flashed where it must be."""
    with teller.step("micropython", "Looking at what runs on the board") as now:
        board = facts = None
        silent: BoardLost | None = None
        try:
            board = Board.open(port)
            facts = board.facts()
        except BoardLost as lost:
            silent = lost
        if board and facts and _version(facts.micropython) >= LEAST_MICROPYTHON:
            now.outcome, now.text = "kept", f"{facts.chip} {facts.mac}, MicroPython {facts.micropython}"
            return board, facts
        if board:
            board.close()
        _flash(teller, wanted, port, silent)
        board = _first_start(teller, wanted, port)
        facts = board.facts()
        now.text = f"MicroPython {facts.micropython} written and verified, {facts.chip} {facts.mac}"
        return board, facts


def _first_start(teller: Teller, wanted: Wanted, port: str) -> Board:
    """The board after flashing. Its first start formats the file system and must not be interrupted by us."""
    if wanted.before == "no-reset":
        teller.ask("Press the board's reset button (EN), without BOOT.")
    end = time.monotonic() + (PERSON_S if wanted.before == "no-reset" else FIRST_START_S)
    time.sleep(FORMAT_S)
    while True:
        try:
            return Board.open(port)
        except (BoardLost, BoardNotFound):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def _flash(teller: Teller, wanted: Wanted, port: str, silent: BoardLost | None) -> None:
    try:
        image = images.find(wanted.image)
    except SetupFault as missing:
        if silent and "://" not in port and not Path(port).exists():
            raise silent from missing
        why = str(silent) if silent else "Its MicroPython is too old."
        raise SetupFault(f"{why}\nIf MicroPython has to be written to it: {missing}.") from missing
    flash.check(flash.probe(port, before=wanted.before), image)
    flash.write(port, image, teller.progress, before=wanted.before)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def provision(bench: Bench, wanted: Wanted, teller: Teller) -> Result:
    """The whole of it. Raises ProvisioningError; whatever it is, the same command goes on from there."""
    began = time.monotonic()
    result = Result()
    port = find(teller, wanted.port, wanted.extra_ports)
    board, facts = opened(teller, wanted, port)
    try:
        result.mac, result.port = facts.mac, port
        _known_headquarters(bench, wanted, teller)
        entries = bench.hq.entries(wanted.site.id) if bench.hq else []
        may_become(bench, wanted, facts, entries)
        _firmware(bench, wanted, teller, board)
        facts = board.facts()
        may_become(bench, wanted, facts, entries)
        enrol(bench, wanted, teller, board, facts, entries, result)
        with teller.step("clock", "Setting the board's clock") as now:
            board.set_clock()
            now.text = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        console = board.restart(BENCH_MARK if wanted.tests else b"")
    except BaseException as error:
        leave(board)
        _note_failure(bench, wanted, teller, result, error)
        raise
    try:
        _prove(bench, wanted, teller, console, result)
    except BaseException as error:
        end_tests(console)
        _note_failure(bench, wanted, teller, result, error)
        raise
    console.close()
    _papers(bench, wanted, teller, result)
    result.seconds = time.monotonic() - began
    details = {"device": result.device, "site": wanted.site.id, "entrance": wanted.entrance.id, "mac": result.mac}
    took = {one.step: round(one.seconds, 1) for one in teller.told}
    bench.log.append(
        "provision", result.mac, **details, enrolment=result.enrolment, test_alarm=result.test_alarm or "", seconds=took
    )
    return result


def _note_failure(bench: Bench, wanted: Wanted, teller: Teller, result: Result, error: BaseException) -> None:
    step = teller.told[-1].step if teller.told else ""
    details = {"device": result.device, "site": wanted.site.id, "entrance": wanted.entrance.id, "step": step}
    bench.log.append("provision failed", result.mac, **details, why=str(error)[:300])


def end_tests(console: Console) -> None:
    """After a self-test that failed: from now on a press is an alarm again. Without a cable it is so after minutes."""
    try:
        console.back_to_board().restart().close()
    except ProvisioningError:
        console.close()


def _firmware(bench: Bench, wanted: Wanted, teller: Teller, board: Board) -> None:
    with teller.step("firmware", "Loading the firmware") as now:
        name = board_name(wanted.site, board.facts())
        files = bundle.build(bench.project, name)
        synced = bundle.sync(board, files, teller.progress)
        if not synced.sent and not synced.removed:
            now.outcome, now.text = "kept", f"{len(files)} files, all as they should be"
        else:
            now.text = f"{len(synced.sent)} files sent, {len(synced.kept)} kept; every hash verified on the board"


def _known_headquarters(bench: Bench, wanted: Wanted, teller: Teller) -> None:
    """Asks headquarters who it is, once, and keeps that in the site's file."""
    if bench.hq is None:
        return
    with teller.step("headquarters' key", "Asking headquarters for its message key") as now:
        told = bench.hq.facts()
        site = wanted.site.with_headquarters(told.station, told.message_key)
        if site == wanted.site:
            now.outcome = "kept"
        else:
            sites.save(bench.folder, site)
            wanted.site = site
        now.text = f"{told.station}, {told.name}"


# ------------------------------------------------------------------------------------------------ afterwards


def _prove(bench: Bench, wanted: Wanted, teller: Teller, console: Console, result: Result) -> None:
    offline = bench.hq is None
    if wanted.tests:
        proved = selftest.prove(console, teller, offline=offline)
        result.test_alarm = "hq" if proved.stage >= 2 else "gateway"
    else:
        selftest.starts(console, teller, offline=offline)
    if bench.hq is None:
        return
    with teller.step("confirmed", "Headquarters confirms the enrolment") as now:
        end = time.monotonic() + CONFIRM_S
        while (entry := bench.hq.entry(result.device)) is None or entry.state != "enrolled":
            if time.monotonic() > end:
                raise SelfTestFailed(
                    f"Headquarters has {result.device} as {entry.state if entry else 'unknown'}, not as enrolled: it has "
                    "not believed a message of it. Run the same command again; if that does not help, look at its health page."
                )
            time.sleep(0.3)
        result.enrolment = entry.state
        now.text = f"{result.device} is enrolled"
    old = entry.replaces
    if old and old not in result.replaced and any(one.holds(datetime.now(UTC)) for one in bench.authority.issued(old)):
        result.replaced.append(old)  # an earlier run was interrupted before it came to this
    for old in result.replaced:
        with teller.step("revoke", f"Revoking {old}") as now:
            retire(bench, wanted.site, old, f"replaced by {result.device}", teller)
            now.text = f"{old} is retired; the entrance keeps its history"


def _papers(bench: Bench, wanted: Wanted, teller: Teller, result: Result) -> None:
    with teller.step("label", "Making the label") as now:
        site, entrance = wanted.site, wanted.entrance
        words = label.Words(
            id=result.device,
            site=site.name,
            entrance=entrance.name,
            on=datetime.now(UTC).date(),
            site_ur=site.name_ur,
            entrance_ur=entrance.name_ur,
        )
        folder = bench.folder / "labels"
        try:
            pdf, png = label.label(words).write(folder, result.device)
        except SetupFault as missing:
            now.outcome, now.text = "skipped", str(missing)
            teller.warn(str(missing))
            return
        result.files += [pdf, png]
        now.text = str(pdf)


def digest(octets: bytes) -> str:
    """SHA-256 in hex, as the board tells it."""
    return hashlib.sha256(octets).hexdigest()
