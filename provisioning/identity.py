"""Which button a board becomes, and its identity: key on the board, certificate, registry entry, settings.

Every step looks first, so a run that was interrupted is taken up where it was.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware.wire import is_id
from provisioning import durable, request, vault
from provisioning.board import Board, Facts
from provisioning.errors import HeadquartersRefused, ProvisioningError, SetupFault, WrongBoard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioning.hq import Entry
    from provisioning.sites import Site
    from provisioning.steps import Bench, Result, Wanted
    from provisioning.teller import Teller

NEW = "/identity.new"
KEY_S = 60  # key and request take a second on an ESP32, some more under load


def board_name(site: Site, facts: Facts) -> str:
    """The module of firmware/boards for a board: the site's, or "virtual" for one that is no ESP32 at all."""
    return "virtual" if facts.platform == "linux" else site.board


def enrol(
    bench: Bench,
    wanted: Wanted,
    teller: Teller,
    board: Board,
    facts: Facts,
    entries: Sequence[Entry],
    result: Result,
) -> None:
    """Makes the board a button of the entrance, whatever it was before. entries: the site's in the registry. Raises ProvisioningError."""
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


def may_become(bench: Bench, wanted: Wanted, facts: Facts, entries: Sequence[Entry]) -> None:
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
    """Takes another identity off the board (`may_become` allowed it); the board's own for this entrance stays."""
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


# ------------------------------------------------------------------------------------------------ its end


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
