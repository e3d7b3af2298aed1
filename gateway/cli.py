"""`tocsin`: everything that an administrator does to a station from a shell."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy import Table, select
from sqlalchemy.dialects.sqlite import insert

from firmware.wire import is_id
from gateway import broker as broker_room
from gateway import keys, schema
from gateway.journal import Journal
from gateway.registry import password_hash
from gateway.settings import Settings, SettingsError, load

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run and look after a Tocsin station.")
if TYPE_CHECKING:
    from collections.abc import Mapping

Config = Annotated[Path, typer.Option("--config", "-c", help="The station's settings, a TOML file.")]


def _settings(path: Path) -> Settings:
    try:
        return load(path)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(78) from error


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)


@app.command()
def station(config: Config) -> None:
    """Run the station until it is told to stop."""
    from gateway.station import Station

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        status = Station(_settings(config)).run()
    except keys.KeyFileError as error:
        raise _fail(str(error)) from error
    raise typer.Exit(status)


@app.command()
def broker(config: Config) -> None:
    """Run the station's broker: mosquitto, with a configuration written from the settings."""
    try:
        status = broker_room.run(_settings(config))
    except broker_room.BrokerError as error:
        raise _fail(str(error)) from error
    raise typer.Exit(status)


@app.command()
def check(config: Config) -> None:
    """Say what is wrong with the settings and the files that they name; change nothing."""
    settings = _settings(config)
    try:
        keys.private_key(settings.identity / "key.pem")
        name = keys.certificate(settings.identity / "cert.pem").subject.rfc4514_string()
        if name != f"CN={settings.station}":
            raise _fail(f"{settings.identity / 'cert.pem'}: is for {name}, but the station is {settings.station}")
        if settings.message_key:
            point = keys.point(keys.private_key(settings.message_key).public_key())
            typer.echo(f"message key, for children's settings: {point.hex()}")
    except keys.KeyFileError as error:
        raise _fail(str(error)) from error
    typer.echo(f"{config}: in order: station {settings.station}, role {settings.role}")


@app.command()
def enrol(
    config: Config,
    child: Annotated[str, typer.Option("--id", help="The child's id: the common name of its certificate.")],
    certificate: Annotated[Path, typer.Option("--cert", help="The child's certificate, PEM or DER.")],
    kind: Annotated[str, typer.Option(help="button or station")] = "button",
    site: Annotated[str, typer.Option(help="The site's short name.")] = "",
    site_name: Annotated[str, typer.Option(help="The site's name, as operators read it.")] = "",
    site_name_ur: Annotated[str, typer.Option(help="The same in Urdu.")] = "",
    entrance: Annotated[str, typer.Option(help="The entrance's short name.")] = "",
    entrance_name: Annotated[str, typer.Option(help="The entrance's name.")] = "",
    entrance_name_ur: Annotated[str, typer.Option(help="The same in Urdu.")] = "",
    address: Annotated[str, typer.Option(help="Where units are sent.")] = "",
    phone: Annotated[str, typer.Option(help="Whom operators call.")] = "",
) -> None:
    """Enter a child and its place into the registry, or change its entry. A running station notices."""
    settings = _settings(config)
    if kind not in {"button", "station"}:
        raise _fail("--kind is button or station")
    if not is_id(child):
        raise _fail("--id must be 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit")
    try:
        found = keys.certificate(certificate)
        point = keys.point(found.public_key())
    except keys.KeyFileError as error:
        raise _fail(str(error)) from error
    if found.subject.rfc4514_string() != f"CN={child}":
        raise _fail(f"{certificate}: is for {found.subject.rfc4514_string()}, not for {child}")
    row = {
        "id": child,
        "kind": kind,
        "point": point,
        "site": site,
        "site_name": site_name,
        "site_name_ur": site_name_ur,
        "entrance": entrance,
        "entrance_name": entrance_name,
        "entrance_name_ur": entrance_name_ur,
        "address": address,
        "phone": phone,
    }
    with schema.open_database(settings.database, writes=False).connect() as connection:
        known = connection.execute(select(schema.children.c.point).where(schema.children.c.id == child)).scalar()
    if known is not None and known != point:
        raise _fail(f"{child} is enrolled with another key, and an id is never used twice: give the new one a new id")
    _write(settings, schema.children, row, "id")
    typer.echo(f"{child} is enrolled at {settings.station}")


@app.command()
def person(
    config: Config,
    name: Annotated[str, typer.Argument(help="What they sign in with.")],
    full_name: Annotated[str, typer.Option(help="As it is shown.")] = "",
    role: Annotated[str, typer.Option(help="operator: works alarms; viewer: only sees")] = "operator",
) -> None:
    """Add a person who may sign in, or give them a new password, which is read from standard input."""
    settings = _settings(config)
    if role not in {"operator", "viewer"}:
        raise _fail("--role is operator or viewer")
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < 10:
        raise _fail("the password needs 10 characters or more")
    row = {"name": name, "full_name": full_name or name, "role": role, "password": password_hash(password)}
    _write(settings, schema.people, row, "name")
    typer.echo(f"{name} may sign in as {role}")


def _write(settings: Settings, table: Table, row: Mapping[str, object], key: str) -> None:
    journal = Journal(settings.database, [])
    journal.start()
    statement = insert(table).values(**row)
    statement = statement.on_conflict_do_update(index_elements=[key], set_=dict(row))
    journal.now(lambda connection: connection.execute(statement) and None)
    journal.stop()


def main() -> None:
    """The `tocsin` command."""
    app()


if __name__ == "__main__":
    main()
