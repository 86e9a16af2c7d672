"""Several requests on one connection: where each begins and ends has one reading."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from support.served import Fields, Peer, Served, Wire, echo
from zerotrust.asgi.limits import MAX_HEAD_BYTES, MAX_PIPELINED

CHUNKED = ("transfer-encoding", "chunked")
TO_WEBSOCKET = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


class Recorded:
    """An application that keeps the scopes it was given and reads every body to its end."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.scopes.append(scope)
            if scope["method"] == "POST":
                while (await receive()).get("more_body"):
                    pass
        await echo(scope, receive, send)


class Target(NamedTuple):
    served: Served
    app: Recorded
    web: Peer
    http: str


@pytest.fixture(params=["httptools", "h11"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    app = Recorded()
    with Served(app, options={"http": request.param}) as served:
        yield Target(served, app, served.caller(), request.param)


def head(web: Peer, line: str, fields: Fields) -> bytes:
    lines = [f"{line} HTTP/1.1", f"host: localhost:{web.port}"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode()


def all_of(wire: Wire, seconds: float = 1.0) -> bytes:
    """Read until the connection ends or is silent for so long."""
    received = b""
    wire.sock.settimeout(seconds)
    with contextlib.suppress(OSError):
        while chunk := wire.sock.recv(65536):
            received += chunk
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


def test_a_token_in_a_trailer_is_no_token(target: Target) -> None:
    web = target.web
    wit, proof = web.tokens()
    trailer = "authorization: " + proof[1]
    body = f"2\r\nhi\r\n0\r\n{trailer}\r\n\r\n".encode()
    with web.connect() as wire:
        wire.sock.sendall(head(web, "POST /orders", [wit, CHUNKED]) + body)
        assert statuses(all_of(wire)) == [401]
    with web.connect() as wire:
        wire.sock.sendall(
            head(web, "POST /orders", [wit, proof, CHUNKED]) + b"2\r\nhi\r\n0\r\n\r\n"
        )
        assert statuses(all_of(wire)) == [200]


def test_the_application_sees_no_trailer_among_its_fields(target: Target) -> None:
    web = target.web
    body = b"2\r\nhi\r\n0\r\nx-forwarded-user: root\r\n\r\n"
    with web.connect() as wire:
        wire.sock.sendall(head(web, "POST /orders", [*web.tokens(), CHUNKED]) + body)
        assert wire.read().status == 200
        assert wire.ask("/echo", web.tokens()).status == 200
    for scope in target.app.scopes:
        assert b"x-forwarded-user" not in dict(scope["headers"])


@pytest.mark.parametrize("protocol", ["foo", "h2c", "websocket"])
def test_the_body_of_a_request_that_asks_to_upgrade_is_not_the_next_request(
    target: Target, protocol: str
) -> None:
    web = target.web
    inner = head(web, "GET /orders/smuggled", web.tokens())
    asks = [("connection", "upgrade"), ("upgrade", protocol), ("content-length", str(len(inner)))]
    with web.connect() as wire:
        wire.sock.sendall(head(web, "POST /orders", [*web.tokens(), *asks]))
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            wire.sock.sendall(inner)
        answers = statuses(all_of(wire))
    assert len(answers) <= 1
    assert [scope["path"] for scope in target.app.scopes if scope["path"] != "/orders"] == []


def test_an_upgrade_does_not_overtake_the_response_before_it(target: Target) -> None:
    web = target.web
    with web.connect() as wire:
        wire.sock.sendall(head(web, "GET /stream", web.tokens()))
        while b"data: x" not in wire.sock.recv(65536):
            pass
        wire.sock.sendall(head(web, "GET /talk", [*web.tokens(), *TO_WEBSOCKET]))
        wire.sock.settimeout(0.5)
        received, until = b"", time.monotonic() + 1
        with contextlib.suppress(OSError):
            while time.monotonic() < until and (chunk := wire.sock.recv(65536)):
                received += chunk
    assert 101 not in statuses(received)
    with web.connect() as wire:
        assert wire.ask("/talk", [*web.tokens(), *TO_WEBSOCKET]).status == 101


def test_a_head_without_end_ends_the_connection(target: Target) -> None:
    with target.web.connect() as wire:
        wire.sock.sendall(b"GET /echo HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 * MAX_HEAD_BYTES:
                wire.sock.sendall(b"x: " + b"a" * 8192 + b"\r\n")
                sent += 8192
            assert statuses(all_of(wire)) in ([], [400])
        assert wire.ends_within(2) is not None
    assert target.web.ask().status == 200


def test_a_field_without_end_ends_the_connection(target: Target) -> None:
    with target.web.connect() as wire:
        wire.sock.sendall(b"GET /echo HTTP/1.1\r\nx: ")
        with contextlib.suppress(OSError):
            for _ in range(64):
                wire.sock.sendall(b"a" * MAX_HEAD_BYTES)
        assert wire.ends_within(2) is not None


def test_requests_that_wait_on_one_connection_are_few() -> None:
    with Served() as served:
        web = served.caller()
        fields = web.tokens()
        with web.connect() as wire:
            wire.sock.sendall(head(web, "GET /echo", fields) * MAX_PIPELINED)
            assert statuses(all_of(wire)) == [200] * MAX_PIPELINED
        with web.connect() as wire:
            wire.sock.sendall(head(web, "GET /silent", fields))
            time.sleep(0.1)
            wire.sock.sendall(head(web, "GET /echo", []) * (MAX_PIPELINED + 1))
            assert wire.ends_within(3) is not None


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /echo HTTP/1.1\r\nbroken\r\n\r\n", b"\x00\x01\x02 / HTTP/1.1\r\n\r\n"],
    ids=["field without a colon", "no method"],
)
def test_what_cannot_be_read_is_refused_and_written_down(
    target: Target, request_bytes: bytes
) -> None:
    with target.web.connect() as wire:
        wire.sock.sendall(request_bytes)
        assert all_of(wire).startswith(b"HTTP/1.1 400")
    (event,) = [e for e in target.served.lines.events if e.reason == "request.unreadable"]
    assert (event.peer, event.code) == ("spiffe://example.org/web", "ZT2011")
    assert target.app.scopes == []
