"""Warm connections: what was allowed once is never allowed again for anything but the same call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.identities import FixedIdentity
from support.served import POLICY, Lines, Peer, Served, Wire, until
from zerotrust import clock
from zerotrust.asgi.connection import Connection
from zerotrust.audit import AuditLog
from zerotrust.core import guard as guard_module
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.policy_file import PolicyFile


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture(scope="module")
def web(served: Served) -> Peer:
    return served.caller()


@pytest.fixture
def warm(web: Peer) -> Iterator[tuple[Wire, list[tuple[str, str]]]]:
    """A connection over which GET /echo was allowed twice with these tokens."""
    with web.connect() as wire:
        tokens = web.tokens()
        assert [wire.ask("/echo", tokens).status for _ in range(2)] == [200, 200]
        yield wire, tokens


Warm = tuple[Wire, list[tuple[str, str]]]


def test_a_warm_call_verifies_no_token_again(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> object:
        raise AssertionError("decided afresh")

    monkeypatch.setattr(guard_module.Guard, "decide", unexpected)
    wire, tokens = warm
    answer = wire.ask("/echo", [*tokens, ("x-new", "not watched")])
    assert answer.status == 200
    assert ["x-new", "not watched"] in answer.json["headers"]


def test_a_warm_call_sees_no_identity_header_either(warm: Warm) -> None:
    wire, tokens = warm
    answer = wire.ask("/echo", tokens)
    assert [name for name, _ in answer.json["headers"]] == ["host"]
    assert answer.json["caller"] == "spiffe://example.org/web"


def test_a_second_authorization_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", [*tokens, tokens[1]]).status == 400


def test_an_underscore_twin_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", [*tokens, ("workload_identity_token", "x")]).status == 400


def test_another_host_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", tokens, host="evil.test").status == 421


def test_a_stripping_connection_field_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", [*tokens, ("connection", "authorization")]).status == 400


def test_an_uncovered_txn_token_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", [*tokens, ("txn-token", "x")]).status == 401


def test_a_changed_token_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    name, value = tokens[1]
    flipped = value[:-10] + ("A" if value[-10] != "A" else "B") + value[-9:]
    assert wire.ask("/echo", [tokens[0], (name, flipped)]).status == 401


def test_a_missing_token_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, _ = warm
    assert wire.ask("/echo", []).status == 401


def test_another_method_on_a_warm_connection_is_refused(warm: Warm) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", tokens, method="POST").status == 403


def test_a_websocket_over_a_warm_connection_is_judged_afresh(warm: Warm) -> None:
    wire, tokens = warm
    upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    assert wire.ask("/echo", [*tokens, *upgrade]).status == 403


def test_a_proof_is_never_remembered(web: Peer) -> None:
    with web.connect() as wire:
        proof = web.proof("GET", "/echo")
        assert wire.ask("/echo", proof).status == 200
        assert wire.ask("/echo", proof).status == 401


def test_a_refusal_empties_what_was_remembered(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    wire, tokens = warm
    assert wire.ask("/echo", []).status == 401
    decided = []
    decide = guard_module.Guard.decide

    def spy(self: Any, *args: Any) -> Any:
        decided.append(args)
        return decide(self, *args)

    monkeypatch.setattr(guard_module.Guard, "decide", spy)
    assert wire.ask("/echo", tokens).status == 200
    assert decided


def test_an_expired_token_is_refused_on_a_warm_connection(web: Peer) -> None:
    with web.connect() as wire:
        tokens = web.tokens(ttl=2)
        assert wire.ask("/echo", tokens).status == 200
        time.sleep(2.2)
        assert wire.ask("/echo", tokens).status == 401


def test_an_expired_intermediate_ends_a_warm_connection() -> None:
    ca = ForgedAuthority(now=clock.now())
    short = ca.intermediate("short", not_before=ca.now - 60, ttl=63)
    with Served(ca=ca) as served:
        peer = Peer(ca, served.port, ca.snapshot(svid=ca.issue("web", issuer=short)))
        with peer.connect() as wire:
            tokens = peer.tokens()
            assert wire.ask("/echo", tokens).status == 200
            until(lambda: clock.now() > ca.now + 3.2)
            assert wire.ask("/echo", tokens).status in {401, None}


def test_what_a_connection_remembered_ends_with_it() -> None:
    with Served() as served:
        web, state = served.caller(), served.server.server_state
        with web.connect() as wire:
            assert wire.ask("/echo", web.tokens()).status == 200
            [protocol] = state.connections
            connection: Connection = protocol.connection  # type: ignore[union-attr]
            assert connection.exchange is not None
            assert connection.memo._entries
        until(lambda: connection.exchange is None and not connection.memo._entries)
        until(lambda: not state.connections)


def test_a_warm_call_is_a_line_of_its_own_where_the_audit_log_is_required() -> None:
    lines = Lines()
    with Served(audit=AuditLog(lines, required=True)) as served:
        web = served.caller()
        with web.connect() as wire:
            tokens = web.tokens()
            for _ in range(3):
                assert wire.ask("/echo", tokens).status == 200
        assert len(lines.events) == 3


def test_a_warm_call_is_counted_however_often_the_audit_log_is_written() -> None:
    with Served() as served:
        web = served.caller()
        with web.connect() as wire:
            tokens = web.tokens()
            for flushes in (0, 2, 1):
                for _ in range(flushes):
                    served.app.audit.flush(clock.now())
                assert wire.ask("/echo", tokens).status == 200
        served.app.audit.flush(clock.now())
        counted = [event.count for event in served.lines.events if event.kind == "calls.allowed"]
        assert sum(counted) == 3


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o600)
    return path


def test_a_deny_rule_added_to_the_file_refuses_the_next_call_of_a_warm_connection(
    policy_file: Path,
) -> None:
    with Served(policy=policy_file) as served:
        web = served.caller()
        with web.connect() as wire:
            tokens = web.tokens()
            assert wire.ask("/echo", tokens).status == 200
            before = served.app.policy.current
            policy_file.write_text(POLICY + '[[deny]]\nid = "brake"\nfrom = ["web"]\nto = ["*"]\n')
            until(lambda: served.app.policy.current is not before)
            assert wire.ask("/echo", tokens).status == 403


def test_a_broken_policy_file_leaves_the_policy_in_force_and_raises_an_alarm(
    policy_file: Path,
) -> None:
    with Served(policy=policy_file) as served:
        web = served.caller()
        policy_file.write_text("schema = 2")
        until(lambda: any(event.kind == "policy.alarm" for event in served.lines.events))
        assert web.ask("/echo").status == 200


def test_new_bundles_that_do_not_know_the_caller_refuse_its_warm_connection() -> None:
    ca = ForgedAuthority(now=clock.now())
    identity = FixedIdentity(ca.snapshot("orders"))
    other = ForgedAuthority(now=clock.now())
    with Served(ca=ca, identity=identity) as served:
        web = served.caller()
        with web.connect() as wire:
            tokens = web.tokens()
            assert wire.ask("/echo", tokens).status == 200
            identity.rotate(ca.snapshot("orders", bundles=BundleSet([other.bundle])))
            assert wire.ask("/echo", tokens).status == 401


def test_our_own_new_certificate_keeps_warm_connections_warm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca = ForgedAuthority(now=clock.now())
    first = ca.snapshot("orders")
    identity = FixedIdentity(first)
    with Served(ca=ca, identity=identity) as served:
        web = served.caller()
        with web.connect() as wire:
            tokens = web.tokens()
            assert wire.ask("/echo", tokens).status == 200
            identity.rotate(ca.snapshot("orders", bundles=first.bundles))
            monkeypatch.setattr(guard_module.Guard, "decide", None)
            assert wire.ask("/echo", tokens).status == 200


def test_without_an_identity_of_our_own_warm_connections_are_refused_too() -> None:
    ca = ForgedAuthority(now=clock.now())
    identity = FixedIdentity(ca.snapshot("orders"))
    with Served(ca=ca, identity=identity) as served:
        web = served.caller()
        with web.connect() as wire:
            tokens = web.tokens()
            assert wire.ask("/echo", tokens).status == 200
            identity.close()
            assert wire.ask("/echo", tokens).status == 503


def test_a_policy_of_another_trust_domain_does_not_load(policy_file: Path) -> None:
    ca = ForgedAuthority("other.org", now=clock.now())
    file = PolicyFile(policy_file)
    with pytest.raises(ValueError, match=r"example\.org"):
        Served(ca=ca, identity=FixedIdentity(ca.snapshot("orders")), policy=file)
