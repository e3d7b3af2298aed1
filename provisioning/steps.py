"""A bare board becomes a button of an entrance. Every step looks first, acts only where it must, and verifies.

So the answer to every interruption is the same command again. The order keeps two promises: a board gets a working
identity only after headquarters was told of it (or the request file was written), and what headquarters was told of lapses
within the hour unless the board speaks up.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware.wire import is_id
from provisioning import bundle, durable, flash, images, label, ports, request, selftest, sites, vault
from provisioning.board import Board, Facts
from provisioning.errors import (
    BoardLost,
    BoardNotFound,
    HeadquartersRefused,
    ProvisioningError,
    SelfTestFailed,
    SetupFault,
    WrongBoard,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioning.authority import AuthorityFolder
    from provisioning.benchlog import BenchLog
    from provisioning.board import Console
    from provisioning.hq import Entry, Headquarters
    from provisioning.sites import Entrance, Site
    from provisioning.teller import Teller

BENCH_MARK = b"tocsin-bench"
NEW = "/identity.new"
LEAST_MICROPYTHON = (1, 24)
KEY_S = 60  # key and request take a second on an ESP32, some more under load
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
        _may_become(bench, wanted, facts, entries)
        _firmware(bench, wanted, teller, board)
        facts = board.facts()
        _may_become(bench, wanted, facts, entries)
        _enrol(bench, wanted, teller, board, facts, entries, result)
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


def board_name(site: Site, facts: Facts) -> str:
    """The module of firmware/boards for a board: the site's, or "virtual" for one that is no ESP32 at all."""
    return "virtual" if facts.platform == "linux" else site.board


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


# ------------------------------------------------------------------------------------------------ the identity


def _enrol(
    bench: Bench,
    wanted: Wanted,
    teller: Teller,
    board: Board,
    facts: Facts,
    entries: Sequence[Entry],
    result: Result,
) -> None:
    facts = _make_room(bench, wanted, teller, board, facts, entries, result)
    replaces = _replaced(wanted, facts, entries)
    if replaces and bench.hq is not None:
        result.replaced.append(replaces)
    device = facts.identity or _pending_of(facts, wanted, entries) or _new_id(bench, wanted, entries)
    result.device = device
    fresh = facts.identity is None
    with teller.step("key", "The board makes its own key and signing request") as now:
        asked = board.value(f"__import__('firmware.enrolment',None,None,['x']).request({device!r},{not fresh})", KEY_S)
        csr = x509.load_der_x509_csr(asked)
        now.text = f"{device}; the private key stays on the board"
    certificate = _certificate(bench, teller, board, device, asked, csr)
    _announce(bench, wanted, teller, device, certificate, result, replaces)
    with teller.step("settings", "Writing identity and settings, then making them the board's own") as now:
        settings = _settings(bench, wanted, facts, device)
        files = {
            "cert.der": certificate.public_bytes(Encoding.DER),
            "ca.der": bench.authority.der,
            "settings.json": json.dumps(settings).encode(),
        }
        for name, octets in files.items():
            board.write(f"{NEW}/{name}", octets, teller.progress)
        board.run("from firmware import enrolment\nenrolment.complete()", KEY_S)
        after = board.facts()
        if (after.identity, after.point) != (device, _point(certificate)):
            raise WrongBoard(f"The board says that it is {after.identity}, not {device}: run the same command again.")
        now.text = f"the board is {device}"


def _may_become(bench: Bench, wanted: Wanted, facts: Facts, entries: Sequence[Entry]) -> None:
    """Raises WrongBoard or SetupFault if this board must not become a button of the entrance; before anything is changed."""
    if facts.identity is not None and (why := _not_ours(bench, wanted, facts, entries)):
        if not wanted.replace:
            raise WrongBoard(
                f"This board is {facts.identity}, {why}. It is never overwritten by itself: --replace revokes "
                f"{facts.identity} first, then makes the board a button of {wanted.entrance.name}."
            )
        if bench.hq is None:
            raise SetupFault(
                f"This board is {facts.identity}, {why}, and only headquarters can retire it: connect to headquarters first."
            )
        return
    if facts.identity is None:
        _replaced(wanted, facts, entries)


def _not_ours(bench: Bench, wanted: Wanted, facts: Facts, entries: Sequence[Entry]) -> str:
    """Why the board's identity can't stay; empty: it is this entrance's own and good."""
    entry = next((one for one in entries if one.id == facts.identity), None)
    ours = entry.entrance == wanted.entrance.id if entry else _belongs(facts.identity or "", wanted)
    issued = bench.authority.issued(facts.identity)
    if not ours:
        return "a button of another entrance"
    if entry and entry.state == "retired":
        return "which was retired"
    if entry and facts.point is not None and entry.point != facts.point:
        return "but headquarters has another key for it"
    if issued and not any(one.holds(datetime.now(UTC)) for one in issued):
        return "whose certificate was revoked or has expired"
    return ""


def _make_room(
    bench: Bench,
    wanted: Wanted,
    teller: Teller,
    board: Board,
    facts: Facts,
    entries: Sequence[Entry],
    result: Result,
) -> Facts:
    """Takes another identity off the board (`_may_become` allowed it); the board's own for this entrance stays."""
    if facts.identity is None or not _not_ours(bench, wanted, facts, entries):
        return facts
    with teller.step("revoke", f"Revoking {facts.identity}") as now:
        known = bench.hq.entry(facts.identity) if bench.hq else None
        if known is not None and known.point != facts.point:
            teller.warn(f"Headquarters has another board as {known.id}: that one stays; only this board is erased.")
            now.text = f"this board is no longer {facts.identity}"
        else:
            retire(bench, wanted.site, facts.identity, f"its board became a button of {wanted.entrance.id}", teller)
            now.text = f"{facts.identity} is retired and its certificate revoked; its history stays"
            result.replaced.append(facts.identity)
        board.run("from firmware import enrolment\nenrolment.erase()", KEY_S)
        bench.log.append("erase", facts.mac, device=facts.identity)
    return board.facts()


def _replaced(wanted: Wanted, facts: Facts, entries: Sequence[Entry]) -> str | None:
    """Which other button makes room for this board; None: none does. Raises WrongBoard."""
    if (
        facts.identity is not None
    ):  # it is this entrance's already; what it was to replace may still be waiting for that
        entry = next((one for one in entries if one.id == facts.identity), None)
        return entry.replaces if entry and entry.state == "pending" else None
    if wanted.another:
        return None
    standing = _standing(entries, wanted, facts)
    if wanted.replaces:
        if entries and wanted.replaces not in standing:
            there = ", ".join(standing) or "none"
            raise WrongBoard(f"{wanted.replaces} is no working button of {wanted.entrance.name} (there: {there}).")
        return wanted.replaces
    if not standing:
        return None
    if not wanted.replace:
        raise WrongBoard(
            f"{wanted.entrance.name} already has {', '.join(standing)}. --replace takes its place and retires it; "
            "--another puts a further button there."
        )
    if len(standing) > 1:
        raise WrongBoard(f"{wanted.entrance.name} has {', '.join(standing)}. Say which one makes room: --replaces ID.")
    return standing[0]


def _belongs(device: str, wanted: Wanted) -> bool:
    base = base_id(wanted.site.id, wanted.entrance.id)
    return device == base or (device.startswith(base + "-") and device[len(base) + 1 :].isdigit())


def _standing(entries: Sequence[Entry], wanted: Wanted, facts: Facts) -> list[str]:
    """Other buttons that headquarters counts on at this entrance."""
    return [
        one.id
        for one in entries
        if one.entrance == wanted.entrance.id
        and one.state == "enrolled"
        and one.id not in {facts.identity, facts.pending}
    ]


def _pending_of(facts: Facts, wanted: Wanted, entries: Sequence[Entry]) -> str | None:
    """The id that the board was given when it was interrupted, if it still fits."""
    if facts.pending is None or not _belongs(facts.pending, wanted):
        return None
    entry = next((one for one in entries if one.id == facts.pending), None)
    return facts.pending if entry is None or entry.state == "pending" else None


def base_id(site: str, entrance: str) -> str:
    """The id of the first button of an entrance. Raises SetupFault if it would be too long."""
    base = f"{site}-{entrance}"
    if not is_id(base) or len(base) > 58:  # room for a number
        raise SetupFault(
            f"{base!r} is too long for an id: shorten the entrance's id in the site's file to fit 58 letters."
        )
    return base


def _new_id(bench: Bench, wanted: Wanted, entries: Sequence[Entry]) -> str:
    """An id that was never used: an id means one key for ever."""
    base = base_id(wanted.site.id, wanted.entrance.id)
    used = {one.id for one in entries} | {one.id for one in bench.authority.issued()}
    for number in range(1, len(used) + 2):
        device = base if number == 1 else f"{base}-{number}"
        known = device in used or (bench.hq is not None and bench.hq.entry(device) is not None)
        if not known:
            return device
    raise SetupFault(f"No id is left for {base}.")


def _certificate(
    bench: Bench, teller: Teller, board: Board, device: str, asked: bytes, csr: x509.CertificateSigningRequest
) -> x509.Certificate:
    with teller.step("certificate", "The site's authority signs") as now:
        for folder in (NEW, "/identity"):
            kept = _kept_certificate(bench, board, f"{folder}/cert.der", csr)
            if kept is not None:
                now.outcome, now.text = "kept", f"valid until {kept.not_valid_after_utc:%Y-%m-%d}"
                return kept
        made = bench.authority.sign_request(asked, device)
        bench.log.append("certificate", "", device=device, serial=f"{made.serial_number:x}")
        now.text = f"valid until {made.not_valid_after_utc:%Y-%m-%d}"
        return made


def _kept_certificate(
    bench: Bench, board: Board, path: str, csr: x509.CertificateSigningRequest
) -> x509.Certificate | None:
    """The certificate of an interrupted run, if it is for this key and of the present authority."""
    if path not in board.hashes(path):
        return None
    try:
        kept = x509.load_der_x509_certificate(board.read(path))
        kept.verify_directly_issued_by(bench.authority.certificate)
    except Exception:  # noqa: BLE001 - whatever is wrong with an old file, a new certificate is the answer
        return None
    now = datetime.now(UTC)
    holds = any(one.serial == kept.serial_number and one.holds(now) for one in bench.authority.issued())
    valid = holds and kept.not_valid_before_utc <= now
    same = kept.public_key() == csr.public_key() and kept.subject == csr.subject
    return kept if valid and same else None


def _point(certificate: x509.Certificate) -> str:
    octets = certificate.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return octets.hex()


def _announce(
    bench: Bench,
    wanted: Wanted,
    teller: Teller,
    device: str,
    certificate: x509.Certificate,
    result: Result,
    replaces: str | None,
) -> None:
    """Tells headquarters, before the board can work; or writes that down for it."""
    site, entrance = wanted.site, wanted.entrance
    place: dict[str, Any] = {
        "site": site.id,
        "site_name": site.name,
        "site_name_ur": site.name_ur,
        "entrance": entrance.id,
        "entrance_name": entrance.name,
        "entrance_name_ur": entrance.name_ur,
        "address": site.address,
        "phone": site.phone,
        "mac": result.mac,
        "replaces": replaces,
    }
    pem = certificate.public_bytes(Encoding.PEM)
    if bench.hq is not None:
        with teller.step("enrolment", "Headquarters enters the button into its registry") as now:
            entry = bench.hq.enrol(device, pem, **place)
            result.enrolment = entry.state
            now.text = f"{entry.state}{' until the button is heard' if entry.state == 'pending' else ''}"
        return
    with teller.step("request", "Writing the request for headquarters") as now:
        body = {"id": device, "certificate": pem.decode(), **place}
        octets = request.make(body, bench.technician, bench.authority.sign)
        path = bench.folder / "requests" / f"{device}.request.json"
        durable.make_folder(path.parent)
        durable.write(path, octets)
        result.files.append(path)
        result.enrolment = "request"
        now.text = f"{path}: bring it to headquarters within {request.LIFETIME.days} days (tocsin import-request)"


def _settings(bench: Bench, wanted: Wanted, facts: Facts, device: str) -> dict[str, Any]:
    settings = {**wanted.site.button_settings(device, wanted.entrance), "board": board_name(wanted.site, facts)}
    if wanted.site.wifi:
        networks = []
        for network in wanted.site.wifi:
            password = bench.vault.get(vault.wifi_password(network, wanted.site.id))
            if password is None:
                raise SetupFault(
                    f"The password of the Wi-Fi network {network} is not kept on this laptop yet: "
                    f"`tocsin provision wifi --site {wanted.site.id} --network {network!r}` asks for it once."
                )
            networks.append([network, password])
        settings["wifi"] = networks
    return settings


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


def retire(bench: Bench, site: Site, device: str, reason: str, teller: Teller) -> None:
    """Has headquarters believe a button no more, revokes its certificates, and sends the revocation list to all stations."""
    if bench.hq is not None and bench.hq.entry(device) is not None:
        bench.hq.retire(device, reason)
    if not bench.authority.issued(device):
        teller.warn(f"{device} has no certificate of this authority: whoever issued it must revoke it there.")
        return
    bench.authority.revoke(device, reason)
    bench.log.append("revoke", "", device=device, reason=reason)
    send_revocations(bench, site, teller)


def send_revocations(bench: Bench, site: Site, teller: Teller) -> None:
    """Sends the list to headquarters and to every station of the site; what could not be reached is a warning."""
    from provisioning.hq import Headquarters

    listed = bench.authority.crl()
    try:
        if bench.hq is not None:
            bench.hq.send_revocations(listed)
    except HeadquartersRefused as refused:
        teller.warn(f"Headquarters did not take the revocation list: {refused}")
    for url in site.revocation_urls:
        try:
            with Headquarters(url, None, site.hq.ca) as station:
                station.send_revocations(listed)
        except ProvisioningError as error:
            teller.warn(
                f"{url} did not take the revocation list: {error} "
                f"Send it later: `tocsin provision ca publish --site {site.id}`."
            )


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
