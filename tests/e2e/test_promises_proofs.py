"""What a token proves, by whom and when, over real TLS."""

from __future__ import annotations

import contextlib
import itertools
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from support.served import Answer, Lines, Peer, Served
from zerotrust import clock
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.clock import Clock
from zerotrust.core.tokens.profile import TARGET
from zerotrust.probe.forge import DROP
from zerotrust.workload.replay.memory import MemoryReplayStore

US = "spiffe://example.org/orders"


class EveryLine(AuditLog):
    """Writes each refusal, so that the reason of each can be read."""

    def refused(self, event: AuditEvent) -> None:
        self.record(event)


@contextlib.contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    """A service that has been running for longer than any proof here is old."""
    lines = Lines()
    with Served(audit=EveryLine(lines), **settings) as served:
        served.app.started_at -= 60  # type: ignore[misc]
        served.lines = lines
        yield served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


def reason(served: Served, answer: Answer) -> str:
    """Why the guard refused, or the mode it found."""
    if answer.status == 200:
        return str(answer.json["mode"])
    (line,) = [event for event in served.lines.events if event.id == answer.json["id"]]
    return line.reason


def pay(web: Peer, tokens: list[tuple[str, str]], target: str = "/pay") -> Answer:
    return web.ask(target, tokens, method="POST")


# ---- every combination of claims, on a route of either minimum --------------------------------


def expected(claims: dict[str, bool], aud: str, *, route: str) -> str:
    """What each combination must come to, written down again from the text of the rule."""
    if aud == "nobody":
        return "token.audience"
    if not claims["x5t"]:
        return "mode"
    if aud == "us":
        if claims["htm"] or claims["target"]:
            return "mode"
        return "bound" if route == "/orders" else "token.mode"
    return "proof" if claims["htm"] and claims["iat"] else "mode"


@pytest.mark.parametrize("route", ["/orders", "/pay"], ids=["bound-route", "proof-route"])
@pytest.mark.parametrize("aud", ["us", "uri", "nobody"])
def test_every_combination_of_claims_is_judged_by_the_minimum_of_the_route(
    served: Served, route: str, aud: str
) -> None:
    web = served.caller()
    uri = f"https://localhost:{served.port}{route}"
    audience = {"us": US, "uri": uri, "nobody": "spiffe://example.org/ledger"}[aud]
    names = ("x5t", "htm", "iat", "target")
    full = web.tokens(aud=audience, method="POST", target=route.encode())
    assert reason(served, pay(web, full, route)) == expected(
        dict.fromkeys(names, True), aud, route=route
    )
    members = {"x5t": "cnf", "htm": "htm", "iat": "iat", "target": TARGET}
    for present in itertools.product((True, False), repeat=len(names)):
        claims = dict(zip(names, present, strict=True))
        dropped = {members[name]: DROP for name, kept in claims.items() if not kept}
        tokens = web.tokens(aud=audience, method="POST", target=route.encode(), claims=dropped)
        assert reason(served, pay(web, tokens, route)) == expected(claims, aud, route=route), claims


# ---- relayed and used up ----------------------------------------------------------------------


def test_a_fresh_proof_relayed_over_another_valid_identity_is_refused(served: Served) -> None:
    web, thief = served.caller(), served.caller("batch")
    proof = web.proof("POST", "/pay")
    assert reason(served, pay(thief, proof)) == "token.binding"
    assert pay(web, proof).status == 200  # and the thief has not used it up


def test_a_fresh_proof_relayed_over_another_certificate_of_its_owner_is_refused(
    served: Served,
) -> None:
    web = served.caller()
    proof = web.proof("POST", "/pay")
    renewed = Peer(served.ca, served.port, served.ca.snapshot("web"))
    assert reason(served, pay(renewed, proof)) == "token.binding"
    assert pay(web, proof).status == 200


def test_a_fresh_proof_under_the_thiefs_own_identity_token_is_refused(served: Served) -> None:
    web, thief = served.caller(), served.caller("batch")
    mixed = [thief.tokens()[0], web.proof("POST", "/pay")[1]]
    assert reason(served, pay(thief, mixed)) == "token.signature"


def test_a_callee_cannot_pass_on_what_it_was_sent(served: Served) -> None:
    web, callee = served.caller(), served.caller("ledger")
    to_callee = web.tokens(aud="spiffe://example.org/ledger")
    assert reason(served, callee.ask(fields=to_callee)) == "token.binding"
    assert reason(served, web.ask(fields=to_callee)) == "token.audience"


def test_nobody_can_use_up_the_jti_of_somebody_else(served: Served) -> None:
    web, other = served.caller(), served.caller("web")
    jti = "0123456789abcdef0123456789abcdef"
    assert pay(other, other.proof("POST", "/pay", claims={"jti": jti})).status == 200
    proof = web.proof("POST", "/pay", claims={"jti": jti})
    assert pay(web, proof).status == 200
    assert reason(served, pay(web, proof)) == "token.replay"


def test_a_proof_that_fails_its_checks_does_not_use_up_its_jti(served: Served) -> None:
    web = served.caller()
    jti = "0123456789abcdef0123456789abcdef"
    wrong = web.proof("POST", "/pay", claims={"jti": jti, "exp": int(clock.now()) - 1})
    assert reason(served, pay(web, wrong)) == "token.expired"
    assert pay(web, web.proof("POST", "/pay", claims={"jti": jti})).status == 200


def test_the_twin_of_a_used_proof_is_used(served: Served) -> None:
    web = served.caller()
    tokens = web.proof("POST", "/pay")
    assert pay(web, tokens).status == 200
    head, _, signature = tokens[1][1].rpartition(".")
    both = urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = order - int.from_bytes(both[32:], "big")
    twin = urlsafe_b64encode(both[:32] + s.to_bytes(32, "big")).rstrip(b"=").decode()
    assert twin != signature
    assert reason(served, pay(web, [tokens[0], (tokens[1][0], f"{head}.{twin}")])) == "token.replay"


def test_a_proof_minted_before_the_service_began_to_remember_is_refused() -> None:
    with serving() as served:
        served.app.started_at += 60  # type: ignore[misc]
        web = served.caller()
        now = int(clock.now())
        before = web.proof("POST", "/pay", claims={"iat": now - 5})
        assert reason(served, pay(web, before)) == "token.stale"
        after = web.proof("POST", "/pay", claims={"iat": now + 2})
        assert pay(web, after).status == 200


def test_a_replay_store_without_room_refuses_and_forgets_nothing() -> None:
    with serving(replay=MemoryReplayStore(capacity=8)) as served:
        greedy, web = served.caller(), served.caller()
        first = greedy.proof("POST", "/pay")
        assert pay(greedy, first).status == 200
        assert pay(greedy, greedy.proof("POST", "/pay")).status == 200
        over = pay(greedy, greedy.proof("POST", "/pay"))
        assert (over.status, reason(served, over)) == (503, "replay.quota")
        assert reason(served, pay(greedy, first)) == "token.replay"
        assert reason(served, pay(web, web.proof("POST", "/pay"))) == "replay.quota"  # same subject
        assert web.ask().status == 200  # a bound call needs no room


# ---- clocks -----------------------------------------------------------------------------------


class Hands:
    """A wall clock and a monotonic clock that can be set."""

    def __init__(self) -> None:
        self.wall, self.mono = clock.now(), 1000.0
        self.clock = Clock(lambda: self.wall, lambda: self.mono)

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(clock, "now", hands.clock.now)
    return hands


@pytest.fixture
def fresh(hands: Hands) -> Iterator[Served]:
    """A service that reads the time from these hands alone."""
    assert clock.now() == hands.wall
    with serving() as served:
        yield served


JUMPS = {
    "an hour back": (-3600.0,),
    "an hour forward": (3600.0,),
    "an hour forward and back": (3600.0, -3600.0),
    "suspended for a minute": (60.0,),
    "back by less than the skew, often": (-20.0, -20.0, -20.0),
}


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_used_proof_stays_refused_whatever_the_wall_clock_does(
    hands: Hands, fresh: Served, jump: tuple[float, ...]
) -> None:
    web = fresh.caller()
    proof = web.proof("POST", "/pay")
    assert pay(web, proof).status == 200
    for step in jump:
        hands.wall += step
        assert pay(web, proof).status in {401, None}


def test_a_proof_is_served_after_the_clock_was_set_back(hands: Hands, fresh: Served) -> None:
    web = fresh.caller()
    hands.wall -= 3600
    assert pay(web, web.proof("POST", "/pay")).status == 200


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_an_expired_svid_stays_dead_whatever_the_wall_clock_does(
    hands: Hands, fresh: Served, jump: tuple[float, ...]
) -> None:
    web = fresh.caller(ttl=120, not_before=clock.now())
    with web.connect() as wire:
        assert wire.ask("/echo", web.tokens()).status == 200
    hands.pass_(240)
    for step in (0.0, *jump):
        hands.wall += step
        assert refused(web)
    assert fresh.caller(ttl=9000, wit_ttl=9000).ask().status == 200


def refused(web: Peer) -> bool:
    """Whether a new connection serves nothing."""
    try:
        return web.ask().status in {401, None}
    except OSError:
        return True
