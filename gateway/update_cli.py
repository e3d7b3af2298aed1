"""`tocsin update …`: a new firmware for the buttons, from headquarters' shell."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway import rollout
from gateway.desk import StorageError
from gateway.enrolment import moment
from gateway.settings import Settings, SettingsError
from gateway.settings import load as load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.registry import Registry

app = typer.Typer(
    no_args_is_help=True, help="Firmware of the buttons: take a release in, bring it to them, see how far."
)

Config = Annotated[Path, typer.Option("--config", "-c", help="Headquarters' settings, a TOML file.")]


@app.command("take")
def take(config: Config, file: Annotated[Path, typer.Argument(help="From `tocsin provision release`.")]) -> None:
    """Check a release and keep it, for `start`."""
    settings = _settings(config)
    try:
        found = rollout.store_of(settings).take(file.read_bytes())
    except (rollout.RolloutRefusedError, OSError) as error:
        raise _fail(str(error)) from error
    typer.echo(f"{found.version} is here, for {', '.join(found.boards)}: {len(found.octets)} bytes")


@app.command("start")
def start(
    config: Config,
    device: Annotated[list[str] | None, typer.Option(help="This button; may be given again.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="The buttons of this site; may be given again.")] = None,
    fraction: Annotated[str, typer.Option(help="So many of them, such as 10%; without --site, of all.")] = "",
    version: Annotated[str, typer.Option(help="Which release; the newest, if left out.")] = "",
    at_once: Annotated[
        int, typer.Option(min=1, max=100, help="At so many buttons at the same time.")
    ] = rollout.AT_ONCE,
) -> None:
    """Bring a release to buttons. It halts by itself when one of them refuses, takes its old one back or is lost."""
    from gateway import shell

    settings = _settings(config)
    if not (device or site or fraction):
        raise _fail("say to whom: --device, --site, or --fraction 100% for all")
    percent = _percent(fraction)
    store = rollout.store_of(settings)
    try:
        version = version or next(reversed(store.versions()), "")
        if not version:
            raise _fail("no release is here: take one in with `tocsin update take`")
        store.read(version)
        with shell.rollouts(settings) as (journal, registry), journal.readers.connect() as connection:
            before = rollout.read(connection)
            if before and before.state == rollout.RUNNING:
                raise _fail(f"{before.version} is under way: see `tocsin update status`, or `stop` it first")
            children = _children(registry, device or [], site or [])
            wanted = rollout.chosen(children, rollout.versions(connection), version, percent)
            if not wanted:
                raise _fail(f"there is nothing to do: so many of them run {version} already")
            made = rollout.Rollout(version, wanted, at_once, shell.user(), time.time_ns() // 1_000_000)
            journal.now(lambda writing: rollout.write(writing, made))
    except (rollout.RolloutRefusedError, StorageError) as error:
        raise _fail(str(error)) from error
    typer.echo(f"{version} goes to {len(wanted)} of {len(children)} buttons: see `tocsin update status`")


def _children(registry: Registry, devices: Sequence[str], sites: Sequence[str]) -> list[str]:
    """The buttons that were named. Raises typer.Exit for a name that is none."""
    buttons = {name: known for name, known in registry.working().items() if known.kind == "button"}
    for device in devices:
        if device not in buttons:
            raise _fail(f"{device} is no button of the registry, or is retired")
    for site in sites:
        if not any(known.place and known.place.site == site for known in buttons.values()):
            raise _fail(f"{site} has no buttons: `tocsin site list` shows the sites")
    if not devices and not sites:
        return sorted(buttons)
    at_sites = {name for name, known in buttons.items() if known.place and known.place.site in sites}
    return sorted(at_sites | set(devices))


def _percent(text: str) -> float:
    try:
        percent = float(text.removesuffix("%")) if text else 100.0
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise _fail("--fraction must be a percentage such as 10%")
    return percent


@app.command("status")
def status(config: Config) -> None:
    """How far the newest rollout is, button by button."""
    from gateway import shell

    settings = _settings(config)
    try:
        with shell.reader(settings) as connection:
            found = rollout.read(connection)
            if found is None:
                typer.echo("no release was ever started")
                return
            done, running = rollout.progress(connection, found), rollout.versions(connection)
    except StorageError as error:
        raise _fail(str(error)) from error
    typer.echo(f"{found.version}: {found.state}{f': {found.why}' if found.why else ''}")
    typer.echo(f"started {moment(found.made_at_ms)} by {found.by}; {found.at_once} at once")
    for one in done:
        told = f": {one.answer}" if one.answer else ""
        typer.echo(f"  {one.child}  {one.state or 'not offered yet'}{told}  (runs {running.get(one.child, '?')})")


@app.command("stop")
def stop(config: Config) -> None:
    """Offer the release to nobody else. A button that has it whole already goes on with its trial."""
    from gateway import shell

    settings = _settings(config)
    try:
        with shell.rollouts(settings) as (journal, _), journal.readers.connect() as connection:
            found = rollout.read(connection)
            if found is None or found.state != rollout.RUNNING:
                raise _fail("nothing is under way")
            ended = replace(found, state=rollout.STOPPED, why=f"by {shell.user()}")
            journal.now(lambda writing: rollout.write(writing, ended))
    except StorageError as error:
        raise _fail(str(error)) from error
    typer.echo(f"{found.version} is stopped")


def _settings(path: Path) -> Settings:
    try:
        settings = load_settings(path)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(78) from error
    if settings.role != "hq":
        raise _fail("firmware is brought to buttons from headquarters: they believe nobody else")
    return settings


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
