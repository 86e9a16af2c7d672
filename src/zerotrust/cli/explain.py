"""`zerotrust explain ZTnnnn|reason`: what an error means. The texts are in errors.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import click

from zerotrust.cli.output import json_option, show
from zerotrust.core.errors import PUBLIC_TEXT, Category, Reason

_ON_THE_WIRE: Final[dict[Category, str]] = {
    Category.CONFIGURATION: "Nothing: it happens on our side, before a peer is there.",
    Category.MALFORMED: "Status 400",
    Category.UNAUTHENTICATED: "Status 401 with `WWW-Authenticate: WPT`",
    Category.PROOF_STALE: "Status 401 with `WWW-Authenticate: WPT`",
    Category.MODE_INSUFFICIENT: "Status 401 with `WWW-Authenticate: WPT`",
    Category.FORBIDDEN: "Status 403",
    Category.MISDIRECTED: "Status 421",
    Category.UNAVAILABLE: "Status 503",
}
_FAMILIES: Final = {
    "1": "Configuration and input of our own side",
    "2": "The shape of a request",
    "3": "The peer's certificate",
    "4": "The tokens",
    "5": "Policy",
    "6": "Issuance",
    "7": "Our own identity",
    "9": "The unforeseen",
}


@cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Read the table: code -> what, mend and perhaps peer."""
    return tomllib.loads(files("zerotrust.cli").joinpath("errors.toml").read_text("utf-8"))


def seen_by_peer(reason: Reason) -> str:
    """Say what the other side was told, which is never the reason itself."""
    if special := texts()[reason.code].get("peer"):
        return special
    wire = _ON_THE_WIRE[reason.category]
    if reason.category is Category.CONFIGURATION:
        return wire
    text = PUBLIC_TEXT[reason.category]
    told = f'{wire}, problem type `{reason.category}`, the text "{text}" and an id.'
    if reason.code.startswith("ZT3"):
        return f"During the handshake: a TLS alert, or a closed connection. Later: {told}"
    if reason.code.startswith(("ZT11", "ZT7")):
        return f"Nothing when it is our own input. In a request: {told}"
    return told


def page() -> str:
    """Write docs/errors.md: one anchor per code."""
    return "\n".join(_page_lines()) + "\n"


def _page_lines() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Every refusal and failure has a code and a reason, which go to our logs."
    yield "The peer sees a constant text and an id. `zerotrust explain CODE` prints the same."
    yield "This page is made from `src/zerotrust/cli/errors.toml`:"
    yield "`zerotrust explain --page > docs/errors.md`."
    family = ""
    for reason in sorted(Reason, key=lambda r: r.code):
        if reason.code[2] != family:
            family = reason.code[2]
            yield from ("", f"## {_FAMILIES[family]}")
        text = texts()[reason.code]
        yield from ("", f'### <a id="{reason.code.lower()}"></a>{reason.code} `{reason}`', "")
        yield f"- **What happened.** {text['what']}"
        yield f"- **What the peer saw.** {seen_by_peer(reason)}"
        yield f"- **How to mend it.** {text['mend']}"


@click.command()
@click.argument("code", required=False)
@click.option("--page", "whole", is_flag=True, help="Print docs/errors.md.")
@json_option
def command(code: str | None, whole: bool) -> None:
    """Say what an error CODE (ZT4018) or reason (token.audience) means and how to mend it."""
    if whole:
        click.echo(page(), nl=False)
        return
    if code is None:
        raise click.UsageError("name a code, such as ZT4018, or a reason, such as token.audience")
    reason = next((r for r in Reason if r == code.lower() or r.code == code.upper()), None)
    if reason is None:
        raise click.UsageError(
            f"{code!r} is no error code; they are listed by: zerotrust explain --page"
        )
    text, peer = texts()[reason.code], seen_by_peer(reason)
    show(
        {"code": reason.code, "reason": str(reason), "category": str(reason.category)}
        | {"what": text["what"], "peer": peer, "mend": text["mend"]},
        [
            f"{reason.code} {reason}",
            *(f"  what happened:      {text['what']}", f"  what the peer saw:  {peer}"),
        ],
        then=text["mend"],
    )
