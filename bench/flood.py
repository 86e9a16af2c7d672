"""What a flood costs an honest caller: p99 of a visit, against the same visit in quiet."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import statistics
import time
from multiprocessing.synchronize import Event

from bench.http_server import Load, serve_ours
from bench.rig import Figure, bare_context

HALF_OPEN = 2000
CALLS = 5


def figures(*, quick: bool) -> list[Figure]:
    """Return p99 of a new connection and five calls under 2,000 half-open ones and bad tokens."""
    rounds, visits = (3, 40) if quick else (7, 100)
    load = Load(serve_ours)
    start = multiprocessing.get_context("fork")
    going, ended = start.Event(), start.Event()
    attacker = start.Process(target=_flood, args=(load, going, ended), daemon=True)
    try:
        quiet = statistics.median(_p99(load, visits) for _ in range(rounds))
        attacker.start()
        if not going.wait(30):
            raise RuntimeError("the flood did not begin")
        loud = statistics.median(_p99(load, visits) for _ in range(rounds))
    finally:
        ended.set()
        if attacker.pid:
            attacker.join(10)
        load.close()
    return [
        Figure(
            "flood_visit_p99_vs_quiet",
            loud * 1e3,
            "ms",
            quiet * 1e3,
            loud / quiet,
            "<= 2.0",
            f"{HALF_OPEN} half-open connections from 20 addresses, and bad tokens without a pause",
        )
    ]


def _p99(load: Load, visits: int) -> float:
    taken = []
    for _ in range(visits):
        began = time.perf_counter()
        with load.connect() as sock:
            for _ in range(CALLS):
                load.ask(sock)
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=100)[98]


def _flood(load: Load, going: Event, ended: Event) -> None:
    """Hold handshakes half open from many addresses; send bad tokens over good connections."""
    held: list[socket.socket] = []
    context = bare_context(load.ca.snapshot("thief", bundles=load.snapshot.bundles), server=False)
    number = 0
    while not ended.is_set():
        while len(held) < HALF_OPEN:
            number += 1
            with contextlib.suppress(OSError):
                source = (f"127.0.{1 + number % 20}.{1 + number % 200}", 0)
                held.append(socket.create_connection(("127.0.0.1", load.port), 2, source))
        going.set()
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", load.port), 2) as raw,
            context.wrap_socket(raw) as sock,
        ):
            for _ in range(9):
                sock.sendall(load.request)  # another caller's tokens
                sock.recv(65536)
                time.sleep(0.005)
    for one in held:
        one.close()
