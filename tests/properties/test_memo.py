"""A remembered decision equals a fresh one, for any two requests on one connection."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerotrust.core.guard import Allowed, Call, Claim, Guard, NeedsClaim, Refused
from zerotrust.core.memo import MAX_ENTRIES, Budget, Memo
from zerotrust.core.policy.model import Policy
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.x509_svid import verify_x509_svid
from zerotrust.probe.forge import ForgedAuthority

NOW = float(int(time.time()))
POLICY = """
schema = 1
service = "ledger"
trust_domain = "example.org"
mode = "enforce"
[open]
routes = ["GET /open"]
[[allow]]
id = "read"
from = ["orders"]
to = ["GET /a/{x}", "WS /ws", "GET /ws"]
[[allow]]
id = "strict"
from = ["orders"]
to = ["GET /p"]
token = "proof"
"""
AUTHORITY = ForgedAuthority("example.org", now=NOW)
BUNDLES = AUTHORITY.bundles
CALLER = AUTHORITY.snapshot("orders", bundles=BUNDLES)
PEER = verify_x509_svid(CALLER.svid.chain_der, BUNDLES, NOW)


def guard(policy: str | Policy = POLICY) -> Guard:
    return Guard(
        own_id=AUTHORITY.id("ledger"),
        authorities=["localhost:8443"],
        bundles=BUNDLES,
        policy=parse_policy(policy.encode()) if isinstance(policy, str) else policy,
        started_at=NOW - 100,
        covered=["x-user-token"],
    )


GUARD = guard()


def _wpt(**changes: object) -> bytes:
    assert CALLER.wit is not None
    options: dict[str, object] = {"aud": str(GUARD.own_id), "x5t": PEER.thumbprint, **changes}
    return b"WPT " + AUTHORITY.wpt(CALLER.wit.token, CALLER.wit.key, **options).encode()  # type: ignore[arg-type]


assert CALLER.wit is not None
WIT = CALLER.wit.token.encode()
GOOD = _wpt()
SHORT = _wpt(ttl=60)
PROOF = _wpt(aud="https://localhost:8443/p", method="GET", target=b"/p")
BASE = [(b"host", b"localhost:8443"), (b"workload-identity-token", WIT), (b"authorization", GOOD)]

headers = st.lists(
    st.sampled_from(
        [
            *BASE,
            (b"authorization", SHORT),
            (b"authorization", PROOF),
            (b"Authorization", GOOD),
            (b"host", b"evil.example"),
            (b"host", b"localhost"),
            (b"connection", b"authorization"),
            (b"connection", b"keep-alive"),
            (b"workload_identity_token", WIT),
            (b"txn-token", b"x"),
            (b"x-user-token", b"x"),
            (b"X_User-Token", b"x"),
            (b"x-forwarded-client-cert", b"x"),
            (b"accept", b"*/*"),
        ]
    ),
    max_size=3,
).map(lambda extra: [*BASE, *extra])
removed = st.sampled_from([None, 0, 1, 2])
calls = st.builds(
    lambda kind, method, target, fields, gone: Call(
        kind, method, target, [f for i, f in enumerate(fields) if i != gone], PEER
    ),
    st.sampled_from(["http", "websocket"]),
    st.sampled_from(["GET", "POST", "get"]),
    st.sampled_from([b"/a/1", b"/a/1?q", b"/a/%31", b"/ws", b"/p", b"/open", b"/b", b"//a/1"]),
    headers,
    removed,
)
moments = st.sampled_from([NOW, NOW + 59, NOW + 61, NOW + 119, NOW + 121, NOW + 3601])


def outcome(answer: Allowed | Refused | NeedsClaim) -> object:
    if isinstance(answer, NeedsClaim):
        answer = GUARD.finish(answer, Claim.NEW, NOW)
    if isinstance(answer, Refused):
        return answer.error.reason
    return (answer.route, answer.caller and answer.caller.rule, answer.expires_at)


def warm(memo: Memo, current: Guard, call: Call, now: float) -> object:
    known = memo.recall(current, call.kind, call.method, call.target, call.headers, now)
    if known is not None:
        return outcome(known.allowed)
    answer = current.decide(call, now)
    if isinstance(answer, Allowed):
        memo.remember(current, call, answer)
    return outcome(answer)


@settings(max_examples=600)
@given(calls, calls, moments)
def test_the_warm_decision_equals_the_cold_one(first: Call, second: Call, later: float) -> None:
    memo = Memo(Budget(100))
    warm(memo, GUARD, first, NOW)
    assert warm(memo, GUARD, second, later) == outcome(guard(GUARD.policy).decide(second, later))


HONEST = Call("http", "GET", b"/a/1", BASE, PEER)


@pytest.fixture
def memo() -> Memo:
    memo = Memo(Budget(100))
    assert isinstance(warm(memo, GUARD, HONEST, NOW), tuple)
    return memo


def recalled(memo: Memo, call: Call, current: Guard = GUARD, now: float = NOW) -> bool:
    return memo.recall(current, call.kind, call.method, call.target, call.headers, now) is not None


def test_the_same_call_is_remembered(memo: Memo) -> None:
    assert recalled(memo, HONEST)
    assert recalled(memo, replace(HONEST, headers=[*BASE, (b"accept", b"x")]))


@pytest.mark.parametrize(
    "call",
    [
        replace(HONEST, headers=[*BASE, BASE[2]]),
        replace(HONEST, headers=[*BASE, (b"workload_identity_token", WIT)]),
        replace(HONEST, headers=[*BASE, (b"Workload-Identity_Token", WIT)]),
        replace(HONEST, headers=[(b"host", b"evil.example"), *BASE[1:]]),
        replace(HONEST, headers=[*BASE, (b"connection", b"authorization")]),
        replace(HONEST, headers=[*BASE, (b"txn-token", b"x")]),
        replace(HONEST, headers=[*BASE, (b"x-user-token", b"x")]),
        replace(HONEST, headers=[BASE[1], BASE[0], BASE[2]]),
        replace(HONEST, headers=BASE[:2]),
        replace(HONEST, kind="websocket"),
        replace(HONEST, method="POST"),
        replace(HONEST, target=b"/a/1?q"),
    ],
    ids=[
        "duplicate authorization",
        "underscore twin",
        "another underscore twin",
        "another host",
        "connection strips a field",
        "txn token",
        "covered token",
        "another order",
        "a field less",
        "websocket upgrade",
        "another method",
        "another query",
    ],
)
def test_a_call_that_differs_in_what_was_judged_is_decided_afresh(memo: Memo, call: Call) -> None:
    assert not recalled(memo, call)


def test_a_policy_reload_ends_what_was_remembered(memo: Memo) -> None:
    assert not recalled(memo, HONEST, guard())


def test_an_expired_token_ends_what_was_remembered(memo: Memo) -> None:
    assert recalled(memo, HONEST, now=NOW + 119)
    assert not recalled(memo, HONEST, now=NOW + 120)


def test_an_expired_intermediate_ends_what_was_remembered() -> None:
    issuer = AUTHORITY.intermediate("short", ttl=86_400 + 5)
    peer = verify_x509_svid(AUTHORITY.issue("orders", issuer=issuer).chain_der, BUNDLES, NOW)
    assert peer.expires_at == NOW + 5
    proof = (b"authorization", _wpt(x5t=peer.thumbprint))
    call = replace(HONEST, peer=peer, headers=[*BASE[:2], proof])
    memo = Memo(Budget(1))
    warm(memo, GUARD, call, NOW)
    assert recalled(memo, call, now=NOW + 4)
    assert not recalled(memo, call, now=NOW + 5)


def test_a_proof_is_never_remembered() -> None:
    memo = Memo(Budget(100))
    call = replace(HONEST, target=b"/p", headers=[*BASE[:2], (b"authorization", PROOF)])
    assert isinstance(warm(memo, GUARD, call, NOW), tuple)
    assert not recalled(memo, call)


def test_an_open_route_is_never_remembered() -> None:
    memo = Memo(Budget(100))
    call = replace(HONEST, target=b"/open", headers=BASE[:1])
    assert isinstance(warm(memo, GUARD, call, NOW), tuple)
    assert not recalled(memo, call)


def test_a_proof_on_a_bound_route_is_decided_afresh(memo: Memo) -> None:
    call = replace(HONEST, headers=[*BASE[:2], (b"authorization", PROOF)])
    assert not recalled(memo, call)


def test_forgetting_empties_the_memo_and_gives_room_back(memo: Memo) -> None:
    memo.forget()
    assert not recalled(memo, HONEST)
    assert memo._budget.left == 100


def test_a_connection_remembers_no_more_than_its_share() -> None:
    budget = Budget(1000)
    memo = Memo(budget)
    calls = [replace(HONEST, target=b"/a/%d" % i) for i in range(MAX_ENTRIES + 3)]
    for call in calls:
        warm(memo, GUARD, call, NOW)
    assert [recalled(memo, call) for call in calls] == [False] * 3 + [True] * MAX_ENTRIES
    assert budget.left == 1000 - MAX_ENTRIES


def test_a_process_remembers_no_more_than_its_budget() -> None:
    memo = Memo(Budget(0))
    warm(memo, GUARD, HONEST, NOW)
    assert not recalled(memo, HONEST)
