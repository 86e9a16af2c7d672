"""Whoever proved nothing is held to a time and a share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.served import Served, echo, until
from zerotrust.asgi import protocols
from zerotrust.asgi.limits import Limits


@contextlib.contextmanager
def half_open(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that begin no handshake."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            for _ in range(count)
        ]


def ended(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handshake_that_does_not_begin_ends_in_time(loop: str) -> None:
    with (
        Served(limits=Limits(handshake_seconds=0.5), options={"loop": loop}) as served,
        half_open(served.port, 1) as [sock],
    ):
        assert ended(sock, 3)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_over_the_share_of_an_address_its_oldest_handshake_goes(loop: str) -> None:
    limits = Limits(handshakes_per_address=3, handshake_seconds=30)
    with (
        Served(limits=limits, options={"loop": loop}) as served,
        half_open(served.port, 4) as sockets,
    ):
        assert ended(sockets[0], 3)
        assert not any(ended(sock, 0.1) for sock in sockets[1:])
        assert served.caller().ask().status == 200


def test_over_the_share_of_all_the_oldest_handshake_goes() -> None:
    with (
        Served(limits=Limits(handshakes=2, handshake_seconds=30)) as served,
        half_open(served.port, 3) as sockets,
    ):
        assert ended(sockets[0], 3)
        assert not any(ended(sock, 0.1) for sock in sockets[1:])


def test_over_the_number_of_connections_new_ones_are_closed() -> None:
    with Served(limits=Limits(connections=2)) as served:
        web = served.caller()
        tokens = web.tokens()
        with web.connect() as first:
            # served once, so that it no longer counts as shaking hands too
            assert first.ask("/echo", tokens).status == 200
            with web.connect() as second:
                assert second.ask("/echo", tokens).status == 200
                with half_open(served.port, 1) as [third]:
                    assert ended(third, 3)
                assert first.ask("/echo", tokens).status == 200


def test_honest_callers_are_served_while_many_handshakes_hang() -> None:
    with (
        Served(limits=Limits(handshakes_per_address=50)) as served,
        half_open(served.port, 400),
    ):
        web = served.caller()
        began = time.monotonic()
        assert [web.ask().status for _ in range(10)] == [200] * 10
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_request_whose_header_does_not_arrive_ends_the_connection(
    http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "HEADER_SECONDS", 0.5)
    with Served(options={"http": http}) as served:
        web = served.caller()
        with web.connect() as never, web.connect() as half, web.connect() as second:
            half.sock.sendall(b"GET /echo HTTP/1.1\r\nHost:")
            assert second.ask("/echo", web.tokens()).status == 200
            second.sock.sendall(b"GET /echo HTTP/1.1\r\nHost:")
            for wire in (never, half, second):
                assert wire.ends_within(5) is not None


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch, http: str) -> None:
    monkeypatch.setattr(protocols, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(protocols, "LOOK_SECONDS", 0.1)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(1.0)
        await echo(scope, receive, send)

    with Served(slow, options={"http": http}) as served:
        web = served.caller()
        with web.connect() as wire:
            assert wire.ask("/echo", web.tokens()).status == 200


def test_a_failed_handshake_leaves_one_audit_line_with_the_address() -> None:
    with Served() as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            ended(sock, 3)
        until(lambda: any(event.kind == "peer.refused" for event in served.lines.events))
        line = next(event for event in served.lines.events if event.kind == "peer.refused")
        assert line.peer == "127.0.0.1"


def test_the_server_ends_while_handshakes_hang() -> None:
    with Served(limits=Limits(handshake_seconds=60)) as served, half_open(served.port, 3):
        began = time.monotonic()
        served.__exit__()
        assert time.monotonic() - began < 5


def test_too_many_refused_tokens_of_one_peer_are_no_longer_verified() -> None:
    with Served() as served:
        web = served.caller()
        served.app._failures._size = 5
        served.app._failures._per_second = 0.0
        with web.connect() as wire:
            statuses = [wire.ask("/echo", []).status for _ in range(6)]
        assert statuses == [401] * 5 + [503]
        assert served.caller("batch").ask("/echo").status == 403
