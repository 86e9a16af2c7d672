"""uvicorn with an identity: every connection is mutual TLS, every call is judged.

1. The application is protected exactly once: bare with a policy here, or by itself.
2. Nothing of a proxy is believed, nothing of the server is told.
3. What cannot hold is refused at start with its reason: a policy that asks for proofs over several
   processes, bundles that verify no token, a dev identity beyond loopback.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import math
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any, Final

import uvicorn

from zerotrust import clock
from zerotrust.asgi.limits import Limits
from zerotrust.asgi.listener import Listener
from zerotrust.asgi.middleware import Protected
from zerotrust.asgi.protocols import http_protocol, websocket_protocol
from zerotrust.audit import AuditEvent
from zerotrust.core.errors import ConfigurationError, Reason, UnsafeSetting, ZeroTrustError
from zerotrust.core.policy.model import Policy
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.replay.memory import MemoryReplayStore, NoReplayStore
from zerotrust.workload.tls.context import server_context

STARTUP_FAILURE: Final = 3  # uvicorn's exit code for an application that cannot start
GRACEFUL_SECONDS: Final = 10  # what running calls get at shutdown, if the user says nothing
TICKS_PER_FLUSH: Final = 600  # uvicorn ticks ten times a second


class Config(uvicorn.Config):
    """uvicorn's configuration; `wrap` turns the loaded application into a Protected one.

    `shared` says that other processes serve the same application without a shared replay store.
    """

    def __init__(
        self,
        app: Any,
        *,
        wrap: Callable[[Any], Protected],
        http: str = "auto",
        ws: str = "auto",
        limits: Limits | None = None,
        shared: bool = False,
        on_started: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        options.setdefault("timeout_graceful_shutdown", GRACEFUL_SECONDS)
        super().__init__(
            app,
            http=http_protocol(http),
            ws=websocket_protocol(ws) or "none",
            proxy_headers=False,
            server_header=False,
            **options,
        )
        self.limits: Final = limits or Limits()
        self.protected: Protected | None = None
        self.on_started: Final = on_started
        self._wrap, self._shared = wrap, shared

    def load(self) -> None:
        """Load the application, protect it and take its identity for the listener."""
        super().load()
        bare = self.loaded_app
        protected = self._wrap(bare)
        snapshot = protected.identity.current
        require_servable(snapshot, self.host)
        if self._shared and isinstance(protected.replay, MemoryReplayStore):
            refuse_unshared_proofs(protected.policy.current)
            protected.replay = NoReplayStore()
        self.protected = self.loaded_app = protected
        self.ssl: ssl.SSLContext = server_context(protected.identity)


class Server(uvicorn.Server):
    """uvicorn's server over a Listener of ours; it serves the sockets it is given."""

    config: Config

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        config = self.config
        if config.protected is None or not sockets:
            raise ConfigurationError("the server needs a loaded configuration and a bound socket")
        await _second_after_start(config.protected)
        protocol_class: Any = config.http_protocol_class
        protocol = functools.partial(
            protocol_class,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        listeners = [
            Listener(
                sock,
                config.ssl,
                protocol,
                limits=config.limits,
                live=lambda: len(self.server_state.connections),
                refused=functools.partial(_report, config.protected),
            )
            for sock in sockets
        ]
        for listener in listeners:
            listener.open(config.backlog)
        self.servers: list[Any] = listeners
        self.started = True
        config.on_started()

    async def on_tick(self, counter: int) -> bool:
        """Once a minute, write what the audit log has counted."""
        if counter % TICKS_PER_FLUSH == 0:
            self._flush()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does; the last counts are written."""
        await super().shutdown(sockets)
        self._flush()

    def _flush(self) -> None:
        if self.config.protected is not None:
            self.config.protected.audit.flush(clock.now())


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket; one clear ConfigurationError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except (OSError, OverflowError) as exc:
        sock.close()
        detail = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {detail}; choose another --host or --port",
            Reason.ADDRESS_IN_USE,
        ) from exc
    return sock


def require_servable(snapshot: Snapshot, host: str) -> None:
    """Refuse an identity that could verify nobody's token, or a dev identity beyond loopback."""
    own = snapshot.bundles.of(snapshot.svid.id.trust_domain)
    if own is None or not own.wit_keys:
        raise ConfigurationError(
            f"the bundle of {snapshot.svid.id.trust_domain.name} holds no wit-svid key, so no "
            "caller's token could be verified: provide bundle.json with `wit-svid` keys"
        )
    if snapshot.dev and not _is_loopback(host):
        raise UnsafeSetting(
            f"a dev identity serves loopback only, not {host}: use --host 127.0.0.1"
        )


def refuse_unshared_proofs(policy: Policy) -> None:
    """Over several processes without a shared store no proof is known to be new."""
    if policy.needs_proof:
        raise ConfigurationError(
            "the policy asks for `proof` tokens, and each worker would remember used proofs for "
            "itself, so a stolen proof would work once per worker: use --workers 1"
        )


async def _second_after_start(protected: Protected) -> None:
    """Wait until a proof minted now can be told from one minted before we began to remember.

    `iat` counts whole seconds, so a proof of our first, broken second would look older than us.
    """
    if protected.policy.current.needs_proof:
        await asyncio.sleep(max(0.0, math.ceil(protected.started_at) - clock.now()))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _report(protected: Protected, address: str, error: BaseException) -> None:
    """One audit line for a handshake that failed; the peer is told nothing."""
    inner = getattr(error, "error", None)
    known = inner if isinstance(inner, ZeroTrustError) else None
    protected.audit.refused(
        AuditEvent(
            at=clock.now(),
            kind="peer.refused",
            reason=str(known.reason) if known is not None else "tls",
            code=known.code if known is not None else "",
            detail=known.detail if known is not None else f"{type(error).__name__}: {error}",
            peer=address,
        )
    )
