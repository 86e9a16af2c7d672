"""One `serve` from its options to its exit code: alone, as the parent of workers, or as a worker.

1. What can be found wrong before a process is started is found by the parent: policy, identity,
   address.
2. The identity is opened once, by whoever is not a worker.
3. An application that cannot be imported is one message that says where, not a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.importer import ImportFromStringError, import_from_string

from zerotrust import settings
from zerotrust.asgi.health import HealthPort
from zerotrust.asgi.middleware import Protected, protect
from zerotrust.asgi.server import (
    STARTUP_FAILURE,
    Config,
    Server,
    bind,
    refuse_unshared_proofs,
    require_servable,
)
from zerotrust.asgi.workers import Inheritance, Workers
from zerotrust.audit import AuditLog, JsonLinesSink
from zerotrust.core.errors import ConfigurationError, ZeroTrustError
from zerotrust.workload.identity import WorkloadIdentity
from zerotrust.workload.policy_file import PolicyFile
from zerotrust.workload.snapshot_feed import SnapshotFeed

_STDERR: Final = 2
_LOG: Final = logging.getLogger("uvicorn.error")
_IDENTITY: Final = "ZEROTRUST_IDENTITY"


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve and how; `options` are uvicorn's."""

    app: str
    policy: str | None
    identity: str | None
    authorities: tuple[str, ...]
    health_port: int | None
    audit: str | None
    audit_calls: bool
    inherited: Inheritance | None
    options: dict[str, Any]

    def run(self, arguments: Sequence[str]) -> int:
        """Serve until a signal ends it; `arguments` start a worker of the same kind."""
        if self.inherited is not None:
            return self._work(self.inherited)
        plan = uvicorn.Config(self.app, **{**self.options, "http": "h11", "ws": "none"})
        with self._health():
            if plan.should_reload or plan.workers > 1:
                return self._lead(plan, arguments)
            return self._serve_alone()

    def _serve_alone(self) -> int:
        self._tell_identity(self._identity_url())
        config = self._config(workers=1)
        _load(config)
        with bind(config.host, config.port) as sock:
            _announce(sock)
            return _run(config, sock)

    def _work(self, inherited: Inheritance) -> int:
        self._tell_identity(inherited.identity)
        inherited.follow_parent()
        config = self._config(
            workers=1, shared=inherited.workers > 1, on_started=inherited.report_ready
        )
        _load(config)
        with inherited.listener() as sock:
            return _run(config, sock)

    def _lead(self, plan: uvicorn.Config, arguments: Sequence[str]) -> int:
        count = 1 if plan.should_reload else plan.workers
        with WorkloadIdentity.from_url(self._identity_url()) as identity:
            require_servable(identity.current, plan.host)
            if self.policy is not None:
                policy = PolicyFile(self.policy, identity.id.trust_domain).current
                if count > 1:
                    refuse_unshared_proofs(policy)
            with bind(plan.host, plan.port) as sock, SnapshotFeed(identity) as feed:
                _announce(sock)
                changed = _watch(plan) if plan.should_reload else None
                return Workers(arguments, sock, feed.url, count, changed=changed).run()

    def _config(self, **more: Any) -> Config:
        return Config(self.app, wrap=self._wrap, **{**self.options, "reload": False, **more})

    def _wrap(self, app: Any) -> Protected:
        """Protect a bare application; take one that protects itself as it is."""
        if isinstance(app, Protected):
            if self.policy is not None:
                raise ConfigurationError(
                    "the application protects itself, and --policy would be a second opinion: "
                    "leave out --policy, or serve the bare application"
                )
            return app
        if self.policy is None:
            raise ConfigurationError("--policy is missing: without one nobody may call anything")
        sink = JsonLinesSink(_STDERR if self.audit is None else self.audit)
        return protect(
            app,
            WorkloadIdentity.from_env(),
            self.policy,
            audit=AuditLog(sink, per_call=self.audit_calls),
            authorities=self.authorities,
        )

    def _identity_url(self) -> str:
        url = self.identity or settings.from_environment().identity
        if url is None:
            raise ConfigurationError(
                "no identity: give --identity files:DIR or ca:TOKENFILE, set ZEROTRUST_IDENTITY, "
                "or start with `zerotrust dev run`"
            )
        return url

    def _tell_identity(self, url: str) -> None:
        """Let an application that protects itself find the same identity by `from_env`."""
        os.environ[_IDENTITY] = url  # noqa: TID251 - written, not read: settings reads it

    @contextlib.contextmanager
    def _health(self) -> Iterator[None]:
        if self.health_port is None:
            yield
            return
        with contextlib.closing(HealthPort(self.health_port)):
            yield


def _load(config: Config) -> None:
    """Import the application as uvicorn would, and protect it; raise ConfigurationError."""
    try:
        config.app = import_from_string(config.app)
    except ZeroTrustError:
        raise
    except ImportFromStringError as exc:
        raise ConfigurationError(
            f"{exc} Write module:attribute, and with --app-dir where the module lies"
        ) from exc
    except Exception as exc:
        _LOG.debug("%s fails to import", config.app, exc_info=True)
        raise ConfigurationError(
            f"{config.app} fails to import: {type(exc).__name__}: {exc}{_place(exc)}; "
            "--log-level debug shows how it came to that"
        ) from exc
    config.load()


def _place(exc: Exception) -> str:
    if isinstance(exc, SyntaxError):  # says itself where
        return ""
    frames = traceback.extract_tb(exc.__traceback__)
    ours = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    return f" ({ours[-1].filename}, line {ours[-1].lineno})"


def _announce(sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    _LOG.info("Serving on https://%s:%d (press CTRL+C to quit)", where, port)


def _run(config: Config, sock: socket.socket) -> int:
    server = Server(config)
    protected = config.protected

    def reload_policy(_number: int, _frame: FrameType | None) -> None:
        if protected is not None:
            protected.policy.reload()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, reload_policy)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after a clean end
        server.run(sockets=[sock])
    return 0 if server.started else STARTUP_FAILURE


def _watch(plan: uvicorn.Config) -> Callable[[], bool]:
    """Return a question that waits a moment and says whether the code changed."""
    from uvicorn.supervisors import ChangeReload

    watcher = ChangeReload(plan, target=lambda _: None, sockets=[])
    return lambda: bool(watcher.should_restart())
