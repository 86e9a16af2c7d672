"""Policy text <-> Policy.

1. The keys below are all there are. Anything else is refused: a condition that is not built must
   not look as if it were kept.
2. Size, depth and counts are bounded over the bare text, before TOML is parsed.
3. A fault names file, line and key, and how to mend it.
4. Aliases are replaced here; the Policy knows callers only by their paths. In a file with an
   `[alias]` table a lone word is an alias or a mistake: a deny rule with a misspelt alias would
   deny nobody.
5. Inline tests are read here and run by `trial.py`, which needs the reader of request targets too.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from zerotrust.core.errors import BadPolicy, BadSpiffeId, MalformedError
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import MAX_RULES, Allow, Deny, Policy, PolicyTest
from zerotrust.core.policy.outline import Sprawl, line_of, refuse_sprawl
from zerotrust.core.policy.patterns import PolicyFault, parse_principal, shown
from zerotrust.core.spiffe.ids import TrustDomain

SCHEMA: Final = 1
MAX_BYTES: Final = 8 << 20
MAX_TESTS: Final = 20_000

_TOP: Final = (
    "schema", "service", "trust_domain", "mode", "federated", "alias", "open",
    "allow", "deny", "test",
)  # fmt: skip
_ALLOW: Final = ("id", "owner", "from", "to", "token")
_DENY: Final = ("id", "owner", "from", "to")
_TEST: Final = ("name", "as", "do", "token", "want")
_ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SAID_BY_TOMLLIB: Final = re.compile(
    r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL
)


def parse_policy(text: bytes, *, name: str = "policy.toml") -> Policy:
    """Turn TOML into a checked Policy, its inline tests not yet run; raise BadPolicy."""
    if len(text) > MAX_BYTES:
        raise BadPolicy(f"{name}: {len(text)} bytes; at most {MAX_BYTES} are read")
    try:
        decoded = text.decode()
    except UnicodeDecodeError as exc:
        line = text.count(b"\n", 0, exc.start) + 1
        raise BadPolicy(f"{name}:{line}: not UTF-8") from None
    try:
        refuse_sprawl(decoded, most_tables=MAX_RULES + MAX_TESTS)
        return _policy(tomllib.loads(decoded))
    except Sprawl as sprawl:
        raise BadPolicy(f"{name}:{sprawl.line}: {sprawl}") from None
    except PolicyFault as fault:
        line = line_of(decoded, fault.at)
        raise BadPolicy(f"{name}:{line}: {fault.detail}") from None
    except tomllib.TOMLDecodeError as exc:
        said = _SAID_BY_TOMLLIB.fullmatch(str(exc))
        problem, at = (said[1], said[2]) if said else (str(exc), None)
        line = int(at) if at else decoded.count("\n") + 1
        raise BadPolicy(f"{name}:{line}: not TOML: {shown(problem)}") from None
    except RecursionError:
        raise BadPolicy(f"{name}:1: nested too deeply") from None


def format_policy(policy: Policy) -> str:
    """Write the canonical text: `parse_policy(format_policy(p).encode()) == p`."""
    lines = [
        f"schema = {SCHEMA}",
        f"service = {_quoted(policy.service)}",
        f"trust_domain = {_quoted(policy.trust_domain.name)}",
        'mode = "enforce"',
    ]
    if policy.federated:
        lines.append(f"federated = {_listed(sorted(domain.name for domain in policy.federated))}")
    if policy.open_routes:
        lines += ["", "[open]", f"routes = {_listed(policy.open_routes)}"]
    for allow in policy.allow:
        lines += ["", "[[allow]]", *_rule_lines(allow)]
        if allow.token != Mode.BOUND:
            lines.append(f"token = {_quoted(allow.token.label)}")
    for deny in policy.deny:
        lines += ["", "[[deny]]", *_rule_lines(deny)]
    for test in policy.tests:
        lines += ["", "[[test]]", f"name = {_quoted(test.name)}", f"as = {_quoted(test.principal)}"]
        lines.append(f"do = {_quoted(test.do)}")
        if test.token != Mode.BOUND:
            lines.append(f"token = {_quoted(test.token.label)}")
        lines.append(f"want = {_quoted(test.want)}")
    return "\n".join(lines) + "\n"


def _policy(top: dict[str, Any]) -> Policy:
    _known(top, _TOP)
    if top.get("schema") != SCHEMA or isinstance(top.get("schema"), bool):
        raise PolicyFault(f"must be {SCHEMA}, the only schema there is", "schema")
    if top.get("mode") == "report":
        raise PolicyFault('report is not built; use "enforce"', "mode")
    if top.get("mode") != "enforce":
        raise PolicyFault('must be "enforce"', "mode")
    own = _domain(_text(top, "trust_domain"), "trust_domain")
    aliases = _Aliases(top, own)
    opened = _table(top, "open")
    _known(opened, ("routes",), "open")
    allow = tuple(
        _allow(rule, n, aliases) for n, rule in enumerate(_tables(top, "allow", MAX_RULES))
    )
    deny = tuple(_deny(rule, n, aliases) for n, rule in enumerate(_tables(top, "deny", MAX_RULES)))
    tests = tuple(_test(test, n, aliases) for n, test in enumerate(_tables(top, "test", MAX_TESTS)))
    aliases.refuse_unused()
    return Policy(
        service=_text(top, "service"),
        trust_domain=own,
        allow=allow,
        deny=deny,
        open_routes=_texts(opened, "routes", "open") if opened else (),
        federated=_federated(top),
        tests=tests,
    )


class _Aliases:
    """The `[alias]` table, and which of its names a rule uses."""

    def __init__(self, top: dict[str, Any], own: TrustDomain) -> None:
        self._own = own
        self._paths: dict[str, str] = {}
        self._used: set[str] = set()
        for alias in _table(top, "alias"):
            if not _ALIAS.fullmatch(alias):
                raise PolicyFault("an alias is 1 to 64 of A-Z a-z 0-9 _ -", "alias", alias)
            path = _text(top["alias"], alias, "alias")
            try:
                parse_principal(path, own)
            except PolicyFault as fault:
                raise fault.under("alias", alias) from None
            self._paths[alias] = path

    def principal(self, text: str, *, rule: bool = True) -> str:
        """Return the path or full ID that the text stands for."""
        if text in self._paths:
            if rule:
                self._used.add(text)
            return self._paths[text]
        if self._paths and _ALIAS.fullmatch(text):
            raise PolicyFault(
                f"{shown(text)} is no alias here; a caller of that name is {self._own}/{text}"
            )
        return text

    def refuse_unused(self) -> None:
        for alias in self._paths:
            if alias not in self._used:
                raise PolicyFault("no rule uses this alias; delete it", "alias", alias)


def _allow(rule: dict[str, Any], place: int, aliases: _Aliases) -> Allow:
    at = ("allow", place)
    _known(rule, _ALLOW, *at)
    return Allow(
        id=_text(rule, "id", *at),
        owner=_text(rule, "owner", *at) if "owner" in rule else None,
        principals=_principals(rule, aliases, *at),
        routes=_texts(rule, "to", *at),
        token=_mode(rule, *at),
    )


def _deny(rule: dict[str, Any], place: int, aliases: _Aliases) -> Deny:
    at = ("deny", place)
    _known(rule, _DENY, *at)
    return Deny(
        id=_text(rule, "id", *at),
        owner=_text(rule, "owner", *at) if "owner" in rule else None,
        principals=_principals(rule, aliases, *at),
        routes=_texts(rule, "to", *at),
    )


def _test(test: dict[str, Any], place: int, aliases: _Aliases) -> PolicyTest:
    at = ("test", place)
    _known(test, _TEST, *at)
    try:
        principal = aliases.principal(_text(test, "as", *at), rule=False)
    except PolicyFault as fault:
        raise (fault if fault.at else fault.under(*at, "as")) from None
    name, do, want = (_text(test, key, *at) for key in ("name", "do", "want"))
    return PolicyTest(name, principal, do, want, _mode(test, *at))


def _principals(rule: dict[str, Any], aliases: _Aliases, *at: str | int) -> tuple[str, ...]:
    named = []
    for place, text in enumerate(_texts(rule, "from", *at)):
        try:
            named.append(aliases.principal(text))
        except PolicyFault as fault:
            raise fault.under(*at, "from", place) from None
    return tuple(named)


def _federated(top: dict[str, Any]) -> frozenset[TrustDomain]:
    if "federated" not in top:
        return frozenset()
    names = _texts(top, "federated")
    domains = frozenset(_domain(name, "federated", n) for n, name in enumerate(names))
    if len(domains) != len(names):
        raise PolicyFault("a trust domain stands here twice", "federated")
    return domains


def _domain(text: str, *at: str | int) -> TrustDomain:
    try:
        return TrustDomain(text)
    except BadSpiffeId as exc:
        raise PolicyFault(exc.detail, *at) from None


def _mode(table: dict[str, Any], *at: str | int) -> Mode:
    if "token" not in table:
        return Mode.BOUND
    try:
        mode = Mode.parse(_text(table, "token", *at))
    except MalformedError:
        mode = Mode.SEALED
    if mode > Mode.PROOF:
        raise PolicyFault('must be "bound" or "proof"', *at, "token")
    return mode


def _known(table: Mapping[str, object], keys: tuple[str, ...], *at: str | int) -> None:
    for key in table:
        if key not in keys:
            raise PolicyFault(f"no such key; there are {', '.join(keys)}", *at, key)


def _text(table: dict[str, Any], key: str, *at: str | int) -> str:
    if key not in table:
        raise PolicyFault("is missing", *at, key)
    value = table[key]
    if not isinstance(value, str) or not value or not value.isprintable():
        raise PolicyFault("must be a non-empty line of text", *at, key)
    return value


def _texts(table: dict[str, Any], key: str, *at: str | int) -> tuple[str, ...]:
    if key not in table:
        raise PolicyFault("is missing", *at, key)
    value = table[key]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise PolicyFault('must be a list of texts: ["...", "..."]', *at, key)
    if not value:
        raise PolicyFault("is empty; name something or delete it", *at, key)
    return tuple(value)


def _table(top: dict[str, Any], key: str) -> dict[str, Any]:
    value = top.get(key, {})
    if not isinstance(value, dict):
        raise PolicyFault(f"must be a table: [{key}]", key)
    if key in top and not value:
        raise PolicyFault("is empty; delete it", key)
    return value


def _tables(top: dict[str, Any], key: str, most: int) -> list[dict[str, Any]]:
    value = top.get(key, [])
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise PolicyFault(f"must be tables: [[{key}]]", key)
    if len(value) > most:
        raise PolicyFault(f"{len(value)} of them; at most {most} are read", key)
    return value


def _rule_lines(rule: Allow | Deny) -> Iterator[str]:
    yield f"id = {_quoted(rule.id)}"
    if rule.owner is not None:
        yield f"owner = {_quoted(rule.owner)}"
    yield f"from = {_listed(rule.principals)}"
    yield f"to = {_listed(rule.routes)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _listed(texts: tuple[str, ...] | list[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"
