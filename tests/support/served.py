"""An application behind our server on a free loopback port, and a raw client to reach it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from support.identities import FixedIdentity
from zerotrust import clock
from zerotrust.asgi.limits import Limits
from zerotrust.asgi.middleware import Protected, protect
from zerotrust.asgi.server import Config, Server, bind
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.probe.deliver import present
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot

Fields = Sequence[tuple[str, str]]

POLICY = """
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[open]
routes = ["GET /healthz"]
[[allow]]
id = "web-reads"
from = ["web"]
to = ["GET /echo", "GET /orders/{id}", "GET /stream", "GET /silent", "POST /orders"]
[[allow]]
id = "web-talks"
from = ["web"]
to = ["WS /talk"]
[[allow]]
id = "web-pays"
from = ["web"]
to = ["POST /pay"]
token = "proof"
[[deny]]
id = "nobody-from-batch"
from = ["batch"]
to = ["*"]
"""


@dataclass
class Lines:
    """An audit sink that keeps what it is given."""

    events: list[AuditEvent] = field(default_factory=list)

    def write(self, event: AuditEvent) -> None:
        self.events.append(event)

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events if event.reason]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what the application sees; /stream never ends, /silent never speaks."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] == "websocket":
        await _talk(receive, send)
        return
    body = json.dumps(
        {
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
            "caller": str(scope["zerotrust.caller"].id) if "zerotrust.caller" in scope else None,
            "mode": scope["zerotrust.caller"].mode.label if "zerotrust.caller" in scope else None,
        }
    ).encode()
    if scope["path"] in {"/stream", "/silent"}:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            if scope["path"] == "/stream":
                await send(
                    {"type": "http.response.body", "body": b"data: x\n\n", "more_body": True}
                )
            await asyncio.sleep(0.05)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _talk(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text") or ""})


class Served:
    """A protected application, served in a thread for as long as the `with` block lasts."""

    def __init__(
        self,
        app: Any = echo,
        *,
        ca: ForgedAuthority | None = None,
        policy: Any = POLICY,
        identity: FixedIdentity | None = None,
        limits: Limits | None = None,
        audit: AuditLog | None = None,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.ca = ca or ForgedAuthority(now=clock.now())
        self.identity = identity or FixedIdentity(self.ca.snapshot("orders", dns=["orders.test"]))
        self.lines = Lines()
        text = parse_policy(policy.encode()) if isinstance(policy, str) else policy
        self.app: Protected = protect(
            app,
            self.identity,
            text,
            audit=audit or AuditLog(self.lines),
            **settings,
        )
        chosen: dict[str, Any] = {
            "log_config": None,
            "access_log": False,
            "lifespan": "on",
            "timeout_graceful_shutdown": 1,
        }
        chosen.update(options or {})
        self.config = Config(self.app, wrap=lambda app: app, limits=limits, **chosen)
        self.server = Server(self.config)
        self._sock = bind("127.0.0.1", 0)
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self.server.run, args=([self._sock],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.server.started or not self._thread.is_alive())
        assert self.server.started
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def caller(self, name: str = "web", **knobs: Any) -> Peer:
        """A workload of the domain that may call this service."""
        return Peer(self.ca, self.port, self.ca.snapshot(name, **knobs))


@dataclass
class Answer:
    status: int | None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Peer:
    """A workload with an identity that sends exactly the bytes it is told to."""

    def __init__(self, ca: ForgedAuthority, port: int, snapshot: Snapshot) -> None:
        self.ca, self.port, self.snapshot = ca, port, snapshot
        assert snapshot.wit is not None
        self.wit = snapshot.wit

    def tokens(
        self, *, aud: str = "spiffe://example.org/orders", **knobs: Any
    ) -> list[tuple[str, str]]:
        """The two fields of a bound call; knobs go to the forge's `wpt`."""
        knobs = {"x5t": self.snapshot.svid.thumbprint, **knobs}
        proof = self.ca.wpt(self.wit.token, self.wit.key, aud=aud, now=clock.now(), **knobs)
        return [("workload-identity-token", self.wit.token), ("authorization", f"WPT {proof}")]

    def proof(self, method: str, path: str, **knobs: Any) -> list[tuple[str, str]]:
        """The two fields of a call in proof mode."""
        aud = f"https://localhost:{self.port}{path.partition('?')[0]}"
        return self.tokens(aud=aud, **{"method": method, "target": path.encode(), **knobs})

    @contextlib.contextmanager
    def connect(self) -> Iterator[Wire]:
        """One TLS connection with this workload's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        present(context, self.snapshot.svid)
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as raw,
            context.wrap_socket(raw) as sock,
        ):
            yield Wire(sock, self.port)

    def ask(self, target: str = "/echo", fields: Fields | None = None, **parts: Any) -> Answer:
        """One request on a connection of its own, with good tokens unless told otherwise."""
        with self.connect() as wire:
            return wire.ask(target, self.tokens() if fields is None else fields, **parts)


class Wire:
    """One open connection."""

    def __init__(self, sock: ssl.SSLSocket, port: int) -> None:
        self.sock, self.port = sock, port
        self._buffer = b""

    def send(
        self,
        target: str | bytes,
        fields: Fields,
        *,
        method: str = "GET",
        host: str | None = None,
        body: bytes = b"",
    ) -> None:
        raw = target.encode() if isinstance(target, str) else target
        lines = [f"{method} ".encode() + raw + b" HTTP/1.1"]
        if host != "":
            lines.append(f"Host: {host or f'localhost:{self.port}'}".encode())
        lines += [f"{name}: {value}".encode() for name, value in fields]
        if body:
            lines.append(b"Content-Length: %d" % len(body))
        self.sock.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def ask(self, target: str | bytes, fields: Fields, **parts: Any) -> Answer:
        """Send one request and read its answer; status None when the connection ended instead."""
        try:
            self.send(target, fields, **parts)
            return self.read()
        except (ConnectionError, ssl.SSLError):
            return Answer(None)

    def read(self) -> Answer:
        while b"\r\n\r\n" not in self._buffer:
            chunk = self.sock.recv(65536)
            if not chunk:
                return Answer(None)
            self._buffer += chunk
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            chunk = self.sock.recv(65536)
            if not chunk:
                break
            self._buffer += chunk
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Answer(int(first.split(" ")[1]), headers, body)

    def ends_within(self, seconds: float) -> float | None:
        """Read until the connection ends; how long it took, or None when it outlived `seconds`."""
        started = time.monotonic()
        self.sock.settimeout(0.2)
        while time.monotonic() - started < seconds:
            try:
                if not self.sock.recv(65536):
                    return time.monotonic() - started
            except TimeoutError:
                continue
            except OSError:
                return time.monotonic() - started
        return None


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
