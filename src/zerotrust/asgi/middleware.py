"""An ASGI application that is reached only by calls the guard allowed.

1. `http` and `websocket` are judged, `lifespan` passes, every other scope type is refused.
2. The peer comes from the connection our server made, whatever server runs the application; without
   it every call is refused.
3. A remembered call takes one plain function: nothing is awaited between reading what was decided
   and acting on it. Whatever is unusual falls through to the full decision.
4. The application sees its Caller and none of the headers that carry identity; nothing that came in
   can stand where the Caller stands.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from zerotrust import clock
from zerotrust.asgi.connection import (
    PEER,
    TARGET,
    Connection,
    Exchange,
    Listener,
    authorities_at,
    connection_of,
    dns_names,
    target_of,
)
from zerotrust.asgi.identity_headers import visible
from zerotrust.asgi.limits import MAX_FAILURES, FailureBudget
from zerotrust.asgi.policy_source import FixedPolicy, PolicySource
from zerotrust.asgi.problem import App, Receive, Scope, Send, send_problem
from zerotrust.audit import AuditEvent, AuditLog, JsonLinesSink, Tally, printable
from zerotrust.core.errors import (
    AuditUnavailable,
    CertificateRejected,
    ConfigurationError,
    IdentityUnavailable,
    PeerError,
    Reason,
    RequestRejected,
    ZeroTrustError,
)
from zerotrust.core.guard import Allowed, Call, Caller, Guard, NeedsClaim, Refused
from zerotrust.core.policy.model import Policy
from zerotrust.core.request import parse_target
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.policy_file import PolicyFile, require_domain
from zerotrust.workload.replay import ReplayStore
from zerotrust.workload.replay.memory import MemoryReplayStore
from zerotrust.workload.tls.context import SnapshotSource

CALLER: Final = "zerotrust.caller"  # scope key under which the application finds its Caller

PolicyLike: TypeAlias = "str | os.PathLike[str] | Policy | PolicyFile"

_STDERR: Final = 2
_PATH_BYTES: Final = 128  # of a path that no rule matched, in the audit log


def protect(
    app: App,
    identity: SnapshotSource,
    policy: PolicyLike,
    *,
    audit: AuditLog | None = None,
    authorities: Collection[str] = (),
    replay: ReplayStore | None = None,
    cover: Collection[str] = (),
) -> Protected:
    """Wrap an ASGI application so that only allowed calls reach it.

    `policy` is a path (followed while serving) or a Policy. `authorities` are further `host[:port]`
    the service answers for, beside its SVID's DNS names at the listening port. `replay` remembers
    one-time proofs, by default in this process. `cover` names token headers that callers must hash
    into their proof. Raises ConfigurationError or BadPolicy.
    """
    if isinstance(app, Protected):
        raise ConfigurationError("the application is already protected")
    return Protected(
        app,
        identity,
        policy,
        audit=audit or AuditLog(JsonLinesSink(_STDERR)),
        authorities=authorities,
        replay=MemoryReplayStore() if replay is None else replay,  # an empty store is falsy
        cover=cover,
    )


_Call = TypeVar("_Call", bound=Callable[..., Any])


def _coroutine_function(function: _Call) -> _Call:
    """Mark a function that returns an awaitable: servers tell ASGI 3 from ASGI 2 by it."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined] # noqa: SLF001 - the marker of 3.11
    return function


class _Kept(NamedTuple):
    """What a remembered call needs beside the memory itself."""

    exchange: Exchange
    caller: Caller
    tally: Tally | None  # None: each call is a line of its own
    shown: list[tuple[bytes, bytes]]  # of the fields it was remembered with


class Protected:
    """The application behind the guard; made by `protect`."""

    def __init__(
        self,
        app: App,
        identity: SnapshotSource,
        policy: PolicyLike,
        *,
        audit: AuditLog,
        authorities: Collection[str],
        replay: ReplayStore,
        cover: Collection[str],
    ) -> None:
        self.identity: Final = identity
        self.audit: Final = audit
        self.replay = replay
        self._app: Final = app
        self._snapshot: Snapshot = identity.current
        self.policy: Final = self._follow(policy)
        self._authorities: Final = tuple(authorities)
        self._cover: Final = tuple(cover)
        self.started_at: Final = clock.now()
        self._failures: Final = FailureBudget()
        self._policy_in_force = self.policy.current
        self._guards: dict[Listener, Guard] = {}

    @_coroutine_function
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI scope."""
        if scope["type"] == "http" and (granted := self._recall(scope)) is not None:
            return self._app(granted, receive, send)
        return self._serve(scope, receive, send)

    def still_allows(self, connection: Connection, exchange: Exchange, now: float) -> bool:
        """Judge a running exchange by the bundles and the policy of this moment."""
        try:
            guard = self._current_guard(connection)
        except Exception:  # noqa: BLE001 - fail closed: what cannot be judged does not go on
            return False
        if guard is exchange.guard:
            return True
        connection.memo.forget()  # it would keep the old guard alive for as long as the stream
        what = exchange.allowed, exchange.method, exchange.path
        connection.exchange = replace(exchange, guard=guard)
        return guard.still_allows(connection.peer, *what, now)

    def _recall(self, scope: Scope) -> Scope | None:
        """Return the scope to run when exactly this call was allowed before, else None."""
        try:
            extensions = scope["extensions"]
            connection = extensions[PEER]
            if type(connection) is not Connection:
                return None
            guard = self._current_guard(connection)
            headers, now = scope["headers"], clock.now()
            known = connection.memo.recall(
                guard, "http", scope["method"], extensions[TARGET], headers, now
            )
            if known is None or type(known.kept) is not _Kept:
                return None
            exchange, caller, tally, shown = known.kept
            if tally is None:
                self._count(connection, caller, caller.route, now, 0)
            elif tally.dropped:
                return None
            else:
                tally.count += 1
        except Exception:  # noqa: BLE001 - the full decision meets it again and gives it words
            return None
        connection.exchange = exchange
        shown = shown[:] if headers == known.headers else visible(headers)
        return {**scope, "headers": shown, CALLER: caller}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            error = RequestRejected(Reason.SCOPE_UNKNOWN, f"scope type {kind!a}")
            self._report(None, Refused(error), b"", clock.now(), 0)
            raise error
        started, now = clock.monotonic(), clock.now()
        connection = connection_of(scope)
        call = Call(
            kind,
            scope.get("method", "GET"),  # a WebSocket handshake is a GET (RFC 6455 section 4.1)
            target_of(scope),
            scope["headers"],
            connection.peer if connection is not None else None,
        )
        verdict, guard = self._decide(call, connection, now)
        micros = round((clock.monotonic() - started) * 1e6)
        if isinstance(verdict, Refused) or guard is None or connection is None:
            await self._refuse(connection, verdict, call, (scope, receive, send), now, micros)
            return
        caller = verdict.caller
        try:
            self._count(connection, caller, verdict.route, now, micros)
        except AuditUnavailable as error:
            wire = (scope, receive, send)
            await self._refuse(connection, Refused(error), call, wire, now, micros)
            return
        self._remember(connection, guard, call, verdict)
        await self._app(_granted(scope, caller), receive, send)

    def _decide(
        self, call: Call, connection: Connection | None, now: float
    ) -> tuple[Allowed | Refused, Guard | None]:
        if connection is None or connection.peer is None:
            error = CertificateRejected(
                Reason.PEER_NONE,
                "the server hands on no verified peer; start it with `zerotrust serve`",
            )
            return Refused(error), None
        try:
            if self._failures.is_spent(connection.name, now):
                raise IdentityUnavailable(  # noqa: TRY301 - one way out for every refusal
                    Reason.RATE_EXCEEDED, "too many refused tokens of this peer"
                )
            self.policy.start()
            guard = self._current_guard(connection)
            verdict = guard.decide(call, now)
            if isinstance(verdict, NeedsClaim):
                claimed = self.replay.claim(
                    verdict.key,
                    caller=verdict.caller,
                    subject=verdict.subject,
                    expires_at=verdict.expires_at,
                    now=now,
                )
                verdict = guard.finish(verdict, claimed, now)
        except ZeroTrustError as error:
            return Refused(error), None
        except Exception as error:  # noqa: BLE001 - fail closed: the unforeseen is a refusal
            detail = f"{type(error).__name__} while deciding"
            return Refused(IdentityUnavailable(Reason.UNFORESEEN, detail)), None
        return verdict, guard

    def _count(
        self, connection: Connection, caller: Caller | None, route: str, now: float, micros: int
    ) -> None:
        self.audit.allowed(
            now=now,
            peer=connection.name,
            route=route,
            rule=caller.rule if caller is not None else "",
            mode=caller.mode.label if caller is not None else "",
            micros=micros,
        )

    def _remember(self, connection: Connection, guard: Guard, call: Call, allowed: Allowed) -> None:
        method = "WS" if call.kind == "websocket" else call.method
        exchange = Exchange(self, guard, allowed, method, parse_target(call.target).path)
        connection.exchange = exchange
        caller = allowed.caller
        if caller is None or call.kind != "http":
            return
        tally = self.audit.tally(
            peer=connection.name, route=caller.route, rule=caller.rule, mode=caller.mode.label
        )
        kept = _Kept(exchange, caller, tally, visible(call.headers))
        connection.memo.remember(guard, call, allowed, kept)

    async def _refuse(
        self,
        connection: Connection | None,
        verdict: Allowed | Refused,
        call: Call,
        wire: tuple[Scope, Receive, Send],
        now: float,
        micros: int,
    ) -> None:
        refused = verdict if isinstance(verdict, Refused) else Refused(_nobody())
        close = connection is None
        if connection is not None:
            connection.memo.forget()
            if isinstance(refused.error, PeerError):
                connection.failures += 1
                close = connection.failures >= MAX_FAILURES
                self._failures.charge(connection.name, now)
        refusal_id = self._report(connection, refused, call.target, now, micros)
        await send_problem(*wire, refused.error.category, refusal_id, close=close)

    def _report(
        self,
        connection: Connection | None,
        refused: Refused,
        target: bytes,
        now: float,
        micros: int,
    ) -> str:
        """Write the audit line; return the id that the peer is told."""
        error, refusal_id = refused.error, secrets.token_hex(8)
        path = printable(target.partition(b"?")[0][:_PATH_BYTES], _PATH_BYTES)
        route = path if refused.route in {None, "*"} else refused.route
        self.audit.refused(
            AuditEvent(
                at=now,
                kind="call.refused",
                id=refusal_id,
                reason=str(error.reason),
                code=error.code,
                detail=error.detail,
                peer=(connection.name or connection.address) if connection is not None else "",
                route=route or "",
                rule=refused.rule or "",
                micros=micros,
            )
        )
        return refusal_id

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.policy.start()
        try:
            await self._app(scope, receive, send)
        finally:
            self.policy.stop()
            self.audit.flush(clock.now())

    def _current_guard(self, connection: Connection) -> Guard:
        snapshot, policy = self.identity.current, self.policy.current
        if snapshot is not self._snapshot or policy is not self._policy_in_force:
            self._renew(snapshot, policy)
        guards = self._guards
        if connection.guards is guards:  # found before, and nothing has changed since
            return connection.guard
        guard = guards.get(connection.listener)
        if guard is None:
            guard = guards[connection.listener] = Guard(
                own_id=snapshot.svid.id,
                authorities={
                    *authorities_at(snapshot.svid, connection.listener),
                    *self._authorities,
                },
                bundles=snapshot.bundles,
                policy=policy,
                started_at=self.started_at,
                covered=self._cover,
            )
        connection.guards, connection.guard = guards, guard
        return guard

    def _renew(self, snapshot: Snapshot, policy: Policy) -> None:
        """Keep the guards when what they rest on is still the same: our own new SVID alone is."""
        old = self._snapshot
        if (
            policy is not self._policy_in_force
            or snapshot.bundles is not old.bundles
            or snapshot.svid.id != old.svid.id
            or dns_names(snapshot.svid) != dns_names(old.svid)
        ):
            self._guards = {}
        self._snapshot, self._policy_in_force = snapshot, policy

    def _follow(self, policy: PolicyLike) -> PolicySource:
        trust_domain = self._snapshot.svid.id.trust_domain
        if isinstance(policy, Policy):
            require_domain(policy, trust_domain, "policy")
            return FixedPolicy(policy)
        file = policy if isinstance(policy, PolicyFile) else PolicyFile(policy, trust_domain)
        require_domain(file.current, trust_domain, str(file.path))
        if file.alarm is None:
            file.alarm = self._alarm
        return file

    def _alarm(self, detail: str) -> None:
        self.audit.record(AuditEvent(at=clock.now(), kind="policy.alarm", detail=detail))


def _granted(scope: Scope, caller: Caller | None) -> Scope:
    granted = {
        **scope,
        "headers": visible(scope["headers"]),
        CALLER: caller,
    }
    if caller is None:
        del granted[CALLER]  # an open route has no Caller, and none that came in
    return granted


def _nobody() -> ZeroTrustError:
    return CertificateRejected(Reason.PEER_NONE, "no connection")
