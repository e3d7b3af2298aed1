"""`tocsin provision`: everything that a technician does to a button, from the first cable to the last day.

Every command may be run again at any time. --json puts one JSON object on standard output; the exit status says which kind
of thing went wrong (docs/provisioning.md). Progress, questions and what to do go to standard error.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from cryptography.hazmat.primitives.serialization import Encoding
from rich.table import Table
from rich.text import Text

from gateway import keys, releases
from provisioning import batch as several
from provisioning import (
    bundle,
    factory,
    identity,
    images,
    lock,
    ports,
    release,
    selftest,
    sites,
    steps,
    vault,
    workplace,
)
from provisioning.authority_cli import ca
from provisioning.errors import HeadquartersRefused, HeadquartersUnreachable, ProvisioningError, SetupFault, WrongBoard
from provisioning.hq import Headquarters
from provisioning.workplace import PROJECT, EntranceId, ImagePath, Offline, PortPath, Replaces, SiteId

if TYPE_CHECKING:
    from provisioning.sites import Site

app = typer.Typer(
    no_args_is_help=True,
    help="Turn a bare ESP32 into a trusted button, and look after it until it is retired. Any command may be run again.",
)
site_app = typer.Typer(no_args_is_help=True, help="What is kept of a site and used for each of its buttons.")
log_app = typer.Typer(no_args_is_help=True, help="The signed log of what was done at this bench.")
app.add_typer(ca, name="ca")
app.add_typer(site_app, name="site")
app.add_typer(log_app, name="log")


@app.callback()
def _common(
    home: Annotated[
        Path | None, typer.Option("--home", help="The technician's folder. Default: TOCSIN_HOME, or ~/.config/tocsin.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    technician: Annotated[str, typer.Option("--technician", help="Your name, for the log and requests.")] = "",
) -> None:
    workplace.options.home = sites.home(home)
    workplace.options.json = as_json
    workplace.options.technician = technician or os.environ.get("TOCSIN_TECHNICIAN") or getpass.getuser()


# ------------------------------------------------------------------------------------------------ buttons


@app.command()
def new(
    site: SiteId,
    entrance: EntranceId,
    port: PortPath = None,
    image: ImagePath = None,
    offline: Offline = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the button there, or of the board's own identity.")
    ] = False,
    replaces: Replaces = None,
    another: Annotated[bool, typer.Option("--another", help="A further button at an entrance that has one.")] = False,
    no_reset: Annotated[
        bool, typer.Option("--no-reset", help="The board is in download mode already: BOOT was held while plugging in.")
    ] = False,
) -> None:
    """Make a board a button of an entrance, and have it prove itself. Interrupted: run it again."""
    with workplace.told("new") as (screen, answer):
        wanted = _wanted(site, entrance, port, image)
        wanted.replace, wanted.replaces, wanted.another = replace, replaces, another
        wanted.before = "no-reset" if no_reset else "default-reset"
        with workplace.bench(wanted.site, offline=offline) as bench:
            result = steps.provision(bench, wanted, screen)
        answer.update(asdict(result))
        screen.summary(result)


def _wanted(site_id: str, entrance: str, port: str | None, image: Path | None) -> steps.Wanted:
    site = sites.load(workplace.options.home, site_id)
    return steps.Wanted(site, site.entrance(entrance), port=port, image=image)


@app.command()
def replace(
    site: SiteId,
    entrance: EntranceId,
    port: PortPath = None,
    image: ImagePath = None,
    offline: Offline = False,
    replaces: Replaces = None,
) -> None:
    """Put a new board in the place of a broken button; the old one is revoked, the entrance keeps its history."""
    if offline and replaces is None:
        with workplace.told("replace"):
            raise SetupFault("Offline, headquarters can't say which button is there: name it with --replaces ID.")
    new(site, entrance, port, image, offline, replace=True, replaces=replaces)


@app.command()
def batch(
    site: SiteId,
    boards: Annotated[list[str], typer.Argument(metavar="PORT=ENTRANCE...", help="Which board goes where.")],
    image: ImagePath = None,
    offline: Offline = False,
    replace: Annotated[bool, typer.Option("--replace", help="Each takes the place of the button there.")] = False,
    another: Annotated[bool, typer.Option("--another", help="Each is a further button of its entrance.")] = False,
) -> None:
    """Make several boards at once; one that fails stops no other."""
    with workplace.told("batch") as (screen, answer):
        pairs = [several.pair(text) for text in boards]
        for what, names in (("port", [port for port, _ in pairs]), ("entrance", [entrance for _, entrance in pairs])):
            if len(set(names)) < len(names):
                raise SetupFault(f"A {what} is named twice: each board has its own.")
        rows = [several.Row(port, _wanted(site, entrance, port, image)) for port, entrance in pairs]
        for row in rows:
            row.wanted.replace, row.wanted.another = replace, another
        with workplace.bench(rows[0].wanted.site, offline=offline) as bench:
            several.run(rows, bench, screen.console)
        answer["boards"] = [row.as_json() for row in rows]
        if errors := [row.error for row in rows if row.error]:
            text = "\n".join(f"{row.port}: {row.error}" for row in rows if row.error)
            raise type(errors[0])(f"{len(errors)} of {len(rows)} boards are not finished:\n{text}")


@app.command("list")
def list_(site: SiteId) -> None:
    """Every button of a site, as headquarters has it."""
    with workplace.told("list") as (screen, answer):
        told = sites.load(workplace.options.home, site)
        with workplace.reached(told, workplace.opened_vault()) as headquarters:
            entries = headquarters.entries(site)
        answer["buttons"] = [asdict(entry) for entry in entries]
        table = Table()
        for name in ("button", "entrance", "state", "board", "by", "replaces"):
            table.add_column(name)
        for entry in entries:
            table.add_row(entry.id, entry.entrance_name, entry.state, entry.mac, entry.by, entry.replaces or "")
        screen.console.print(table if entries else f"Headquarters knows no button of {told.name} yet.")


@app.command()
def boards() -> None:
    """The boards that are plugged in, and what runs on each."""
    with workplace.told("boards") as (screen, answer):
        answer["boards"] = []
        table = Table()
        for name in ("port", "chip", "MAC", "MicroPython", "firmware", "button"):
            table.add_column(name)
        for port in ports.wait_for_any():
            row: dict[str, Any] = {"port": port.path}
            try:
                with workplace.used_up(port.path) as board:
                    row |= asdict(board.facts())
                    board.restart().close()
            except ProvisioningError as error:
                row["error"] = str(error)
            answer["boards"].append(row)
            table.add_row(
                str(port),
                *(str(row.get(key) or "-") for key in ("chip", "mac", "micropython", "firmware")),
                str(row.get("error") or row.get("identity") or "none"),
            )
        screen.console.print(table)


@app.command()
def inspect(site: SiteId, port: PortPath = None, offline: Offline = False) -> None:
    """What is on a board, and whether it is what headquarters has; the board runs on afterwards."""
    with workplace.told("inspect") as (screen, answer):
        told = sites.load(workplace.options.home, site)
        where = steps.find(screen, port)
        with workplace.used_up(where) as board:
            facts = board.facts()
            have = board.hashes(bundle.FOLDER) | board.hashes(bundle.MAIN)
            wanted = bundle.build(PROJECT, identity.board_name(told, facts))
            console = board.restart()
        console.close()
        matches = {path: steps.digest(octets) for path, octets in wanted.items()} == have
        answer.update(asdict(facts), firmware_is_current=matches)
        entry = None
        if facts.identity and not offline:
            with workplace.reached(told, workplace.opened_vault()) as headquarters:
                entry = headquarters.entry(facts.identity)
        answer["registry"] = asdict(entry) if entry else None
        verdict = _verdict(facts.identity, facts.point, entry, offline=offline)
        answer["verdict"] = verdict
        for name, text in (
            ("board", f"{facts.chip} {facts.mac}, {facts.machine}"),
            ("MicroPython", facts.micropython),
            (
                "firmware",
                f"{facts.firmware or 'none'}{' (current)' if matches else ' (not the one of this laptop: update)'}",
            ),
            ("button", facts.identity or "none"),
            ("pending", facts.pending or "none"),
            ("free flash", f"{facts.free_kb} KB"),
            ("headquarters", verdict),
        ):
            screen.console.print(Text(f"{name:>13}  ", style="dim") + Text(text), soft_wrap=True)
        if entry and entry.point != facts.point:
            raise WrongBoard(verdict)


def _verdict(identity: str | None, point: str | None, entry: Any, *, offline: bool) -> str:
    if identity is None:
        return "the board is no button"
    if offline:
        return "not asked"
    if entry is None:
        return f"headquarters does not know {identity}: run `new` again, or import the request file there"
    if entry.point != point:
        return f"headquarters has another key for {identity}: this board is not that button"
    return f"{entry.state}, {entry.entrance_name}, {entry.site_name}"


@app.command()
def update(site: SiteId, port: PortPath = None, offline: Offline = False) -> None:
    """Bring a button's firmware to this laptop's version; identity, settings and unsent alarms stay."""
    with workplace.told("update") as (screen, answer):
        told = sites.load(workplace.options.home, site)
        where = steps.find(screen, port)
        with workplace.used_up(where) as board:
            facts = board.facts()
            with screen.step("firmware", "Loading the firmware") as now:
                synced = bundle.sync(board, bundle.build(PROJECT, identity.board_name(told, facts)), screen.progress)
                now.text = f"{len(synced.sent)} files sent, {len(synced.kept)} kept, {len(synced.removed)} removed"
                now.outcome = "done" if synced.sent or synced.removed else "kept"
            console = board.restart()
        with console:
            if facts.identity:
                selftest.starts(console, screen, offline=offline)
        answer.update({"device": facts.identity, "sent": synced.sent, "removed": synced.removed})
        workplace.log().append("update", facts.mac, device=facts.identity or "", sent=len(synced.sent))


@app.command("release-key")
def release_key(file: Annotated[Path, typer.Argument(help="Where to; keep it away from every station.")]) -> None:
    """Make the key that firmware for updates over the air is signed with, and print what buttons and headquarters believe."""
    with workplace.told("release-key") as (screen, answer):
        point = release.new_key(file)
        answer["release_key"] = point.hex()
        text = f"release_key = \"{point.hex()}\"  # in headquarters' settings, and under [hq] in the sites' files"
        screen.console.print(text, soft_wrap=True, markup=False)


@app.command("release")
def make_release(
    file: Annotated[Path, typer.Argument(help="Where to put it.")],
    key: Annotated[Path, typer.Option(help="From `release-key`.")],
) -> None:
    """Make a release of this laptop's firmware for updates over the air, signed; `tocsin update take` takes it in."""
    with workplace.told("release") as (screen, answer):
        octets = release.made(PROJECT, release.read_key(key))
        file.write_bytes(octets)
        found = releases.read(octets, keys.point(release.read_key(key).public_key()))
        answer.update({"version": found.version, "boards": list(found.boards), "bytes": len(octets)})
        screen.console.print(f"{found.version}, {len(octets)} bytes, for {', '.join(found.boards)}")


@app.command("test")
def prove(port: PortPath = None, offline: Offline = False) -> None:
    """Have a button prove itself again: contacts, network, a test alarm to headquarters and back, a power cut."""
    with workplace.told("test") as (screen, answer):
        where = steps.find(screen, port)
        with workplace.used_up(where) as board:
            facts = board.facts()
            if facts.identity is None:
                raise WrongBoard("This board is no button yet: `tocsin provision new` makes it one.")
            console = board.restart(steps.BENCH_MARK)
        try:
            proved = selftest.prove(console, screen, offline=offline)
        except BaseException:
            steps.end_tests(console)
            raise
        console.close()
        answer.update({"device": facts.identity, "test_alarm": "hq" if proved.stage > 1 else "gateway"})
        workplace.log().append("test", facts.mac, device=facts.identity, stage=proved.stage)


@app.command()
def retire(
    site: SiteId,
    device: Annotated[str | None, typer.Option("--id", help="The button; or --port, and the board tells.")] = None,
    port: PortPath = None,
    reason: Annotated[str, typer.Option(help="Why, for headquarters' record.")] = "retired by the technician",
) -> None:
    """End a button's life: headquarters refuses it, its certificate is revoked, and its board (if here) is erased."""
    with workplace.told("retire") as (screen, answer):
        told = sites.load(workplace.options.home, site)
        if device is None and port is None:
            raise SetupFault("Say which button: --id NAME, or --port with its board plugged in.")
        with contextlib.ExitStack() as stack:
            board = stack.enter_context(workplace.used_up(port)) if port else None
            facts = board.facts() if board else None
            on_board = facts.identity if facts else None
            if device and on_board and device != on_board:
                raise WrongBoard(f"The board at {port} is {on_board}, not {device}: nothing was done.")
            name = device or on_board
            if name is None:
                raise WrongBoard(f"The board at {port} is no button: there is nothing to retire.")
            with workplace.bench(told) as bench:
                with screen.step("retire", f"Retiring {name}") as now:
                    identity.retire(bench, told, name, reason, screen)
                    now.text = f"{name}: headquarters refuses it, and its certificate is revoked"
                if board:
                    with screen.step("erase", "Erasing the board") as now:
                        board.run("from firmware import enrolment\nenrolment.erase()", identity.KEY_S)
                        now.text = "no identity is left on the board"
                    board.close()
                bench.log.append("retire", facts.mac if facts else "", device=name, reason=reason)
        answer["device"] = name


@app.command()
def token(site: SiteId) -> None:
    """Keep the token that headquarters gave you (it is read from the terminal or standard input, and tried)."""
    with workplace.told("token") as (screen, answer):
        told = sites.load(workplace.options.home, site)
        secret = workplace.secret("Token").strip()
        with Headquarters(told.hq.url, secret, told.hq.ca) as headquarters:
            facts = headquarters.facts()
        sites.save(workplace.options.home, told.with_headquarters(facts.station, facts.message_key))
        kept = workplace.opened_vault()
        kept.put(vault.technician_token(told.hq.url), secret)
        answer["headquarters"] = facts.station
        screen.console.print(f"The token opens {facts.name} ({facts.station}); it is kept in {kept.place}.")


@app.command()
def wifi(
    site: SiteId,
    network: Annotated[str, typer.Option("--network", help="The network's name (SSID).")],
    push: Annotated[
        bool, typer.Option("--push", help="Also send it to every button of the site, over the air.")
    ] = False,
) -> None:
    """Keep a Wi-Fi network's password once; with --push it reaches the buttons, which keep the old one until it works."""
    with workplace.told("wifi") as (screen, answer):
        told = sites.load(workplace.options.home, site)
        password = workplace.secret(f"Password of {network}", twice=True)
        kept = workplace.opened_vault()
        kept.put(vault.wifi_password(network, site), password)
        others = tuple(name for name in told.wifi if name != network)
        told = told.model_copy(update={"wifi": (network, *others)[:4]})
        sites.save(workplace.options.home, told)
        answer.update({"network": network, "sent_to": [], "failed": {}})
        if not push:
            screen.console.print(
                f"Kept in {kept.place}. Buttons made from now on get it; --push sends it to the others."
            )
            return
        with workplace.reached(told, kept) as headquarters:
            for entry in headquarters.entries(site):
                if entry.state != "enrolled" or entry.kind != "button":
                    continue
                with screen.step(entry.id, "Sending the network") as now:
                    try:
                        headquarters.change_network(entry.id, network, password)
                    except HeadquartersUnreachable:
                        raise
                    except ProvisioningError as error:
                        now.outcome, now.text = "failed", str(error)
                        answer["failed"][entry.id] = str(error)
                    else:
                        now.text = "on its way; the button keeps the old network until the new one works"
                        answer["sent_to"].append(entry.id)
        if answer["failed"]:
            raise HeadquartersRefused(
                f"Not sent to {', '.join(answer['failed'])}: {next(iter(answer['failed'].values()))}"
            )


@app.command()
def renew(
    site: SiteId,
    within: Annotated[int, typer.Option(min=1, help="Those whose certificate ends within so many days.")] = 90,
) -> None:
    """Send new certificates, over the air, to the site's buttons whose own end soon; each keeps its key."""
    with workplace.told("renew") as (screen, answer):
        told, kept = sites.load(workplace.options.home, site), workplace.opened_vault()
        authority = workplace.authority(kept)
        soon_ms = (time.time() + within * 86_400) * 1000
        answer.update({"sent_to": [], "failed": {}})
        with workplace.reached(told, kept) as headquarters:
            for entry in headquarters.entries(site):
                ends_ms = entry.certified_until_ms
                if entry.state != "enrolled" or entry.kind != "button" or (ends_ms is not None and ends_ms > soon_ms):
                    continue
                with screen.step(entry.id, "Sending a certificate") as now:
                    try:
                        certificate = authority.renew(entry.id, bytes.fromhex(entry.point))[0]
                        headquarters.send_certificate(entry.id, certificate.public_bytes(Encoding.PEM).decode())
                    except HeadquartersUnreachable:
                        raise
                    except ProvisioningError as error:
                        now.outcome, now.text = "failed", str(error)
                        answer["failed"][entry.id] = str(error)
                    else:
                        now.text = (
                            f"good until {certificate.not_valid_after_utc:%Y-%m-%d}; the old one stays until this works"
                        )
                        answer["sent_to"].append(entry.id)
        if not answer["sent_to"] and not answer["failed"]:
            screen.console.print(f"No button's certificate ends within {within} days.")
        if answer["failed"]:
            raise HeadquartersRefused(
                f"Not sent to {', '.join(answer['failed'])}: {next(iter(answer['failed'].values()))}"
            )


# ------------------------------------------------------------------------------------------------ sites, log, images


@site_app.command("new")
def site_new(site_id: Annotated[str, typer.Argument(help="Such as khi-cn.")]) -> None:
    """Write a site's file, with an explanation of each key, for you to fill in."""
    with workplace.told("site new") as (screen, answer):
        path = sites.begin(workplace.options.home, site_id)
        answer["file"] = str(path)
        screen.console.print(f"{path}: fill it in, then `tocsin provision site check {site_id}`.")


@site_app.command("check")
def site_check(site_id: Annotated[str, typer.Argument()]) -> None:
    """Say what is wrong with a site's file, each mistake with its line."""
    with workplace.told("site check") as (screen, answer):
        told = sites.load(workplace.options.home, site_id)
        answer["entrances"] = [entrance.id for entrance in told.entrances]
        screen.console.print(f"{told.name}: in order, {len(told.entrances)} entrances, headquarters {told.hq.url}")


@site_app.command("list")
def site_list() -> None:
    """The sites that are set up on this laptop."""
    with workplace.told("site list") as (screen, answer):
        answer["sites"] = sites.listed(workplace.options.home)
        screen.console.print("\n".join(answer["sites"]) or "None yet: `tocsin provision site new ID`.")


@log_app.command("verify")
def log_verify() -> None:
    """Whether the log is whole: nothing altered, removed or reordered."""
    with workplace.told("log verify") as (screen, answer):
        verdict = workplace.log().verify()
        answer.update(asdict(verdict))
        if not verdict.is_whole:
            raise SetupFault(str(verdict))
        screen.console.print(str(verdict))


@log_app.command("show")
def log_show() -> None:
    """Everything that was done at this bench."""
    with workplace.told("log show") as (screen, answer):
        answer["entries"] = workplace.log().entries()
        for entry in answer["entries"]:
            more = ", ".join(
                f"{key} {entry[key]}" for key in ("device", "site", "entrance", "reason") if entry.get(key)
            )
            screen.console.print(
                f"{entry['at']}  {entry['who']}  {entry['did']}  {entry['board']}  {more}", soft_wrap=True
            )


@app.command("image")
def factory_image(
    target: Annotated[Path, typer.Argument(help="The file to write; a sheet with hashes goes beside it.")],
    base: Annotated[
        Path | None, typer.Option("--image", help="The MicroPython image to build on; by default the one kept.")
    ] = None,
    board: Annotated[str, typer.Option(help="A module of firmware/boards.")] = "olimex_esp32_poe_iso",
) -> None:
    """Build a factory image without any identity: MicroPython and firmware, to be flashed elsewhere."""
    with workplace.told("image") as (screen, answer):
        image = images.find(base)
        with screen.step("image", "Building and reading back") as now:
            made = factory.build(image, bundle.build(PROJECT, board))
            sheet = factory.save(made, target)
            now.text = f"{target}, {len(made.image)} bytes, to be written at {made.offset:#x}; {sheet}"
        answer.update(files=[str(target), str(sheet)], **made.sheet)


@app.command("lock")
def lock_(
    site: SiteId,
    device: Annotated[str | None, typer.Option("--id", help="The button; a locked board can't be asked.")] = None,
    port: PortPath = None,
    signed: Annotated[
        Path | None, typer.Option("--signed", help="The signed image that is on the board; without it, only the plan.")
    ] = None,
    public_key: Annotated[Path | None, typer.Option("--public-key", help="The public key it was signed for.")] = None,
    burn: Annotated[bool, typer.Option("--burn", help="Really burn. It can't be undone.")] = False,
    virtual: Annotated[
        Path | None, typer.Option("--virtual", help="A file that plays the chip's eFuses, to try this out.")
    ] = None,
) -> None:
    """Flash encryption, secure boot v2, no UART download, no REPL: shows each eFuse, and burns only with --burn."""
    with workplace.told("lock") as (screen, answer):
        if (signed is None) != (public_key is None):
            raise SetupFault("Give --signed and --public-key together: one is checked with the other.")
        where = "" if virtual else steps.find(screen, port)
        proven = _proven(sites.load(workplace.options.home, site), device) if device else None
        image = lock.signed_image(signed, public_key) if signed and public_key else None
        typed = ""
        if burn:
            typed = workplace.secret(
                f"Type the id of the button to burn its eFuses for ever ({proven.id if proven else '?'})"
            )
        outcome = lock.lock(lock.Reach(port=where, virtual=virtual), proven, image, burn=burn, typed=typed)
        answer.update(asdict(outcome))
        table = Table(title=f"Stage: {outcome.plan.stage}{'' if outcome.burned else ' (nothing was burned)'}")
        for name in ("eFuse", "now", "then", "meaning", "can be undone"):
            table.add_column(name)
        for one in (*outcome.plan.burns, *outcome.plan.by_itself):
            table.add_row(one.name, one.now, one.then, one.meaning, "no" if one.irreversible else "yes")
        screen.console.print(table)
        for refusal in outcome.plan.refusals:
            screen.console.print(Text(f" ✗ {refusal}", style="yellow"), soft_wrap=True)
        for warning in outcome.warnings:
            screen.warn(warning)


def _proven(site: Site, device: str) -> lock.Proven | None:
    """A button as headquarters has it; `lock` compares its MAC with the one that the chip shows."""
    with workplace.reached(site, workplace.opened_vault()) as headquarters:
        entry = headquarters.entry(device)
    return lock.Proven(entry.id, entry.mac, entry.state == "enrolled") if entry else None


@app.command()
def pin(
    image: Annotated[Path, typer.Argument(help="The image's file.")],
    sha256: Annotated[str, typer.Option("--sha256", help="What its publisher says, compared by you.")],
    name: Annotated[str, typer.Option(help="The publisher's name of the board.")] = "ESP32_GENERIC",
) -> None:
    """Trust a MicroPython image from now on."""
    with workplace.told("pin") as (screen, answer):
        pinned = images.pin(image, sha256, name)
        answer.update(asdict(pinned))
        screen.console.print(f"{pinned.name} {pinned.micropython} is pinned.")


def main() -> None:
    """`python -m provisioning.cli`: the same as `tocsin provision`."""
    app(prog_name="tocsin provision")


if __name__ == "__main__":
    main()
