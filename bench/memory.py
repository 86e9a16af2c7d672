"""Whether a server's memory grows with the requests it has served: it must not."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Final

from bench.http_server import APP, Standing, serve_bare
from bench.rig import Figure, authority, bare_context, pin, process, resident_of
from zerotrust.asgi.middleware import protect
from zerotrust.asgi.server import Config, Server, bind
from zerotrust.audit import AuditLog, JsonLinesSink
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.token_source import TokenSource

IDENTITIES: Final = 500
TURNS_PER_RENEWAL: Final = 40  # of an identity's connection
IDLE: Final = 60  # seconds that a connection may rest while the others are served
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
    """Return the slopes over the requests: resident memory, and the blocks of Python objects."""
    requests = 10_000 if quick else 200_000
    ca = authority()
    server = ca.snapshot("orders")
    pin(1)
    with process(_serve, server) as (pid, pipe):
        load = _Load(ca, server, pipe.recv(), pid)
        load.run(requests // 4)
        before = _blocks(pipe)
        resident = load.run(requests - requests // 4)
        blocks = (_blocks(pipe) - before) / (requests - requests // 4)
        load.close()
    with process(lambda pipe: serve_bare(lambda: server, pipe, timeout_keep_alive=IDLE)) as (
        pid,
        pipe,
    ):
        bare = _Load(ca, server, pipe.recv(), pid)
        bare.run(requests // 16)
        floor = bare.run(requests // 5)
        bare.close()
    grown = (resident[-1][1] - resident[0][1]) / 1024
    return [
        Figure(
            "rss_bytes_per_request",
            _slope(resident),
            "bytes/request",
            _slope(floor),
            _slope(resident) / _slope(floor) if _slope(floor) else None,
            note=f"{requests} requests of {IDENTITIES} identities, each reconnecting every "
            f"{TURNS_PER_RENEWAL}; the last three quarters: {grown:+.0f} KiB at "
            f"{resident[-1][1] / 2**20:.0f} MiB; the baseline is the same load on bare mutual TLS, "
            "whose allocator grows too",
        ),
        Figure(
            "python_blocks_per_request",
            blocks,
            "blocks/request",
            target="" if quick else "<= 0.1",  # a leak is one or more
            note="allocated blocks of the interpreter after a collection, same requests; new "
            "tokens fill caches of bounded size",
        ),
    ]


def _blocks(pipe: Connection) -> int:
    pipe.send(None)
    blocks: int = pipe.recv()
    return blocks


def _serve(pipe: Connection, snapshot: Snapshot) -> None:
    """Serve, and tell how many blocks are allocated whenever asked."""
    pin(0)
    sock = bind("127.0.0.1", 0)
    audit = AuditLog(JsonLinesSink("/dev/null"))
    config = Config(
        APP,
        wrap=lambda app: protect(app, Standing(snapshot), parse_policy(POLICY), audit=audit),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=IDLE,
        on_started=lambda: pipe.send(sock.getsockname()[1]),
    )

    def count() -> None:
        while True:
            pipe.recv()
            gc.collect()
            pipe.send(sys.getallocatedblocks())

    threading.Thread(target=count, daemon=True).start()
    Server(config).run(sockets=[sock])


class _Load:
    """All identities, each with a connection of its own."""

    def __init__(self, ca: ForgedAuthority, server: Snapshot, port: int, pid: int) -> None:
        self._pid, self._turn = pid, 0
        _await(port)
        self._callers = [_Caller(ca, f"load/{i}", server, port) for i in range(IDENTITIES)]

    def run(self, requests: int) -> list[tuple[int, int]]:
        """Return (requests so far, resident bytes) after each turn."""
        samples = []
        for _ in range(max(2, requests // IDENTITIES)):
            self._turn += 1
            for caller in self._callers[self._turn % TURNS_PER_RENEWAL :: TURNS_PER_RENEWAL]:
                caller.renew()
            for caller in self._callers:
                caller.send()
            for caller in self._callers:
                caller.receive()
            samples.append((self._turn * IDENTITIES, resident_of(self._pid)))
        return samples

    def close(self) -> None:
        """Let go of all connections."""
        for caller in self._callers:
            caller.close()


def _await(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            return
        time.sleep(0.05)
    raise RuntimeError("the server does not answer")


class _Caller:
    """One identity with its connection, and the request it repeats."""

    def __init__(self, ca: ForgedAuthority, name: str, server: Snapshot, port: int) -> None:
        self._snapshot = ca.snapshot(name, bundles=server.bundles)
        self._server, self._port = server.svid.id, port
        self._tokens = TokenSource(self._snapshot)  # mints anew when its token is half over
        self._context = bare_context(self._snapshot, server=False)
        self._open()
        self.send()
        self.receive()

    def renew(self) -> None:
        """Begin anew over another connection, with the token of the moment."""
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
        tokens = self._tokens.bound(self._server, time.time())
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
