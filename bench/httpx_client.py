"""What our client adds to httpx over bare mutual TLS: same requests, one connection."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading

import httpx

from bench.http_server import Standing
from bench.rig import Figure, authority, bare_context, interleaved, per_call, pin
from zerotrust.httpx import Client

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def figures(*, quick: bool) -> list[Figure]:
    """Return processor time per request of the calling thread."""
    rounds, times = (10, 100) if quick else (60, 150)
    pin(1)
    ca = authority()
    server = ca.snapshot("orders")
    me = Standing(ca.snapshot("web", bundles=server.bundles))
    port, pid = _serve(bare_context(server, server=True))
    url = f"https://localhost:{port}/orders/7"
    context = bare_context(me.current, server=False)
    ours = Client(me, peer=str(server.svid.id))
    bare = httpx.Client(verify=context, trust_env=False)
    try:
        with ours, bare:
            for client in (ours, bare):
                client.get(url)
            best, base = interleaved(
                lambda: per_call(lambda: ours.get(url), times),
                lambda: per_call(lambda: bare.get(url), times),
                rounds,
            )
    finally:
        os.kill(pid, signal.SIGKILL)
    return [
        Figure(
            "httpx_client_cpu_vs_bare_mtls",
            best * 1e6,
            "us/request",
            base * 1e6,
            best / base,
            "<= 1.05",
            "httpx, sync, keep-alive, bound; the bare side sends no tokens",
        )
    ]


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
