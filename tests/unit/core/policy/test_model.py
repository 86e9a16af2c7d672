from __future__ import annotations

import dataclasses
import itertools

import pytest

from zerotrust.core.errors import Reason
from zerotrust.core.mode import Mode
from zerotrust.core.policy import model
from zerotrust.core.policy.model import Allow, Decision, Deny, Policy, PolicyTest
from zerotrust.core.policy.patterns import PolicyFault
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

OWN = TrustDomain("example.org")
PARTNER = TrustDomain("partner.example")
WEB = OWN.id("web")


def policy(*rules: Allow | Deny, **more: object) -> Policy:
    return Policy(
        service="orders",
        trust_domain=OWN,
        allow=tuple(rule for rule in rules if isinstance(rule, Allow)),
        deny=tuple(rule for rule in rules if isinstance(rule, Deny)),
        **more,  # type: ignore[arg-type]
    )


READ = Allow("read", ("web",), ("GET /orders/{id}",))


def test_what_a_rule_allows_is_allowed() -> None:
    decision = policy(READ).decide(WEB, "GET", "/orders/7", Mode.BOUND)
    assert decision == Decision(None, "read", "GET /orders/{id}")


@pytest.mark.parametrize(
    ("caller", "method", "path"),
    [
        ("db", "GET", "/orders/7"),
        ("web", "POST", "/orders/7"),
        ("web", "GET", "/orders"),
        ("web", "WS", "/orders/7"),
        ("web", "grpc", "orders/7"),
        ("web", "GET", "*"),
        ("web", "GET", ""),
    ],
)
def test_what_no_rule_allows_is_refused(caller: str, method: str, path: str) -> None:
    assert policy(READ).decide(OWN.id(caller), method, path, Mode.BOUND).reason is Reason.RULE_NONE


def test_an_empty_policy_refuses_everything() -> None:
    decision = policy().decide(WEB, "GET", "/", Mode.SEALED)
    assert decision == Decision(Reason.RULE_NONE, None, None)


def test_a_refusal_still_names_the_template_for_the_audit_log() -> None:
    decision = policy(READ).decide(OWN.id("db"), "GET", "/orders/7", Mode.BOUND)
    assert decision.route == "GET /orders/{id}"


def test_the_same_path_in_another_trust_domain_is_another_caller() -> None:
    foreign = SpiffeId.parse("spiffe://partner.example/web")
    assert policy(READ).decide(foreign, "GET", "/orders/7", Mode.BOUND).reason is Reason.RULE_NONE


def test_a_federated_caller_is_allowed_by_its_full_id_only() -> None:
    rule = Allow("partner", ("spiffe://partner.example/web",), ("GET /a",))
    federated = policy(rule, federated=frozenset({PARTNER}))
    assert federated.decide(PARTNER.id("web"), "GET", "/a", Mode.BOUND).reason is None
    assert federated.decide(PARTNER.id("web2"), "GET", "/a", Mode.BOUND).reason is Reason.RULE_NONE
    assert federated.decide(WEB, "GET", "/a", Mode.BOUND).reason is Reason.RULE_NONE


def test_a_segment_of_dots_is_text_for_the_index() -> None:
    tail = policy(Allow("all", ("ns/...",), ("GET /a",)), Allow("any", ("x/*/y",), ("GET /a",)))
    for path in ("...", "ns", "x/.../z"):
        assert tail.decide(OWN.id(path), "GET", "/a", Mode.BOUND).reason is Reason.RULE_NONE


def test_a_deny_rule_overrules_every_allow_rule_in_any_order() -> None:
    deny = Deny("stop", ("*",), ("* /orders/{x...}",))
    more = Allow("more", ("web",), ("GET /x",))
    written: list[Allow | Deny] = [READ, deny, more]
    for rules in itertools.permutations(written):
        decision = policy(*rules).decide(WEB, "GET", "/orders/7", Mode.PROOF)
        assert decision == Decision(Reason.RULE_DENY, "stop", "* /orders/{x...}")
        assert policy(*rules).decide(WEB, "GET", "/x", Mode.BOUND).reason is None


@pytest.mark.parametrize(("method", "path"), [("WS", "/a"), ("grpc", "a.B/C")])
def test_a_rule_for_every_http_path_opens_no_websocket_and_no_grpc(method: str, path: str) -> None:
    rules = policy(Allow("all", ("web",), ("* /{path...}",)))
    assert rules.decide(WEB, "GET", "/a", Mode.BOUND).rule == "all"
    assert rules.decide(WEB, method, path, Mode.BOUND).reason is Reason.RULE_NONE


def test_a_star_denies_websockets_and_grpc_too() -> None:
    ws, grpc = Allow("ws", ("web",), ("WS /e",)), Allow("g", ("web",), ("grpc:a.B/C",))
    braked = policy(READ, ws, grpc, Deny("stop", ("...",), ("*",)))
    for method, path in (("GET", "/orders/7"), ("WS", "/e"), ("grpc", "a.B/C")):
        assert braked.decide(WEB, method, path, Mode.BOUND).reason is Reason.RULE_DENY


def test_a_get_rule_never_opens_a_websocket() -> None:
    rules = policy(Allow("get", ("web",), ("GET /echo", "* /any")))
    assert rules.decide(WEB, "WS", "/echo", Mode.BOUND).reason is Reason.RULE_NONE
    assert rules.decide(WEB, "WS", "/any", Mode.BOUND).reason is Reason.RULE_NONE


def test_a_rule_that_matches_but_for_its_mode_says_what_it_needs() -> None:
    proof = policy(Allow("write", ("web",), ("POST /orders",), Mode.PROOF))
    decision = proof.decide(WEB, "POST", "/orders", Mode.BOUND)
    assert decision == Decision(Reason.TOKEN_MODE, "write", "POST /orders", Mode.PROOF)
    assert proof.decide(WEB, "POST", "/orders", Mode.PROOF).reason is None
    assert proof.decide(WEB, "POST", "/orders", Mode.SEALED).reason is None
    assert proof.needs_proof
    assert not policy(READ).needs_proof


def test_any_satisfied_rule_wins_over_a_stricter_one() -> None:
    strict = Allow("a-strict", ("web",), ("GET /orders/{id}",), Mode.PROOF)
    rules = policy(strict, Allow("z-wide", ("*",), ("GET /orders/{x...}",)))
    assert rules.decide(WEB, "GET", "/orders/7", Mode.BOUND).rule == "z-wide"
    assert rules.decide(WEB, "GET", "/orders/7", Mode.PROOF).reason is None


def test_open_routes_are_literal_and_exact() -> None:
    opened = policy(READ, open_routes=("GET /healthz", "HEAD /healthz"))
    assert opened.is_open("GET", "/healthz") == "GET /healthz"
    for method, path in (("POST", "/healthz"), ("WS", "/healthz"), ("GET", "/healthz/")):
        assert opened.is_open(method, path) is None


@pytest.mark.parametrize(
    "route", ["POST /a", "WS /a", "* /a", "*", "GET /{x}", "GET /{x...}", "grpc:a.B/C", "/a"]
)
def test_only_a_literal_get_or_head_can_be_open(route: str) -> None:
    with pytest.raises(PolicyFault) as caught:
        policy(open_routes=("GET /ok", route))
    assert caught.value.at == ("open", "routes", 1)


@pytest.mark.parametrize(
    ("rules", "at"),
    [
        ([READ, dataclasses.replace(READ, routes=("GET /x",))], ("allow", 1, "id")),
        ([READ, Deny("read", ("web",), ("*",))], ("deny", 0, "id")),
        ([Allow("a b", ("web",), ("GET /x",))], ("allow", 0, "id")),
        ([Allow("a", (), ("GET /x",))], ("allow", 0, "from")),
        ([Allow("a", ("web",), ())], ("allow", 0, "to")),
        ([Allow("a", ("web", "web"), ("GET /x",))], ("allow", 0, "from")),
        ([Allow("a", ("web", "spiffe://example.org/web"), ("GET /x",))], ("allow", 0, "from")),
        ([Allow("a", ("web",), ("GET /{x}", "GET /{y}"))], ("allow", 0, "to")),
        ([Allow("a", ("web",), ("GET /x", "*"))], ("allow", 0, "to", 1)),
        ([Allow("a", ("web", "x//y"), ("GET /x",))], ("allow", 0, "from", 1)),
        ([Deny("a", ("web",), ("GET x",))], ("deny", 0, "to", 0)),
        ([Allow("a", ("spiffe://evil.example/web",), ("GET /x",))], ("allow", 0, "from", 0)),
        ([READ, Allow("z", ("web",), ("GET /orders/{n}",))], ("allow", 1, "id")),
        ([READ, Allow("z", ("web",), ("GET /orders/{n}",), Mode.PROOF)], ("allow", 1, "id")),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    rules: list[Allow | Deny], at: tuple[str | int, ...]
) -> None:
    with pytest.raises(PolicyFault) as caught:
        policy(*rules)
    assert caught.value.at == at


def test_a_rule_that_only_another_mode_shadows_in_part_stays() -> None:
    policy(READ, Allow("z", ("web",), ("GET /orders/{n}", "GET /x"), Mode.PROOF))


def test_a_deny_rule_never_makes_an_allow_rule_unreachable() -> None:
    # it is the emergency brake: the file must still load
    policy(READ, Deny("stop", ("web",), ("GET /orders/{id}",)))


def test_a_rule_for_an_open_route_is_refused() -> None:
    with pytest.raises(PolicyFault, match="open route"):
        policy(Allow("a", ("web",), ("GET /healthz",)), open_routes=("GET /healthz",))


@pytest.mark.parametrize("federated", [{OWN}, {PARTNER}])
def test_a_federated_domain_is_foreign_and_used(federated: set[TrustDomain]) -> None:
    with pytest.raises(PolicyFault) as caught:
        policy(READ, federated=frozenset(federated))
    assert caught.value.at == ("federated",)


@pytest.mark.parametrize(
    ("test", "key"),
    [
        (PolicyTest("t", "web/*", "GET /x", "deny"), "as"),
        (PolicyTest("t", "web", "x", "deny"), "do"),
        (PolicyTest("t", "web", "GET /x", "allowed"), "want"),
        (PolicyTest("t", "web", "GET /x", "allow:nobody"), "want"),
        (PolicyTest("t", "web", "GET /x", "deny:nothing"), "want"),
        (PolicyTest("t", "web", "GET /x", "open:x"), "want"),
    ],
)
def test_a_test_that_says_nothing_is_refused(test: PolicyTest, key: str) -> None:
    with pytest.raises(PolicyFault) as caught:
        policy(READ, tests=(test,))
    assert caught.value.at == ("test", 0, key)


def test_rules_and_pairs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Allow("a", ("x", "y"), ("GET /a", "GET /b"))
    monkeypatch.setattr(model, "MAX_PAIRS", 4)
    policy(wide)
    monkeypatch.setattr(model, "MAX_PAIRS", 3)
    with pytest.raises(PolicyFault, match="pairs"):
        policy(wide)
    monkeypatch.setattr(model, "MAX_RULES", 0)
    with pytest.raises(PolicyFault, match="rules"):
        policy(wide)


def test_a_service_has_a_name() -> None:
    with pytest.raises(PolicyFault, match="service"):
        Policy(service="", trust_domain=OWN)


def test_a_policy_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy(READ).allow = ()  # type: ignore[misc]


def test_the_digest_changes_with_what_the_policy_says() -> None:
    variants = [
        policy(READ),
        policy(),
        policy(dataclasses.replace(READ, owner="team")),
        policy(dataclasses.replace(READ, token=Mode.PROOF)),
        policy(Deny("read", READ.principals, READ.routes)),
        policy(READ, open_routes=("GET /h",)),
        policy(READ, tests=(PolicyTest("t", "web", "GET /x", "deny"),)),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)
    assert policy(READ).digest == policy(READ).digest


def test_two_spellings_of_one_caller_share_what_both_rules_allow() -> None:
    policy = parse_policy(
        b"""
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "by-path"
from = ["web"]
to = ["GET /a"]
[[allow]]
id = "by-id"
from = ["spiffe://example.org/web"]
to = ["GET /b"]
[[allow]]
id = "team-c"
from = ["team/*"]
to = ["GET /c"]
[[allow]]
id = "team-d"
from = ["team/*"]
to = ["GET /d"]
"""
    )
    member = SpiffeId.parse("spiffe://example.org/team/x")
    assert policy.decide(member, "GET", "/c", Mode.BOUND).rule == "team-c"
    assert policy.decide(member, "GET", "/d", Mode.BOUND).rule == "team-d"
    web = SpiffeId.parse("spiffe://example.org/web")
    assert policy.decide(web, "GET", "/a", Mode.BOUND).rule == "by-path"
    assert policy.decide(web, "GET", "/b", Mode.BOUND).rule == "by-id"


def test_our_own_trust_domain_is_never_federated() -> None:
    rule = Allow("partner", ("spiffe://partner.example/web",), ("GET /a",))
    assert policy(rule, federated=frozenset({PARTNER}))
    with pytest.raises(PolicyFault, match="is never federated"):
        policy(rule, federated=frozenset({PARTNER, OWN}))


def test_rules_are_counted_to_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_RULES", 2)
    stop = Deny("stop", ("batch",), ("*",))
    assert policy(READ, stop)
    with pytest.raises(PolicyFault, match="more than 2 rules"):
        policy(READ, stop, Deny("stop-too", ("web",), ("*",)))


def test_a_template_under_two_names_leaves_the_texts_of_others_as_they_are() -> None:
    twice = Allow("twice", ("db",), ("GET /orders/{number}",))
    after = Allow("after", ("web",), ("GET /prices",))
    decision = policy(READ, twice, after).decide(WEB, "GET", "/prices", Mode.BOUND)
    assert decision == Decision(None, "after", "GET /prices")
