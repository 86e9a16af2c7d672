"""`zerotrust bundle show`: whom an identity, or a CA, trusts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zerotrust.cli.output import json_option, show

if TYPE_CHECKING:
    from zerotrust.core.spiffe.bundle import TrustBundle


@click.group()
def command() -> None:
    """Show whom an identity trusts."""


@command.command("show")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--ca", type=click.Path(path_type=Path, file_okay=False), help="A CA's own folder.")
@click.option("--document", is_flag=True, help="Print the SPIFFE bundle document itself.")
@json_option
def show_(directory: Path | None, ca: Path | None, document: bool) -> None:
    """Show the bundles of an identity in DIRECTORY (default: ZEROTRUST_IDENTITY)."""
    from zerotrust.cli.svid import kept

    if ca is not None:
        from zerotrust.ca.state import State

        bundles = [State.load(ca).bundle()]
    else:
        bundles = list(kept(directory).bundles)
    if document:
        click.echo(bundles[0].dump())
        return
    lines = [line for bundle in bundles for line in _lines(bundle)]
    show(
        {"bundles": [_members(bundle) for bundle in bundles]},
        lines,
        then="compare the SHA-256 values with the other side's",
    )


def _members(bundle: TrustBundle) -> dict[str, Any]:
    from zerotrust.core.enrolment import fingerprints

    ends = (anchor.not_valid_after_utc.isoformat() for anchor in bundle.x509_authorities)
    prints = (fingerprints([anchor])[0] for anchor in bundle.x509_authorities)
    return {
        "trust_domain": bundle.origin.name,
        "dev": bundle.is_dev,
        "sequence": bundle.sequence,
        "refresh_hint": bundle.refresh_hint,
        "anchors": [{"sha256": p, "ends": e} for p, e in zip(prints, ends, strict=True)],
        "wit_keys": list(bundle.wit_keys),
        "skipped": list(bundle.skipped),
    }


def _lines(bundle: TrustBundle) -> list[str]:
    members = _members(bundle)
    kind = " (throw-away)" if members["dev"] else ""
    lines = [f"{bundle.origin}{kind}, sequence {members['sequence']}"]
    lines += [f"  root     {a['sha256']} until {a['ends']}" for a in members["anchors"]]
    lines += [f"  WIT key  {kid}" for kid in members["wit_keys"]]
    lines += [f"  skipped  {why}" for why in members["skipped"]]
    if not members["anchors"]:
        lines.append("  no root: nobody of this trust domain is let in")
    return lines
