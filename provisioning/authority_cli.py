"""`tocsin provision ca`: the certificate authority of buttons and stations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway import keys
from provisioning import durable, identity, sites, vault, workplace
from provisioning.authority import AuthorityFolder
from provisioning.errors import SetupFault
from provisioning.pki import STATION_DAYS, joined
from provisioning.workplace import AUTHORITY, SiteId

ca = typer.Typer(no_args_is_help=True, help="The certificate authority of your buttons and gateways.")


@ca.command("init")
def ca_init(
    name: Annotated[str, typer.Option(help="The authority's name, in its certificate.")] = "Tocsin authority",
) -> None:
    """Make the authority. Keep a copy of its folder and passphrase in a safe."""
    with workplace.told("ca init") as (screen, answer):
        kept = workplace.opened_vault()
        passphrase = workplace.secret("New passphrase of the authority", twice=True)
        made = AuthorityFolder.create(workplace.options.home / AUTHORITY, passphrase, name)
        kept.put(vault.authority_passphrase(AUTHORITY), passphrase)
        workplace.log().append("ca init", "", name=name)
        answer["certificate"] = str(made.path / "ca.pem")
        screen.console.print(f"{made.path / 'ca.pem'}: give this file to every station as its identity/ca.pem.")


@ca.command("rotate")
def ca_rotate() -> None:
    """Make the authority's successor. Old buttons go on working; stations need the new bundle first."""
    with workplace.told("ca rotate") as (screen, answer):
        authority = workplace.authority(workplace.opened_vault())
        authority.rotate()
        workplace.log().append("ca rotate", "")
        answer["bundle"] = str(authority.path / "ca.pem")
        screen.console.print(
            f"Before the next button: give {authority.path / 'ca.pem'} and the revocation list to every station, then a "
            "new certificate (`ca issue`). Buttons on walls keep trusting the old authority, which stays in the bundle."
        )


@ca.command("issue")
def ca_issue(
    station: Annotated[str, typer.Argument(help="The station's id.")],
    folder: Annotated[Path, typer.Option("--to", help="Where its key.pem, cert.pem and ca.pem go.")],
) -> None:
    """Make the identity of a station: gateway or headquarters."""
    with workplace.told("ca issue") as (screen, answer):
        workplace.authority(workplace.opened_vault()).issue(station, server=True).write_pem(folder)
        workplace.log().append("ca issue", "", station=station)
        answer["folder"] = str(folder)
        screen.console.print(f"{folder}: the identity of {station}. Carry it there on something that you can erase.")


@ca.command("renew")
def ca_renew(
    name: Annotated[str, typer.Argument(help="The station's id.")],
    old: Annotated[Path, typer.Option("--from", help="Its present cert.pem.")],
    new: Annotated[Path, typer.Option("--to", help="Where the new cert.pem goes.")],
) -> None:
    """Sign a station's certificate anew, for the key that it has; it takes it up without a restart."""
    with workplace.told("ca renew") as (screen, answer):
        try:
            present = keys.certificate(old)
        except keys.KeyFileError as error:
            raise SetupFault(f"{error}: give the station's present cert.pem.") from error
        if present.subject.rfc4514_string() != f"CN={name}":
            raise SetupFault(
                f"{old} is for {present.subject.rfc4514_string()}, not for CN={name}: give the station's own."
            )
        certificates = workplace.authority(workplace.opened_vault()).renew(
            name, keys.point(present.public_key()), STATION_DAYS, server=True
        )
        durable.write(new, joined(certificates))
        workplace.log().append("ca renew", "", name=name)
        answer["until"] = f"{certificates[0].not_valid_after_utc:%Y-%m-%d}"
        screen.console.print(
            f"{new}: good until {answer['until']}. Copy it beside the station's cert.pem and rename it over that."
        )


@ca.command("revoke")
def ca_revoke(
    device: Annotated[str, typer.Argument(help="The button or station whose certificates are taken back.")],
    site: SiteId,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Take an identity's certificates back, and send the list to headquarters and the site's stations."""
    with (
        workplace.told("ca revoke") as (screen, answer),
        workplace.bench(sites.load(workplace.options.home, site)) as bench,
    ):
        bench.authority.revoke(device, reason)
        identity.send_revocations(bench, sites.load(workplace.options.home, site), screen)
        bench.log.append("ca revoke", "", device=device, reason=reason)
        answer["device"] = device
        screen.console.print(f"The certificates of {device} are revoked.")


@ca.command("publish")
def ca_publish(site: SiteId) -> None:
    """Send the revocation list again, to stations that could not be reached."""
    with (
        workplace.told("ca publish") as (screen, _),
        workplace.bench(sites.load(workplace.options.home, site)) as bench,
    ):
        identity.send_revocations(bench, sites.load(workplace.options.home, site), screen)
