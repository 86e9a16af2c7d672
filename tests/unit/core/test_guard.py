"""The guard beyond the catalogue: open routes, replay answers, changed trust, the unforeseen."""

from __future__ import annotations

import copy
import pickle
import time
from dataclasses import replace

import pytest

from zerotrust.core import guard as module
from zerotrust.core.errors import Reason
from zerotrust.core.guard import Allowed, Call, Caller, Claim, Guard, NeedsClaim, Refused
from zerotrust.core.memo import Budget, Memo
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Decision, Policy
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.x509_svid import verify_x509_svid
from zerotrust.core.tokens.wpt import mint_bound
from zerotrust.probe.catalogue import Material
from zerotrust.probe.forge import ForgedAuthority

NOW = float(int(time.time()))
POLICY = parse_policy(
    b"""
schema = 1
service = "ledger"
trust_domain = "example.org"
mode = "enforce"
[open]
routes = ["GET /open"]
[[allow]]
id = "read"
from = ["web"]
to = ["GET /a", "WS /a"]
[[allow]]
id = "strict"
from = ["web"]
to = ["GET /p"]
token = "proof"
[[deny]]
id = "batch-is-out"
from = ["batch"]
to = ["*"]
"""
)
CA = ForgedAuthority("example.org", now=NOW)
BUNDLES = CA.bundles
WEB = CA.snapshot("web", bundles=BUNDLES)
M = Material(
    now=NOW,
    authority=CA,
    foreign=CA,
    honest=WEB,
    neighbour=WEB,
    target=CA.id("ledger"),
    host="localhost:8443",
    path=b"/a",
    proof_path=b"/p",
)


def guard(
    *,
    bundles: BundleSet = BUNDLES,
    policy: Policy = POLICY,
    started_at: float = NOW - 60,
    covered: tuple[str, ...] = (),
) -> Guard:
    return Guard(
        own_id=CA.id("ledger"),
        authorities=["localhost:8443"],
        bundles=bundles,
        policy=policy,
        started_at=started_at,
        covered=covered,
    )


PEER = verify_x509_svid(WEB.svid.chain_der, BUNDLES, NOW)


def call(target: bytes = b"/a", *, wpt: str | None = None, **changes: object) -> Call:
    request = M.call(wpt=wpt, target=target).request
    headers = [(name.lower(), value) for name, value in request.headers]
    return replace(Call("http", "GET", target, headers, PEER), **changes)  # type: ignore[arg-type]


def proof_call() -> Call:
    return call(b"/p", wpt=M.proof())


def reason(answer: Allowed | Refused | NeedsClaim) -> Reason:
    assert isinstance(answer, Refused), answer
    return answer.error.reason


def test_an_allowed_call_yields_a_caller() -> None:
    answer = guard().decide(call(), NOW)
    assert isinstance(answer, Allowed)
    assert answer.caller is not None
    assert (answer.caller.id, answer.caller.mode) == (WEB.svid.id, Mode.BOUND)
    assert (answer.caller.rule, answer.caller.route) == ("read", "GET /a")
    assert answer.caller.expires_at == answer.expires_at == NOW + 120
    assert "web" in repr(answer.caller)


def test_the_decision_ends_with_the_first_thing_it_rests_on() -> None:
    short = CA.snapshot("web", bundles=BUNDLES, ttl=10)
    peer = verify_x509_svid(short.svid.chain_der, BUNDLES, NOW)
    answer = guard().decide(call(wpt=M.bound(svid=short.svid), peer=peer), NOW)
    assert isinstance(answer, Allowed)
    assert answer.expires_at == NOW + 10


def test_the_decision_ends_with_the_identity_token_where_that_is_first() -> None:
    wit = CA.wit("web", M.key, ttl=20)
    headers = [(n.lower(), v) for n, v in M.call(wit=wit).request.headers]
    answer = guard().decide(call(headers=headers), NOW)
    assert isinstance(answer, Allowed)
    assert answer.expires_at == NOW + 20


def test_a_websocket_is_judged_by_its_own_rule() -> None:
    answer = guard().decide(call(kind="websocket"), NOW)
    assert isinstance(answer, Allowed)
    assert answer.route == "WS /a"


def test_an_open_route_asks_for_the_certificate_and_for_no_token() -> None:
    headers = [(b"host", b"localhost:8443")]
    answer = guard().decide(call(b"/open", headers=headers), NOW)
    assert answer == Allowed(None, "GET /open", PEER.expires_at)
    assert reason(guard().decide(call(b"/open", headers=headers, peer=None), NOW)) is (
        Reason.PEER_NONE
    )
    assert reason(guard().decide(call(b"/open", headers=headers, method="POST"), NOW)) is (
        Reason.TOKEN_MISSING
    )


@pytest.mark.parametrize("change", [{"id": None}, {}])
def test_nobody_builds_a_caller(change: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        Caller(**change)


def test_a_caller_does_not_change_and_does_not_leave_its_process() -> None:
    answer = guard().decide(call(), NOW)
    assert isinstance(answer, Allowed)
    with pytest.raises(AttributeError):
        answer.caller.mode = Mode.PROOF  # type: ignore[union-attr]
    with pytest.raises(TypeError):
        pickle.dumps(answer.caller)
    with pytest.raises(TypeError):
        copy.copy(answer.caller)


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        (Claim.USED, Reason.TOKEN_REPLAY),
        (Claim.FULL, Reason.REPLAY_FULL),
        (Claim.OVER_QUOTA, Reason.REPLAY_QUOTA),
    ],
)
def test_only_a_new_proof_goes_on(claimed: Claim, expected: Reason) -> None:
    gate = guard()
    need = gate.decide(proof_call(), NOW)
    assert isinstance(need, NeedsClaim)
    assert (need.subject, need.expires_at) == (str(WEB.svid.id), NOW + 30)
    assert reason(gate.finish(need, claimed, NOW)) is expected
    answer = gate.finish(need, Claim.NEW, NOW)
    assert isinstance(answer, Allowed)
    assert answer.caller is not None
    assert answer.caller.mode is Mode.PROOF


def test_a_proof_that_ends_while_the_store_is_asked_is_refused() -> None:
    gate = guard()
    need = gate.decide(proof_call(), NOW)
    assert isinstance(need, NeedsClaim)
    assert reason(gate.finish(need, Claim.NEW, NOW + 30)) is Reason.TOKEN_EXPIRED


def test_a_proof_from_before_this_process_began_is_refused() -> None:
    assert isinstance(guard(started_at=NOW).decide(proof_call(), NOW), NeedsClaim)
    late = guard(started_at=NOW + 0.5)
    assert reason(late.decide(proof_call(), NOW + 1)) is Reason.TOKEN_STALE


def test_a_bound_token_where_a_proof_is_asked_says_so() -> None:
    answer = guard().decide(call(b"/p"), NOW)
    assert reason(answer) is Reason.TOKEN_MODE


def test_a_proof_satisfies_a_route_that_asks_for_less() -> None:
    gate = guard()
    need = gate.decide(call(b"/a", wpt=M.proof(target=b"/a")), NOW)
    assert isinstance(need, NeedsClaim)
    assert isinstance(gate.finish(need, Claim.NEW, NOW), Allowed)


def test_a_deny_rule_is_named_in_the_refusal() -> None:
    batch = CA.snapshot("batch", bundles=BUNDLES)
    material = Material(**{**vars(M), "honest": batch})
    headers = [(n.lower(), v) for n, v in material.call().request.headers]
    peer = verify_x509_svid(batch.svid.chain_der, BUNDLES, NOW)
    answer = guard().decide(call(headers=headers, peer=peer), NOW)
    assert isinstance(answer, Refused)
    assert (answer.error.reason, answer.rule) == (Reason.RULE_DENY, "batch-is-out")


def test_remembered_tokens_end_when_they_expire() -> None:
    gate = guard()
    assert isinstance(gate.decide(call(), NOW), Allowed)
    assert isinstance(gate.decide(call(), NOW + 100), Allowed)
    good = call(wpt=M.bound(ttl=290))
    assert isinstance(gate.decide(good, NOW), Allowed)
    assert reason(gate.decide(call(wpt=M.bound(ttl=100)), NOW + 100)) is Reason.TOKEN_EXPIRED
    seen = call(wpt=M.bound(ttl=100))
    assert isinstance(gate.decide(seen, NOW), Allowed)
    assert reason(gate.decide(seen, NOW + 100)) is Reason.TOKEN_EXPIRED


def test_a_remembered_identity_token_ends_when_it_expires() -> None:
    gate = guard()
    wit = CA.wit("web", M.key, ttl=20)
    headers = [(n.lower(), v) for n, v in M.call(wit=wit).request.headers]
    assert isinstance(gate.decide(call(headers=headers), NOW), Allowed)
    assert reason(gate.decide(call(headers=headers), NOW + 20)) is Reason.TOKEN_EXPIRED


def test_an_expired_certificate_ends_a_long_connection() -> None:
    assert reason(guard().decide(call(), PEER.expires_at)) is Reason.PEER_EXPIRED


def test_a_peer_is_verified_again_when_the_bundles_changed() -> None:
    other = ForgedAuthority("partner.example", now=NOW)
    wider = guard(bundles=BundleSet([CA.bundle, other.bundle]))
    assert isinstance(wider.decide(call(), NOW), Allowed)
    assert isinstance(wider.decide(call(), NOW), Allowed)  # from what was verified again
    assert reason(wider.decide(call(), PEER.expires_at)) is Reason.PEER_EXPIRED


def test_a_peer_whose_root_was_dropped_is_refused() -> None:
    successor = ForgedAuthority("example.org", now=NOW, name="successor")
    narrow = guard(bundles=BundleSet([successor.bundle]))
    assert reason(narrow.decide(call(), NOW)) is Reason.PEER_UNTRUSTED


@pytest.mark.parametrize(
    "bundles",
    [
        BundleSet([]),
        BundleSet([TrustBundle(CA.trust_domain, (), {})]),
        BundleSet([ForgedAuthority("partner.example", now=NOW).bundle]),
    ],
    ids=["none", "empty", "another domain's"],
)
def test_without_anchors_of_our_own_nothing_is_decided(bundles: BundleSet) -> None:
    assert reason(guard(bundles=bundles).decide(call(), NOW)) is Reason.BUNDLE_NONE


@pytest.mark.parametrize("name", [b"authorization", b"workload-identity-token"])
def test_a_token_beyond_ascii_is_malformed(name: bytes) -> None:
    headers = [(n, v + "\u00e9".encode("latin-1") if n == name else v) for n, v in call().headers]
    assert reason(guard().decide(call(headers=headers), NOW)) is Reason.TOKEN_MALFORMED


USER: tuple[bytes, bytes] = (b"x-user-token", b"user")


def covering_call() -> Call:
    """Return a call whose proof covers the user's token, which it carries."""
    covering = mint_bound(
        wit=M.wit,
        key=M.key,
        audience=str(CA.id("ledger")),
        x5t=PEER.thumbprint,
        expires_at=int(NOW) + 60,
        jti="j" * 22,
        other_tokens={"x-user-token": "user"},
    )
    good = call(wpt=covering)
    return replace(good, headers=[*good.headers, USER])


def test_a_running_exchange_goes_on_while_certificate_and_policy_allow_it() -> None:
    gate = guard()
    allowed = gate.decide(call(), NOW)
    assert isinstance(allowed, Allowed)
    assert gate.still_allows(PEER, allowed, "GET", "/a", NOW)
    assert gate.still_allows(PEER, allowed, "GET", "/a", NOW + 1000)  # tokens may end meanwhile


def test_a_running_exchange_ends_with_what_it_rests_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = guard()
    allowed = gate.decide(call(), NOW)
    assert isinstance(allowed, Allowed)
    closed = parse_policy(
        b'schema = 1\nservice = "ledger"\ntrust_domain = "example.org"\nmode = "enforce"\n'
        b'[[deny]]\nid = "out"\nfrom = ["web"]\nto = ["*"]\n'
    )
    successor = BundleSet([ForgedAuthority("example.org", now=NOW, name="successor").bundle])
    assert not gate.still_allows(None, allowed, "GET", "/a", NOW)
    assert not gate.still_allows(PEER, allowed, "GET", "/a", PEER.expires_at)
    assert not guard(policy=closed).still_allows(PEER, allowed, "GET", "/a", NOW)
    assert not guard(bundles=successor).still_allows(PEER, allowed, "GET", "/a", NOW)
    monkeypatch.setattr(Policy, "decide", _broken)
    assert not gate.still_allows(PEER, allowed, "GET", "/a", NOW)


def test_a_running_exchange_on_an_open_route_ends_when_the_route_closes() -> None:
    gate = guard()
    allowed = gate.decide(call(b"/open", headers=[(b"host", b"localhost:8443")]), NOW)
    assert isinstance(allowed, Allowed)
    assert gate.still_allows(PEER, allowed, "GET", "/open", NOW)
    assert not gate.still_allows(PEER, allowed, "GET", "/a", NOW)


def test_a_covered_token_is_accepted_and_an_uncovered_one_refused() -> None:
    gate = guard(covered=("X-User-Token",))
    assert isinstance(gate.decide(covering_call(), NOW), Allowed)
    bare = call()
    assert reason(gate.decide(replace(bare, headers=[*bare.headers, USER]), NOW)) is (
        Reason.TOKEN_OTHER_BINDING
    )


@pytest.mark.parametrize("added", [USER, (b"txn-token", b"a.b.c")], ids=["covered", "txn-token"])
def test_a_remembered_proof_covers_no_token_that_is_added_later(added: tuple[bytes, bytes]) -> None:
    gate, plain = guard(covered=("X-User-Token",)), call()
    assert isinstance(gate.decide(plain, NOW), Allowed)
    assert reason(gate.decide(replace(plain, headers=[*plain.headers, added]), NOW)) is (
        Reason.TOKEN_OTHER_BINDING
    )


def test_a_proof_that_was_accepted_is_refused_once_the_token_it_covers_is_taken_away() -> None:
    gate, whole = guard(covered=("X-User-Token",)), covering_call()
    assert isinstance(gate.decide(whole, NOW), Allowed)
    bare = [field for field in whole.headers if field != USER]
    assert reason(gate.decide(replace(whole, headers=bare), NOW)) is Reason.TOKEN_OTHER_BINDING


def _broken(*_args: object, **_kwargs: object) -> None:
    raise RecursionError("as deep as it goes")


def test_what_nobody_foresaw_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = guard()
    need = gate.decide(proof_call(), NOW)
    assert isinstance(need, NeedsClaim)
    monkeypatch.setattr(Policy, "decide", _broken)
    assert reason(gate.decide(call(), NOW)) is Reason.UNFORESEEN
    assert reason(gate.finish(need, Claim.NEW, NOW)) is Reason.UNFORESEEN


@pytest.mark.parametrize(("rule", "route"), [(None, "GET /a"), ("read", None)])
def test_a_decision_that_names_no_rule_or_no_route_allows_nothing(
    monkeypatch: pytest.MonkeyPatch, rule: str | None, route: str | None
) -> None:
    def empty(*_args: object) -> Decision:
        return Decision(None, rule, route)

    gate = guard()
    monkeypatch.setattr(Policy, "decide", empty)
    assert reason(gate.decide(call(), NOW)) is Reason.RULE_NONE


def test_identity_tokens_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED_TOKENS", 3)
    gate = guard()
    for _ in range(5):
        wit = CA.wit("web", M.key)
        headers = [(n.lower(), v) for n, v in M.call(wit=wit).request.headers]
        assert isinstance(gate.decide(call(headers=headers), NOW), Allowed)
    assert len(gate._identities) == len(gate._proofs) == 3


def test_a_caller_that_mints_without_end_pushes_out_only_its_own_proofs() -> None:
    gate = guard()
    other = CA.snapshot("web", bundles=BUNDLES)
    material = Material(**{**vars(M), "honest": other})
    headers = [(n.lower(), v) for n, v in material.call().request.headers]
    peer = verify_x509_svid(other.svid.chain_der, BUNDLES, NOW)
    assert isinstance(gate.decide(call(headers=headers, peer=peer), NOW), Allowed)
    for _ in range(module.MAX_REMEMBERED_PROOFS + 3):
        assert isinstance(gate.decide(call(), NOW), Allowed)
    assert sorted(len(proofs) for proofs in gate._proofs.values()) == [
        1,
        module.MAX_REMEMBERED_PROOFS,
    ]


def test_remembering_a_route_again_replaces_what_was_remembered() -> None:
    gate, memo = guard(), Memo(Budget(5))
    first, second = call(), call(wpt=M.bound(ttl=60))
    for one in (first, second):
        answer = gate.decide(one, NOW)
        assert isinstance(answer, Allowed)
        memo.remember(gate, one, answer)
    assert memo._budget.left == 4
    assert memo.recall(gate, "http", "GET", b"/a", first.headers, NOW) is None
    assert memo.recall(gate, "http", "GET", b"/a", second.headers, NOW) is not None
