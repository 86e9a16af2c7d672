"""Whom a client talks to: the wrong server gets no byte of the application."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from support.identities import FixedIdentity
from support.listeners import GREETING, HOST, Listener, ask, listening, load
from zerotrust.core.errors import CertificateRejected, Closed, Reason
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, X509Svid, verify_x509_svid
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.tls.context import (
    SpiffeContext,
    bootstrap_client_context,
    client_context,
    require,
    server_context,
    unsafe_unverified_context,
)
from zerotrust.workload.tls.peer import HandshakeRefused, SpiffeSocket, peer_of

NOW = time.time()
CA = ForgedAuthority(now=NOW)
PARTNER = ForgedAuthority("partner.example", now=NOW)
OTHER_CA = ForgedAuthority(now=NOW)
WEB = FixedIdentity(CA.snapshot("web", bundles=[PARTNER]))


def impostor(svid: X509Svid) -> Callable[[Listener], ssl.SSLContext]:
    """A TLS 1.3 server that shows this certificate and asks clients for nothing."""

    def make(_: Listener) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load(context, svid)
        return context

    return make


def call_blocking(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection((HOST, port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(GREETING)
        return tls.recv(4096)


def call_connecting_later(port: int, context: ssl.SSLContext) -> bytes:
    with context.wrap_socket(socket.socket(), server_hostname="localhost") as tls:
        tls.settimeout(10)
        tls.connect((HOST, port))
        tls.sendall(GREETING)
        return tls.recv(4096)


def call_async(
    port: int, context: ssl.SSLContext, factory: Callable[[], asyncio.AbstractEventLoop]
) -> bytes:
    async def call() -> bytes:
        reader, writer = await asyncio.open_connection(
            HOST, port, ssl=context, server_hostname="localhost"
        )
        try:
            writer.write(GREETING)
            return await reader.read(4096)
        finally:
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(call())


CALLS: dict[str, Callable[[int, ssl.SSLContext], bytes]] = {
    "blocking": call_blocking,
    "connecting later": call_connecting_later,
    "asyncio": lambda port, context: call_async(port, context, asyncio.new_event_loop),
    "uvloop": lambda port, context: call_async(port, context, uvloop.new_event_loop),
}

WRONG: dict[str, tuple[Callable[[], X509Svid], Reason]] = {
    "another workload of the domain": (lambda: CA.issue("other"), Reason.PEER_UNEXPECTED),
    "a federated workload": (lambda: PARTNER.issue("ledger"), Reason.PEER_UNEXPECTED),
    "a federated root that signs the expected ID": (
        lambda: PARTNER.issue("spiffe://example.org/ledger"),
        Reason.PEER_WRONG_TRUST_DOMAIN,
    ),
    "a CA of the same name": (lambda: OTHER_CA.issue("ledger"), Reason.PEER_UNTRUSTED),
    "self-signed": (lambda: CA.issue("ledger", issuer="self"), Reason.PEER_UNTRUSTED),
    "expired": (lambda: CA.issue("ledger", not_before=NOW - 7200, ttl=3600), Reason.PEER_EXPIRED),
    "the right DNS name and no ID": (
        lambda: CA.issue("ledger", uris=(), dns=("localhost",)),
        Reason.PEER_NOT_AN_SVID,
    ),
}


@pytest.mark.parametrize("world", CALLS)
def test_the_expected_server_is_called(world: str) -> None:
    with listening("asyncio", impostor(CA.issue("ledger"))) as listener:
        context = client_context(WEB, require(CA.id("ledger")))
        assert CALLS[world](listener.port, context) == b"nobody"
        assert listener.received == [GREETING]


@pytest.mark.parametrize("world", CALLS)
@pytest.mark.parametrize("case", WRONG)
def test_the_wrong_server_gets_no_byte(case: str, world: str) -> None:
    make, reason = WRONG[case]
    refused: list[Reason] = []
    context = client_context(
        WEB, require(CA.id("ledger")), on_refused=lambda error: refused.append(error.reason)
    )
    with listening("asyncio", impostor(make())) as listener:
        with pytest.raises(HandshakeRefused) as caught:
            CALLS[world](listener.port, context)
        assert caught.value.error.reason is reason
        assert refused == [reason]
    assert listener.received == []


def test_a_tls_1_2_server_is_refused() -> None:
    def old(_: Listener) -> ssl.SSLContext:
        context = impostor(CA.issue("ledger"))(_)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    with listening("asyncio", old) as listener:
        with pytest.raises(ssl.SSLError):
            call_blocking(listener.port, client_context(WEB, require(CA.id("ledger"))))
        assert listener.received == []


@pytest.mark.parametrize("world", CALLS)
def test_a_client_without_identity_sends_not_even_a_greeting(world: str) -> None:
    gone = FixedIdentity(CA.snapshot("web"))
    gone.close()
    with listening("asyncio", impostor(CA.issue("ledger"))) as listener:
        with pytest.raises(HandshakeRefused) as caught:
            CALLS[world](listener.port, client_context(gone, require(CA.id("ledger"))))
        assert isinstance(caught.value.error, Closed)
        assert listener.received == []


def test_a_broken_authorize_refuses() -> None:
    def authorize(peer: VerifiedSvid) -> None:
        raise KeyError(peer.id)

    with listening("asyncio", impostor(CA.issue("ledger"))) as listener:
        with pytest.raises(HandshakeRefused) as caught:
            call_blocking(listener.port, client_context(WEB, authorize))
        assert caught.value.error.reason is Reason.UNFORESEEN
        assert listener.received == []


def test_a_broken_log_does_not_let_anybody_in() -> None:
    def broken(_: object) -> None:
        raise RuntimeError("disk full")

    with listening("asyncio", impostor(CA.issue("other"))) as listener:
        context = client_context(WEB, require(CA.id("ledger")), on_refused=broken)
        with pytest.raises(HandshakeRefused):
            call_blocking(listener.port, context)


def test_the_client_shows_the_certificate_of_the_moment() -> None:
    web = FixedIdentity(CA.snapshot("web"))
    context = client_context(web, require(CA.id("ledger")))
    ledger = FixedIdentity(CA.snapshot("ledger"))
    with listening("asyncio", lambda _: server_context(ledger)) as listener:
        assert ask(listener.port, context) == b"spiffe://example.org/web"
        web.rotate(CA.snapshot("renamed"))
        assert ask(listener.port, context) == b"spiffe://example.org/renamed"


def test_a_rotation_between_wrap_and_connect_counts() -> None:
    web = FixedIdentity(CA.snapshot("web"))
    ledger = FixedIdentity(CA.snapshot("ledger"))
    context = client_context(web, require(CA.id("ledger")))
    with (
        listening("asyncio", lambda _: server_context(ledger)) as listener,
        context.wrap_socket(socket.socket()) as tls,
    ):
        web.rotate(CA.snapshot("renamed"))
        tls.connect((HOST, listener.port))
        tls.sendall(GREETING)
        assert tls.recv(100) == b"spiffe://example.org/renamed"


def test_the_bootstrap_client_reaches_exactly_the_ca() -> None:
    context = bootstrap_client_context(CA.bundles, CA.id("zerotrust/ca"))
    with listening("asyncio", impostor(CA.issue("zerotrust/ca"))) as listener:
        assert call_blocking(listener.port, context) == b"nobody"


def test_a_workload_posing_as_the_ca_gets_no_byte_of_a_bootstrap_client() -> None:
    context = bootstrap_client_context(CA.bundles, CA.id("zerotrust/ca"))
    with listening("asyncio", impostor(CA.issue("web"))) as listener:
        with pytest.raises(HandshakeRefused) as caught:
            call_blocking(listener.port, context)
        assert caught.value.error.reason is Reason.PEER_UNEXPECTED
        assert listener.received == []


def test_the_unverified_context_reaches_anybody_and_names_no_peer() -> None:
    with (
        listening("asyncio", impostor(OTHER_CA.issue("web"))) as listener,
        socket.create_connection((HOST, listener.port)) as raw,
        unsafe_unverified_context().wrap_socket(raw) as tls,
    ):
        assert tls.version() == "TLSv1.3"
        assert peer_of(tls) is None


@pytest.fixture
def pair() -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """A finished connection: our client's socket and our server's."""
    left, right = socket.socketpair()
    server = server_context(FixedIdentity(CA.snapshot("ledger")))
    client = client_context(FixedIdentity(CA.snapshot("web")), require(CA.id("ledger")))
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(
        target=lambda: accepted.append(server.wrap_socket(right, server_side=True))
    )
    thread.start()
    with client.wrap_socket(left) as tls:
        thread.join()
        with accepted[0]:
            yield tls, accepted[0]


def test_after_unwrap_nothing_goes_in_the_clear(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    ours, theirs = pair
    thread = threading.Thread(target=theirs.unwrap)
    thread.start()
    plain = ours.unwrap()
    thread.join()
    for act in (lambda: plain.send(b"x"), lambda: plain.sendall(b"x"), lambda: plain.recv(1)):
        with pytest.raises(ssl.SSLError):
            act()
    assert peer_of(ours) is None


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_after_a_half_close_nothing_goes_in_the_clear(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket], how: int
) -> None:
    """`ssl` lets go of TLS in shutdown() and then writes plaintext into the open direction."""
    ours, _ = pair
    ours.sendall(b"x")
    ours.shutdown(how)
    for act in (lambda: ours.send(b"x"), lambda: ours.sendall(b"x"), lambda: ours.recv(1)):
        with pytest.raises(ssl.SSLError):
            act()
    assert peer_of(ours) is None


def test_a_socket_of_a_refused_peer_stays_guarded() -> None:
    left, right = socket.socketpair()
    server = server_context(FixedIdentity(CA.snapshot("ledger")))
    client = client_context(FixedIdentity(CA.snapshot("web")), require(CA.id("orders")))
    thread = threading.Thread(target=_accept_and_read, args=(server, right))
    thread.start()
    with client.wrap_socket(left, do_handshake_on_connect=False) as tls:
        for act in (tls.do_handshake, lambda: tls.send(b"x"), lambda: tls.recv(1)):
            with pytest.raises(HandshakeRefused):
                act()
        assert type(tls) is SpiffeSocket
    thread.join()


def _accept_and_read(context: ssl.SSLContext, raw: socket.socket) -> None:
    with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as tls:
        assert tls.recv(1) == b""


def test_the_peer_is_read_from_what_clients_hand_out(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    ours, theirs = pair
    for shown in (ours, ours._sslobj):  # type: ignore[attr-defined]
        peer = peer_of(shown)
        assert peer is not None
        assert str(peer.id) == "spiffe://example.org/ledger"
    seen = peer_of(theirs)
    assert seen is not None
    assert str(seen.id) == "spiffe://example.org/web"


def test_a_look_alike_is_nobody(pair: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    class LookAlike:
        _peer = peer_of(pair[0])
        _proven = True

    assert peer_of(LookAlike()) is None
    assert peer_of(None) is None
    assert peer_of("peer") is None


def test_neither_context_nor_session_of_a_connection_can_be_swapped(
    pair: tuple[ssl.SSLSocket, ssl.SSLSocket],
) -> None:
    ours, _ = pair
    assert isinstance(ours.context, SpiffeContext)
    with pytest.raises(Exception, match="cannot be swapped"):
        ours.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(Exception, match="never resumed"):
        ours.session = None
    assert ours.session is None


def test_require_names_both_identities_in_its_refusal() -> None:
    peer = _verified()
    with pytest.raises(CertificateRejected, match="the peer is spiffe:"):
        require(CA.id("ledger"))(peer)


def _verified() -> VerifiedSvid:
    return verify_x509_svid(CA.issue("web").chain_der, BundleSet([CA.bundle]), NOW)
