"""`zerotrust dev up|run|status|down`: a throw-away CA for this machine."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from zerotrust.cli.duration import Duration, spoken
from zerotrust.cli.output import json_option, show, table
from zerotrust.core.errors import ConfigurationError, Reason
from zerotrust.core.spiffe.ids import TrustDomain

_dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("certs-dev"),
    show_default=True,
    help="Where everything it makes is kept.",
)


@click.group()
def command() -> None:
    """Set up a throw-away CA for this machine; nothing outside `dev run` trusts it."""


@command.command()
@click.argument("trust_domain")
@click.option("--workload", "names", multiple=True, help="Register NAME as spiffe://DOMAIN/NAME.")
@click.option("--ttl", type=Duration(), default="5m", show_default=True, help="5s to 24h.")
@_dir_option
@json_option
def up(trust_domain: str, names: tuple[str, ...], ttl: float, directory: Path) -> None:
    """Start the dev CA of TRUST_DOMAIN, such as example.org; repeat to add workloads."""
    from zerotrust.ca import dev

    status = dev.up(directory, TrustDomain.parse(trust_domain), names, ttl)
    _show(status, _next_run(status))


@command.command(context_settings={"ignore_unknown_options": True})
@click.option("--as", "name", required=True, help="The workload's NAME.")
@_dir_option
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, directory: Path, argv: tuple[str, ...]) -> None:
    """Run a program with the identity of a workload: dev run --as web -- python web.py."""
    from zerotrust import settings
    from zerotrust.ca import dev
    from zerotrust.workload.hygiene import environment_warnings, harden_process

    for warning in environment_warnings():
        click.echo(f"warning: {warning}", err=True)
    token = dev.mint(directory, name)
    harden_process()  # exec makes a process dumpable again; that it writes no core stays (prctl(2))
    given = {settings.IDENTITY: f"ca:{token}", settings.DEV: "1"}
    environment = {**os.environ, **given}  # noqa: TID251 - handed on, not read
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - running it is the command's purpose
    except OSError as exc:
        token.unlink()
        detail = f"{argv[0]} cannot be run: {exc.strerror}"
        raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc


@command.command()
@_dir_option
@json_option
def status(directory: Path) -> None:
    """Show what is running and who is registered."""
    from zerotrust.ca import dev

    found = dev.status(directory)
    again = f"zerotrust dev up {found.trust_domain.name}"
    _show(found, _next_run(found) if found.pid is not None else again)


@command.command()
@_dir_option
@json_option
def down(directory: Path) -> None:
    """Stop the dev CA and remove everything it made."""
    from zerotrust.ca import dev

    removed = dev.down(directory)
    line = f"removed all of it from {directory}" if removed else f"nothing to do in {directory}"
    show({"removed": removed, "directory": str(directory)}, [line])


def _show(found: Any, then: str) -> None:
    state = f"running, pid {found.pid}" if found.pid is not None else "not running"
    lines = [f"dev CA of {found.trust_domain.name}: {state}, in {found.directory}"]
    if found.bootstrap:
        lines.append(f"listens on {found.bootstrap} (enrol) and {found.mtls} (renew), loopback")
    if found.workloads:
        rows = ((w.name, w.id, spoken(w.ttl)) for w in found.workloads)
        lines += ["", *table(("WORKLOAD", "ID", "SVID LIVES"), rows), ""]
    show(
        {
            "trust_domain": found.trust_domain.name,
            "directory": str(found.directory),
            "running": found.pid is not None,
            "pid": found.pid,
            "bootstrap": found.bootstrap,
            "mtls": found.mtls,
            "workloads": [dataclasses.asdict(w) for w in found.workloads],
        },
        lines,
        then=then,
    )


def _next_run(found: Any) -> str:
    if not found.workloads:
        return f"zerotrust dev up {found.trust_domain.name} --workload NAME"
    return f"zerotrust dev run --as {found.workloads[0].name} -- python app.py"
