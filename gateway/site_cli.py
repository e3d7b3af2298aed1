"""`tocsin site …`: what headquarters knows of each site, from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firmware.wire import is_id
from gateway import sites
from gateway.desk import StorageError
from gateway.enrolment import RegistryRefusedError, moment
from gateway.settings import Settings, SettingsError
from gateway.settings import load as load_settings
from gateway.sites import ENTRANCE

if TYPE_CHECKING:
    from gateway.sites import Site

app = typer.Typer(no_args_is_help=True, help="Sites: where they are, whom to call, what arriving units must know.")

Config = Annotated[Path, typer.Option("--config", "-c", help="The station's settings, a TOML file.")]
SiteId = Annotated[str, typer.Argument(metavar="SITE", help="The site's short name, such as clifton.")]
Text = Annotated[str | None, typer.Option(help="In English.")]
Urdu = Annotated[str | None, typer.Option(help="The same in Urdu.")]
Place = Annotated[str | None, typer.Option(help='Latitude and longitude in degrees, WGS 84: "24.81380, 67.03000".')]
Contacts = Annotated[
    list[str] | None,
    typer.Option(
        "--contact", help='"Name; role; phone", once for each in the order to call them. Takes the place of all.'
    ),
]
Plan = Annotated[
    str | None,
    typer.Option(help="What arriving units must know: gates, keys, dogs, whom to ask for. @FILE reads a file."),
]
Entrances = Annotated[
    list[str] | None,
    typer.Option(
        "--entrance", help='"id; name; name in Urdu; position", once for each; the others stay. "id;" removes it.'
    ),
]


@app.command("add")
def add(
    config: Config,
    site: SiteId,
    name: Annotated[str, typer.Option(help="As operators read it.")],
    name_ur: Urdu = None,
    address: Text = None,
    address_ur: Urdu = None,
    position: Place = None,
    contact: Contacts = None,
    plan: Plan = None,
    plan_ur: Plan = None,
    notes: Text = None,
    entrance: Entrances = None,
) -> None:
    """Enter a new site."""
    fields = _fields(name, name_ur, address, address_ur, position, contact, plan, plan_ur, notes, entrance)
    _change(config, site, fields, new=True)


@app.command("change")
def change(
    config: Config,
    site: SiteId,
    name: Text = None,
    name_ur: Urdu = None,
    address: Text = None,
    address_ur: Urdu = None,
    position: Place = None,
    contact: Contacts = None,
    plan: Plan = None,
    plan_ur: Plan = None,
    notes: Text = None,
    entrance: Entrances = None,
) -> None:
    """Change what is said of a site. What no option names stays; an empty text takes away."""
    fields = _fields(name, name_ur, address, address_ur, position, contact, plan, plan_ur, notes, entrance)
    if not fields:
        raise _fail("nothing to change: name at least one option, such as --address")
    _change(config, site, fields, new=False)


@app.command("show")
def show(
    config: Config,
    site: SiteId,
    history: Annotated[bool, typer.Option("--history", help="Who changed what, newest first, instead.")] = False,
) -> None:
    """Show a site, or its history."""
    from gateway import shell, sitebook

    try:
        with shell.reader(_settings(config)) as connection:
            found, changes = sitebook.one(connection, site), sitebook.changes(connection, site)
    except StorageError as error:
        raise _fail(str(error)) from error
    if found is None:
        raise _fail(f"{site} is not entered: `tocsin site list` shows which are")
    if history:
        for one in changes:
            typer.echo(f"{one.number}  {moment(one.at_ms)}  {one.by}")
            for field, before, after in one.fields:
                typer.echo(f"    {field}: {before!r} -> {after!r}")
        return
    for name, text in sites.fields_of(found).items():
        typer.echo(f"{name}: " + text.replace("\n", "\n    "))


@app.command("list")
def list_sites(config: Config) -> None:
    """List the sites, a line each."""
    from gateway import shell, sitebook

    try:
        with shell.reader(_settings(config)) as connection:
            for site in sitebook.every(connection):
                typer.echo(f"{site.id}  {site.name}  {len(site.entrances)} entrances{_lacks(site)}")
    except StorageError as error:
        raise _fail(str(error)) from error


@app.command("import")
def import_file(
    config: Config, file: Annotated[Path, typer.Argument(help="TOML: a [[sites]] table for each; docs/operations.md")]
) -> None:
    """Enter or change many sites from a file. A mistake anywhere changes nothing; what the file does not say stays."""
    from gateway import shell

    settings = _settings(config)
    try:
        wanted = sites.load(file)
    except SettingsError as error:
        raise _fail(str(error)) from error
    try:
        with shell.registrar(settings) as registrar:
            registrar.change_sites(wanted, shell.user())
    except RegistryRefusedError as refusal:
        raise _fail(f"{file}: nothing was changed: {refusal}") from refusal
    except StorageError as error:
        raise _fail(str(error)) from error
    typer.echo(f"{len(wanted)} sites are as {file.name} says")


@app.command("undo")
def undo(
    config: Config,
    site: SiteId,
    number: Annotated[int, typer.Argument(help="Of the change, as `show --history` counts.")],
) -> None:
    """Give the fields that a change changed their texts from before it."""
    from gateway import shell

    try:
        with shell.registrar(_settings(config)) as registrar:
            registrar.undo_site(site, number, shell.user())
    except (RegistryRefusedError, StorageError) as refusal:
        raise _fail(str(refusal)) from refusal
    typer.echo(f"change {number} of {site} is undone")


def _fields(
    name: str | None,
    name_ur: str | None,
    address: str | None,
    address_ur: str | None,
    position: str | None,
    contacts: list[str] | None,
    plan: str | None,
    plan_ur: str | None,
    notes: str | None,
    entrances: list[str] | None,
) -> dict[str, str]:
    texts = {
        "name": name,
        "name_ur": name_ur,
        "address": address,
        "address_ur": address_ur,
        "position": position,
        "contacts": None if contacts is None else "\n".join(contacts),
        "plan": _read(plan),
        "plan_ur": _read(plan_ur),
        "notes": notes,
    }
    fields = {field: text for field, text in texts.items() if text is not None}
    for entrance in entrances or ():
        entrance_id, _, rest = entrance.partition(";")
        fields[f"{ENTRANCE}{entrance_id.strip()}"] = rest.strip()
    return fields


def _read(text: str | None) -> str | None:
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _fail(f"{text[1:]}: can't be read as UTF-8 text: {error}") from error


def _change(config: Path, site: str, fields: dict[str, str], *, new: bool) -> None:
    from gateway import shell, sitebook

    settings = _settings(config)
    if not is_id(site):
        raise _fail(f"{site!r} can't be a site's short name: use 1 to 64 of a-z, 0-9, '-' and '.'")
    try:
        with shell.registrar(settings) as registrar:
            with shell.reader(settings) as connection:
                known = sitebook.one(connection, site)
            if new and known:
                raise _fail(f"{site} is entered already, as {known.name}: use `tocsin site change`")
            if not new and not known:
                raise _fail(
                    f"{site} is not entered: use `tocsin site add`, or check the spelling with `tocsin site list`"
                )
            made = registrar.change_site(site, fields, shell.user())
    except (RegistryRefusedError, StorageError) as refusal:
        raise _fail(str(refusal)) from refusal
    typer.echo(f"{site} is entered as {made.name}{_lacks(made)}")


def _lacks(site: Site) -> str:
    lacking = [name for name in ("address", "position", "contacts", "plan", "plan_ur") if not getattr(site, name)]
    return f"; lacks {', '.join(lacking)}" if lacking else ""


def _settings(path: Path) -> Settings:
    try:
        return load_settings(path)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(78) from error


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
