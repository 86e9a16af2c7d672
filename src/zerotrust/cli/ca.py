"""`zerotrust ca init|run|rotate-issuer|rotate-root`: a certificate authority."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from zerotrust.cli.ca_folder import SOCKET
from zerotrust.cli.ca_init import init
from zerotrust.cli.ca_rotation import rotate_issuer, rotate_root
from zerotrust.cli.duration import Duration
from zerotrust.cli.passphrase import read_passphrase

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_directory = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
_ordinary = click.option("--passphrase-file", type=_FILE, help="Of the issuing keys.")


@click.group()
def command() -> None:
    """Set up and run a certificate authority."""


@command.command()
@_directory
@click.option("--bootstrap", default="127.0.0.1:8441", show_default=True, help="For enrolment.")
@click.option("--mtls", default="127.0.0.1:8442", show_default=True, help="For renewal and admin.")
@click.option("--host", "hosts", multiple=True, help="A DNS name under which it is reached.")
@click.option("--policy", type=_FILE, help="Who may administer it from elsewhere.")
@click.option(
    "--admin-uid",
    "admin_uids",
    type=click.IntRange(min=0),
    multiple=True,
    help="A user besides its own, such as 0, that may administer it here.",
)
@click.option("--max-lineage-age", type=Duration(), help="Attest anew after this; default never.")
@click.option("--dev", is_flag=True, hidden=True, help="DIRECTORY is that of `dev up`.")
@_ordinary
def run(
    directory: Path,
    bootstrap: str,
    mtls: str,
    hosts: tuple[str, ...],
    policy: Path | None,
    admin_uids: tuple[int, ...],
    max_lineage_age: float | None,
    dev: bool,
    passphrase_file: Path | None,
) -> None:
    """Run the CA in DIRECTORY until SIGTERM; `entry` and `token` reach it there."""
    from zerotrust.workload.hygiene import environment_warnings, harden_process

    harden_process()
    for warning in environment_warnings():
        click.echo(f"warning: {warning}", err=True)
    if dev:
        from zerotrust.ca import dev as dev_ca

        dev_ca.serve(directory)
        return
    from zerotrust import clock
    from zerotrust.ca.server import Listeners
    from zerotrust.ca.server import run as serve
    from zerotrust.ca.service import CaSettings, open_ca

    passphrase = read_passphrase("issuing keys", passphrase_file, variable=True)
    settings = CaSettings(max_lineage_age=max_lineage_age, hosts=hosts)
    listeners = Listeners(bootstrap, mtls, directory / SOCKET, admin_uids=admin_uids)
    with open_ca(directory, passphrase, now=clock.now(), settings=settings) as ca:

        def tell(bootstrap: str, mtls: str) -> None:
            click.echo(f"{ca.id}: enrol at {bootstrap}, renew at {mtls}", err=True)
            click.echo(f"next: zerotrust entry create ID --ca {directory}", err=True)

        serve(ca, listeners, policy=policy, on_bound=tell)


command.add_command(init)
command.add_command(rotate_issuer)
command.add_command(rotate_root)
