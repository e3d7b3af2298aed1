"""`tocsin keys …`: seal a station's private keys under a passphrase, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway import sealing
from gateway.keys import KeyFileError
from gateway.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(no_args_is_help=True, help="The station's private keys at rest.")
Config = Annotated[Path, typer.Option("--config", "-c", help="The station's settings, a TOML file.")]


@app.command()
def seal(config: Config) -> None:
    """Encrypt the station's private keys in place under the passphrase of `key_file` or the credential tocsin-key."""
    _each(config, sealing.seal, sealed=True)


@app.command()
def unseal(config: Config) -> None:
    """Put plain keys into the place of sealed ones."""
    _each(config, sealing.unseal, sealed=False)


def _each(config: Path, change: Callable[[Path, str], None], *, sealed: bool) -> None:
    try:
        settings = load(config)
        secret = sealing.passphrase(settings)
        if secret is None:
            raise _fail(
                f"{config}: no passphrase is set: put one of {sealing.LEAST_LENGTH} characters or more into a file of mode 600 "
                f'and add key_file = "FILE", or run this where the systemd credential {sealing.CREDENTIAL} is'
            )
        for path in sealing.files(settings):
            if sealing.is_sealed(path) == sealed:
                typer.echo(f"{path}: is {'sealed' if sealed else 'plain'} already")
                continue
            change(path, secret)
            typer.echo(f"{path}: is {'sealed' if sealed else 'plain'} now")
    except (KeyFileError, SettingsError) as error:
        raise _fail(str(error)) from error


def _fail(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
