"""`zerotrust token create|inspect`: make a one-time join token; look into any token."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from zerotrust.cli.duration import Duration, spoken
from zerotrust.cli.output import json_option, show
from zerotrust.core.errors import ConfigurationError, MalformedError

MAX_BYTES: Final = 64 * 1024
_TIMES: Final = ("exp", "iat", "nbf")


@click.group()
def command() -> None:
    """Create a one-time join token; look into any token."""


@command.command()
@click.argument("spiffe_id")
@click.option("--ca", "directory", type=click.Path(path_type=Path), default=Path("ca"))
@click.option("--address", help="host:port of the CA's bootstrap port, as the workload sees it.")
@click.option("--ttl", type=Duration(), default="5m", show_default=True)
@click.option("--csr-key", type=click.Path(path_type=Path), help="Serve this key (or CSR) only.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new file (0600).")
@json_option
def create(
    spiffe_id: str,
    directory: Path,
    address: str | None,
    ttl: float,
    csr_key: Path | None,
    out: Path,
) -> None:
    """Make a token that gives a workload the identity SPIFFE_ID, once.

    It is written to a file and never printed: it is a secret.
    """
    from zerotrust.cli.ca_folder import admin_of, entry_of
    from zerotrust.workload.layout import write_private

    if out.exists():
        raise ConfigurationError(f"{out} exists already; name a new file")
    key = None
    if csr_key is not None:
        from zerotrust.cli.csr_key import read_csr_key

        key = read_csr_key(csr_key)
    client = admin_of(directory)
    entry = entry_of(client, spiffe_id)
    token = client.create_token(entry.id, address=address, ttl=ttl, csr_key=key)
    write_private(out, token.dump().encode())
    show(
        {"file": str(out), "id": str(entry.spiffe_id), "address": token.address, "ttl": ttl},
        [f"a token for {entry.spiffe_id} is in {out}; it works once, within {spoken(ttl)}"],
        then=f"on the workload's machine: ZEROTRUST_IDENTITY='ca:{out}?state=DIR'",
    )


@command.command()
@click.argument("file", type=click.File("rb"), default="-")
@json_option
def inspect(file: Any) -> None:
    """Show what stands in a token, from a FILE or standard input. Nothing is verified."""
    from zerotrust.core.enrolment import JoinToken

    if file is sys.stdin.buffer and sys.stdin.isatty():
        raise click.UsageError("name a file, or pipe the token in; an argument would be public")
    try:
        text = file.read(MAX_BYTES + 1).decode("ascii").strip()
    except UnicodeDecodeError as exc:
        raise click.UsageError("a token is ASCII") from exc
    if text.startswith("ztjoin1."):
        join = JoinToken.parse(text)
        data = {"address": join.address, "ca": str(join.ca), "anchors": list(join.anchors)}
        _show("one-time join token", {"secret": "redacted", **data}, {})
    else:
        _inspect_jws(text)


def _inspect_jws(text: str) -> None:
    from zerotrust import clock
    from zerotrust.core.errors import TokenRejected
    from zerotrust.core.jose import parse_compact

    try:
        jws = parse_compact(text.removeprefix("WPT "), max_bytes=MAX_BYTES)
    except (TokenRejected, MalformedError) as exc:
        raise click.UsageError(f"this is no compact JWS: {exc.detail}") from exc
    now, notes = clock.now(), {}
    for name in _TIMES:
        value = jws.claims.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            away = spoken(abs(value - now))
            notes[name] = f"in {away}" if value > now else f"{away} ago"
    data = {"header": dict(jws.header), "claims": dict(jws.claims), "signature": "redacted"}
    _show(str(jws.header.get("typ", "JWS")), data, notes)


def _show(kind: str, data: dict[str, Any], notes: dict[str, str]) -> None:
    lines = [f"{kind}, NOT VERIFIED: anybody can write this"]
    lines += json.dumps(data, indent=2, ensure_ascii=True).splitlines()
    lines += [f"{name}: {note}" for name, note in notes.items()]
    show(
        {"kind": kind, "verified": False, **data, "times": notes},
        lines,
        then="a service verifies it; its audit line says what it thought of it",
    )
