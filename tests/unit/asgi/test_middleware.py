from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from support.identities import FixedIdentity
from support.served import POLICY, Lines, until
from zerotrust import clock
from zerotrust.asgi import protect
from zerotrust.asgi.connection import (
    PEER,
    TARGET,
    Connection,
    authorities_at,
    connection_of,
    target_of,
)
from zerotrust.asgi.identity_headers import HIDDEN
from zerotrust.asgi.middleware import Protected
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.core.errors import BadPolicy, ConfigurationError, RequestRejected
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.policy_file import PolicyFile

Messages = list[dict[str, Any]]


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was reached")


@pytest.fixture(scope="module")
def ca() -> ForgedAuthority:
    return ForgedAuthority(now=clock.now())


def protected(ca: ForgedAuthority, app: Any = unreachable, **settings: Any) -> Protected:
    settings.setdefault("audit", AuditLog(Lines()))
    identity = FixedIdentity(ca.snapshot("orders"))
    return protect(app, identity, parse_policy(POLICY.encode()), **settings)


def run(app: Any, scope: dict[str, Any]) -> Messages:
    """What the application sends for a scope whose client says nothing."""
    sent: Messages = []

    async def receive() -> dict[str, Any]:
        return {"type": scope["type"] + ".connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def call() -> None:
        await app(scope, receive, send)

    asyncio.run(call())
    return sent


def scope(kind: str = "http", **parts: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "method": "GET",
        "path": "/echo",
        "raw_path": b"/echo",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        **parts,
    }


def test_a_scope_without_our_connection_is_refused(ca: ForgedAuthority) -> None:
    assert run(protected(ca), scope())[0]["status"] == 401


def test_a_websocket_without_our_connection_is_closed_before_it_is_accepted(
    ca: ForgedAuthority,
) -> None:
    assert run(protected(ca), scope("websocket")) == [{"type": "websocket.close", "code": 1008}]


def test_a_websocket_is_refused_with_a_response_where_the_server_can_send_one(
    ca: ForgedAuthority,
) -> None:
    able = scope("websocket", extensions={"websocket.http.response": {}})
    sent = run(protected(ca), able)
    assert sent[0]["type"] == "websocket.http.response.start"
    assert sent[0]["status"] == 401
    assert json.loads(sent[1]["body"])["status"] == 401


@pytest.mark.parametrize("forged", ["spiffe://example.org/web", {"id": "x"}, object(), None])
def test_a_peer_that_our_server_did_not_make_is_refused(ca: ForgedAuthority, forged: Any) -> None:
    faked = scope(extensions={PEER: forged, TARGET: b"/echo"})
    assert run(protected(ca), faked)[0]["status"] == 401


class Plain(asyncio.BaseTransport):
    """A transport without TLS."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)


def test_a_connection_without_tls_has_no_peer(ca: ForgedAuthority) -> None:
    connection = Connection(Plain())
    assert connection.peer is None
    faked = scope(extensions={PEER: connection, TARGET: b"/echo"})
    lines = Lines()
    assert run(protected(ca, audit=AuditLog(lines)), faked)[0]["status"] == 401
    assert [line.peer for line in lines.events] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("orders", {"dns": ["orders.test"]}), ("ledger", {})],
    ids=["another DNS name", "another identity"],
)
def test_what_was_decided_under_other_names_of_ours_is_forgotten(
    ca: ForgedAuthority, name: str, changes: dict[str, Any]
) -> None:
    bundles = ca.bundles
    identity = FixedIdentity(ca.snapshot("orders", bundles=bundles))
    app = protect(unreachable, identity, parse_policy(POLICY.encode()), audit=AuditLog(Lines()))
    connection = Connection(Plain())
    guard = app._current_guard(connection)
    identity.rotate(ca.snapshot("orders", bundles=bundles))
    assert app._current_guard(connection) is guard
    identity.rotate(ca.snapshot(name, bundles=bundles, **changes))
    renewed = app._current_guard(connection)
    assert renewed is not guard
    assert renewed.own_id == ca.id(name)


@pytest.mark.parametrize("kind", ["http2", "quic", "", "HTTP", "telnet"])
def test_an_unknown_scope_type_is_refused(ca: ForgedAuthority, kind: str) -> None:
    lines = Lines()
    with pytest.raises(RequestRejected, match=r"scope\.unknown"):
        run(protected(ca, audit=AuditLog(lines)), scope(kind))
    assert lines.reasons() == ["scope.unknown"]


def test_lifespan_passes_unasked(ca: ForgedAuthority) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    run(protected(ca, app), {"type": "lifespan"})
    assert seen == ["lifespan"]


def test_an_exception_nobody_foresaw_is_a_refusal(
    ca: ForgedAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()
    app = protected(ca, audit=AuditLog(lines))
    monkeypatch.setattr(Protected, "_current_guard", lambda *_: 1 / 0)
    monkeypatch.setattr("zerotrust.asgi.connection.peer_of", lambda _: _verified(ca))
    connection = Connection(asyncio.BaseTransport({"sockname": ("127.0.0.1", 1)}))
    sent = run(app, scope(extensions={PEER: connection, TARGET: b"/echo"}))
    assert sent[0]["status"] == 503
    assert lines.reasons() == ["unforeseen"]
    assert "ZeroDivisionError" not in repr(sent)


def test_refusals_that_are_no_fault_of_the_peer_do_not_end_its_connection(
    ca: ForgedAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zerotrust.asgi.connection.peer_of", lambda _: _verified(ca))
    for guard, failures in ((lambda *_: 1 / 0, 0), (Protected._current_guard, 10)):
        monkeypatch.setattr(Protected, "_current_guard", guard)
        app = protected(ca)
        connection = Connection(asyncio.BaseTransport({"sockname": ("127.0.0.1", 1)}))
        call = scope(
            headers=[(b"host", b"localhost:1")], extensions={PEER: connection, TARGET: b"/echo"}
        )
        answers = [run(app, call)[0] for _ in range(10)]
        assert connection.failures == failures
        ends = (b"connection", b"close") in answers[-1]["headers"]
        assert ends is bool(failures)


def _verified(ca: ForgedAuthority) -> Any:
    from zerotrust.core.spiffe.x509_svid import accept_leaf

    return accept_leaf(ca.chain_der(ca.issue("web")), ca.bundles, clock.now())


def test_an_audit_log_that_is_required_and_fails_refuses_the_call(
    ca: ForgedAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, event: AuditEvent) -> None:
            raise OSError(28, "disk full")

    monkeypatch.setattr("zerotrust.asgi.connection.peer_of", lambda _: _verified(ca))
    app = protected(ca, audit=AuditLog(Full(), required=True, alarm=lambda _: None))
    connection = Connection(asyncio.BaseTransport({"sockname": ("127.0.0.1", 1)}))
    call = scope(extensions={PEER: connection, TARGET: b"/healthz"})
    assert run(app, call)[0]["status"] == 503


def test_an_application_is_protected_once(ca: ForgedAuthority) -> None:
    with pytest.raises(ConfigurationError, match="already protected"):
        protected(ca, protected(ca))


def test_an_application_is_protected_by_a_policy_of_its_own_trust_domain_alone(
    ca: ForgedAuthority,
) -> None:
    other = parse_policy(POLICY.replace("example.org", "other.org").encode())
    with pytest.raises(BadPolicy, match=r"other\.org"):
        protect(unreachable, FixedIdentity(ca.snapshot("orders")), other)


def test_an_application_without_an_audit_log_of_its_own_has_one(ca: ForgedAuthority) -> None:
    app = protect(unreachable, FixedIdentity(ca.snapshot("orders")), parse_policy(POLICY.encode()))
    assert isinstance(app.audit, AuditLog)


def test_a_policy_file_keeps_the_alarm_it_came_with(ca: ForgedAuthority, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o600)
    told: list[str] = []
    identity, mine = FixedIdentity(ca.snapshot("orders")), PolicyFile(path, alarm=told.append)
    app = protect(unreachable, identity, mine, audit=AuditLog(Lines()))
    assert app.policy is mine
    assert mine.alarm == told.append
    bare = PolicyFile(path)
    protect(unreachable, identity, bare, audit=AuditLog(Lines()))
    assert bare.alarm is not None


def test_the_policy_file_is_followed_from_the_first_call_on_where_no_lifespan_is(
    ca: ForgedAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o600)
    monkeypatch.setattr("zerotrust.asgi.connection.peer_of", lambda _: _verified(ca))
    connection = Connection(asyncio.BaseTransport({"sockname": ("127.0.0.1", 1)}))
    file, identity = PolicyFile(path), FixedIdentity(ca.snapshot("orders"))
    app = protect(unreachable, identity, file, audit=AuditLog(Lines()))
    followed = [file._stop]
    run(app, scope(extensions={PEER: connection, TARGET: b"/echo"}))
    followed.append(file._stop)
    file.stop()
    assert followed[0] is None
    assert followed[1] is not None


def test_the_end_of_the_application_ends_what_follows_the_policy_and_writes_what_was_counted(
    ca: ForgedAuthority, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    path.chmod(0o600)
    file, lines = PolicyFile(path), Lines()
    following = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        following.append(file._stop)
        guarded.audit.allowed(
            now=clock.now(), peer="web", route="/", rule="r", mode="bound", micros=1
        )

    identity = FixedIdentity(ca.snapshot("orders"))
    guarded = protect(app, identity, file, audit=AuditLog(lines))
    run(guarded, {"type": "lifespan"})
    assert following[0] is not None
    assert following[0].is_set()
    assert [line.peer for line in lines.events] == ["web"]


def test_servers_take_the_protected_application_for_asgi_3(ca: ForgedAuthority) -> None:
    config = uvicorn.Config(protected(ca), log_config=None)
    config.load()
    assert config.interface == "asgi3"
    assert inspect.isfunction(Protected.__call__)


def test_plain_uvicorn_serves_nothing_of_a_protected_application(ca: ForgedAuthority) -> None:
    config = uvicorn.Config(protected(ca), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        until(lambda: server.started)
        with socket.create_connection(sock.getsockname(), timeout=5) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := client.recv(4096):
                answer += chunk
        server.should_exit = True
        thread.join(10)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"www-authenticate: WPT" in answer


@pytest.mark.parametrize(
    ("parts", "target"),
    [
        ({"raw_path": b"/a", "query_string": b"b=1"}, b"/a?b=1"),
        ({"raw_path": b"/root/a", "root_path": "/root"}, b"/a"),
        ({"extensions": {TARGET: b"//raw"}}, b"//raw"),
        ({"raw_path": None}, b""),
    ],
)
def test_the_target_is_read_as_sent(parts: dict[str, Any], target: bytes) -> None:
    assert target_of(scope(**parts)) == target


@pytest.mark.parametrize(
    ("address", "answers"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("x", False)]
)
def test_localhost_is_a_name_of_ours_on_a_loopback_address_alone(
    ca: ForgedAuthority, address: str, answers: bool
) -> None:
    connection = Connection(asyncio.BaseTransport({"sockname": (address, 8443)}))
    names = authorities_at(ca.issue("orders", dns=["orders.test"]), connection.listener)
    assert "orders.test:8443" in names
    assert ("localhost:8443" in names) is answers


@pytest.mark.parametrize("sockname", [None, "/run/orders.sock", ("127.0.0.1",)])
def test_a_listener_without_a_port_is_no_loopback_one(sockname: Any) -> None:
    connection = Connection(asyncio.BaseTransport({"sockname": sockname}))
    assert connection.listener == (0, False)


def test_no_connection_is_found_in_a_scope_without_one() -> None:
    assert connection_of({}) is None
    assert connection_of({"extensions": {PEER: "x"}}) is None


@given(st.sampled_from(sorted(HIDDEN)))
def test_every_spelling_of_a_hidden_header_reads_as_one_with_hyphens(name: bytes) -> None:
    assert name.replace(b"_", b"-") in HIDDEN
