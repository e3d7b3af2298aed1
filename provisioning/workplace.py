"""What every command of the technician's bench works with: its options, its words and JSON, the folder's keys, a bench."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from provisioning import steps, vault
from provisioning.authority import AuthorityFolder
from provisioning.benchlog import BenchLog
from provisioning.board import Board
from provisioning.errors import ProvisioningError, SetupFault
from provisioning.hq import Headquarters
from provisioning.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provisioning.sites import Site

PROJECT = Path(__file__).resolve().parents[1]
AUTHORITY = "authority"

SiteId = Annotated[str, typer.Option("--site", help="The site's id, as in `site list`.")]
EntranceId = Annotated[str, typer.Option("--entrance", help="The entrance's id, as in the site's file.")]
PortPath = Annotated[str | None, typer.Option("--port", help="The serial port; found by itself if there is one board.")]
ImagePath = Annotated[
    Path | None, typer.Option("--image", help="A MicroPython image, or a folder of them, for a board without one.")
]
Replaces = Annotated[
    str | None,
    typer.Option("--replaces", help="The button that makes room, where an entrance has several, or offline."),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Headquarters can't be reached: write a signed request for it instead.")
]


@dataclass
class Options:
    """What was given in front of the command."""

    home: Path
    json: bool
    technician: str


options = Options(Path(), json=False, technician="")


@contextlib.contextmanager
def told(command: str) -> Iterator[tuple[Screen, dict[str, Any]]]:
    """Runs a command: what it puts into the dictionary is its JSON; a fault becomes words and an exit status."""
    screen = Screen()
    answer: dict[str, Any] = {"command": command, "ok": True}
    status = 0
    try:
        yield screen, answer
    except ProvisioningError as error:
        answer.update({"ok": False, "error": {"kind": type(error).__name__, "text": str(error)}})
        status = error.exit_code
        screen.failure(str(error))
    except (KeyboardInterrupt, click.Abort):
        answer.update(
            {"ok": False, "error": {"kind": "Interrupted", "text": "Stopped. Run the same command to go on."}}
        )
        status = 130
        screen.failure("Stopped. Run the same command to go on.")
    except (OSError, ValueError) as error:
        answer.update({"ok": False, "error": {"kind": type(error).__name__, "text": str(error)}})
        status = SetupFault.exit_code
        screen.failure(f"{error}. Nothing is half done: mend it, then run the same command again.")
    if options.json:
        if screen.told:
            answer["steps"] = [asdict(one) for one in screen.told]
        if screen.warned:
            answer["warnings"] = screen.warned
        sys.stdout.write(json.dumps(answer, ensure_ascii=False, default=str) + "\n")
    if status:
        raise typer.Exit(status)


def secret(text: str, *, twice: bool = False) -> str:
    """A secret from the terminal, or the first line of standard input."""
    if sys.stdin.isatty():
        return str(typer.prompt(text, hide_input=True, confirmation_prompt=twice, err=True))
    return sys.stdin.readline().rstrip("\n")


def opened_vault() -> vault.Vault:
    """The laptop's secrets; a passphrase is asked for where it is needed."""
    return vault.Vault(options.home, lambda text, is_new: secret(text, twice=is_new))


def log() -> BenchLog:
    """The signed log of this bench."""
    return BenchLog(options.home / "log", who=options.technician)


def authority(kept: vault.Vault) -> AuthorityFolder:
    """The certificate authority of this laptop. Raises SetupFault."""
    folder = options.home / AUTHORITY
    if not folder.exists():
        raise SetupFault("There is no authority on this laptop yet: make one with `tocsin provision ca init`.")
    passphrase = kept.get(vault.authority_passphrase(AUTHORITY))
    if passphrase is None:
        passphrase = secret("Passphrase of the authority")
    return AuthorityFolder.open(folder, passphrase)


def reached(site: Site, kept: vault.Vault) -> Headquarters:
    """Headquarters' registry, with the technician's token. Raises SetupFault if there is none."""
    token = kept.get(vault.technician_token(site.hq.url))
    if token is None:
        raise SetupFault(
            f"There is no token for headquarters at {site.hq.url}. Headquarters makes one with `tocsin technician NAME`; "
            f"then run `tocsin provision token --site {site.id}` and paste it."
        )
    return Headquarters(site.hq.url, token, site.hq.ca)


@contextlib.contextmanager
def bench(site: Site, *, offline: bool = False) -> Iterator[steps.Bench]:
    """Everything that the steps need; offline: without headquarters. Raises SetupFault."""
    kept = opened_vault()
    headquarters = None if offline else reached(site, kept)
    try:
        yield steps.Bench(
            folder=options.home,
            project=PROJECT,
            authority=authority(kept),
            vault=kept,
            log=log(),
            hq=headquarters,
            technician=options.technician,
        )
    finally:
        if headquarters:
            headquarters.close()


@contextlib.contextmanager
def used_up(port: str) -> Iterator[Board]:
    """A board whose port somebody else goes on with, after a restart; it is given back only if something goes wrong."""
    board = Board.open(port)
    try:
        yield board
    except BaseException:
        steps.leave(board)
        raise
