"""A flood of those who prove nothing, or prove it wrongly, costs an honest caller little."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from support.served import Peer
from zerotrust import clock
from zerotrust.asgi.limits import Limits
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.layout import write_layout

POLICY = """
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "web-reads"
from = ["web"]
to = ["GET /echo"]
"""
APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
"""
HALF_OPEN = 2000
ROUNDS, VISITS = 5, 40
PATIENCE = 1.0  # seconds for a visit that takes some milliseconds when all is quiet


@contextlib.contextmanager
def served(folder: Path, ca: ForgedAuthority) -> Iterator[int]:
    """A service in a process of its own; its port."""
    write_layout(folder / "identity", ca.snapshot("orders"), {})
    (folder / "policy.toml").write_text(POLICY)
    (folder / "plain.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    argv = ["serve", "plain:app", "--identity", "files:identity", "--policy", "policy.toml"]
    command = [sys.executable, "-m", "zerotrust", *argv, "--port", str(port)]
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + 20
            while not listens(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            assert process.wait(20) is not None


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def flood(
    port: int, ca: ForgedAuthority, going: Event, ended: Event, dropped: Synchronized[int]
) -> None:
    """Keep 2,000 handshakes half open from many addresses, and send bad tokens without a pause."""
    held: list[socket.socket] = []
    thief = Peer(ca, port, ca.snapshot("thief"))
    n = 0
    while not ended.is_set():
        while len(held) < HALF_OPEN:
            n += 1
            with contextlib.suppress(OSError):
                source = (f"127.0.{1 + n % 20}.{1 + n % 200}", 0)
                held.append(socket.create_connection(("127.0.0.1", port), 2, source))
        going.set()
        with contextlib.suppress(OSError, AssertionError), thief.connect() as wire:
            for _ in range(9):
                wire.ask("/echo", thief.tokens(aud="spiffe://example.org/other"))
                time.sleep(0.005)
    dropped.value = sum(map(is_dropped, held))
    for sock in held:
        sock.close()


def is_dropped(sock: socket.socket) -> bool:
    """Whether the server has ended this connection."""
    try:
        sock.setblocking(False)
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def p99(web: Peer) -> float:
    """The 99th percentile of one round of visits (a new connection, five calls), in seconds."""
    taken = []
    for _ in range(VISITS):
        tokens = web.tokens()
        began = time.perf_counter()
        with web.connect() as wire:
            wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as clients do
            for _ in range(5):
                assert wire.ask("/echo", tokens).status == 200
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=100)[98]


@pytest.mark.slow
def test_half_open_connections_and_bad_tokens_do_not_keep_an_honest_caller_waiting(
    tmp_path: Path,
) -> None:
    ca = ForgedAuthority(now=clock.now())
    with served(tmp_path, ca) as port:
        web = Peer(ca, port, ca.snapshot("web"))
        start = multiprocessing.get_context("fork")
        going, ended = start.Event(), start.Event()
        dropped = start.Value("i", 0)
        told = (port, ca, going, ended, dropped)
        attacker = start.Process(target=flood, args=told, daemon=True)
        attacker.start()
        try:
            assert going.wait(30)
            loud = [p99(web) for _ in range(ROUNDS)]
        finally:
            ended.set()
            attacker.join(10)
    # how much slower a visit gets is a figure of `python -m bench flood`, not a test
    assert statistics.median(loud) < PATIENCE, loud
    assert dropped.value >= HALF_OPEN - Limits().handshakes
