from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.home_ca import DOMAIN, PASSPHRASE, ROOT, Home, home
from zerotrust import clock
from zerotrust.ca.service import init_ca, open_ca
from zerotrust.core.enrolment import JoinToken
from zerotrust.core.errors import (
    AttestationFailed,
    CertificateRejected,
    NotEntitled,
    NotYetIssued,
    Reason,
    RequestRefused,
    ZeroTrustError,
)
from zerotrust.workload import ca_exchange
from zerotrust.workload.ca_exchange import Route, exchange
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.layout import write_private
from zerotrust.workload.sources.ca import open_source
from zerotrust.workload.tls.context import server_context, unsafe_unverified_context

__all__ = ["home"]


# ---- a hostile CA ---------------------------------------------------------------------------


class Wire:
    """A TLS server that records each connection's plaintext and answers with fixed bytes."""

    def __init__(self, contexts: list[ssl.SSLContext], answers: list[bytes]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.heard: list[bytes] = []
        self._contexts, self._answers = contexts, answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for context, answer in zip(self._contexts, self._answers, strict=True):
            try:
                plain, _ = self.listening.accept()
            except OSError:
                return
            with plain:
                self.heard.append(b"")
                try:
                    with context.wrap_socket(plain, server_side=True) as tls:
                        self.heard[-1] = tls.recv(65536)
                        tls.sendall(answer)
                except OSError:
                    continue

    def close(self) -> None:
        self.listening.close()
        self._thread.join(5)


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@dataclass(frozen=True)
class Fixed:
    current: Snapshot


def bootstrap_of(snapshot: Snapshot) -> ssl.SSLContext:
    from zerotrust.workload.tls.context import bootstrap_context

    return bootstrap_context(Fixed(snapshot))


def redirected(home: Home, address: str) -> Path:
    """A genuine token whose address an attacker took over."""
    token = JoinToken.parse(home.token("genuine").read_text())
    path = home.path / "redirected"
    write_private(path, replace(token, address=address).dump().encode())
    return path


def test_a_workload_posing_as_the_ca_gets_no_byte_of_the_token(home: Home) -> None:
    thief = open_source(str(home.token()), dev=True).fetch(None)  # a valid SVID of the domain
    published = home.ca.published.dump()
    wire = Wire([bootstrap_of(thief)] * 2, [ok(published), ok(b"{}")])
    try:
        with pytest.raises(CertificateRejected) as caught:
            open_source(str(redirected(home, wire.address)), dev=True).fetch(None)
    finally:
        wire.close()
    assert caught.value.reason is Reason.PEER_UNEXPECTED
    assert wire.heard[0].startswith(b"GET /v1/bundle ")
    assert wire.heard[1:] == [b""]


def test_a_bundle_with_other_roots_than_the_token_lists_ends_it_before_anything_is_sent(
    home: Home, tmp_path: Path
) -> None:
    init_ca(
        tmp_path / "evil",
        DOMAIN,
        root_passphrase=ROOT,
        passphrase=PASSPHRASE,
        now=clock.now(),
        dev=True,
    )
    thief = open_source(str(home.token()), dev=True).fetch(None)
    with open_ca(tmp_path / "evil", PASSPHRASE, now=clock.now()) as evil:
        wire = Wire([bootstrap_of(thief)], [ok(evil.published.dump())])
    try:
        with pytest.raises(CertificateRejected) as caught:
            open_source(str(redirected(home, wire.address)), dev=True).fetch(None)
    finally:
        wire.close()
    assert caught.value.reason is Reason.ANCHOR_UNANNOUNCED
    assert len(wire.heard) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: https://evil/\r\n\r\n", RequestRefused),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", RequestRefused),
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", AttestationFailed),
        (b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", NotEntitled),
        (b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n", NotYetIssued),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", NotYetIssued),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * 1024 * 1024 + 1), NotYetIssued),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", NotYetIssued),
        (b"SSH-2.0-x\r\n", NotYetIssued),
        (b"", NotYetIssued),
    ],
)
def test_an_answer_that_is_no_answer_is_one_error(
    home: Home, answer: bytes, error: type[ZeroTrustError]
) -> None:
    someone = open_source(str(home.token()), dev=True).fetch(None)
    wire = Wire([bootstrap_of(someone)], [answer])
    try:
        with pytest.raises(error):
            exchange(Route.tls(wire.address, unsafe_unverified_context()), "/v1/bundle")
    finally:
        wire.close()


def test_an_answer_that_never_ends_is_cut_off(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca_exchange, "TOTAL_TIMEOUT", 0.4)
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        plain, _ = listening.accept()
        with plain:
            while not stop.wait(0.05):
                try:
                    plain.sendall(b"\x16")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(NotYetIssued):
        exchange(Route.tls(address, unsafe_unverified_context()), "/v1/bundle")
    assert time.monotonic() - begun < 3
    stop.set()
    thread.join(5)
    listening.close()


def test_the_renewal_address_must_be_the_ca_too(home: Home) -> None:
    source = open_source(str(home.token()), dev=True)
    first = source.fetch(None)
    thief = open_source(str(home.token("other")), dev=True).fetch(None)
    wire = Wire([server_context(Fixed(thief))], [ok(b"{}")])
    source._renew_at = wire.address  # type: ignore[attr-defined]
    try:
        with pytest.raises(CertificateRejected) as caught:
            source.fetch(first)
    finally:
        wire.close()
    assert caught.value.reason is Reason.PEER_UNEXPECTED
    assert wire.heard == [b""]
