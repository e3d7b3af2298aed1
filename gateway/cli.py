"""`tocsin`: everything that an administrator does to a station from a shell."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError

from firmware.wire import is_id
from gateway import broker as broker_room
from gateway import (
    database,
    enrolment,
    journal_cli,
    keys,
    keys_cli,
    salvage,
    schema,
    shell,
    site_cli,
    technicians,
    update_cli,
)
from gateway.desk import MaintenanceRefusedError, StorageError
from gateway.journal import EX_IOERR
from gateway.registry import password_hash
from gateway.settings import Settings, SettingsError, load

app = typer.Typer(no_args_is_help=True, help="Run and look after a Tocsin station.")
app.add_typer(journal_cli.app, name="journal")
app.add_typer(site_cli.app, name="site")
app.add_typer(keys_cli.app, name="keys")
app.add_typer(update_cli.app, name="update")
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

T = TypeVar("T")

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
def station(
    config: Config,
    log_format: Annotated[
        str | None, typer.Option(help="text or json; what is right where it runs, if left out: json under systemd.")
    ] = None,
) -> None:
    """Run the station until it is told to stop."""
    from gateway import logs
    from gateway.station import Station

    if log_format not in {None, *logs.FORMATS}:
        raise _fail("--log-format is text or json")
    logs.begin(log_format)
    settings = _settings(config)
    try:
        status = Station(settings).run()
    except keys.KeyFileError as error:
        raise _fail(str(error)) from error
    except (StorageError, DBAPIError) as error:
        told = database.refusal(error) if isinstance(error, DBAPIError) else error
        logging.getLogger(__name__).critical("%s", told)
        if isinstance(told, database.DamagedError):
            salvage.mark(settings, told.why)
        raise typer.Exit(EX_IOERR) from error
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
def check(
    config: Config,
    connect: Annotated[
        bool, typer.Option("--connect", help="Also reach every parent, and hold its certificate.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what is wrong with the settings, the files that they name and this machine; change nothing.

    Ends with 1 if the station can't do its work like this, else with 0.
    """
    from gateway.checks import run as checking

    raise typer.Exit(checking.run(config, connect=connect, as_json=as_json, say=typer.echo))


@app.command()
def trace(
    config: Config,
    alarm: Annotated[str | None, typer.Argument(help="device/boot/seq, or an incident's number.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The newest alarm.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the life of an alarm hop by hop, with times, as far as this station's journal knows it."""
    from gateway import trace as tracing

    try:
        life = tracing.find(_settings(config), alarm, last=last)
    except tracing.TraceError as error:
        raise _fail(str(error)) from error
    typer.echo(tracing.as_json(life) if as_json else tracing.as_text(life))


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
    vouches: Annotated[
        bool, typer.Option("--vouches", help="Believe this station for children not known here.")
    ] = False,
) -> None:
    """Enter a child and its place into the registry, or change its entry. A running station notices."""
    settings = _settings(config)
    if kind not in {"button", "station"}:
        raise _fail("--kind is button or station")
    if vouches and kind != "station":
        raise _fail("--vouches is for a station: add --kind station")
    if not is_id(child):
        raise _fail("--id must be 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit")
    try:
        found = keys.certificate(certificate)
        point = keys.point(found.public_key())
    except keys.KeyFileError as error:
        raise _fail(str(error)) from error
    if found.subject.rfc4514_string() != f"CN={child}":
        raise _fail(f"{certificate}: is for {found.subject.rfc4514_string()}, not for {child}")
    for option, place in (("--site", site), ("--entrance", entrance)):
        if place and not is_id(place):
            raise _fail(f"{option} must be 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit")
    if not entrance and (entrance_name or entrance_name_ur):
        raise _fail("the entrance's name needs its short name too: --entrance")
    if not site and (entrance or site_name or site_name_ur or address or phone):
        raise _fail("a place needs its site's short name too: --site")
    row: dict[str, object] = {"id": child, "kind": kind, "point": point, "site": site, "entrance": entrance}
    row |= {"certified_until_ms": int(found.not_valid_after_utc.timestamp() * 1000), "vouches": int(vouches)}
    names = {
        "site_name": site_name,
        "site_name_ur": site_name_ur,
        "entrance_name": entrance_name,
        "entrance_name_ur": entrance_name_ur,
        "address": address,
        "phone": phone,
    }
    try:
        with shell.registrar(settings) as registrar:
            registrar.enter(row, names, shell.user())
    except (enrolment.RegistryRefusedError, StorageError) as refusal:
        raise _fail(str(refusal)) from refusal
    typer.echo(f"{child} is enrolled at {settings.station}")


@app.command()
def technician(
    config: Config,
    name: Annotated[str, typer.Argument(help="Whose token: their short name, as events tell it.")],
    days: Annotated[int, typer.Option(min=1, max=90, help="How long it opens the registry.")] = 7,
    revoke: Annotated[bool, typer.Option("--revoke", help="End what they have instead.")] = False,
) -> None:
    """Give a technician a token for `tocsin provision`; the one that they had ends. It is shown this once."""
    settings = _settings(config)
    if settings.role != "hq":
        raise _fail(f"{settings.station} is the gateway of a site: technicians get their token at headquarters")
    if not is_id(name):
        raise _fail("NAME must be 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit")
    now_ms = time.time_ns() // 1_000_000
    if revoke:
        ended = _do(settings, lambda connection: technicians.take_back(connection, name, now_ms))
        typer.echo(f"{name}'s token has ended" if ended else f"{name} has no token that is still good")
        return
    token = _do(settings, lambda connection: technicians.give(connection, name, days=days, now_ms=now_ms))
    typer.echo(
        f"{name}'s token, good until {enrolment.moment(now_ms + days * technicians.DAY_MS)}; it is kept nowhere:",
        err=True,
    )
    typer.echo(token)


@app.command()
def maintenance(
    config: Config,
    child: Annotated[str, typer.Argument(help="The id of a button or a gateway; a gateway's spares those behind it.")],
    until: Annotated[str, typer.Option(help="Until when: 2026-11-25T18:00, in this machine's zone.")] = "",
    lasts: Annotated[str, typer.Option("--for", help="For how long from now: 90m, 2h or 3d.")] = "",
    end: Annotated[bool, typer.Option("--end", help="End it now.")] = False,
    by: Annotated[str, typer.Option(help="Who works there, as the event tells it.")] = "",
) -> None:
    """Begin or end a child's maintenance, at headquarters: its silence is no event, a press is an alarm all the same."""
    from gateway.maintenance import end_of

    settings = _settings(config)
    if [bool(until), bool(lasts), end].count(True) != 1:
        raise _fail("give one of --until, --for and --end")
    try:
        until_ms = None if end else end_of(until, lasts, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise _fail(str(error)) from error
    who = enrolment.printable(by) or os.environ.get("SUDO_USER") or os.environ.get("USER") or "?"
    try:
        with shell.exchange(settings) as exchange:
            changed = exchange.maintain(child, until_ms, who)
    except KeyError as error:
        raise _fail(f"{child} is not in the registry of {settings.station}, or is retired") from error
    except (MaintenanceRefusedError, StorageError) as refusal:
        raise _fail(str(refusal)) from refusal
    if until_ms is not None:
        typer.echo(f"{child} is under maintenance until {enrolment.moment(until_ms)}")
    else:
        typer.echo(f"{child}'s maintenance has ended" if changed else f"{child} was under no maintenance")


@app.command()
def import_request(
    config: Config, file: Annotated[Path, typer.Argument(help="What `tocsin provision` wrote without a connection.")]
) -> None:
    """Enrol a button that was set up without a connection to headquarters. A running station notices."""
    from provisioning import request
    from provisioning.errors import SetupFault

    settings = _settings(config)
    try:
        asked = request.read(file.read_bytes(), keys.certificates(settings.identity / "ca.pem"))
        child, wanted = enrolment.from_request(asked.body)
        with shell.registrar(settings) as registrar:
            made, is_new = registrar.enrol(child, wanted, asked.technician, asked.expires_at_ms)
    except OSError as error:
        raise _fail(f"{file}: can't be read: {error.strerror}") from error
    except (SetupFault, enrolment.RegistryRefusedError, keys.KeyFileError, StorageError) as refusal:
        raise _fail(f"{file}: {refusal}") from refusal
    told = "is entered" if is_new else "was entered before"
    until = f", pending until {enrolment.moment(made.expires_at_ms)}" if made.expires_at_ms else f": it is {made.state}"
    typer.echo(f"{made.id} {told} for {asked.technician}{until}")


@app.command()
def person(
    config: Config,
    name: Annotated[str, typer.Argument(help="What they sign in with.")],
    full_name: Annotated[str, typer.Option(help="As it is shown.")] = "",
    role: Annotated[
        str, typer.Option(help="operator: works alarms; administrator: changes sites too; viewer: only sees")
    ] = "operator",
) -> None:
    """Add a person who may sign in, or give them a new password, which is read from standard input."""
    settings = _settings(config)
    if role not in {"operator", "administrator", "viewer"}:
        raise _fail("--role is operator, administrator or viewer")
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
    _do(settings, lambda connection: database.upsert(connection, table, row, [key]))


def _do(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Does `work` in one commit, beside a running station. May raise what `work` raises before it writes anything."""
    try:
        database.prepare(settings.store)
        engine = database.open_database(settings.store, writes=True)
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()
    except StorageError as error:
        raise _fail(str(error)) from error
    except DBAPIError as error:
        found = database.trouble(error)
        if found is None:
            raise
        raise _fail(database.advice(found)) from error


def _add_bench() -> None:
    """The technician's commands, where they are installed: they need more packages than a station has."""
    try:
        from provisioning.cli import app as bench
    except ModuleNotFoundError as error:
        lacks = error.name

        @app.command("provision", help="The technician's bench; not installed here.")
        def _missing() -> None:
            raise _fail(f"the technician's bench is not installed here ({lacks} is missing): run `make bench-setup`")

    else:
        app.add_typer(bench, name="provision")


def main() -> None:
    """The `tocsin` command."""
    if sys.argv[1:2] in ([], ["--help"], ["provision"], ["--install-completion"], ["--show-completion"]) or any(
        name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ
    ):
        _add_bench()  # not for a station: it takes half a second
    app()


if __name__ == "__main__":
    main()
