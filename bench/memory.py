"""Whether a server's memory grows with the requests it has served: it must not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from multiprocessing.connection import Connection
from typing import Final

from bench.http_server import APP, Standing
from bench.rig import Figure, authority, bare_context, pin, process, resident_of
from zerotrust.asgi.middleware import protect
from zerotrust.asgi.server import Config, Server, bind
from zerotrust.audit import AuditLog, JsonLinesSink
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.token_source import TokenSource

IDENTITIES: Final = 500
TURNS_PER_RENEWAL: Final = 40  # of an identity's connection and token
POLICY: Final = b"""
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "load"
from = ["load/*"]
to = ["GET /orders/{id}"]
"""


def figures(*, quick: bool) -> list[Figure]:
    """Return the slope of the resident memory over the requests, by least squares."""
    requests = 10_000 if quick else 200_000
    ca = authority()
    server = ca.snapshot("orders")
    with process(_serve, server) as (pid, pipe):
        pin(1)
        port = pipe.recv()
        samples, seconds = _load(ca, server, port, pid, requests // IDENTITIES)
    warm = samples[len(samples) // 4 :]
    grown = (warm[-1][1] - warm[0][1]) / 1024
    return [
        Figure(
            "rss_bytes_per_request",
            _slope(warm),
            "bytes/request",
            target="" if quick else "<= 1.0",  # too few to tell a leak from a page
            note=f"{requests} requests of {IDENTITIES} identities in {seconds:.0f} s; over the "
            f"last three quarters {grown:+.0f} KiB at {warm[-1][1] / 2**20:.0f} MiB",
        )
    ]


def _serve(pipe: Connection, snapshot: Snapshot) -> None:
    """Serve until told to stop."""
    pin(0)
    sock = bind("127.0.0.1", 0)
    config = Config(
        APP,
        wrap=lambda app: protect(
            app,
            Standing(snapshot),
            parse_policy(POLICY),
            audit=AuditLog(JsonLinesSink("/dev/null")),
        ),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=60,
        on_started=lambda: pipe.send(sock.getsockname()[1]),
    )
    Server(config).run(sockets=[sock])


def _load(
    ca: ForgedAuthority, server: Snapshot, port: int, pid: int, turns: int
) -> tuple[list[tuple[int, int]], float]:
    """Return (requests so far, resident bytes) after each turn, and what they took."""
    started = time.monotonic()
    samples = []
    with contextlib.ExitStack() as stack:
        callers = [
            stack.enter_context(contextlib.closing(_Caller(ca, f"load/{i}", server, port)))
            for i in range(IDENTITIES)
        ]
        for turn in range(1, turns + 1):
            for caller in callers[turn % TURNS_PER_RENEWAL :: TURNS_PER_RENEWAL]:
                caller.renew()
            for caller in callers:
                caller.send()
            for caller in callers:
                caller.receive()
            samples.append((turn * IDENTITIES, resident_of(pid)))
    return samples, time.monotonic() - started


class _Caller:
    """One identity with its connection, and the request it repeats."""

    def __init__(self, ca: ForgedAuthority, name: str, server: Snapshot, port: int) -> None:
        self._snapshot = ca.snapshot(name, bundles=server.bundles)
        self._server, self._port = server.svid.id, port
        self._context = bare_context(self._snapshot, server=False)
        self._open()

    def renew(self) -> None:
        """Begin anew, with a connection and a token that the server has not seen."""
        self.close()
        self._open()

    def send(self) -> None:
        """Send the request."""
        self._sock.sendall(self._request)

    def receive(self) -> None:
        """Read the answer."""
        data = self._sock.recv(4096)
        while not data.endswith(b"\r\n\r\nok"):
            more = self._sock.recv(4096)
            if not more:
                break
            data += more
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the load was refused: {data[:300]!r}")

    def close(self) -> None:
        """Let go of the connection."""
        self._sock.close()

    def _open(self) -> None:
        raw = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._sock: ssl.SSLSocket = self._context.wrap_socket(raw)
        tokens = TokenSource(self._snapshot).bound(self._server, time.time())
        lines = [
            "GET /orders/7 HTTP/1.1",
            f"host: localhost:{self._port}",
            *(f"{name}: {value}" for name, value in tokens),
        ]
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode()


def _slope(samples: list[tuple[int, int]]) -> float:
    """Return bytes per request: the least squares line through the samples."""
    count = len(samples)
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    over = sum((x - mean_x) * (y - mean_y) for x, y in samples)
    return over / sum((x - mean_x) ** 2 for x, _ in samples)
