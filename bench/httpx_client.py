"""What our client adds to httpx over bare mutual TLS: same requests, one connection."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import threading
import time
from typing import Any

import httpx

from bench.http_server import Standing
from bench.rig import Figure, authority, bare_context, interleaved, per_call, pin
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.httpx import AsyncClient, Client
from zerotrust.workload.token_source import TokenSource

CALLS = 150  # in a round

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def figures(*, quick: bool) -> list[Figure]:
    """Return processor time per request of the calling thread."""
    rounds = 10 if quick else 60
    pin(1)
    ca = authority()
    server = ca.snapshot("orders")
    me = Standing(ca.snapshot("web", bundles=server.bundles))
    peer = server.svid.id
    port, pid = _serve(bare_context(server, server=True))
    url = f"https://localhost:{port}/orders/7"
    context = bare_context(me.current, server=False)
    tokens = dict(TokenSource(me.current).bound(peer, time.time()))
    try:
        with (
            Client(me, peer=peer) as ours,
            httpx.Client(verify=context, trust_env=False) as bare,
            httpx.Client(verify=context, trust_env=False, headers=tokens) as same,
        ):
            sync = _compared(ours, bare, url, rounds)
            alike = _compared(ours, same, url, rounds)
        colour = asyncio.run(_compared_async(me, peer, context, url, rounds))
    finally:
        os.kill(pid, signal.SIGKILL)
    note = "httpx, {}, keep-alive, bound; the bare side sends {}"
    return [
        _figure("httpx_client_cpu_vs_bare_mtls", "<= 1.05", sync, note.format("sync", "no tokens")),
        _figure("httpx_client_cpu_vs_same_bytes", "", alike, note.format("sync", "fixed tokens")),
        _figure("httpx_async_cpu_vs_bare_mtls", "", colour, note.format("async", "no tokens")),
    ]


def _figure(name: str, target: str, sides: tuple[float, float], note: str) -> Figure:
    best, base = sides
    return Figure(name, best * 1e6, "us/request", base * 1e6, best / base, target, note)


def _compared(ours: Any, bare: Any, url: str, rounds: int) -> tuple[float, float]:
    for client in (ours, bare):
        client.get(url)
    return interleaved(
        lambda: per_call(lambda: ours.get(url), CALLS),
        lambda: per_call(lambda: bare.get(url), CALLS),
        rounds,
    )


async def _compared_async(
    me: Standing, peer: SpiffeId, context: ssl.SSLContext, url: str, rounds: int
) -> tuple[float, float]:
    async def cost(client: Any) -> float:
        started = time.process_time()
        for _ in range(CALLS):
            await client.get(url)
        return (time.process_time() - started) / CALLS

    async with (
        AsyncClient(me, peer=peer) as ours,
        httpx.AsyncClient(verify=context, trust_env=False) as bare,
    ):
        sides: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 1):  # the first one warms
            for side in (0, 1) if turn % 2 else (1, 0):
                sides[side].append(await cost((ours, bare)[side]))
    return min(sides[0][1:]), min(sides[1][1:])


def _serve(context: ssl.SSLContext) -> tuple[int, int]:
    """Answer in a process of its own, so that only the client's time is counted."""
    sock = socket.create_server(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    pid = os.fork()
    if pid == 0:
        pin(0)
        while True:
            raw, _ = sock.accept()
            threading.Thread(target=_answer, args=(context, raw), daemon=True).start()
    sock.close()
    return port, pid


def _answer(context: ssl.SSLContext, raw: socket.socket) -> None:
    with context.wrap_socket(raw, server_side=True) as sock:
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
            if data.endswith(b"\r\n\r\n"):
                sock.sendall(_ANSWER)
                data = b""
