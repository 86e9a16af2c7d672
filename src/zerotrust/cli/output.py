"""What every command shares: one result on stdout, one complaint on stderr.

1. Text that came from elsewhere passes through `printable` before it reaches a terminal.
2. The unforeseen names its type and place, never its text: a foreign exception may quote a secret.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from zerotrust.audit import printable
from zerotrust.core.errors import Category, MissingExtra, Reason, ZeroTrustError

P = ParamSpec("P")
R = TypeVar("R")

FAILED: Final = 1
UNAVAILABLE: Final = 3
INTERRUPTED: Final = 130
_JSON: Final = "zerotrust.json"  # key in click's Context.meta
_DETAIL_LIMIT: Final = 1000
_SERVERS: Final = {"uvicorn", "starlette", "httptools", "uvloop", "websockets"}


def json_option(function: Callable[P, R]) -> Callable[P, R]:
    """Give a command `--json`; `show` and `complain` then speak JSON."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda ctx, _param, value: ctx.meta.__setitem__(_JSON, value),
        help="Print one JSON object.",
    )(function)


def show(data: Mapping[str, Any], lines: Iterable[str], *, then: str = "") -> None:
    """Print a result: `data` as JSON with --json, else `lines`; `then` is what to do next."""
    if _wants_json():
        click.echo(json.dumps({**data, "next": then} if then else dict(data), indent=2))
        return
    for line in lines:
        click.echo(line)
    if then:
        click.echo(f"next: {then}")


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lay out rows in columns."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def complain(exc: BaseException) -> int:
    """Print one message about an exception on stderr; return the exit code."""
    if isinstance(exc, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return INTERRUPTED
    code, reason, detail, exit_code = _judge(exc)
    if _wants_json():
        error = {"code": code, "reason": reason, "detail": detail}
        click.echo(json.dumps({"error": error}), err=True)
    else:
        click.echo(f"error: {code} {reason}" + (f": {_plain(detail)}" if detail else ""), err=True)
        click.echo(f"help:  zerotrust explain {code}", err=True)
    return exit_code


def _judge(exc: BaseException) -> tuple[str, str, str, int]:
    if isinstance(exc, ModuleNotFoundError) and str(exc.name).partition(".")[0] in _SERVERS:
        exc = MissingExtra("asgi")
    if isinstance(exc, ZeroTrustError):
        unavailable = exc.category is Category.UNAVAILABLE
        return exc.code, str(exc.reason), exc.detail, UNAVAILABLE if unavailable else FAILED
    if isinstance(exc, OSError):
        reason = Reason.FILE_ACCESS
        where = f": {exc.filename}" if exc.filename else ""
        return reason.code, reason, f"{exc.strerror or 'I/O error'}{where}", FAILED
    place = traceback.extract_tb(exc.__traceback__)[-1]
    detail = f"{type(exc).__name__} at {Path(place.filename).name}:{place.lineno}; please report it"
    return Reason.UNFORESEEN.code, Reason.UNFORESEEN, detail, FAILED


def _plain(detail: str) -> str:
    return printable(detail, _DETAIL_LIMIT).replace('\\"', '"')  # a quote harms no terminal


def _wants_json() -> bool:
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.meta.get(_JSON))
