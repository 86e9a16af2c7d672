from __future__ import annotations

import pytest

from zerotrust.core.errors import BadPolicy
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Allow, Deny, Policy, PolicyTest
from zerotrust.core.policy.trial import explain, require_tests, run_tests, try_call
from zerotrust.core.request import parse_target
from zerotrust.core.spiffe.ids import TrustDomain

OWN = TrustDomain("example.org")
READ = Allow("read", ("web",), ("GET /orders/{id}", "grpc:a.B/C"))
WRITE = Allow("write", ("web",), ("POST /orders",), Mode.PROOF)
STOP = Deny("stop", ("web",), ("GET /orders/{id}",))


def policy(*tests: PolicyTest, deny: tuple[Deny, ...] = ()) -> Policy:
    return Policy(
        service="orders",
        trust_domain=OWN,
        allow=(READ, WRITE),
        deny=deny,
        open_routes=("GET /healthz",),
        tests=tests,
    )


@pytest.mark.parametrize(
    ("caller", "do", "mode", "verdict"),
    [
        ("web", "GET /orders/7?x=1", Mode.BOUND, "allow:read"),
        ("web", "grpc:a.B/C", Mode.BOUND, "allow:read"),
        ("web", "POST /orders", Mode.BOUND, "deny:token.mode"),
        ("web", "POST /orders", Mode.PROOF, "allow:write"),
        ("db", "GET /orders/7", Mode.BOUND, "deny:rule.none"),
        ("db", "GET /healthz", Mode.BOUND, "open"),
        ("db", "WS /healthz", Mode.BOUND, "deny:rule.none"),
        ("web", "GET /orders/..%2fadmin", Mode.BOUND, "deny:path.ambiguous"),
        ("web", "GET /orders//7", Mode.BOUND, "deny:path.ambiguous"),
        ("web", "GET /orders/é", Mode.BOUND, "deny:path.ambiguous"),
    ],
)
def test_a_trial_goes_the_way_of_a_real_call(
    caller: str, do: str, mode: Mode, verdict: str
) -> None:
    outcome = try_call(policy(), OWN.id(caller), do, mode, parse_target)
    assert outcome.verdict == verdict
    assert outcome.meets(verdict)
    assert outcome.meets(verdict.partition(":")[0])
    assert not outcome.meets("allow:other")


def test_tests_that_pass_leave_nothing_to_say() -> None:
    tests = (
        PolicyTest("reads", "web", "GET /orders/7", "allow:read"),
        PolicyTest("open", "db", "GET /healthz", "open"),
        PolicyTest("writes", "web", "POST /orders", "allow", Mode.PROOF),
    )
    assert require_tests(policy(*tests), parse_target, name="p") == ()


@pytest.mark.parametrize(
    ("test", "got"),
    [
        (PolicyTest("t", "db", "GET /orders/7", "allow"), "deny:rule.none"),
        (PolicyTest("t", "web", "GET /orders/7", "deny"), "allow:read"),
        (PolicyTest("t", "web", "GET /orders/7", "allow:write"), "allow:read"),
        (PolicyTest("t", "web", "POST /orders", "allow"), "deny:token.mode"),
        (PolicyTest("t", "web", "GET /orders/7", "deny:path.ambiguous"), "allow:read"),
    ],
)
def test_a_failing_test_is_named_and_stops_the_load(test: PolicyTest, got: str) -> None:
    with pytest.raises(BadPolicy, match=f"p.toml: test 't': wants {test.want}, got {got}"):
        require_tests(policy(test), parse_target, name="p.toml")


def test_a_deny_rule_that_overrules_a_test_is_told_and_does_not_stop_the_load() -> None:
    reads = PolicyTest("reads", "web", "GET /orders/7", "allow:read")
    (result,) = require_tests(policy(reads, deny=(STOP,)), parse_target, name="p")
    assert (result.met, result.overruled) == (False, True)
    assert str(result) == "test 'reads': wants allow:read, got deny:rule.deny by stop"


def test_a_test_that_wants_a_refusal_is_never_overruled() -> None:
    wants = PolicyTest("t", "web", "GET /orders/7", "deny:rule.none")
    (result,) = run_tests(policy(wants, deny=(STOP,)), parse_target)
    assert not result.overruled
    with pytest.raises(BadPolicy):
        require_tests(policy(wants, deny=(STOP,)), parse_target, name="p")


def test_an_explanation_tells_what_each_rule_misses() -> None:
    stop, read, write = explain(policy(deny=(STOP,)), OWN.id("web"), "POST", "/orders", Mode.BOUND)
    assert (stop.rule.id, stop.missing) == ("stop", ("to",))
    assert (read.rule.id, read.missing) == ("read", ("to",))
    assert (write.rule.id, write.missing, write.applies) == ("write", ("token",), False)
    assert (write.principal, write.route) == ("web", "POST /orders")
    *_, write = explain(policy(), OWN.id("web"), "POST", "/orders", Mode.PROOF)
    assert write.applies
    *_, write = explain(policy(), OWN.id("db"), "GET", "/x", Mode.BOUND)
    assert write.missing == ("from", "to", "token")


@pytest.mark.parametrize(
    ("caller", "path", "missing"),
    [
        ("web", "/orders/7", ()),
        ("db", "/orders/7", ("from",)),
        ("web", "/prices", ("to",)),
    ],
)
def test_a_rule_applies_where_nothing_is_missing(
    caller: str, path: str, missing: tuple[str, ...]
) -> None:
    read = explain(policy(), OWN.id(caller), "GET", path, Mode.BOUND)[0]
    assert (read.rule, read.missing) == (READ, missing)
    assert read.applies is not bool(missing)


@pytest.mark.parametrize(("failing", "more"), [(1, ""), (2, " (and 1 more)")])
def test_tests_that_fail_beside_the_first_are_counted(failing: int, more: str) -> None:
    tests = (PolicyTest("reads", "web", "GET /orders/7", "deny"),) * failing
    with pytest.raises(BadPolicy) as caught:
        require_tests(policy(*tests), parse_target, name="p")
    assert caught.value.detail.endswith(f"got allow:read{more}; mend the rules or the test")
