"""What the guard costs a server per request: the same app and bytes on bare mutual TLS."""

from __future__ import annotations

import multiprocessing
import socket
import ssl
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bench.rig import Figure, authority, bare_context, cpu_of, interleaved, pin
from zerotrust.asgi.middleware import protect
from zerotrust.asgi.server import Config, Server, bind
from zerotrust.audit import AuditLog, JsonLinesSink
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.workload.identity import Snapshot, WorkloadIdentity

RULES = 1000
CONNECTIONS = 16


def policy(rules: int) -> bytes:
    """Return a policy of that many rules, of which one allows the load."""
    head = 'schema = 1\nservice = "orders"\ntrust_domain = "example.org"\nmode = "enforce"\n'
    rows = [
        f'[[allow]]\nid = "r{i}"\nfrom = ["team-{i}/web"]\nto = ["GET /team-{i}/{{id}}"]\n'
        for i in range(rules - 1)
    ]
    rows.append('[[allow]]\nid = "load"\nfrom = ["web"]\nto = ["GET /orders/{id}"]\n')
    return (head + "".join(rows)).encode()


async def _order(_request: object) -> PlainTextResponse:
    return PlainTextResponse("ok")


APP = Starlette(routes=[Route("/orders/{id}", _order)])


class Still:
    """A source whose snapshot stays the same, for a real WorkloadIdentity around it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._closed = threading.Event()

    def fetch(self, _previous: Snapshot | None) -> Snapshot:
        """Return the snapshot."""
        return self._snapshot

    def wait(self, seconds: float) -> None:
        """Sleep until closed."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End a wait."""
        self._closed.set()


class Standing:
    """An identity that stands still."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.current = snapshot


def serve_bare(snapshot_of: Any, ready: Connection, **options: Any) -> None:
    """Serve the app on bare mutual TLS."""
    pin(0)
    sock = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        APP,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ssl_context_factory=lambda _config, _default: bare_context(snapshot_of(), server=True),
        **options,
    )
    ready.send(sock.getsockname()[1])
    uvicorn.Server(config).run(sockets=[sock])


def serve_ours(snapshot_of: Any, ready: Connection, *, per_call: bool = False) -> None:
    """Serve the app behind the guard."""
    pin(0)
    sock = bind("127.0.0.1", 0)
    identity = WorkloadIdentity(Still(snapshot_of()))
    sink = JsonLinesSink("/dev/null")
    config = Config(
        APP,
        wrap=lambda app: protect(
            app,
            identity,
            parse_policy(policy(RULES)),
            audit=AuditLog(sink, per_call=per_call),
        ),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    ready.send(sock.getsockname()[1])
    Server(config).run(sockets=[sock])


class Load:
    """Keep-alive connections to one server, and the requests they send."""

    def __init__(self, target: Any, options: dict[str, Any] | None = None) -> None:
        self.ca = authority()
        snapshot = self.ca.snapshot("orders", dns=["orders.test"])
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        self.process = context.Process(
            target=target, args=(lambda: snapshot, theirs), kwargs=options or {}, daemon=True
        )
        self.process.start()
        self.port = ours.recv()
        self.snapshot = snapshot
        self.client = self.ca.snapshot("web", bundles=snapshot.bundles)
        self._context = bare_context(self.client, server=False)
        self.request = self._render()
        self._sockets = [self.connect() for _ in range(CONNECTIONS)]

    def cost(self, requests: int) -> float:
        """Return server processor seconds per request."""
        before = cpu_of(self.process.pid or 0)
        for turn in range(requests // CONNECTIONS):
            for sock in self._sockets:
                sock.sendall(self.request)
            for sock in self._sockets:
                if not _answer(sock).startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"the load was refused in turn {turn}")
        return (cpu_of(self.process.pid or 0) - before) / (requests // CONNECTIONS * CONNECTIONS)

    def close(self) -> None:
        """End the load and the server."""
        for sock in self._sockets:
            sock.close()
        self.process.terminate()
        self.process.join()

    def _render(self) -> bytes:
        if self.client.wit is None:
            raise RuntimeError("the load needs a WIT")
        wpt = self.ca.wpt(
            self.client.wit.token,
            self.client.wit.key,
            aud=str(self.snapshot.svid.id),
            x5t=self.client.svid.thumbprint,
            ttl=290,
        )
        lines = [
            "GET /orders/7 HTTP/1.1",
            f"host: localhost:{self.port}",
            "accept: */*",
            "accept-encoding: gzip, deflate",
            "user-agent: load",
            f"workload-identity-token: {self.client.wit.token}",
            f"authorization: WPT {wpt}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def ask(self, sock: ssl.SSLSocket) -> None:
        """Send one request and read its answer."""
        sock.sendall(self.request)
        if not _answer(sock).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("the load was refused")

    def connect(self) -> ssl.SSLSocket:
        """Return a new connection of the honest caller."""
        for _ in range(100):
            try:
                raw = socket.create_connection(("127.0.0.1", self.port), timeout=5)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock = self._context.wrap_socket(raw)
            except OSError:
                time.sleep(0.05)
            else:
                return sock
        raise RuntimeError("the server does not answer")


def _answer(sock: ssl.SSLSocket) -> bytes:
    data = sock.recv(4096)
    while not data.endswith(b"\r\n\r\nok"):
        more = sock.recv(4096)
        if not more:
            break
        data += more
    return data


def _compare(name: str, target: str, rounds: int, mine: Any, other: Any, note: str) -> Figure:
    pin(1)
    ours, theirs = Load(*mine), Load(*other)
    try:
        for load in (ours, theirs):
            load.cost(2000)  # warm
        best, base = interleaved(lambda: ours.cost(1600), lambda: theirs.cost(1600), rounds)
    finally:
        ours.close()
        theirs.close()
    return Figure(name, best * 1e6, "us/request", base * 1e6, best / base, target, note)


def figures(*, quick: bool) -> list[Figure]:
    """Return the server's figures."""
    rounds = 10 if quick else 60
    return [
        _compare(
            "http_bound_cpu_vs_bare_mtls",
            "<= 1.10",
            rounds,
            (serve_ours,),
            (serve_bare,),
            f"uvicorn, httptools, uvloop, policy of {RULES} rules, bound, warm",
        ),
        _compare(
            "audit_per_call_cpu_vs_counted",
            "",
            rounds // 2,
            (serve_ours, {"per_call": True}),
            (serve_ours,),
            "one audit line per allowed call instead of one per minute",
        ),
    ]
