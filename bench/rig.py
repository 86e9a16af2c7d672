"""What the figures share: interleaved rounds, processor time of a process, identities.

1. The machine drifts within seconds, so two sides are timed in turn and the best round of each
   counts.
2. A server's cost is its own processor time, read from the kernel; what the load costs is not
   counted.
3. Times are reported beside the ratios for orientation only: ratios carry over, times do not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from zerotrust.probe.deliver import present
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot


@dataclass(frozen=True)
class Figure:
    """One line of the results: `value` is ours, `baseline` what it is held against, in `unit`."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    target: str = ""
    note: str = ""

    def short_of_target(self) -> bool:
        """Whether the figure misses its target; a figure without one never does."""
        if not self.target:
            return False
        sign, _, bound = self.target.partition(" ")
        got = self.value if self.ratio is None else self.ratio
        return got > float(bound) if sign == "<=" else got < float(bound)


def interleaved(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int
) -> tuple[float, float]:
    """Return the best (least) of each side over interleaved rounds."""
    mine, other = [], []
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            (mine if side == 0 else other).append((ours if side == 0 else theirs)())
    return min(mine), min(other)


def per_call(call: Callable[[], object], times: int) -> float:
    """Return processor seconds per call of this process."""
    started = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started) / times


def cpu_of(pid: int) -> float:
    """Return the seconds of processor time a process (all its threads) has used."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_of(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def pin(cpu: int, pid: int = 0) -> None:
    """Bind a process to one processor, where there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        os.sched_setaffinity(pid, {cpus[cpu % len(cpus)]})


@contextlib.contextmanager
def process(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[int, Connection]]:
    """Run `target(pipe, *arguments)` in a process of its own, ended with the `with` block.

    Yields its process id and our end of the pipe. Threads do not cross a fork: start none before.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(target, ours, theirs, arguments), daemon=True)
    child.start()
    theirs.close()  # each end has one holder, so the other one learns when it dies
    try:
        yield child.pid or 0, ours
    finally:
        child.terminate()
        child.join(15)
        if child.is_alive():
            child.kill()
            child.join()
        ours.close()


def bare_context(snapshot: Snapshot, *, server: bool) -> ssl.SSLContext:
    """Return mutual TLS 1.3 as `ssl` gives it, with none of our checks: the baseline."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if server:
        context.num_tickets = 0
    for bundle in snapshot.bundles:
        for der in bundle.anchors_der:
            context.load_verify_locations(cadata=der)
    context.set_alpn_protocols(["http/1.1"])
    present(context, snapshot.svid)
    return context


def authority() -> ForgedAuthority:
    """Return a throw-away CA of this moment."""
    return ForgedAuthority("example.org", now=time.time())


def _child(
    target: Callable[..., None], theirs: Connection, ours: Connection, arguments: tuple[Any, ...]
) -> None:
    theirs.close()
    target(ours, *arguments)
