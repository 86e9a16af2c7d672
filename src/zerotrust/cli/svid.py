"""`zerotrust svid fetch|show`: get an identity into files, or look at one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from zerotrust.cli.duration import spoken
from zerotrust.cli.output import json_option, show
from zerotrust.core.errors import ConfigurationError, Reason

if TYPE_CHECKING:
    from zerotrust.workload.identity import Snapshot


@click.group()
def command() -> None:
    """Fetch an identity, or show one."""


@command.command()
@click.option("--identity", help="ca:TOKENFILE, ca:unix:PATH or files:DIR.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="A folder, 0700."
)
@click.option("--renew", is_flag=True, help="Renew even if half of the life is left.")
@json_option
def fetch(identity: str | None, out: Path, renew: bool) -> None:
    """Write an identity to a folder that `files:DIR` reads. Run it again to renew it."""
    from zerotrust import clock, plugins, settings
    from zerotrust.workload.layout import write_layout
    from zerotrust.workload.sources.ca import parse_url

    found = settings.from_environment()
    scheme, _, rest = (identity or found.identity or _unset()).partition(":")
    if scheme == "ca":  # its state folder is the layout: what renews it stays beside it
        place, asked = parse_url(rest)
        named = f"id={quote(asked['id'])}&" if "id" in asked else ""
        rest = f"{place}?{named}state={quote(str(out))}"
    source = plugins.load("zerotrust.sources", scheme)(rest, dev=found.dev)
    try:
        snapshot = source.fetch(None)
        svid, now = snapshot.svid, clock.now()
        if scheme == "ca" and (renew or now > (svid.not_before + svid.not_after) / 2):
            snapshot = source.fetch(snapshot)
    finally:
        source.close()
    if scheme != "ca":
        write_layout(out, snapshot, {})
    elif kept(out).svid.thumbprint != snapshot.svid.thumbprint:
        raise ConfigurationError(f"{out} cannot be written", Reason.FILE_ACCESS)
    _show(snapshot, f"ZEROTRUST_IDENTITY=files:{out}; run this again before it ends")


@command.command("show")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), required=False)
@json_option
def show_(directory: Path | None) -> None:
    """Show the identity in DIRECTORY (default: ZEROTRUST_IDENTITY). No key is printed."""
    _show(kept(directory), "zerotrust bundle show")


def kept(directory: Path | None) -> Snapshot:
    """Return the identity that files hold, without asking a CA; raise ConfigurationError."""
    from zerotrust import settings
    from zerotrust.workload.sources import files

    found = settings.from_environment()
    place = str(directory) if directory else _folder_of(found.identity or _unset())
    source = files.open_source(place, dev=True)  # looking at a throw-away one trusts nothing
    try:
        return source.fetch(None)
    finally:
        source.close()


def _folder_of(url: str) -> str:
    from zerotrust.workload.sources.ca import parse_url

    scheme, _, rest = url.partition(":")
    if scheme == "files":
        return rest
    if scheme == "ca" and (state := parse_url(rest)[1].get("state")):
        return state
    raise ConfigurationError(f"{url.partition('?')[0]} lives in its process only: name a folder")


def _unset() -> str:
    raise ConfigurationError(
        "no identity: set ZEROTRUST_IDENTITY (files:DIR or ca:TOKENFILE), or name it here"
    )


def _show(snapshot: Snapshot, then: str) -> None:
    from zerotrust import clock

    svid, wit = snapshot.svid, snapshot.wit
    left = spoken(svid.not_after - clock.now())
    data: dict[str, Any] = {
        "id": str(svid.id),
        "dev": snapshot.dev,
        "serial": f"{svid.chain[0].serial_number:x}",
        "thumbprint": svid.thumbprint,
        "not_before": svid.not_before,
        "not_after": svid.not_after,
        "wit_expires_at": wit.expires_at if wit else None,
        "trust_domains": [str(bundle.origin) for bundle in snapshot.bundles],
    }
    lines = [
        f"{svid.id}{' (throw-away)' if snapshot.dev else ''}",
        f"  ends in     {left}",
        f"  serial      {data['serial']}",
        f"  thumbprint  {svid.thumbprint}",
        f"  WIT         {'ends in ' + spoken(wit.expires_at - clock.now()) if wit else 'none'}",
        f"  trusts      {' '.join(data['trust_domains'])}",
    ]
    show(data, lines, then=then)
