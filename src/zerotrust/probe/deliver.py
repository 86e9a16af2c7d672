"""Deliver an attack: the only sockets of the probe, raw, because our own client is too polite.

1. Nothing is verified here: the attacker does not care who answers, and what it sends is exactly
   what it was given.
2. A TLS 1.3 client learns of its refusal only when it reads, so every delivery reads (RFC 8446
   section 4.4.2.4).
3. Time, bytes read and header lines are bounded.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from zerotrust.core.spiffe.x509_svid import X509Svid

TIMEOUT: Final = 5.0  # seconds for each connect, handshake and answer
MAX_SECONDS: Final = 15.0  # for a whole answer
MAX_ANSWER: Final = 256 * 1024

_STATUS: Final = re.compile(r"[1-5][0-9]{2}", re.ASCII)
_LENGTH: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP/1.1 request, written out exactly as given."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    def render(self) -> bytes:
        """Return the bytes that go on the wire."""
        lines = [self.method.encode("latin-1") + b" " + self.target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent over one connection, and with which certificate; None presents none."""

    request: Request
    svid: X509Svid | None
    tls: bool = True
    tls12: bool = False
    resume: bool = False  # offer the session of an earlier connection; refused if it is not resumed


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is None when the connection was refused or closed instead."""

    status: int | None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    detail: str = ""

    def header(self, name: str) -> str | None:
        """Return the first value of a header field."""
        return next((value for key, value in self.headers if key == name.lower()), None)


def deliver(address: tuple[str, int], delivery: Delivery) -> Answer:
    """Send one delivery and read its answer; never raises for what the target does."""
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as raw:
            if not delivery.tls:
                return _exchange(raw, delivery.request.render())
            context = attacker_context(delivery.svid)
            if delivery.tls12:
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            session = _earn_session(address, context, delivery) if delivery.resume else None
            with context.wrap_socket(raw, session=session) as sock:
                if delivery.resume and not sock.session_reused:
                    return Answer(None, detail="no session to resume")
                return _exchange(sock, delivery.request.render())
    except (OSError, ssl.SSLError) as error:
        return Answer(None, detail=_why(error))


def attacker_context(svid: X509Svid | None) -> ssl.SSLContext:
    """Return a TLS client context that presents a certificate, or none, and verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the attacker trusts nobody and needs nobody
    if svid is not None:
        present(context, svid)
    return context


def present(context: ssl.SSLContext, svid: X509Svid) -> None:
    """Load a certificate and key into a context without touching a disk."""
    fd = os.memfd_create("probe", os.MFD_CLOEXEC)
    try:
        os.write(fd, svid.chain_pem + svid.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _earn_session(
    address: tuple[str, int], context: ssl.SSLContext, delivery: Delivery
) -> ssl.SSLSession | None:
    """Make an honest connection and keep what a server would let us resume."""
    with (
        socket.create_connection(address, timeout=TIMEOUT) as raw,
        context.wrap_socket(raw) as sock,
    ):
        _exchange(sock, delivery.request.render())  # tickets come after the handshake
        return sock.session if sock.session is not None and sock.session.has_ticket else None


def _exchange(sock: socket.socket, data: bytes) -> Answer:
    sock.sendall(data)
    received, ends_at = b"", time.monotonic() + MAX_SECONDS
    while b"\r\n\r\n" not in received and len(received) < MAX_ANSWER:
        chunk = _receive(sock, ends_at)
        if not chunk:
            return Answer(None, detail="closed without an answer")
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not _STATUS.fullmatch(parts[1]):  # noqa: PLR2004 - version and status
        return Answer(None, detail="not an HTTP answer")
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    answer = Answer(int(parts[1]), headers, body)
    length = answer.header("content-length")
    wanted = min(int(length), MAX_ANSWER) if length and _LENGTH.fullmatch(length) else len(body)
    while len(body) < wanted and (chunk := _receive(sock, ends_at)):
        body += chunk
    return Answer(answer.status, headers, body)


def _receive(sock: socket.socket, ends_at: float) -> bytes:
    """Read what is there; whoever answers a byte at a time does not hold us for ever."""
    if time.monotonic() >= ends_at:
        raise TimeoutError("the answer does not end")
    return sock.recv(65536)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS error").lower().replace("_", " ")
    return (error.strerror or type(error).__name__).lower()
