"""`zerotrust doctor`: find what is wrong on this machine. Exit 0 well, 4 warnings, 1 a failure.

It spends nothing: a one-time token is looked at, never shown to the CA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from zerotrust.cli.duration import spoken
from zerotrust.cli.machine import Finding, machine
from zerotrust.cli.output import json_option, show, table
from zerotrust.core.errors import ZeroTrustError

if TYPE_CHECKING:
    from zerotrust.core.enrolment import JoinToken

WARNINGS: Final = 4
FAILS: Final = 1
MAX_AHEAD: Final = 30.0  # seconds


@click.command()
@click.option("--identity", help="An identity URL; default ZEROTRUST_IDENTITY.")
@json_option
@click.pass_context
def command(ctx: click.Context, identity: str | None) -> None:
    """Check Python, OpenSSL, limits, package, clock, identity and CA. Exit 0, 4 (warn) or 1."""
    findings = [*machine(), *_identity(identity)]
    grades = {grade for grade, _, _ in findings}
    worst = FAILS if "fail" in grades else WARNINGS if "warning" in grades else 0
    rows = [{"grade": g, "check": c, "detail": d} for g, c, d in findings]
    then = "nothing: all is well" if not worst else "mend the first line that is not ok"
    show({"exit": worst, "checks": rows}, table(("", "CHECK", ""), findings), then=then)
    ctx.exit(worst)


def _identity(identity: str | None) -> Iterator[Finding]:
    from zerotrust import settings
    from zerotrust.workload.sources.ca import parse_url

    try:
        url = identity or settings.from_environment().identity
    except ZeroTrustError as exc:
        yield "fail", "identity", str(exc)
        return
    if url is None:
        yield "warning", "identity", "none: set ZEROTRUST_IDENTITY to files:DIR or ca:TOKENFILE"
        return
    scheme, _, rest = url.partition(":")
    place, asked = parse_url(rest) if scheme == "ca" else ("", {})
    folder = rest if scheme == "files" else asked.get("state")
    if folder and Path(folder).is_dir():
        yield from _tried("identity", lambda: _kept(Path(folder)))
    if scheme == "ca" and not place.startswith("unix:"):
        yield from _tried("ca", lambda: _ca(Path(place)))


def _kept(folder: Path) -> Finding:
    from zerotrust import clock
    from zerotrust.cli.svid import kept

    snapshot = kept(folder)
    svid, now = snapshot.svid, clock.now()
    if now < svid.not_before - MAX_AHEAD:
        return "fail", "clock", f"it is {spoken(svid.not_before - now)} before our certificate"
    detail = f"{svid.id} ends in {spoken(svid.not_after - now)}"
    if snapshot.wit is None:
        return "warning", "identity", f"{detail}; without a WIT it may serve, not call"
    return "ok", "identity", detail


def _ca(token_file: Path) -> Finding:
    from zerotrust.core.enrolment import BUNDLE_PATH, Published
    from zerotrust.workload.ca_answer import Trust
    from zerotrust.workload.ca_exchange import Route, exchange
    from zerotrust.workload.evidence.join_token import read_join_token
    from zerotrust.workload.tls.context import unsafe_unverified_context

    token: JoinToken = read_join_token(token_file)
    route = Route.tls(token.address, unsafe_unverified_context())
    Trust.first(Published.parse(exchange(route, BUNDLE_PATH)), token, dev=True)
    return "ok", "ca", f"{token.ca} answers at {token.address} with the roots the token lists"


def _tried(check: str, attempt: Callable[[], Finding]) -> Iterator[Finding]:
    try:
        yield attempt()
    except ZeroTrustError as exc:
        yield "fail", check, str(exc)
