"""Who may call what: the rules of one service, and the decision about one call.

1. Deny rules first; then allow rules; what no rule allows is refused. The order in which rules are
   written means nothing.
2. Any satisfied allow rule wins. Of those that cover a call the one with the weakest token mode is
   asked: where its mode is not met, no other's is.
3. A rule covers a call when one of its principals covers the caller and one of its routes covers
   the route. The index holds these pairs, so a decision does not read the rules, however many.
4. A policy is checked whole while it is built, and never changes afterwards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from zerotrust.core.errors import Reason
from zerotrust.core.mode import Mode
from zerotrust.core.policy.index import PrincipalIndex, RouteIndex
from zerotrust.core.policy.patterns import (
    ANY,
    PolicyFault,
    parse_caller,
    parse_principal,
    parse_route,
    shown,
    split_call,
)
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

MAX_RULES: Final = 150_000
MAX_PAIRS: Final = 2_000_000  # principals x routes, over all rules: what the index must hold
_REASONS: Final = frozenset(Reason)
_Entry = TypeVar("_Entry")
_RULE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Allow:
    """One allow rule. `token` is the weakest mode that satisfies it."""

    id: str
    principals: tuple[str, ...]
    routes: tuple[str, ...]
    token: Mode = Mode.BOUND
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """One deny rule; no allow rule can overrule it."""

    id: str
    principals: tuple[str, ...]
    routes: tuple[str, ...]
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One inline test: `principal` does `do` with a token of `token`, and `want` is to come out."""

    name: str
    principal: str
    do: str
    want: str
    token: Mode = Mode.BOUND


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is None exactly when the call is allowed; `need` is the mode that was asked for."""

    reason: Reason | None
    rule: str | None
    route: str | None  # the template that covers the call, where there is one; for the audit line
    need: Mode | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one service, compiled. Raises PolicyFault where they make no sense."""

    service: str
    trust_domain: TrustDomain
    allow: tuple[Allow, ...] = ()
    deny: tuple[Deny, ...] = ()
    open_routes: tuple[str, ...] = ()
    federated: frozenset[TrustDomain] = frozenset()
    tests: tuple[PolicyTest, ...] = ()
    needs_proof: bool = field(init=False, compare=False)
    digest: str = field(init=False, compare=False)
    _open: dict[tuple[str, str], str] = field(init=False, compare=False, repr=False)
    _rules: _Rules = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.service:
            raise PolicyFault("name the service that this policy protects", "service")
        opened = _open_routes(self.open_routes)
        object.__setattr__(self, "_open", opened)
        object.__setattr__(self, "_rules", _Rules(self))
        _refuse_pointless(self.allow, set(self.open_routes))
        _refuse_untestable(self)
        proof = any(rule.token >= Mode.PROOF for rule in self.allow)
        object.__setattr__(self, "needs_proof", proof)
        object.__setattr__(self, "digest", _digest(self))

    def decide(self, principal: SpiffeId, method: str, path: str, mode: Mode) -> Decision:
        """Decide one call whose caller and token are already proven.

        `method` is an HTTP method, `WS` or `grpc`. `path` is decoded once and canonical, as the
        request filter gives it; for gRPC it is `package.Service/Method`.
        """
        routes = self._rules.routes.find(method, path)
        ruling: _Ruling | None = None
        for table in self._rules.callers.find(principal):
            for route in routes:
                found = table.get(route)
                if found is not None and (ruling is None or found.rank < ruling.rank):
                    ruling = found
        if ruling is None:
            covered = self._rules.route_texts[routes[0]] if routes else None
            return Decision(Reason.RULE_NONE, None, covered)
        return ruling.met if mode >= ruling.token else ruling.short

    def is_open(self, method: str, path: str) -> str | None:
        """Return the open route's text where this call needs no token and no rule, else None."""
        return self._open.get((method, path))


class _Ruling:
    """What one rule says about one route: `met` for a call of at least mode `token`, else `short`.

    Of the rulings that cover a call the one of the lowest rank decides. Deny rules come before
    allow rules, and these stand by mode, so that the first is satisfied where any is.
    """

    __slots__ = ("met", "rank", "short", "token")

    def __init__(self, rank: int, rule: Allow | Deny, route: str) -> None:
        self.rank = rank
        denied = Decision(Reason.RULE_DENY, rule.id, route)
        if isinstance(rule, Deny):
            self.token, self.met, self.short = Mode.BOUND, denied, denied
        else:
            self.token, self.met = rule.token, Decision(None, rule.id, route)
            self.short = Decision(Reason.TOKEN_MODE, rule.id, route, rule.token)


_Table = dict[int, _Ruling]  # number of a route -> what is said about it


class _Rules:
    """The index: one table of rulings for each distinct entry of `from`."""

    def __init__(self, policy: Policy) -> None:
        self._own, self._federated = policy.trust_domain, policy.federated
        if self._own in self._federated:
            problem = "our own trust domain is never federated; delete it here"
            raise PolicyFault(problem, "federated")
        if len(policy.allow) + len(policy.deny) > MAX_RULES:
            raise PolicyFault(f"more than {MAX_RULES} rules; split the service")
        self.callers: PrincipalIndex[_Table] = PrincipalIndex(self._own, dict)
        self.routes = RouteIndex()
        self.route_texts: list[str] = []
        self._caller_tables: dict[str, _Table] = {}
        self._route_numbers: dict[str, int] = {}
        self._foreign: set[TrustDomain] = set()
        self._ids: set[str] = set()
        self._pairs = 0
        allow = [(rule, *self._pair(rule, "allow", n)) for n, rule in enumerate(policy.allow)]
        deny = [(rule, *self._pair(rule, "deny", n)) for n, rule in enumerate(policy.deny)]
        for domain in sorted(self._federated - self._foreign):
            raise PolicyFault(f"no rule names {domain}; delete it here", "federated")
        order = sorted(range(len(allow)), key=lambda n: (allow[n][0].token, allow[n][0].id))
        for rank, place in enumerate(order):
            self._refuse_unreachable(rank, *allow[place], place)
        for rank, (rule, tables, routes) in enumerate(sorted(deny, key=lambda entry: entry[0].id)):
            self._rule(rank - len(deny), rule, tables, routes)
        self._caller_tables, self._route_numbers = {}, {}  # built: needed no more

    def _refuse_unreachable(
        self, rank: int, rule: Allow, tables: list[_Table], routes: list[int], place: int
    ) -> None:
        """Enter an allow rule; refuse it where others allow all of it with no stronger mode."""
        if not self._rule(rank, rule, tables, routes):
            other = shown(tables[0][routes[0]].met.rule)
            problem = f"{shown(rule.id)} never decides: {other} already allows it"
            raise PolicyFault(problem, "allow", place, "id")

    def _rule(self, rank: int, rule: Allow | Deny, tables: list[_Table], routes: list[int]) -> bool:
        """Enter a rule wherever no lower rank stands; return whether it stands anywhere."""
        stands = False
        for route in routes:
            ruling = _Ruling(rank, rule, self.route_texts[route])
            for table in tables:
                if route not in table or rank < table[route].rank:
                    table[route] = ruling
                    stands = True
        return stands

    def _pair(self, rule: Allow | Deny, table: str, place: int) -> tuple[list[_Table], list[int]]:
        if not _RULE_ID.fullmatch(rule.id):
            raise PolicyFault(
                f"{shown(rule.id)}: 1 to 128 of A-Z a-z 0-9 . _ -", table, place, "id"
            )
        if rule.id in self._ids:
            raise PolicyFault(
                f"{shown(rule.id)} is used twice; ids name one rule", table, place, "id"
            )
        self._ids.add(rule.id)
        tables = _each(rule.principals, self._caller, id, (table, place, "from"))
        routes = _each(rule.routes, self._route, int, (table, place, "to"))
        if table == "allow" and ANY in rule.routes:
            problem = "only deny rules cover everything; name the routes"
            raise PolicyFault(problem, table, place, "to", rule.routes.index(ANY))
        self._pairs += len(tables) * len(routes)
        if self._pairs > MAX_PAIRS:
            problem = f"more than {MAX_PAIRS} pairs of caller and route so far; use patterns"
            raise PolicyFault(problem, table, place)
        return tables, routes

    def _caller(self, text: str) -> _Table:
        table = self._caller_tables.get(text)
        if table is None:
            pattern = parse_principal(text, self._own)
            if pattern.trust_domain != self._own:
                if pattern.trust_domain not in self._federated:
                    domain = shown(pattern.trust_domain.name)
                    raise PolicyFault(f"{shown(text)} is foreign: list {domain} under federated")
                self._foreign.add(pattern.trust_domain)
            table = self._caller_tables[text] = self.callers.add(pattern)
        return table

    def _route(self, text: str) -> int:
        number = self._route_numbers.get(text)
        if number is None:
            number = self._route_numbers[text] = self.routes.add(parse_route(text))
            if number == len(self.route_texts):
                self.route_texts.append(text)
            self.route_texts[number] = min(self.route_texts[number], text)
        return number


def _each(
    texts: Sequence[str],
    entry: Callable[[str], _Entry],
    same: Callable[[_Entry], int],
    at: tuple[str | int, ...],
) -> list[_Entry]:
    """Return the index's entry for each text; refuse none at all and the same one twice."""
    if not texts:
        raise PolicyFault("empty means nobody and nothing; name them or delete the rule", *at)
    entries: list[_Entry] = []
    for place, text in enumerate(texts):
        try:
            entries.append(entry(text))
        except PolicyFault as fault:
            raise fault.under(*at, place) from None
    last = {same(one): place for place, one in enumerate(entries)}
    if len(last) != len(entries):
        twice = next(text for n, text in enumerate(texts) if last[same(entries[n])] != n)
        raise PolicyFault(f"{shown(twice)} stands here twice", *at)
    return entries


def _refuse_pointless(rules: Sequence[Allow], opened: set[str]) -> None:
    if not opened:
        return
    for place, rule in enumerate(rules):
        for n, text in enumerate(rule.routes):
            if text in opened:
                problem = f"{shown(text)} is an open route, so no rule is ever asked; choose one"
                raise PolicyFault(problem, "allow", place, "to", n)


def _refuse_untestable(policy: Policy) -> None:
    ids = {rule.id for rule in policy.allow}
    for place, test in enumerate(policy.tests):
        key = "as"
        try:
            parse_caller(test.principal, policy.trust_domain)
            key = "do"
            split_call(test.do)
            key = "want"
            _refuse_unknown_want(test.want, ids)
        except PolicyFault as fault:
            raise fault.under("test", place, key) from None


def _refuse_unknown_want(want: str, ids: set[str]) -> None:
    verdict, colon, which = want.partition(":")
    if verdict not in {"allow", "deny", "open"} or (colon and verdict == "open"):
        raise PolicyFault('write "allow", "allow:<rule id>", "deny", "deny:<reason>" or "open"')
    if colon and verdict == "allow" and which not in ids:
        raise PolicyFault(f"no allow rule has the id {shown(which)}")
    if colon and verdict == "deny" and which not in _REASONS:
        raise PolicyFault(f"{shown(which)} is no reason; rule.none, rule.deny, token.mode, ...")


def _open_routes(texts: Sequence[str]) -> dict[tuple[str, str], str]:
    opened: dict[tuple[str, str], str] = {}
    for place, text in enumerate(texts):
        try:
            call = _open_call(text)
        except PolicyFault as fault:
            raise fault.under("open", "routes", place) from None
        if call in opened:
            raise PolicyFault(f"{shown(text)} stands here twice", "open", "routes", place)
        opened[call] = text
    return opened


def _open_call(text: str) -> tuple[str, str]:
    pattern = parse_route(text)
    if pattern.method not in {"GET", "HEAD"}:
        raise PolicyFault(f"{shown(text)}: only GET and HEAD can be open")
    if pattern.tail or None in pattern.segments:
        raise PolicyFault(f"{shown(text)}: an open route is one literal path")
    return pattern.method, "/" + "/".join(segment or "" for segment in pattern.segments)


def _digest(policy: Policy) -> str:
    """SHA-256 over all the policy says; comments, aliases and layout of its file do not count."""
    said = [
        policy.service,
        str(policy.trust_domain),
        sorted(map(str, policy.federated)),
        policy.open_routes,
        [(a.id, a.owner, a.principals, a.routes, a.token) for a in policy.allow],
        [(d.id, d.owner, d.principals, d.routes) for d in policy.deny],
        [(t.name, t.principal, t.do, t.want, t.token) for t in policy.tests],
    ]
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()
