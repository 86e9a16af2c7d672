"""Policies at random: the index against a plain reading, order, text, and hostile bytes."""

from __future__ import annotations

import random
import re
from urllib.parse import quote

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zerotrust.core.errors import BadPolicy, Reason, RequestRejected
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Allow, Deny, Policy, PolicyTest
from zerotrust.core.policy.patterns import PolicyFault, parse_principal, parse_route
from zerotrust.core.policy.syntax import format_policy, parse_policy
from zerotrust.core.policy.trial import explain
from zerotrust.core.request import parse_target
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

OWN = TrustDomain("example.org")
PARTNER = TrustDomain("partner.example")
MODES = st.sampled_from([Mode.BOUND, Mode.PROOF])
METHODS = st.sampled_from(["GET", "POST", "WS"])
WORDS = st.sampled_from(["a", "b", "..."])  # few, so that patterns meet
PARTS = st.sampled_from(["a", "b", "*"])

principals = st.one_of(
    st.builds(
        lambda parts, tail: "/".join(parts + ["..."] * tail),
        st.lists(PARTS, min_size=1, max_size=3),
        st.booleans(),
    ),
    st.just("..."),
    st.just("spiffe://partner.example/a"),
)
templates = st.builds(
    lambda method, parts, end: f"{method} /{'/'.join([*parts, *end])}",
    st.sampled_from(["GET", "POST", "WS", "*"]),
    st.lists(st.sampled_from(["a", "b", "{x}"]), max_size=3),
    st.sampled_from([["a"], ["{rest...}"], [""]]),
)
routes = st.one_of(templates, st.sampled_from(["grpc:a.B/a", "grpc:a.B/b", "grpc:a.B/*"]))
names = st.text(alphabet="abcXYZ019._-", min_size=1, max_size=8)


def listed(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(texts, min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    ids = draw(st.lists(names, max_size=6, unique=True))
    split = draw(st.integers(0, len(ids)))
    owner = st.none() | st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1)
    allow = tuple(
        Allow(one, draw(listed(principals)), draw(listed(routes)), draw(MODES), draw(owner))
        for one in ids[:split]
    )
    deny_routes = routes | st.just("*")
    deny = tuple(
        Deny(one, draw(listed(principals)), draw(listed(deny_routes)), draw(owner))
        for one in ids[split:]
    )
    named = [text for a in allow for text in a.principals]
    named += [text for d in deny for text in d.principals]
    foreign = any(text.startswith("spiffe:") for text in named)
    tests = draw(
        st.lists(
            st.builds(
                PolicyTest,
                name=names,
                principal=st.sampled_from(["a", "b/a"]),
                do=st.just("GET /a?q=\"'"),
                want=st.sampled_from(["allow", "deny", "open", "deny:rule.none"]),
                token=MODES,
            ),
            max_size=2,
        )
    )
    try:
        return Policy(
            service=draw(names),
            trust_domain=OWN,
            allow=allow,
            deny=deny,
            open_routes=("GET /healthz",) if draw(st.booleans()) else (),
            federated=frozenset({PARTNER} if foreign else ()),
            tests=tuple(tests),
        )
    except PolicyFault:  # shadowed or doubled: not what is looked at here
        assume(False)
        raise


callers = st.builds(
    lambda domain, segments: SpiffeId(domain, tuple(segments)),
    st.sampled_from([OWN, OWN, PARTNER]),
    st.lists(WORDS, min_size=1, max_size=4),
)
calls = st.one_of(
    st.tuples(
        METHODS,
        st.builds(
            lambda parts, end: "/" + "/".join([*parts, *end]),
            st.lists(WORDS, max_size=4),
            st.sampled_from([["a"], [""]]),
        ),
    ),
    st.tuples(st.just("grpc"), st.sampled_from(["a.B/a", "a.B/b", "a.B/c", "a.B/", "c"])),
)


@settings(max_examples=400)
@given(policies(), callers, calls, MODES)
def test_the_index_decides_as_a_plain_reading_of_all_rules(
    policy: Policy, caller: SpiffeId, call: tuple[str, str], mode: Mode
) -> None:
    decision = policy.decide(caller, *call, mode)
    read = explain(policy, caller, *call, mode)
    matched = [one for one in read if one.principal is not None and one.route is not None]
    denied = [one.rule.id for one in matched if isinstance(one.rule, Deny)]
    allowed = [one.rule.id for one in matched if isinstance(one.rule, Allow) and one.mode_met]
    short = [one.rule for one in matched if isinstance(one.rule, Allow) and not one.mode_met]
    if denied:
        assert (decision.reason, decision.rule) == (Reason.RULE_DENY, min(denied))
    elif allowed:
        assert decision.reason is None
        assert decision.rule in allowed
    elif short:
        assert decision.reason is Reason.TOKEN_MODE
        assert decision.need == min(rule.token for rule in short)
    else:
        assert (decision.reason, decision.rule) == (Reason.RULE_NONE, None)
    if decision.route is not None:
        assert parse_route(decision.route).covers(*call)


@given(policies(), callers, calls, MODES, st.randoms(use_true_random=False))
def test_the_order_of_rules_means_nothing(
    policy: Policy, caller: SpiffeId, call: tuple[str, str], mode: Mode, chance: random.Random
) -> None:
    shuffled = Policy(
        service=policy.service,
        trust_domain=policy.trust_domain,
        allow=tuple(chance.sample(policy.allow, len(policy.allow))),
        deny=tuple(chance.sample(policy.deny, len(policy.deny))),
        federated=policy.federated,
    )
    one, other = (p.decide(caller, *call, mode) for p in (policy, shuffled))
    assert (one.reason, one.rule, one.need) == (other.reason, other.rule, other.need)


@given(policies())
def test_what_is_written_reads_back_the_same(policy: Policy) -> None:
    text = format_policy(policy)
    again = parse_policy(text.encode())
    assert again == policy
    assert again.digest == policy.digest
    assert format_policy(again) == text


@given(policies(), callers, calls)
def test_a_stronger_mode_is_never_worth_less(
    policy: Policy, caller: SpiffeId, call: tuple[str, str]
) -> None:
    if policy.decide(caller, *call, Mode.BOUND).reason is None:
        assert policy.decide(caller, *call, Mode.PROOF).reason is None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_a_bad_policy(text: bytes) -> None:
    try:
        parse_policy(text)
    except BadPolicy as refused:
        line_said(refused)


def line_said(refused: BadPolicy, most: int = 1000) -> None:
    found = re.fullmatch(r"policy\.toml:(\d+): .+", refused.detail)
    assert found
    assert 1 <= int(found[1]) <= most


LINES = st.sampled_from(
    [
        "schema = 1",
        'service = "s"',
        'trust_domain = "t"',
        'mode = "enforce"',
        "[alias]",
        'w = "web"',
        "[[allow]]",
        "[[deny]]",
        "[[test]]",
        "[open]",
        'id = "r"',
        'from = ["w"]',
        'to = ["GET /a"]',
        'to = ["*"]',
        'routes = ["GET /a"]',
        'token = "proof"',
        'want = "deny"',
        'as = "web"',
        'name = "n"',
        'do = "GET /a"',
        "x = '''",
        'y = """',
        "[",
        "]]",
        "a.b.c = 1",
        "federated = []",
        "=",
        '"""',
        "{",
    ]
)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=25))
def test_any_heap_of_lines_is_a_policy_or_a_bad_policy(lines: list[str]) -> None:
    try:
        parse_policy("\n".join(lines).encode())
    except BadPolicy as refused:
        line_said(refused, most=max(1, len(lines)))


@given(st.text(max_size=30).map(lambda text: f"GET /{text}"))
def test_the_path_of_a_rule_is_one_that_the_request_filter_accepts(route: str) -> None:
    try:
        pattern = parse_route(route)
    except PolicyFault:
        return
    literal = not pattern.tail and None not in pattern.segments
    if literal:
        path = parse_target(route.removeprefix("GET ").encode()).path
        assert pattern.covers("GET", path)
        assert path == "/" + "/".join(segment or "" for segment in pattern.segments)


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3))
def test_a_path_that_the_request_filter_accepts_can_be_written_as_a_rule(parts: list[str]) -> None:
    raw = "/" + "/".join(quote(part, safe="") for part in parts if part.isprintable())
    try:
        path = parse_target(raw.encode()).path
    except RequestRejected:
        return
    assert parse_route(f"GET {raw}").covers("GET", path)


@given(st.text(max_size=40))
def test_any_text_is_a_principal_or_a_fault(text: str) -> None:
    try:
        pattern = parse_principal(text, OWN)
    except PolicyFault:
        return
    literal = [segment for segment in pattern.segments if segment is not None]
    if not pattern.tail and len(literal) == len(pattern.segments):
        assert pattern.covers(SpiffeId(pattern.trust_domain, tuple(literal)))
