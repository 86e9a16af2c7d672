"""`zerotrust policy`: look at a policy file before a service runs under it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zerotrust.audit import printable
from zerotrust.cli.output import FAILED, json_option, show, table
from zerotrust.core.errors import ZeroTrustError
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Policy
from zerotrust.core.policy.patterns import parse_caller, split_call
from zerotrust.core.policy.syntax import MAX_BYTES, parse_policy
from zerotrust.core.policy.trial import Outcome, Reading, explain, run_tests, try_call
from zerotrust.core.request import parse_target
from zerotrust.workload.policy_file import load_policy
from zerotrust.workload.trusted_path import read_trusted

_FILE = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Check, test and explain a policy file."""


@command.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@json_option
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...]) -> None:
    """Load each FILE as a service would, its inline tests included."""
    found = [_checked(file) for file in files]
    lines = []
    for one in found:
        lines.append(f"{one['file']}: {one['error'] or one['summary']}")
        lines += [f"  note: {note}" for note in one["notes"]]
    failed = sum(one["error"] is not None for one in found)
    then = "mend what is named above" if failed else f"zerotrust policy test {found[0]['file']}"
    show({"ok": not failed, "files": found}, lines, then=then)
    ctx.exit(FAILED if failed else 0)


@command.command()
@click.argument("file", type=_FILE)
@json_option
@click.pass_context
def test(ctx: click.Context, file: Path) -> None:
    """Run the inline tests of FILE and show each."""
    results = run_tests(_read(file), parse_target)
    rows = [
        (
            "pass" if result.met else "FAIL",
            printable(result.test.name),
            result.test.want,
            result.outcome.verdict,
        )
        for result in results
    ]
    keys = ("result", "name", "want", "got")
    failed = sum(not result.met for result in results)
    then = f"zerotrust serve APP --policy {file}"
    if failed:
        then = f'zerotrust policy explain --as CALLER --do "GET /path" {file}'
    elif not results:
        then = f"write a [[test]] into {file}: what must work, and what must never"
    data = {"ok": not failed, "tests": [dict(zip(keys, row, strict=True)) for row in rows]}
    summary = f"{len(results) - failed} of {len(results)} tests pass"
    show(data, [*(table(keys, rows) if rows else ()), summary], then=then)
    ctx.exit(FAILED if failed else 0)


@command.command("explain")
@click.option("--as", "caller", required=True, help="SPIFFE ID of the caller, or its path.")
@click.option("--do", "call", required=True, help='The call, such as "GET /orders/7".')
@click.option("--token", type=click.Choice(["bound", "proof"]), default="bound", show_default=True)
@click.argument("file", type=_FILE)
@json_option
def explain_call(caller: str, call: str, token: str, file: Path) -> None:
    """Say how FILE decides one call, and why."""
    policy, mode = _read(file), Mode.parse(token)
    principal = parse_caller(caller, policy.trust_domain)
    outcome = try_call(policy, principal, call, mode, parse_target)
    near: list[Reading] = []
    if outcome.decision is not None:
        method, target = split_call(call)
        path = parse_target(target.encode()).path if target.startswith("/") else target
        readings = explain(policy, principal, method, path, mode)
        near = [one for one in readings if one.principal is not None or one.route is not None]
    data = {
        "verdict": outcome.verdict,
        "caller": str(principal),
        "rules": [{"rule": one.rule.id, "missing": list(one.missing)} for one in near],
    }
    lines = [f"{principal}  {printable(call)}  {token}: {outcome.verdict}", *map(_line, near)]
    show(data, lines, then=_advice(outcome, file))


def _checked(file: Path) -> dict[str, Any]:
    try:
        policy, notes = load_policy(file)
    except ZeroTrustError as error:
        return {
            "file": str(file),
            "error": printable(str(error), 1000),
            "summary": None,
            "notes": (),
        }
    rules = f"{len(policy.allow)} allow, {len(policy.deny)} deny, {len(policy.tests)} tests"
    summary = f"ok: {rules}, digest {policy.digest[:16]}"
    return {"file": str(file), "error": None, "summary": summary, "notes": notes}


def _read(file: Path) -> Policy:
    return parse_policy(read_trusted(file, max_bytes=MAX_BYTES), name=str(file))


def _line(reading: Reading) -> str:
    kind = type(reading.rule).__name__.lower()
    if reading.applies:
        return f"  {kind} {reading.rule.id}: from {reading.principal}, to {reading.route}"
    return f"  {kind} {reading.rule.id}: not for want of {' and '.join(reading.missing)}"


def _advice(outcome: Outcome, file: Path) -> str:
    if not outcome.verdict.startswith("deny:"):
        return f"keep it so: write it as a [[test]] into {file}"
    if outcome.decision is None:
        return "write the path in its one canonical form; no rule can allow this one"
    if outcome.decision.need is not None:
        return f"call with a {outcome.decision.need.label} token"
    return f"change {file} only if this caller is meant to do this"
