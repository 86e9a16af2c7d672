"""uvicorn as the CA uses it: one server per socket, each with its way of knowing who is there.

1. Who has not finished a handshake or a request in time is cut off.
2. On a unix socket the kernel says who is there, and the scope tells the application.
3. Signals are the process's affair, not a server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from zerotrust import clock
from zerotrust.asgi.framing import Framing
from zerotrust.asgi.limits import HEADER_SECONDS, Limits
from zerotrust.asgi.listener import Listener
from zerotrust.asgi.server import Config, Server, bind
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.ca.app import UID, Gate
from zerotrust.core.errors import ConfigurationError, Reason
from zerotrust.workload.identity import WorkloadIdentity
from zerotrust.workload.tls.context import bootstrap_context

_PEERCRED: Final = struct.Struct("3i")  # pid, uid, gid
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_QUIET: Final[dict[str, Any]] = {
    "log_config": None,
    "access_log": False,
    "timeout_graceful_shutdown": 2,
}


class Unsignalled(uvicorn.Server):
    """One of several servers in a process: signals are the process's affair."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End gracefully, then cut off whoever does not let go."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class MutualServer(Unsignalled, Server):
    """Our own server, as any service uses it."""

    def __init__(self, gate: Gate, sock: socket.socket, wrap: Callable[[Any], Any]) -> None:
        host = str(sock.getsockname()[0])
        super().__init__(Config(gate, wrap=wrap, ws="none", host=host, lifespan="off", **_QUIET))
        self._socket = sock

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        """Serve the one socket."""
        await super().serve([self._socket])


class TlsServer(Unsignalled):
    """TLS without client certificates."""

    def __init__(
        self, gate: Gate, sock: socket.socket, identity: WorkloadIdentity, audit: AuditLog
    ) -> None:
        super().__init__(
            uvicorn.Config(
                gate,
                http=_Impatient,
                ws="none",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                **_QUIET,
            )
        )
        self._socket, self._context, self._audit = sock, bootstrap_context(identity), audit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        """Accept over our listener, which bounds handshakes."""
        protocol = functools.partial(
            _Impatient, config=self.config, server_state=self.server_state, app_state={}
        )
        listener = Listener(
            self._socket,
            self._context,
            protocol,
            limits=Limits(),
            live=lambda: len(self.server_state.connections),
            refused=self._refused,
        )
        listener.open(self.config.backlog)
        self.servers: list[Any] = [listener]
        self.started = True

    def _refused(self, address: str, error: BaseException) -> None:
        self._audit.refused(
            AuditEvent(
                at=clock.now(),
                kind="peer.refused",
                reason="tls",
                detail=f"{type(error).__name__}: {error}",
                peer=address,
            )
        )


class UnixServer(Unsignalled):
    """A unix socket; `uids` are those let in, None lets in whoever can open the socket."""

    def __init__(self, gate: Gate, sock: socket.socket, uids: frozenset[int] | None) -> None:
        super().__init__(
            uvicorn.Config(
                gate,
                http=_Impatient,
                ws="none",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                **_QUIET,
            )
        )
        self._socket, self._uids = sock, uids

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's
        """Accept; who is there is asked of the kernel."""
        protocol = functools.partial(
            _Local, self._uids, config=self.config, server_state=self.server_state, app_state={}
        )
        server = await asyncio.get_running_loop().create_unix_server(protocol, sock=self._socket)
        self.servers = [server]
        self.started = True


class _Impatient(Framing, HttpToolsProtocol):
    """A request that does not arrive whole within HEADER_SECONDS ends its connection."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Wait for this request."""
        super().on_message_begin()
        self._wait()

    def on_message_complete(self) -> None:
        """Wait no more: the answer is our affair, and uvicorn watches idle connections."""
        self._cancel()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        self._cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._cancel()
        self._patience = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _cancel(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Local(_Impatient):
    """A connection over a unix socket.

    The kernel says who is there, the scope tells the application.
    """

    def __init__(self, uids: frozenset[int] | None, **options: Any) -> None:
        super().__init__(**options)
        self._uids = uids

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read SO_PEERCRED; cut off whoever is not let in."""
        sock = transport.get_extra_info("socket")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        _, uid, _ = _PEERCRED.unpack(raw)
        inner = self.app

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await inner({**scope, "extensions": {UID: uid}}, receive, send)

        self.app = app
        super().connection_made(transport)
        if self._uids is not None and uid not in self._uids:
            transport.abort()


@contextlib.contextmanager
def bound(address: str) -> Iterator[socket.socket]:
    """Bind a TCP socket to `host:port` for the `with` block; raise ConfigurationError."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise ConfigurationError(f"{address!a} is no host:port, such as 127.0.0.1:8441")
    with bind("127.0.0.1" if host == "localhost" else host.strip("[]"), int(port)) as sock:
        yield sock


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Bind a 0600 socket in a folder that is closed to others; remove it afterwards."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.stat()
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS:
        raise ConfigurationError(
            f"{path.parent} is open to others: chmod 700 {path.parent}", Reason.FILE_ACCESS
        )
    if path.is_socket():
        path.unlink()  # left by a process that was killed: the CA's lock says it is gone
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.bind(os.fspath(path))
        except OSError as exc:
            raise ConfigurationError(
                f"cannot listen on {path}: {exc}", Reason.ADDRESS_IN_USE
            ) from exc
        path.chmod(0o600)
        try:
            yield sock
        finally:
            path.unlink(missing_ok=True)
