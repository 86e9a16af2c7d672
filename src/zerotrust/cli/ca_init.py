"""`zerotrust ca init`: a new certificate authority in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from zerotrust.cli.duration import Duration
from zerotrust.cli.output import json_option, show
from zerotrust.cli.passphrase import read_passphrase
from zerotrust.core.errors import ConfigurationError
from zerotrust.core.spiffe.ids import TrustDomain

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_directory = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
_ordinary = click.option("--passphrase-file", type=_FILE, help="Of the issuing keys.")
_root = click.option("--root-passphrase-file", type=_FILE, help="Of the root key.")


@click.command("init")
@_directory
@click.option("--trust-domain", required=True, help="Such as example.org.")
@click.option("--issuer-lifetime", type=Duration(), default="7d", show_default=True)
@_ordinary
@_root
@json_option
def init(
    directory: Path,
    trust_domain: str,
    issuer_lifetime: float,
    passphrase_file: Path | None,
    root_passphrase_file: Path | None,
) -> None:
    """Make a CA in DIRECTORY: a root that only rotation needs, and the keys that issue."""
    from zerotrust import clock
    from zerotrust.ca.service import init_ca
    from zerotrust.workload.hygiene import harden_process

    harden_process()
    domain = TrustDomain.parse(trust_domain)
    root = read_passphrase("root key", root_passphrase_file, variable=False, new=True)
    issuing = read_passphrase("issuing keys", passphrase_file, variable=True, new=True)
    if root == issuing:
        raise ConfigurationError("root and issuing keys need two different passphrases")
    init_ca(
        directory,
        domain,
        root_passphrase=root,
        passphrase=issuing,
        now=clock.now(),
        issuer_lifetime=issuer_lifetime,
    )
    show(
        {"directory": str(directory), "trust_domain": domain.name},
        [f"made the CA of {domain.name} in {directory}"],
        then=f"move {directory}/root-*.sealed to a safe place, then: zerotrust ca run {directory}",
    )
