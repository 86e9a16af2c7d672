"""Calls over real TLS: one good call, and each attack one change away from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.served import Answer, Peer, Served, echo
from zerotrust import clock
from zerotrust.core.jose import SigningKey
from zerotrust.probe.forge import ForgedAuthority


@pytest.fixture(scope="module", params=["httptools", "h11"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(options={"http": request.param}) as served:
        yield served


@pytest.fixture(scope="module")
def web(served: Served) -> Peer:
    return served.caller()


def refused(served: Served, answer: Answer, status: int, reason: str) -> None:
    """The peer got constant text and an id; the audit line with that id holds the reason."""
    assert answer.status == status
    assert set(answer.json) == {"type", "title", "status", "id"}
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers.get("www-authenticate") == "WPT") == (status == 401)
    found = [event for event in served.lines.events if event.id == answer.json["id"]]
    if found:  # many of a kind are held back and counted
        assert found[0].reason == reason
    else:
        assert reason in served.lines.reasons()


def test_an_honest_call_reaches_the_application_with_its_caller(web: Peer) -> None:
    answer = web.ask("/echo?a=1")
    assert answer.status == 200
    assert answer.json["caller"] == "spiffe://example.org/web"
    assert answer.json["mode"] == "bound"
    assert answer.json["query"] == "a=1"


def test_an_honest_proof_reaches_a_route_that_asks_for_it(web: Peer) -> None:
    answer = web.ask("/pay", web.proof("POST", "/pay"), method="POST")
    assert (answer.status, answer.json["mode"]) == (200, "proof")


def test_a_call_without_a_token_is_refused(served: Served, web: Peer) -> None:
    refused(served, web.ask(fields=[]), 401, "token.missing")


def test_an_identity_token_without_a_proof_is_refused(served: Served, web: Peer) -> None:
    refused(served, web.ask(fields=web.tokens()[:1]), 401, "token.missing")


def test_a_neighbours_token_is_refused_over_our_connection(served: Served, web: Peer) -> None:
    neighbour = served.caller("batch")
    refused(served, neighbour.ask(fields=web.tokens()), 401, "token.binding")


def test_a_token_for_another_audience_is_refused(served: Served, web: Peer) -> None:
    fields = web.tokens(aud="spiffe://example.org/ledger")
    refused(served, web.ask(fields=fields), 401, "token.audience")


def test_a_token_bound_to_another_certificate_is_refused(served: Served, web: Peer) -> None:
    other = served.ca.issue("web")
    refused(served, web.ask(fields=web.tokens(x5t=other.thumbprint)), 401, "token.binding")


def test_a_proof_by_another_key_is_refused(served: Served, web: Peer) -> None:
    forged = served.ca.wpt(
        web.wit.token,
        SigningKey.generate("ES256"),
        aud="spiffe://example.org/orders",
        x5t=web.snapshot.svid.thumbprint,
    )
    fields = [web.tokens()[0], ("authorization", f"WPT {forged}")]
    refused(served, web.ask(fields=fields), 401, "token.signature")


def test_a_bearer_token_is_refused(served: Served, web: Peer) -> None:
    fields = [web.tokens()[0], ("authorization", "Bearer " + web.wit.token)]
    refused(served, web.ask(fields=fields), 401, "token.scheme")


def test_a_proof_used_twice_is_refused(served: Served, web: Peer) -> None:
    fields = web.proof("POST", "/pay")
    assert web.ask("/pay", fields, method="POST").status == 200
    refused(served, web.ask("/pay", fields, method="POST"), 401, "token.replay")


def test_a_proof_for_another_method_is_refused(served: Served, web: Peer) -> None:
    answer = web.ask("/orders", web.proof("GET", "/orders"), method="POST")
    refused(served, answer, 401, "token.method")


def test_a_proof_for_another_path_is_refused(served: Served, web: Peer) -> None:
    answer = web.ask("/pay", web.proof("POST", "/orders"), method="POST")
    assert answer.status == 401
    assert "token.audience" in served.lines.reasons() or "token.target" in served.lines.reasons()


def test_a_proof_with_another_query_is_refused(served: Served, web: Peer) -> None:
    answer = web.ask("/pay?to=me", web.proof("POST", "/pay?to=you"), method="POST")
    refused(served, answer, 401, "token.target")


def test_a_bound_token_where_a_proof_is_asked_for_is_refused(served: Served, web: Peer) -> None:
    answer = web.ask("/pay", web.tokens(), method="POST")
    refused(served, answer, 401, "token.mode")
    assert answer.json["type"].endswith("mode-insufficient")


def test_what_no_rule_allows_is_refused(served: Served, web: Peer) -> None:
    refused(served, web.ask("/admin", web.tokens()), 403, "rule.none")


def test_a_denied_caller_is_refused_whatever_allows_it(served: Served) -> None:
    batch = served.caller("batch")
    refused(served, batch.ask("/echo"), 403, "rule.deny")


def test_a_callers_certificate_of_another_ca_ends_the_handshake(served: Served) -> None:
    stranger = ForgedAuthority(now=clock.now())
    peer = Peer(stranger, served.port, stranger.snapshot("web"))
    assert peer.ask().status is None


@pytest.mark.parametrize("name", ["authorization", "workload-identity-token", "txn-token"])
def test_an_identity_field_sent_twice_is_refused(served: Served, web: Peer, name: str) -> None:
    fields = dict(web.tokens())
    value = fields.get(name, "x")
    twice = [*((n, v) for n, v in fields.items() if n != name), (name, value), (name, value)]
    refused(served, web.ask(fields=twice), 400, "header.duplicate")


@pytest.mark.parametrize(
    "twin", ["workload_identity_token", "x_forwarded_client_cert", "txn_token", "client_cert"]
)
def test_an_identity_field_spelled_with_underscores_is_refused(
    served: Served, web: Peer, twin: str
) -> None:
    refused(served, web.ask(fields=[*web.tokens(), (twin, "x")]), 400, "header.twin")


@pytest.mark.parametrize("option", ["authorization", "keep-alive, Workload-Identity-Token"])
def test_a_connection_field_that_strips_ours_is_refused(
    served: Served, web: Peer, option: str
) -> None:
    fields = [*web.tokens(), ("connection", option)]
    refused(served, web.ask(fields=fields), 400, "header.connection")


def test_the_application_sees_no_header_that_carries_identity(web: Peer) -> None:
    spoofed = [
        (
            "x-forwarded-client-cert",
            "By=spiffe://example.org/orders;URI=spiffe://example.org/admin",
        ),
        ("client-cert", ":AAAA:"),
        ("x-other", "kept"),
    ]
    answer = web.ask(fields=[*web.tokens(), *spoofed])
    assert answer.status == 200
    assert [name for name, _ in answer.json["headers"]] == ["host", "x-other"]
    assert answer.json["caller"] == "spiffe://example.org/web"


@pytest.mark.parametrize(
    "target",
    [
        "//echo",
        "/orders//42",
        "/orders/../echo",
        "/orders/%2e%2e/echo",
        "/./echo",
        "/orders/..%2fecho",
        "/orders/a%2Fb",
        "/orders/a%5Cb",
        "/orders/a\\b",
        "/orders/a;v=1",
        "/orders/a%3Bv",
        "/%65cho",
        "/orders/%00",
        "/orders/%C0%AF",
        "/orders/%ff",
        "/echo#fragment",
        "http://localhost/echo",
        "https://evil.test/echo",
        "/orders/%252e",
    ],
)
def test_a_target_with_two_readings_is_refused(served: Served, web: Peer, target: str) -> None:
    answer = web.ask(target, web.tokens())
    if answer.status == 400 and not answer.body.startswith(b"{"):
        return  # the HTTP parser itself refused it
    refused(served, answer, 400, "path.ambiguous")


@pytest.mark.parametrize(
    "host",
    ["local host", "localhost/x", "localhost?x", "a@localhost", "localhost:0", "loc\talhost"],
)
def test_a_malformed_host_is_refused(served: Served, web: Peer, host: str) -> None:
    answer = web.ask(fields=web.tokens(), host=host)
    if answer.status == 400 and not answer.body.startswith(b"{"):
        return  # the HTTP parser itself refused it
    refused(served, answer, 400, "host.invalid")


def test_a_missing_host_is_refused(served: Served, web: Peer) -> None:
    assert web.ask(fields=web.tokens(), host="").status == 400


@pytest.mark.parametrize("host", ["evil.test", "orders.test.evil.test", "localhost:1"])
def test_an_unknown_host_is_refused(served: Served, web: Peer, host: str) -> None:
    refused(served, web.ask(fields=web.tokens(), host=host), 421, "host.unknown")


def test_the_names_of_the_certificate_are_our_authorities(served: Served, web: Peer) -> None:
    for host in ("orders.test", f"orders.test:{served.port}", f"127.0.0.1:{served.port}"):
        assert web.ask(fields=web.tokens(), host=host).status == 200


def test_an_open_route_asks_for_the_certificate_only_and_has_no_caller(
    served: Served, web: Peer
) -> None:
    answer = web.ask("/healthz", [("authorization", "Basic x")])
    assert answer.status == 200
    assert answer.json["caller"] is None
    assert [name for name, _ in answer.json["headers"]] == ["host"]
    refused(served, web.ask("/healthz", [], method="POST"), 401, "token.missing")


def test_a_refused_call_with_a_body_ends_the_connection(web: Peer) -> None:
    with web.connect() as wire:
        answer = wire.ask("/orders", [], method="POST", body=b"GET /echo HTTP/1.1\r\n\r\n")
        assert answer.status == 401
        assert answer.headers["connection"] == "close"
        assert wire.ends_within(2) is not None


def test_ten_refused_tokens_end_the_connection(web: Peer) -> None:
    with web.connect() as wire:
        answers = [wire.ask("/echo", []) for _ in range(10)]
        assert [answer.status for answer in answers] == [401] * 10
        assert all("connection" not in answer.headers for answer in answers[:9])
        assert answers[9].headers["connection"] == "close"
        assert wire.ends_within(2) is not None


def test_nine_refused_tokens_do_not_end_the_connection(web: Peer) -> None:
    with web.connect() as wire:
        for _ in range(9):
            assert wire.ask("/echo", []).status == 401
        assert wire.ask("/echo", web.tokens()).status == 200


def test_pipelined_requests_are_judged_each_by_its_own_target(web: Peer) -> None:
    with web.connect() as wire:
        tokens = web.tokens()
        for target in ("/orders/1", "/admin", "/orders/2"):
            wire.send(target, tokens)
        assert [wire.read().status for _ in range(3)] == [200, 403, 200]


def test_the_audit_line_holds_the_reason_and_never_a_token(served: Served, web: Peer) -> None:
    answer = web.ask("/admin?secret=1", web.tokens())
    line = next(e for e in served.lines.events if e.id == answer.json["id"])
    assert answer.status == 403
    assert (line.peer, line.route, line.rule) == ("spiffe://example.org/web", "/admin", "")
    assert "secret" not in repr(line)
    assert web.wit.token[:20] not in repr(served.lines.events)


def test_the_audit_line_names_the_rule_that_denied(served: Served) -> None:
    answer = served.caller("batch").ask("/echo")
    line = next(e for e in served.lines.events if e.id == answer.json["id"])
    assert (answer.status, line.rule) == (403, "nobody-from-batch")


def test_a_header_that_looks_like_our_extension_changes_nothing(served: Served, web: Peer) -> None:
    fields: Any = [("zerotrust.caller", "spiffe://example.org/admin")]
    refused(served, web.ask("/echo", fields), 401, "token.missing")


def test_a_server_header_is_not_sent(web: Peer) -> None:
    assert "server" not in web.ask().headers


def test_the_caller_of_an_incoming_scope_is_overwritten() -> None:
    async def lying(scope: Any, receive: Any, send: Any) -> None:
        await protected({**scope, "zerotrust.caller": "admin"}, receive, send)

    with Served(echo) as served:
        protected = served.app
        served.config.loaded_app = lying
        answer = served.caller().ask("/healthz", [])
        assert answer.json["caller"] is None
