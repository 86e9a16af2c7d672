"""The CA over HTTP: one small ASGI application per listener, each with a fixed table of routes.

    bootstrap   POST /v1/enrol   GET /v1/bundle   GET /livez   GET /readyz
    mutual TLS  POST /v1/renew   GET /v1/bundle   and the remote part of admin.py, behind our own
    guard
    workload    POST /v1/enrol   GET /v1/bundle   on a unix socket, for development

1. What stands in no table does not exist: no patterns, no prefixes, compared as it was sent.
2. Host, Origin, content type and length are judged before a byte of the body is read.
3. The asker gets a category, constant text and an id; the reason goes to the audit log under that
   id.
4. An exception nobody foresaw is a refusal.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from zerotrust import clock
from zerotrust.asgi import CALLER
from zerotrust.asgi.connection import connection_of
from zerotrust.asgi.problem import STATUS, TYPE_PREFIX, Receive, Scope, Send
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.ca.authority.attestation import Connection
from zerotrust.ca.limits import Limiter, Rates
from zerotrust.core.enrolment import (
    BUNDLE_PATH,
    ENROL_PATH,
    LIVEZ_PATH,
    MAX_REQUEST_BYTES,
    MEDIA_TYPE,
    READYZ_PATH,
    RENEW_PATH,
    EnrolRequest,
    Issued,
    RenewRequest,
)
from zerotrust.core.errors import (
    PUBLIC_TEXT,
    AttestationFailed,
    NotEntitled,
    Reason,
    RequestRefused,
    RequestRejected,
    ZeroTrustError,
)
from zerotrust.core.request import Authorities

if TYPE_CHECKING:
    from concurrent.futures import Future

    from zerotrust.ca.service import CertificateAuthority

UID: Final = "zerotrust.uid"  # scope["extensions"]: who is on the other end of a unix socket

_JSON: Final = MEDIA_TYPE.encode()
_NEVER_STORED: Final = [(b"content-type", _JSON), (b"cache-control", b"no-store")]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that passed the gate."""

    scope: Scope
    body: bytes = field(repr=False)
    connection: Connection
    now: float


Endpoint = Callable[[Arrival], Awaitable[bytes]]
Routes = Mapping[tuple[str, bytes], Endpoint]


class NotServed(RequestRejected):
    """A request for something this listener does not offer; `status` says which kind."""

    def __init__(self, status: int, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.status = status


class Gate:
    """The ASGI application of one listener."""

    def __init__(
        self, routes: Routes, hosts: Authorities, audit: AuditLog, *, open_detail: bool = False
    ) -> None:
        self._routes, self._hosts, self._audit = routes, hosts, audit
        self._paths = {path for _, path in routes}
        self._open_detail = open_detail  # an operator on our own socket reads the reason itself

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one `http` scope; there is no other."""
        if scope["type"] != "http":
            raise RequestRejected(Reason.SCOPE_UNKNOWN, f"scope type {scope['type']!a}")
        connection = _connection(scope)
        try:
            endpoint = self._route(scope)
            body = await _read(scope, receive)
            answer = await endpoint(Arrival(scope, body, connection, clock.now()))
        except ZeroTrustError as error:
            await self._refuse(scope, send, connection, error)
        except Exception as exc:  # noqa: BLE001 - fail closed
            place = traceback.extract_tb(exc.__traceback__)[-1]  # its text may quote a secret
            detail = f"{type(exc).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}"
            await self._refuse(scope, send, connection, ZeroTrustError(Reason.UNFORESEEN, detail))
        else:
            await _send(send, 200, _NEVER_STORED, answer)

    def _route(self, scope: Scope) -> Endpoint:
        headers = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            raise RequestRejected(Reason.HEADER_DUPLICATE, "one Host field, no more and no less")
        self._hosts.require(hosts[0])
        if any(name == b"origin" for name, _ in headers):
            raise NotServed(403, Reason.HEADER_INVALID, "a browser asks: Origin")
        method, path = scope["method"], scope.get("raw_path") or b""
        endpoint = self._routes.get((method, path))
        if endpoint is None:
            status = 405 if path in self._paths else 404
            raise NotServed(status, Reason.RULE_NONE, "no such route on this listener")
        if scope.get("query_string"):
            raise NotServed(404, Reason.RULE_NONE, "no route takes a query")
        return endpoint

    async def _refuse(
        self, scope: Scope, send: Send, connection: Connection, error: ZeroTrustError
    ) -> None:
        refusal = secrets.token_hex(8)
        status = getattr(error, "status", None) or STATUS[error.category]
        self._audit.refused(
            AuditEvent(
                at=clock.now(),
                kind="ca.refused",
                id=refusal,
                reason=str(error.reason),
                code=error.code,
                detail=error.detail,
                peer=connection.source,
                route=f"{scope['method']} {scope['path'][:64]}",
            )
        )
        problem: dict[str, Any] = {
            "type": TYPE_PREFIX + error.category,
            "title": PUBLIC_TEXT[error.category],
            "status": status,
            "id": refusal,
        }
        if self._open_detail:
            problem |= {"reason": str(error.reason), "detail": error.detail}
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),  # an unread body would be taken for the next request
        ]
        await _send(send, status, headers, json.dumps(problem).encode())


class Offices:
    """What the CA does for those who come over HTTP."""

    def __init__(
        self,
        ca: CertificateAuthority,
        audit: AuditLog,
        rates: Rates | None = None,
        *,
        ready: Callable[[], object],
    ) -> None:
        self._ca, self._audit, self._ready = ca, audit, ready
        rates = rates or Rates()
        self._requests = Limiter(rates.requests, rates.burst)
        self._failures = Limiter(rates.failures, rates.failure_burst)

    def bootstrap(self) -> Routes:
        """For whoever has no identity yet."""
        return {
            ("POST", ENROL_PATH.encode()): self.enrol,
            ("GET", BUNDLE_PATH.encode()): self.publish,
            ("GET", LIVEZ_PATH.encode()): self.live,
            ("GET", READYZ_PATH.encode()): self.ready,
        }

    def workload(self) -> Routes:
        """For processes of this machine."""
        return {
            ("POST", ENROL_PATH.encode()): self.enrol,
            ("GET", BUNDLE_PATH.encode()): self.publish,
        }

    def members(self) -> Routes:
        """For whoever has an identity of the trust domain."""
        return {
            ("POST", RENEW_PATH.encode()): self.renew,
            ("GET", BUNDLE_PATH.encode()): self.publish,
        }

    async def enrol(self, arrival: Arrival) -> bytes:
        """Attest and issue."""
        source = arrival.connection.source
        self._admit(source, arrival.now)
        if self._failures.is_full(source, arrival.now):
            raise RequestRefused(Reason.ISSUANCE_RATE, "too many failed attestations")
        try:
            request = EnrolRequest.parse(arrival.body)
            pending = self._ca.enrol(request, arrival.connection, now=arrival.now)
            return await self._issued(pending, arrival, "enrol")
        except (AttestationFailed, NotEntitled):
            self._failures.count(source, arrival.now)
            raise

    async def renew(self, arrival: Arrival) -> bytes:
        """Rekey the caller's identity. Only the guard puts a Caller into the scope."""
        connection, caller = connection_of(arrival.scope), arrival.scope.get(CALLER)
        peer = connection.peer if connection is not None else None
        if peer is None or caller is None or caller.id != peer.id:
            raise NotEntitled(Reason.NOT_ENTITLED, "no proven caller")
        self._admit(str(peer.id), arrival.now)
        request = RenewRequest.parse(arrival.body)
        return await self._issued(self._ca.renew(request, peer, now=arrival.now), arrival, "renew")

    async def publish(self, arrival: Arrival) -> bytes:
        """Return the bundle and the statements on its anchors."""
        self._admit(arrival.connection.source, arrival.now)
        return self._ca.published_body

    async def live(self, arrival: Arrival) -> bytes:  # noqa: ARG002 - an endpoint
        """Say that the process answers."""
        return b'{"live":true}'

    async def ready(self, arrival: Arrival) -> bytes:
        """Say that it can issue: records readable, issuer valid, own identity at hand."""
        self._admit(arrival.connection.source, arrival.now)
        self._ready()
        return b'{"ready":true}'

    def _admit(self, source: str, now: float) -> None:
        if self._requests.is_full(source, now):
            raise RequestRefused(Reason.ISSUANCE_RATE, "too many requests")
        self._requests.count(source, now)

    async def _issued(self, pending: Future[Issued], arrival: Arrival, how: str) -> bytes:
        issued = await asyncio.wrap_future(pending)
        self._audit.record(
            AuditEvent(
                at=arrival.now,
                kind="ca.issued",
                detail=f"{how} {describe(issued.chain[0])}",
                peer=arrival.connection.source,
            )
        )
        return issued.dump()


def describe(leaf: bytes) -> str:
    """Return identity, serial and end of a certificate in one line."""
    certificate = x509.load_der_x509_certificate(leaf)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    identity = names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    ends = certificate.not_valid_after_utc.isoformat()
    return f"{identity} serial {certificate.serial_number:x} until {ends}"


def _connection(scope: Scope) -> Connection:
    extensions = scope.get("extensions") or {}
    uid = extensions.get(UID)
    if uid is not None:
        return Connection(f"uid:{uid}", uid)
    tls = connection_of(scope)
    if tls is not None and tls.peer is not None:
        return Connection(str(tls.peer.id))
    client = scope.get("client")
    return Connection(str(client[0]) if client else "")


async def _read(scope: Scope, receive: Receive) -> bytes:
    """Return the body, bounded; a GET has none."""
    headers = scope["headers"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if lengths and not (len(lengths) == 1 and len(lengths[0]) < 10 and lengths[0].isdigit()):  # noqa: PLR2004 - digits of a length
        raise NotServed(413, Reason.REQUEST_TOO_LARGE, "the length is no length")
    limit = MAX_REQUEST_BYTES if scope["method"] == "POST" else 0
    if lengths and int(lengths[0]) > limit:
        raise NotServed(413, Reason.REQUEST_TOO_LARGE, f"a body has at most {limit} bytes")
    if limit and [value for name, value in headers if name == b"content-type"] != [_JSON]:
        raise NotServed(415, Reason.HEADER_INVALID, "a body is application/json")
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RequestRejected(Reason.REQUEST_TOO_LARGE, "the body ended early")
        chunk: bytes = message.get("body", b"")
        body += chunk
        if len(body) > limit:
            raise NotServed(413, Reason.REQUEST_TOO_LARGE, f"a body has at most {limit} bytes")
        if not message.get("more_body"):
            return body


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
