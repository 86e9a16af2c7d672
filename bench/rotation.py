"""No call fails while every identity rotates and the root itself is replaced, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

import httpx

from bench.rig import Figure, pin, process
from zerotrust.asgi.middleware import protect
from zerotrust.asgi.server import Config, Server, bind
from zerotrust.audit import AuditLog, JsonLinesSink
from zerotrust.core.errors import ZeroTrustError
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.httpx import Client
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot

REPLACEMENTS: Final = 10  # of the root
EVERY: Final = 0.1  # seconds between two rotations of one side
OVERLAP: Final = 0.8  # seconds from the last certificate of the old root to its end
PARTS: Final = 4  # of a streamed answer
PAUSE: Final = 0.02  # seconds between two of them
AT_MOST: Final = 100.0  # seconds
POLICY: Final = b"""
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "load"
from = ["web"]
to = ["GET /orders/{id}", "GET /stream"]
[[allow]]
id = "pay"
from = ["web"]
to = ["POST /pay"]
token = "proof"
"""


def figures(*, quick: bool) -> list[Figure]:
    """Return how many requests failed."""
    wanted = 2_000 if quick else 20_000
    roots = [
        ForgedAuthority("example.org", now=time.time(), name=f"root {i}")
        for i in range(REPLACEMENTS + 1)
    ]
    started = time.monotonic()
    with process(_serve, roots) as (_, pipe):
        pin(1)
        port = _heard(pipe)
        me = _Rotating(roots, "web")
        with me.at_work():
            load = _Load(me, f"https://localhost:{port}", wanted)
            load.run(lambda: _replace_the_roots(roots, me, pipe))
            seconds = time.monotonic() - started
            pipe.send(None)
            theirs = _heard(pipe)
            _require_refusal(roots[0], me, port)
    if load.sent < wanted:
        raise RuntimeError(f"only {load.sent} of {wanted} requests in {AT_MOST:.0f} s")
    return [
        Figure(
            "rotation_failed_requests",
            float(len(load.failures)),
            f"of {load.sent}",
            target="<= 0",
            note=f"{load.sent} requests ({load.describe()}) in {seconds:.0f} s, while the client "
            f"rotated {me.rotations} times, the server {theirs}, and {REPLACEMENTS} roots were "
            f"replaced{''.join(f'; {failure}' for failure in load.failures[:3])}",
        )
    ]


class _Rotating:
    """An identity that is issued anew every EVERY seconds, by whichever root is in force."""

    def __init__(self, roots: list[ForgedAuthority], name: str) -> None:
        self._roots, self._name = roots, name
        self._issuer, self._bundles = 0, BundleSet([roots[0].bundle])
        self._lock, self._ended = threading.Lock(), threading.Event()
        self.rotations = -1
        self.rotate()

    def rotate(self) -> None:
        """Take a new certificate, WIT and keys."""
        with self._lock:
            issuer = self._roots[self._issuer]
            self.current = issuer.snapshot(self._name, bundles=self._bundles)
            self.rotations += 1

    def trust(self, trusted: tuple[int, ...], issuer: int) -> None:
        """From now on trust these roots, and be issued by that one."""
        with self._lock:
            self._bundles, self._issuer = _bundles(self._roots, trusted), issuer
        self.rotate()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Rotate for as long as the `with` block."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _run(self) -> None:
        while not self._ended.wait(EVERY):
            self.rotate()


def _bundles(roots: list[ForgedAuthority], trusted: tuple[int, ...]) -> BundleSet:
    """Return one bundle of the domain with several roots and their WIT keys."""
    bundles = [roots[i].bundle for i in trusted]
    anchors = tuple(anchor for bundle in bundles for anchor in bundle.x509_authorities)
    keys = {kid: key for bundle in bundles for kid, key in bundle.wit_keys.items()}
    return BundleSet([TrustBundle(roots[0].trust_domain, anchors, keys, max(trusted) + 1, 300)])


def _replace_the_roots(roots: list[ForgedAuthority], me: _Rotating, server: Connection) -> None:
    """Publish the new root everywhere, issue from it, and only then let go of the old one."""
    for old, new in zip(range(len(roots)), range(1, len(roots)), strict=False):
        for trusted, issuer in (((old, new), old), ((old, new), new), ((new,), new)):
            server.send((trusted, issuer))
            _heard(server)
            me.trust(trusted, issuer)
            time.sleep(OVERLAP if trusted == (old, new) and issuer == new else EVERY)


def _heard(pipe: Connection) -> Any:
    if not pipe.poll(20):
        raise RuntimeError("the server does not answer")
    return pipe.recv()


def _serve(pipe: Connection, roots: list[ForgedAuthority]) -> None:
    """Serve, rotate, and follow what the pipe says about roots."""
    pin(0)
    identity = _Rotating(roots, "orders")
    sock = bind("127.0.0.1", 0)
    config = Config(
        _app,
        wrap=lambda app: protect(
            app, identity, parse_policy(POLICY), audit=AuditLog(JsonLinesSink("/dev/null"))
        ),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        lifespan="off",
        on_started=lambda: pipe.send(sock.getsockname()[1]),
    )

    def follow() -> None:
        while (told := pipe.recv()) is not None:
            identity.trust(*told)
            pipe.send("done")
        pipe.send(identity.rotations)

    threading.Thread(target=follow, daemon=True).start()
    with identity.at_work():
        Server(config).run(sockets=[sock])


async def _app(scope: Any, _receive: Any, send: Any) -> None:
    """Answer `ok`, at once or in parts."""
    parts = PARTS if scope["path"] == "/stream" else 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in range(parts):
        if part:
            await asyncio.sleep(PAUSE)
        more = part + 1 < parts
        await send({"type": "http.response.body", "body": b"ok", "more_body": more})


@dataclass
class _Load:
    """Several clients of every kind, each on a thread of its own."""

    me: _Rotating
    url: str
    wanted: int
    failures: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """How many requests were made, failed ones too."""
        return sum(self.counts.values())

    def describe(self) -> str:
        """Return how many of each kind."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))

    def run(self, meanwhile: Any) -> None:
        """Keep all clients busy until enough was sent and `meanwhile` is over."""
        peer = str(self.me.current.svid.id.trust_domain.id("/orders"))
        shared = Client(self.me, peer=peer)
        proving = Client(self.me, peer=peer, mode="proof")
        fleeting = Client(self.me, peer=peer, limits=httpx.Limits(max_keepalive_connections=0))
        over = threading.Event()
        kinds = [
            ("kept", shared, "GET", "/orders/7"),
            ("kept too", shared, "GET", "/orders/8"),
            ("proofs", proving, "POST", "/pay"),
            ("reconnecting", fleeting, "GET", "/orders/9"),
            ("streamed", shared, "GET", "/stream"),
        ]
        threads = [
            threading.Thread(target=self._call, args=(*kind, over), daemon=True) for kind in kinds
        ]
        end = time.monotonic() + AT_MOST
        with shared, proving, fleeting:
            for thread in threads:
                thread.start()
            try:
                meanwhile()
                while self.sent < self.wanted and time.monotonic() < end:
                    time.sleep(0.05)
            finally:
                over.set()
                for thread in threads:
                    thread.join()

    def _call(
        self, kind: str, client: Client, method: str, path: str, over: threading.Event
    ) -> None:
        right = b"ok" * (PARTS if path == "/stream" else 1)
        while not over.is_set():
            self.counts[kind] = self.counts.get(kind, 0) + 1
            try:
                answer = client.request(method, self.url + path)
                if answer.status_code != 200 or answer.content != right:
                    self.failures.append(f"{kind}: {answer.status_code} {answer.content!r}")
            except (httpx.HTTPError, ZeroTrustError, OSError) as error:
                self.failures.append(f"{kind}: {type(error).__name__}: {error}")


def _require_refusal(first: ForgedAuthority, me: _Rotating, port: int) -> None:
    """Raise if the first root still opens the door: then nothing was replaced."""
    stale = first.snapshot("web", bundles=me.current.bundles)
    with Client(_Still(stale), peer=str(first.id("orders"))) as client:
        try:
            answer = client.get(f"https://localhost:{port}/orders/7")
        except (httpx.HTTPError, ZeroTrustError):
            return
    raise RuntimeError(f"a certificate of the first root is still good for {answer.status_code}")


@dataclass(frozen=True)
class _Still:
    """An identity that stands still."""

    current: Snapshot
