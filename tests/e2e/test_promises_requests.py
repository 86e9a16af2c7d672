"""What a request may hide, over real TLS; each one change away from a call that is served."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from support.served import POLICY, Lines, Peer, Served, echo
from zerotrust.audit import AuditEvent, AuditLog


class EveryLine(AuditLog):
    """Writes each refusal, so that the reason of each can be read."""

    def refused(self, event: AuditEvent) -> None:
        self.record(event)


class Counted:
    """Reads the whole request, remembers it, and answers as `echo` does."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            while (message := await receive())["type"] == "http.request":
                if not message.get("more_body"):
                    break
            if message["type"] != "http.request":
                return  # the request never came to its end
            self.reached.append(f"{scope['method']} {scope['path']}")
        await echo(scope, receive, send)


class Target(NamedTuple):
    served: Served
    lines: Lines
    reached: list[str]
    web: Peer


@pytest.fixture(scope="module", params=["httptools", "h11"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    lines, app = Lines(), Counted()
    options = {"http": request.param}
    with Served(app, policy=POLICY, audit=EveryLine(lines), options=options) as served:
        yield Target(served, lines, app.reached, served.caller())


def statuses(web: Peer, head: str, body: bytes = b"", tokens: Any = None) -> list[int]:
    """Send a head, good tokens and a body; return every status until the connection ends."""
    fields = web.tokens() if tokens is None else tokens
    lines = [head.format(port=web.port), *(f"{n}: {v}" for n, v in fields), "", ""]
    received = b""
    with web.connect() as wire:
        wire.sock.settimeout(2)
        wire.sock.sendall("\r\n".join(lines).encode("latin-1") + body)
        with contextlib.suppress(OSError):
            while chunk := wire.sock.recv(65536):
                received += chunk
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", received)]


GET = "GET /echo HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close"
POST = "POST /orders HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close"
KEPT = POST.replace("\r\nConnection: close", "")
INNER = b"GET /echo?smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_body_of_known_length_and_a_chunked_one_are_served(target: Target) -> None:
    assert statuses(target.web, POST + "\r\nContent-Length: 2", b"hi") == [200]
    chunked = POST + "\r\nTransfer-Encoding: chunked"
    assert statuses(target.web, chunked, b"2\r\nhi\r\n0\r\n\r\n") == [200]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param(
            "Content-Length: 6\r\nTransfer-Encoding: chunked",
            b"0\r\n\r\n" + INNER,
            id="length-and-chunked",
        ),
        pytest.param(
            "Transfer-Encoding: chunked\r\nContent-Length: 6",
            b"0\r\n\r\n" + INNER,
            id="chunked-and-length",
        ),
        pytest.param(f"Content-Length: 0\r\nContent-Length: {len(INNER)}", INNER, id="two-lengths"),
        pytest.param("Content-Length: +0", INNER, id="signed-length"),
        pytest.param("Content-Length: 0x0", INNER, id="hex-length"),
        pytest.param("Content-Length: -1", INNER, id="negative-length"),
        pytest.param("Transfer-Encoding: xchunked", b"0\r\n\r\n" + INNER, id="other-coding"),
        pytest.param(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            b"0\r\n\r\n" + INNER,
            id="two-codings",
        ),
        pytest.param("Transfer-Encoding: chunked", b"0x2\r\nhi\r\n0\r\n\r\n", id="hex-chunk"),
        pytest.param("Transfer-Encoding: chunked", b"-1\r\nhi\r\n0\r\n\r\n", id="negative-chunk"),
        pytest.param("Content-Length : 0", INNER, id="space-before-colon"),
    ],
)
def test_a_second_request_hidden_in_the_body_of_a_first_is_not_served(
    target: Target, fields: str, body: bytes
) -> None:
    before = len(target.reached)
    assert statuses(target.web, f"{KEPT}\r\n{fields}", body) in ([], [400])
    assert target.reached[before:] == []


def test_a_refused_caller_is_not_asked_for_its_body(target: Target) -> None:
    head = POST + "\r\nExpect: 100-continue\r\nContent-Length: 2"
    assert statuses(target.web, head, b"hi")[-1] == 200
    assert statuses(target.web, head, tokens=[]) == [401]


def test_one_of_each_identity_field_is_served(target: Target) -> None:
    assert statuses(target.web, GET) == [200]


@pytest.mark.parametrize(
    "field",
    [
        "Authorization: Bearer e30.e30.AA",
        "AUTHORIZATION: WPT e30.e30.AA",
        "Workload-Identity-Token: e30.e30.AA",
        "wOrKlOaD-iDeNtItY-tOkEn: e30.e30.AA",
        "Workload_Identity-Token: e30.e30.AA",
        "WORKLOAD_IDENTITY_TOKEN: e30.e30.AA",
        "Txn_Token: e30.e30.AA",
        "Client_Cert: :AA==:",
        "X_Forwarded_Client_Cert: URI=spiffe://example.org/admin",
        "Host: localhost",
        "Txn-Token: e30.e30.AA\r\nTxn-Token: e30.e30.AA",
        "Signature: a=:AA==:\r\nSignature: a=:AA==:",
        "Signature-Input: a=()\r\nSignature-Input: a=()",
        "Authorization : WPT e30.e30.AA",
        "Author\0ization: WPT e30.e30.AA",
        "X-Anything: a\0b",
        "Connection: workload-identity-token",
        "Connection: x, TXN-TOKEN",
        "Connection: workload_identity_token",
        "Connection: Host",
        "Connection: X-Forwarded-Client-Cert",
    ],
)
def test_a_field_with_two_readings_beside_good_tokens_is_refused(
    target: Target, field: str
) -> None:
    before = len(target.reached)
    assert statuses(target.web, f"{GET}\r\n{field}") in ([], [400])
    assert target.reached[before:] == []


@pytest.mark.parametrize("change", ["{0}, {0}", "{0},", ",{0}", '"{0}"', "{0} x", "{0}\t{0}"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_token_field_that_is_a_list_is_refused(target: Target, which: int, change: str) -> None:
    tokens = target.web.tokens()
    name, value = tokens[which]
    tokens[which] = (name, change.format(value))
    assert statuses(target.web, GET, tokens=tokens) in ([400], [401])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HEAD /echo", [403]),
        ("OPTIONS /echo", [403]),
        ("OPTIONS *", [400]),
        ("TRACE /echo", [403]),
        ("get /echo", [400]),
        ("Get /echo", [400]),
        ("CONNECT localhost:1", [400]),
        ("PRI *", [400]),
    ],
)
def test_a_rule_for_get_allows_get_and_nothing_else(
    target: Target, line: str, expected: list[int]
) -> None:
    before = len(target.reached)
    assert statuses(target.web, GET.replace("GET /echo", line)) in ([], expected)
    assert target.reached[before:] == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "127.0.0.1:{port}"])
def test_our_own_host_is_ours_in_any_case_and_with_or_without_its_port(
    target: Target, host: str
) -> None:
    assert statuses(target.web, GET.replace("localhost:{port}", host)) == [200]


@pytest.mark.parametrize(
    "host",
    [
        "localhost:1",
        "localhost.:{port}",
        "xn--lcalhost-wqa:{port}",
        "0.0.0.0:{port}",
        "orders.example:{port}",
    ],
)
def test_the_host_of_somebody_else_is_misdirected(target: Target, host: str) -> None:
    assert statuses(target.web, GET.replace("localhost:{port}", host)) == [421]


@pytest.mark.parametrize(
    "host",
    [
        "user@localhost:{port}",
        "localhost:{port}, other.example",
        "localhost:0",
        "localhost:65536",
        "localhost:+1",
        "localhost:",
        "localhost%00:{port}",
        "localhost:{port}/public?x=",
        "localhost:{port}#",
        "l\xf6calhost:{port}",
        "",
    ],
)
def test_a_host_that_is_no_host_is_refused(target: Target, host: str) -> None:
    before = len(target.reached)
    assert statuses(target.web, GET.replace("localhost:{port}", host)) in ([], [400])
    assert target.reached[before:] == []
