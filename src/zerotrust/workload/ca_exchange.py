"""One HTTP exchange with a CA, over the standard library.

1. One connection, one request, one answer; 5 s to connect and 15 s for everything.
2. No redirect is followed, no proxy and no setting of the environment is read, nothing is repeated.
3. An answer is bytes of a bounded number; what they mean is judged by the caller.
4. Only the status of a refusal is understood. Its text is the CA's log's business.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

from zerotrust.core.enrolment import MAX_ANSWER_BYTES, MEDIA_TYPE, parse_address
from zerotrust.core.errors import (
    AttestationFailed,
    CertificateRejected,
    IssuanceError,
    NotEntitled,
    NotYetIssued,
    Reason,
    RequestRefused,
)
from zerotrust.workload.tls.peer import HandshakeRefused

CONNECT_TIMEOUT: Final = 5.0  # seconds
TOTAL_TIMEOUT: Final = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Route:
    """How a CA is reached: by TLS, whose context decides who may answer, or by a socket here."""

    host: str  # as in the Host header and in messages
    target: tuple[str, int] | str
    context: ssl.SSLContext | None

    @classmethod
    def tls(cls, address: str, context: ssl.SSLContext) -> Self:
        """Over the network; raise MalformedError when `address` is not `host:port`."""
        return cls(address, parse_address(address), context)

    @classmethod
    def unix(cls, path: Path) -> Self:
        """Over a socket of this machine, which its folder protects."""
        return cls("localhost", str(path), None)

    @property
    def place(self) -> str:
        """What was dialled, for messages."""
        return self.target if isinstance(self.target, str) else self.host

    def connect(self) -> socket.socket:
        """Return a plain connection; raise OSError or CertificateRejected."""
        if not isinstance(self.target, str):
            return socket.create_connection(self.target, timeout=CONNECT_TIMEOUT)
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            plain.settimeout(CONNECT_TIMEOUT)
            plain.connect(self.target)
            _require_own(plain, self.target)
        except BaseException:
            plain.close()
            raise
        return plain


def exchange(
    route: Route,
    path: str,
    *,
    body: bytes | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Send one request (POST with a body, else GET) and return the body of its 200 answer.

    Raises NotYetIssued when the CA cannot be reached or asks to come again, IssuanceError when it
    refuses, and CertificateRejected when somebody else answers in its place.
    """
    try:
        plain = route.connect()
        with plain.dup() as handle:  # the watchdog's own: TLS takes the other one over
            watchdog = threading.Timer(TOTAL_TIMEOUT, _cut, [handle])
            watchdog.daemon = True
            watchdog.start()
            try:
                with (
                    plain if route.context is None else route.context.wrap_socket(plain) as carrier
                ):
                    carrier.settimeout(TOTAL_TIMEOUT)
                    return _converse(carrier, route.host, path, body, headers)
            finally:
                watchdog.cancel()
                plain.close()
    except HandshakeRefused as exc:
        raise exc.error from exc
    except (OSError, http.client.HTTPException) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
        raise NotYetIssued(f"the CA at {route.place} cannot be reached: {why}") from exc


def _converse(
    carrier: socket.socket,
    host: str,
    path: str,
    body: bytes | None,
    headers: Iterable[tuple[str, str]],
) -> bytes:
    connection = http.client.HTTPConnection(host)
    connection.auto_open = 0  # this carrier or none
    connection.sock = carrier
    sent = {"Host": host, "Accept": MEDIA_TYPE, "Connection": "close", **dict(headers)}
    if body is not None:
        sent["Content-Type"] = MEDIA_TYPE
    connection.request("GET" if body is None else "POST", path, body=body, headers=sent)
    with connection.getresponse() as response:
        if response.status != HTTPStatus.OK:
            raise _refusal(response.status, host)
        answer = response.read(MAX_ANSWER_BYTES + 1)
        if response.length and len(answer) <= MAX_ANSWER_BYTES:
            raise http.client.IncompleteRead(answer, response.length)
    if len(answer) > MAX_ANSWER_BYTES:
        raise NotYetIssued(f"the answer of {host} is longer than {MAX_ANSWER_BYTES} bytes")
    return answer


def _require_own(plain: socket.socket, path: str) -> None:
    """Raise CertificateRejected unless root or we listen there: the user is the proof."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", plain.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid not in {0, os.geteuid()}:
        raise CertificateRejected(
            Reason.PEER_UNEXPECTED, f"{path} belongs to user {uid}, neither you nor root"
        )


def _refusal(status: int, host: str) -> IssuanceError | NotYetIssued:
    said = f"the CA at {host} answered {status}"
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return AttestationFailed(f"{said}: it does not accept the evidence")
        case HTTPStatus.FORBIDDEN:
            return NotEntitled(
                Reason.NOT_ENTITLED, f"{said}: no entry entitles this workload (any more)"
            )
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return NotYetIssued(f"{said}: come again later")
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return NotYetIssued(f"{said}: it has a fault")
        case _:
            return RequestRefused(Reason.BAD_MESSAGE, f"{said}: is this the address of a CA?")


def _cut(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is over already
        handle.shutdown(socket.SHUT_RDWR)
