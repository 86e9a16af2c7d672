"""`zerotrust entry create|list|show|delete`: who may get which identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerotrust.cli.duration import Duration, spoken
from zerotrust.cli.output import json_option, show, table

_ca_option = click.option(
    "--ca",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("ca"),
    show_default=True,
    help="The folder of the CA, which must be running.",
)


@click.group()
def command() -> None:
    """Register who may get which identity."""


@command.command()
@click.argument("spiffe_id")
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="Of each SVID.")
@click.option("--wit-ttl", type=Duration(), help="Of each WIT, if less than the SVID's.")
@click.option("--selector", "selectors", multiple=True, help="Such as unix:uid:1000.")
@click.option("--dns", "dns_names", multiple=True, help="A DNS name of the service.")
@_ca_option
@json_option
def create(
    spiffe_id: str,
    ttl: float,
    wit_ttl: float | None,
    selectors: tuple[str, ...],
    dns_names: tuple[str, ...],
    directory: Path,
) -> None:
    """Register the identity SPIFFE_ID. Without selectors it is reached by join tokens only."""
    from zerotrust.ca.authority.entries import NewEntry
    from zerotrust.cli.ca_folder import admin_of
    from zerotrust.core.spiffe.ids import SpiffeId

    wanted = str(SpiffeId.parse(spiffe_id))
    new = NewEntry(wanted, selectors, dns_names, ttl, wit_ttl)
    entry = admin_of(directory).create_entry(new)
    show(
        _members(entry),
        [f"registered {entry.spiffe_id} as {entry.id}"],
        then=f"zerotrust token create {entry.spiffe_id} --ca {directory} --out FILE",
    )


@command.command("list")
@_ca_option
@json_option
def list_(directory: Path) -> None:
    """List every entry."""
    from zerotrust.cli.ca_folder import admin_of

    entries = admin_of(directory).entries()
    rows = ((e.id, str(e.spiffe_id), spoken(e.ttl), " ".join(e.selectors)) for e in entries)
    show(
        {"entries": [_members(entry) for entry in entries]},
        table(("ENTRY", "ID", "SVID LIVES", "SELECTORS"), tuple(rows)),
        then="" if entries else "zerotrust entry create SPIFFE_ID",
    )


@command.command("show")
@click.argument("wanted")
@_ca_option
@json_option
def show_(wanted: str, directory: Path) -> None:
    """Show the entry WANTED, by its SPIFFE ID or entry ID."""
    from zerotrust.cli.ca_folder import admin_of, entry_of

    members = _members(entry_of(admin_of(directory), wanted))
    show(members, (f"{name}: {value}" for name, value in members.items()))


@command.command()
@click.argument("wanted")
@_ca_option
@json_option
def delete(wanted: str, directory: Path) -> None:
    """Delete the entry WANTED; its certificates are renewed no more."""
    from zerotrust.cli.ca_folder import admin_of, entry_of

    client = admin_of(directory)
    entry = entry_of(client, wanted)
    client.delete_entry(entry.id)
    show(
        {"deleted": entry.id, "id": str(entry.spiffe_id)},
        [f"deleted {entry.spiffe_id}; what it holds ends within {spoken(entry.ttl)}"],
        then="to stop its calls at once, add a deny rule to the policies",
    )


def _members(entry: Any) -> dict[str, Any]:
    return {
        "entry": entry.id,
        "id": str(entry.spiffe_id),
        "ttl": entry.ttl,
        "wit_ttl": entry.wit_ttl,
        "selectors": list(entry.selectors),
        "dns_names": list(entry.dns_names),
    }
