"""How fast the CA issues over HTTPS, each record on disk, held against the bare arithmetic."""

from __future__ import annotations

import datetime as dt
import secrets
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.rig import Figure, cpu_of, interleaved, per_call, pin, process
from zerotrust.audit import AuditLog, JsonLinesSink
from zerotrust.ca.authority.entries import NewEntry, dns_of
from zerotrust.ca.limits import Rates
from zerotrust.ca.server import Listeners, Running
from zerotrust.ca.service import init_ca, open_ca
from zerotrust.core.enrolment import (
    ENROL_PATH,
    EnrolRequest,
    Evidence,
    RenewRequest,
    ca_id,
    prove_wit_key,
)
from zerotrust.core.jose import SigningKey, sign_compact
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload.tls.context import unsafe_unverified_context

DOMAIN: Final = TrustDomain("example.org")
ENTRIES: Final = 100
BUSY_CLIENTS: Final = 32  # kept alive: enough to keep the CA busy while some wait for the disk
CLIENTS: Final = 100
NO_LIMIT: Final = 1e6  # requests per second of one source: all the load has one address


def figures(*, quick: bool) -> list[Figure]:
    """Return the rate over kept connections, and rate and p99 with a handshake each."""
    rounds, size, crowd = (6, 320, 600) if quick else (40, 320, 3000)
    with tempfile.TemporaryDirectory(prefix="zerotrust-bench-") as folder:
        total = rounds * size + size + crowd
        with process(_serve, Path(folder), total) as (pid, pipe):
            port, secrets_ = pipe.recv()
            pin(1)
            wants = [_want(secret, port) for secret in secrets_]
            bare = _Bare([want.csr for want in wants[:size]])
            arithmetic = min(per_call(bare.seconds_each, 1) for _ in range(rounds)) / size
            busy = iter([wants[at : at + size] for at in range(0, total - crowd, size)])
            with _Crowd(port, BUSY_CLIENTS) as kept:
                kept.seconds_each(next(busy))  # warm
                spent = cpu_of(pid)
                ours, base = interleaved(
                    lambda: kept.seconds_each(next(busy)), bare.seconds_each, rounds
                )
                spent = (cpu_of(pid) - spent) / (rounds * size)
            fresh, waits = _fresh(port, wants[-crowd:])
            pipe.send(None)
    return [
        Figure(
            "issue_rate_vs_bare_crypto",
            1 / ours,
            "1/s",
            1 / base,
            base / ours,
            ">= 0.30",
            "enrolments with a join token over kept HTTPS connections, one processor for the CA, "
            "SQLite synchronous=FULL; bare: verify the CSR, sign certificate and WIT",
        ),
        Figure(
            "issue_cpu_vs_bare_crypto",
            spent * 1e6,
            "us",
            arithmetic * 1e6,
            spent / arithmetic,
            note="processor time of the same enrolments, the writing of their records included",
        ),
        Figure("issue_rate_fresh_handshake", fresh, "1/s", note="a TLS handshake per enrolment"),
        Figure(
            "issue_p99_100_clients_ms",
            statistics.quantiles(waits, n=100)[98] * 1e3,
            "ms",
            note=f"handshake to answer, {CLIENTS} clients at once, always busy; "
            f"median {statistics.median(waits) * 1e3:.0f} ms",
        ),
    ]


def _serve(pipe: Connection, folder: Path, tokens: int) -> None:
    """Be the CA, as `zerotrust ca run` is, with so many join tokens handed out."""
    pin(0)
    now = time.time()
    made = folder / "ca"
    phrase = secrets.token_bytes(32)
    # a dev CA: its keys are sealed at the least cost, which only start-up shows
    init_ca(made, DOMAIN, root_passphrase=phrase, passphrase=phrase, now=now, dev=True)
    rates = Rates(requests=NO_LIMIT, burst=int(NO_LIMIT))
    audit = AuditLog(JsonLinesSink(str(folder / "audit.jsonl")))
    listeners = Listeners("127.0.0.1:0", "127.0.0.1:0")
    with (
        open_ca(made, phrase, now=now) as ca,
        Running(ca, listeners, audit=audit, rates=rates) as running,
    ):
        entries = [ca.create_entry(NewEntry(f"/load/{i}"), now=now) for i in range(ENTRIES)]
        with ThreadPoolExecutor(64) as pool:  # together, so that they share commits
            handed = pool.map(
                lambda i: ca.create_token(entries[i % ENTRIES].id, now=now, ttl=3600),
                range(tokens),
            )
            values = [token.evidence.value for token in handed]
        pipe.send((int(running.bootstrap.rpartition(":")[2]), values))
        pipe.recv()


@dataclass(frozen=True)
class _Want:
    """One enrolment, ready to be sent."""

    csr: bytes
    request: bytes


def _want(secret: str, port: int) -> _Want:
    csr = (
        x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    evidence, wit_key = Evidence("join_token", secret), SigningKey.generate()
    proof = prove_wit_key(wit_key, csr=csr, ca=ca_id(DOMAIN), evidence=evidence)
    keys = RenewRequest(csr, wit_key.public.as_dict(), proof)
    body = EnrolRequest(evidence, keys).dump()
    head = (
        f"POST {ENROL_PATH} HTTP/1.1\r\nhost: localhost:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return _Want(csr, head.encode() + body)


class _Crowd:
    """Clients that keep their connections."""

    def __init__(self, port: int, clients: int) -> None:
        context = unsafe_unverified_context()
        self._sockets = [_connect(port, context) for _ in range(clients)]
        self._pool = ThreadPoolExecutor(clients)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for sock in self._sockets:
            sock.close()

    def seconds_each(self, wants: list[_Want]) -> float:
        """Return the wall time per enrolment, all clients busy."""
        queue = iter(wants)  # next() of a list's iterator is one step: threads may share it

        def enrol(sock: ssl.SSLSocket) -> None:
            for want in queue:
                _ask(sock, want)

        started = time.perf_counter()
        list(self._pool.map(enrol, self._sockets))
        return (time.perf_counter() - started) / len(wants)


class _Bare:
    """The arithmetic alone: no network, no disk, no checks but the signature."""

    def __init__(self, csrs: list[bytes]) -> None:
        self._csrs = csrs
        self._key, self._wit_key = ec.generate_private_key(ec.SECP256R1()), SigningKey.generate()
        self._header = {"typ": "wit+jwt", "kid": self._wit_key.public.thumbprint}
        self._claims = {
            "iss": str(DOMAIN),
            "sub": str(DOMAIN.id("/load/1")),
            "iat": int(time.time()),
            "exp": int(time.time()) + 3600,
            "cnf": {"jwk": SigningKey.generate().public.as_dict()},
        }
        self._issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare issuer")])
        self._extensions = list(_extensions(self._key.public_key()))

    def seconds_each(self) -> float:
        """Return the wall time per certificate with its WIT, on the processor of the CA."""
        pin(0)
        started = time.perf_counter()
        for csr in self._csrs:
            self._issue(csr)
        spent = time.perf_counter() - started
        pin(1)
        return spent / len(self._csrs)

    def _issue(self, der: bytes) -> tuple[bytes, str]:
        csr = x509.load_der_x509_csr(der)
        if not csr.is_signature_valid:
            raise RuntimeError("the load's own CSR does not hold")
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        certificate = x509.CertificateBuilder(
            self._issuer,
            x509.Name([]),
            csr.public_key(),
            x509.random_serial_number(),
            now,
            now + dt.timedelta(hours=1),
            self._extensions,
        ).sign(self._key, hashes.SHA256())
        claims = {**self._claims, "jti": secrets.token_urlsafe(16)}
        wit = sign_compact(self._header, claims, self._wit_key)
        return certificate.public_bytes(Encoding.DER), wit


def _extensions(
    key: ec.EllipticCurvePublicKey,
) -> Iterator[x509.Extension[x509.ExtensionType]]:
    """Yield what an X509-SVID carries."""
    identity = DOMAIN.id("/load/1")
    usage = [name == "digital_signature" for name in _USAGES]
    for value, critical in (
        (
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(str(identity)), x509.DNSName(dns_of(identity))]
            ),
            True,
        ),
        (x509.KeyUsage(**dict(zip(_USAGES, usage, strict=True))), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            False,
        ),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key), False),
    ):
        yield x509.Extension(value.oid, critical, value)


_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _fresh(port: int, wants: list[_Want]) -> tuple[float, list[float]]:
    """Return the rate, and the seconds of each enrolment, with a connection for each."""
    context = unsafe_unverified_context()

    def enrol(want: _Want) -> float:
        started = time.perf_counter()
        with _connect(port, context) as sock:
            _ask(sock, want)
        return time.perf_counter() - started

    with ThreadPoolExecutor(CLIENTS) as pool:
        started = time.perf_counter()
        waits = list(pool.map(enrol, wants))
        return len(wants) / (time.perf_counter() - started), waits


def _connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=30)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw)


def _ask(sock: ssl.SSLSocket, want: _Want) -> None:
    sock.sendall(want.request)
    data = sock.recv(65536)
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"an enrolment was refused: {data[:300]!r}")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += _more(sock)


def _more(sock: ssl.SSLSocket) -> bytes:
    chunk = sock.recv(65536)
    if not chunk:
        raise RuntimeError("the CA closed the connection")
    return chunk
