"""`tocsin journal`: verify, export, back up, restore, shorten and rebuild a station's journal."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from gateway import database, keeping, keys, sealing
from gateway.chain import Sealer
from gateway.desk import StorageError
from gateway.journal import Journal
from gateway.settings import Settings, SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Task
    from sqlalchemy import Engine

app = typer.Typer(no_args_is_help=True, help="Verify, export, back up, restore, shorten and rebuild the journal.")

Config = Annotated[Path, typer.Option("--config", "-c", help="The station's settings, a TOML file.")]


class _Speed(ProgressColumn):
    """Entries per second."""

    def render(self, task: Task) -> Text:
        """As "12,345/s"."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _told() -> Iterator[None]:
    """Turns what is wrong into a sentence and exit code 1, or 78 for the settings."""
    try:
        yield
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(78) from error
    except (StorageError, keys.KeyFileError, OSError, ValueError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except DBAPIError as error:
        found = database.trouble(error)
        if found is None:
            raise
        typer.echo(database.advice(found), err=True)
        raise typer.Exit(1) from error


@contextmanager
def _readers(settings: Settings) -> Iterator[Engine]:
    database.prepare(settings.store)
    engine = database.open_database(settings.store, writes=False)
    try:
        yield engine
    finally:
        engine.dispose()


def _sqlite(settings: Settings, instead: str) -> Path:
    if isinstance(settings.store, str):
        raise StorageError(f"this station's database is PostgreSQL: use {instead}, then `tocsin journal verify`")
    return settings.store


def _sealer(settings: Settings) -> Sealer:
    key = keys.private_key(settings.identity / "key.pem", sealing.passphrase(settings))
    return Sealer(settings.station, key, settings.checkpoints)


@app.command()
def verify(
    config: Config,
    certificates: Annotated[
        list[Path] | None, typer.Option("--cert", help="An earlier certificate of the station, as well as its own.")
    ] = None,
    witness: Annotated[
        list[Path] | None, typer.Option(help="What `tocsin journal checkpoints` printed at a parent, as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Tell it as one line of JSON.")] = False,
) -> None:
    """Say whether any entry was edited, deleted, inserted or cut off. Exit code 0: none; 1: the first one is named."""
    with _told():
        settings = load(config)
        raise typer.Exit(_verify(settings, certificates or [], witness or [], as_json=as_json))


def _verify(settings: Settings, certificates: list[Path], witness: list[Path], *, as_json: bool) -> int:
    points = [keys.certificate(one).public_key() for one in (settings.identity / "cert.pem", *certificates)]
    curves = [point for point in points if isinstance(point, ec.EllipticCurvePublicKey)]
    beside = [one for file in (settings.checkpoints, *witness) for one in keeping.beside(file)]
    began = time.monotonic()
    with _progress("verifying", _size(settings)) as advance:
        found = keeping.verify(settings.store, settings.station, curves, beside, advance)
    took_s = max(time.monotonic() - began, 1e-6)
    if as_json:
        findings = [{"position": one.position, "what": one.what, "words": one.words} for one in found.findings]
        told = {"ok": not findings, "entries": found.entries, "checkpoints": found.sealed, "unsealed": found.unsealed}
        typer.echo(json.dumps({**told, "per_second": round(found.entries / took_s), "findings": findings}))
    else:
        for one in found.findings:
            typer.echo(f"{one.what.upper()} at position {one.position}: {one.words}")
        typer.echo(
            f"{settings.station}: {'in order' if not found.findings else 'NOT in order'}: {found.entries:,} entries, "
            f"{found.sealed:,} checkpoints agree, {found.unsealed:,} entries are beyond the last; "
            f"{found.entries / took_s:,.0f} entries/s"
        )
        if settings.parents and not witness:
            typer.echo(
                "An end that was cut off together with its checkpoints is seen only with those of a parent: there "
                f"`tocsin journal checkpoints --of {settings.station} > seen`, here --witness seen"
            )
    return 1 if found.findings else 0


def _size(settings: Settings) -> int | None:
    try:
        with _readers(settings) as engine, engine.connect() as connection:
            first, last = keeping.span(connection)
    except (DBAPIError, StorageError):  # verifying says what is wrong
        return None
    return last - first + 1


@app.command()
def checkpoints(
    config: Config,
    of: Annotated[str, typer.Option(help="The station below whose checkpoints this station's journal holds.")],
) -> None:
    """Print the checkpoints that a station below told of, for `tocsin journal verify --witness` there."""
    with _told():
        settings = load(config)
        with _readers(settings) as engine, engine.connect() as connection:
            found = list(keeping.witnessed(connection, of))
        for one in found:
            if one is not None:
                typer.echo(one.line)
        if bad := found.count(None):
            typer.echo(f"{bad:,} events of {of} carry no checkpoint, though they say so: left out", err=True)


@app.command()
def export(
    config: Config,
    form: Annotated[str, typer.Option("--format", help="jsonl or csv")] = "jsonl",
    since: Annotated[datetime | None, typer.Option(help="What happened from then on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="What happened before that, UTC.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="alarm, event or record (the journal's own bookkeeping); all if not given")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A new file; else standard output.")] = None,
) -> None:
    """Write entries out, one a line."""
    with _told():
        if form not in {"jsonl", "csv"}:
            raise ValueError("--format is jsonl or csv")
        if kind is not None and kind not in keeping.KINDS:
            raise ValueError("--kind is alarm, event or record")
        settings = load(config)
        with _readers(settings) as engine, engine.connect() as connection:
            first, last = keeping.span(connection)
            out = output.open("x", encoding="utf-8", newline="") if output else sys.stdout
            try:
                with _progress("exporting", last - first + 1 if not (since or until or kind) else None) as advance:
                    count = keeping.export(connection, out, form, _ms(since), _ms(until), kind, advance)
            finally:
                if output:
                    out.close()
        typer.echo(f"{count:,} entries", err=True)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)


@app.command()
def backup(
    config: Config,
    target: Annotated[Path, typer.Argument(help="Where to: a new file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Copy the whole database as it is now, beside the running station."""
    with _told():
        source = _sqlite(load(config), "pg_dump")
        if target.exists() and not force:
            raise StorageError(f"{target} is there already: choose another name, or give --force")
        with _pages("backing up") as pages:
            keeping.backup(source, target, pages)
        typer.echo(f"{target}: {target.stat().st_size:,} bytes")


@contextmanager
def _pages(what: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@app.command()
def restore(
    config: Config,
    source: Annotated[Path, typer.Argument(help="What `tocsin journal backup` wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also where a database is; it is kept under another name.")
    ] = False,
) -> None:
    """Put a backup into place and verify it. The station must not be running."""
    with _told():
        settings = load(config)
        target = _sqlite(settings, "pg_restore")
        if target.exists() and not force:
            raise StorageError(
                f"{target} is there: give --force to put the backup in its place; it is kept under another name"
            )
        with _pages("restoring") as pages:
            aside = keeping.restore(source, target, settings.checkpoints, pages)
        database.prepare(target)
        for one in aside:
            typer.echo(f"kept as it was: {one}")
        raise typer.Exit(_verify(settings, [], [], as_json=False))


@app.command()
def retain(config: Config, days: Annotated[int, typer.Option(min=1, help="Younger entries stay.")]) -> None:
    """Delete entries of the front that are older, closed and delivered. A signed checkpoint says where it begins then."""
    with _told():
        settings = load(config)
        sealer = _sealer(settings)
        journal = Journal(settings.store, [parent.id for parent in settings.parents], own=settings.station)
        boot = journal.next_boot()
        journal.start()
        try:
            limit, count = keeping.to_go(journal, days, settings.headquarters)
            with _progress("deleting", count) as advance:
                done = keeping.retain(journal, sealer, boot, limit, settings.headquarters, advance)
        finally:
            journal.stop()
        typer.echo(f"{done:,} entries deleted")


@app.command()
def rebuild(config: Config) -> None:
    """Derive incidents, steps, deliveries and the registry from the entries anew. The station must not be running.

    People, technicians' tokens, commands and the last heartbeats are in no entry: they stay as they are.
    """
    with _told():
        settings = load(config)
        if isinstance(settings.store, Path) and keeping.in_use(settings.store):
            raise StorageError(f"{settings.store} is in use: stop the station first")
        database.prepare(settings.store)
        engine = database.open_database(settings.store, writes=True)
        try:
            with engine.begin() as connection:
                if database.is_announced(connection):
                    raise StorageError("this station's database is in use: stop the station first")
                first, last = keeping.span(connection)
                with _progress("rebuilding", last - first + 1) as advance:
                    parents = [parent.id for parent in settings.parents]
                    made = keeping.rebuild(connection, settings.station, parents, advance)
        finally:
            engine.dispose()
        typer.echo(
            f"{made.entries:,} entries: {made.incidents:,} incidents, {made.steps:,} steps, {made.children:,} children"
        )
        if made.unknown:
            typer.echo(f"in the registry, but told of by no entry, left as they are: {', '.join(made.unknown)}")
