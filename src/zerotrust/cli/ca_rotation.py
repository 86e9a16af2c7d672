"""`zerotrust ca rotate-issuer|rotate-root`: new keys for a CA that is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from zerotrust.cli.output import json_option, show
from zerotrust.cli.passphrase import read_passphrase

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_directory = click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
_ordinary = click.option("--passphrase-file", type=_FILE, help="Of the issuing keys.")
_root = click.option("--root-passphrase-file", type=_FILE, help="Of the root key in force.")
_new = click.option("--new-root-passphrase-file", type=_FILE, help="Of the new root key.")
_THEN: Final = {
    "prepare": "start the CA; when every workload has renewed once: rotate-root DIRECTORY activate",
    "activate": "start the CA; when every workload has renewed once: rotate-root DIRECTORY drop",
    "drop": "start the CA; destroy the old root key",
}


@click.command("rotate-issuer")
@_directory
@_ordinary
@_root
@json_option
def rotate_issuer(
    directory: Path, passphrase_file: Path | None, root_passphrase_file: Path | None
) -> None:
    """Give the CA in DIRECTORY new issuing keys. Stop it first."""
    from zerotrust import clock
    from zerotrust.ca import rotation
    from zerotrust.workload.hygiene import harden_process

    harden_process()
    state = rotation.rotate_issuer(
        directory,
        root_passphrase=read_passphrase("root key", root_passphrase_file, variable=False),
        passphrase=read_passphrase("issuing keys", passphrase_file, variable=True),
        now=clock.now(),
    )
    show(
        {"trust_domain": state.trust_domain.name, "sequence": state.sequence},
        [f"{state.trust_domain.name} issues with new keys from now on"],
        then=f"zerotrust ca run {directory}",
    )


@click.command("rotate-root")
@_directory
@click.argument("step", type=click.Choice(list(_THEN)))
@_ordinary
@_root
@_new
@json_option
def rotate_root(
    directory: Path,
    step: str,
    passphrase_file: Path | None,
    root_passphrase_file: Path | None,
    new_root_passphrase_file: Path | None,
) -> None:
    """Replace the root of the CA in DIRECTORY: prepare, activate, drop. Stop it for each step."""
    from zerotrust import clock
    from zerotrust.ca import rotation
    from zerotrust.workload.hygiene import harden_process

    harden_process()

    def root() -> bytes:
        return read_passphrase("root key", root_passphrase_file, variable=False)

    def new_root() -> bytes:
        new = step == "prepare"
        return read_passphrase("new root key", new_root_passphrase_file, variable=False, new=new)

    now = clock.now()
    if step == "prepare":
        state = rotation.prepare_root(
            directory, root_passphrase=root(), new_passphrase=new_root(), now=now
        )
    elif step == "activate":
        passphrase = read_passphrase("issuing keys", passphrase_file, variable=True)
        state = rotation.activate_root(
            directory, new_passphrase=new_root(), passphrase=passphrase, now=now
        )
    else:
        state = rotation.drop_root(directory, root_passphrase=root(), now=now)
    show(
        {"trust_domain": state.trust_domain.name, "step": step, "roots": len(state.roots)},
        [f"{step}: done; {state.trust_domain.name} publishes {len(state.roots)} root(s)"],
        then=_THEN[step],
    )
