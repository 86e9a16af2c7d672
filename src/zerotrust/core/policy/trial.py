"""Trying a policy: its inline tests, and why one call is decided as it is.

1. A trial goes the way of a real call: the request filter reads the target, open routes come
   first, then the rules. The filter is an argument: policy and request know nothing of each other.
2. A test that fails keeps its policy from being loaded, with one exception: where a `[[deny]]`
   overrules what the test expects to be allowed. Deny rules are the emergency brake, which must
   not wait until the tests are rewritten; the loader reports such a test instead.
3. `explain` reads every rule by itself, without the index; so the index is held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from zerotrust.core.errors import BadPolicy, Reason, RequestRejected
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Allow, Decision, Deny, Policy, PolicyTest
from zerotrust.core.policy.patterns import (
    parse_caller,
    parse_principal,
    parse_route,
    shown,
    split_call,
)
from zerotrust.core.spiffe.ids import SpiffeId


class ReadTarget(Protocol):
    """What reads a request target: `zerotrust.core.request.parse_target`."""

    def __call__(self, target: bytes, /) -> HasPath:
        """Return the decoded path or raise RequestRejected."""


class HasPath(Protocol):
    """A request target once read."""

    @property
    def path(self) -> str:
        """The decoded path."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one trial: `open`, `allow:<rule>` or `deny:<reason>`."""

    verdict: str
    decision: Decision | None = None  # None where no rule was asked

    def meets(self, want: str) -> bool:
        """Whether this is what a test wants; `allow` and `deny` alone leave open which."""
        return want in {self.verdict, self.verdict.partition(":")[0]}


@dataclass(frozen=True, slots=True)
class TestResult:
    """One inline test and what became of it."""

    __test__ = False  # not a test case of pytest's

    test: PolicyTest
    outcome: Outcome

    @property
    def met(self) -> bool:
        """Whether the test passes."""
        return self.outcome.meets(self.test.want)

    @property
    def overruled(self) -> bool:
        """Whether a deny rule stops what the test expects to be allowed."""
        denied = self.outcome.verdict == f"deny:{Reason.RULE_DENY}"
        return denied and self.test.want.partition(":")[0] == "allow"

    def __str__(self) -> str:
        by = self.outcome.decision.rule if self.outcome.decision else None
        got = self.outcome.verdict + (f" by {by}" if by and self.overruled else "")
        return f"test {shown(self.test.name)}: wants {self.test.want}, got {got}"


@dataclass(frozen=True, slots=True)
class Reading:
    """How one rule reads one call."""

    rule: Allow | Deny
    principal: str | None  # the entry of `from` that covers the caller
    route: str | None  # the entry of `to` that covers the call
    mode_met: bool

    @property
    def applies(self) -> bool:
        """Whether the rule covers the call and its mode is met."""
        return self.principal is not None and self.route is not None and self.mode_met

    @property
    def missing(self) -> tuple[str, ...]:
        """What keeps the rule from applying, in the policy's words."""
        parts = {"from": self.principal is not None, "to": self.route is not None}
        return tuple(key for key, met in {**parts, "token": self.mode_met}.items() if not met)


def try_call(
    policy: Policy, principal: SpiffeId, do: str, mode: Mode, read_target: ReadTarget
) -> Outcome:
    """Decide a call written as in a test: `GET /orders/7?x=1`, `WS /echo`, `grpc:pkg.S/Method`."""
    method, path = split_call(do)
    if path.startswith("/"):
        try:
            path = read_target(path.encode()).path
        except RequestRejected as refused:
            return Outcome(f"deny:{refused.reason}")
    if policy.is_open(method, path) is not None:
        return Outcome("open")
    decision = policy.decide(principal, method, path, mode)
    verdict = f"allow:{decision.rule}" if decision.reason is None else f"deny:{decision.reason}"
    return Outcome(verdict, decision)


def run_tests(policy: Policy, read_target: ReadTarget) -> tuple[TestResult, ...]:
    """Run the policy's inline tests."""
    return tuple(
        TestResult(
            test,
            try_call(
                policy,
                parse_caller(test.principal, policy.trust_domain),
                test.do,
                test.token,
                read_target,
            ),
        )
        for test in policy.tests
    )


def require_tests(policy: Policy, read_target: ReadTarget, *, name: str) -> tuple[TestResult, ...]:
    """Return the tests that a deny rule overrules; raise BadPolicy where any other fails."""
    results = run_tests(policy, read_target)
    failed = [result for result in results if not result.met and not result.overruled]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise BadPolicy(f"{name}: {failed[0]}{more}; mend the rules or the test")
    return tuple(result for result in results if not result.met)


def explain(
    policy: Policy, principal: SpiffeId, method: str, path: str, mode: Mode
) -> tuple[Reading, ...]:
    """Return how each rule reads the call, deny rules first; time grows with the policy."""

    def read(rule: Allow | Deny) -> Reading:
        by_caller = _first(
            rule.principals,
            lambda text: parse_principal(text, policy.trust_domain).covers(principal),
        )
        by_route = _first(rule.routes, lambda text: parse_route(text).covers(method, path))
        return Reading(rule, by_caller, by_route, isinstance(rule, Deny) or mode >= rule.token)

    return (*map(read, policy.deny), *map(read, policy.allow))


def _first(texts: tuple[str, ...], covers: Callable[[str], bool]) -> str | None:
    return next(filter(covers, texts), None)
