"""Nothing on a context can weaken it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from support.identities import FixedIdentity
from zerotrust.core.errors import CertificateRejected, Reason, UnsafeSetting, ZeroTrustError
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, accept_leaf
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.tls import peer
from zerotrust.workload.tls.context import (
    SpiffeContext,
    bootstrap_client_context,
    bootstrap_context,
    client_context,
    require,
    server_context,
)
from zerotrust.workload.tls.peer import Authorize, HandshakeRefused, SpiffeObject, Terms, peer_of

T = TypeVar("T")
CA = ForgedAuthority(now=time.time())


def fronts() -> list[SpiffeContext]:
    me = FixedIdentity(CA.snapshot("web"))
    return [server_context(me), client_context(me, require(CA.id("ledger")))]


ATTRIBUTES = {
    "verify_mode": ssl.CERT_NONE,
    "check_hostname": True,
    "minimum_version": ssl.TLSVersion.TLSv1_2,
    "maximum_version": ssl.TLSVersion.TLSv1_2,
    "options": 0,
    "verify_flags": 0,
    "num_tickets": 2,
    "sni_callback": None,
    "keylog_filename": "keys.log",
    "sslobject_class": ssl.SSLObject,
    "sslsocket_class": ssl.SSLSocket,
    "post_handshake_auth": True,
    "_authorize": None,
}
CALLS: dict[str, Callable[[ssl.SSLContext], object]] = {
    "load_cert_chain": lambda c: c.load_cert_chain("x"),
    "load_verify_locations": lambda c: c.load_verify_locations("x"),
    "load_default_certs": lambda c: c.load_default_certs(),
    "set_default_verify_paths": lambda c: c.set_default_verify_paths(),
    "set_ciphers": lambda c: c.set_ciphers("ALL"),
    "set_servername_callback": lambda c: c.set_servername_callback(None),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_cannot_be_set(name: str) -> None:
    for context in fronts():
        with pytest.raises(UnsafeSetting, match=name):
            setattr(context, name, ATTRIBUTES[name])


def test_an_attribute_cannot_be_removed() -> None:
    for context in fronts():
        with pytest.raises(UnsafeSetting, match="_authorize"):
            del context._authorize


@pytest.mark.parametrize("name", CALLS)
def test_keys_and_trust_cannot_be_loaded(name: str) -> None:
    for context in fronts():
        with pytest.raises(UnsafeSetting):
            CALLS[name](context)


def test_the_front_holds_no_anchor_and_is_strict() -> None:
    for context in fronts():
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}


def test_one_inner_context_serves_one_snapshot() -> None:
    me = FixedIdentity(CA.snapshot("web"))
    context = server_context(me)
    first = context._current(SpiffeObject.__new__(SpiffeObject))
    assert context._current(SpiffeObject.__new__(SpiffeObject)) is first
    me.rotate(CA.snapshot("web"))
    assert context._current(SpiffeObject.__new__(SpiffeObject)).context is not first.context


def test_the_application_protocols_may_be_chosen() -> None:
    context = server_context(FixedIdentity(CA.snapshot("web")))
    context.set_alpn_protocols(["h2", "http/1.1"])
    assert context._current(SpiffeObject.__new__(SpiffeObject)).alpn == ("h2", "http/1.1")


def test_an_object_made_past_the_front_refuses_its_handshake() -> None:
    context = server_context(FixedIdentity(CA.snapshot("web")))
    inner = context._current(SpiffeObject.__new__(SpiffeObject)).context
    stray = inner.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    with pytest.raises(HandshakeRefused, match="not made by a SpiffeContext"):
        stray.do_handshake()


def test_a_handshake_that_waits_for_the_peer_is_no_refusal() -> None:
    told: list[ZeroTrustError] = []
    me = FixedIdentity(CA.snapshot("web"))
    incoming = ssl.MemoryBIO()
    server = server_context(me, on_refused=told.append).wrap_bio(
        incoming, ssl.MemoryBIO(), server_side=True
    )
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    assert told == []
    incoming.write(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    assert [error.reason for error in told] == [Reason.PEER_HANDSHAKE]


def test_a_connection_that_breaks_is_no_refusal() -> None:
    told: list[ZeroTrustError] = []
    client = client_context(FixedIdentity(CA.snapshot("web")), LEDGER, on_refused=told.append)
    ours, theirs = socket.socketpair()
    with client.wrap_socket(ours, do_handshake_on_connect=False) as tls:
        theirs.close()
        with pytest.raises(ConnectionError):
            tls.do_handshake()
    assert told == []


def test_a_remembered_peer_is_judged_again_once_a_certificate_of_its_chain_ends() -> None:
    terms = Terms(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), CA.bundles)
    chain = CA.chain_der(CA.issue("web", ttl=60))
    first = terms.accept(chain, CA.bundles, CA.now)
    assert terms.accept(chain, CA.bundles, CA.now + 30) is first
    with pytest.raises(CertificateRejected):
        terms.accept(chain, CA.bundles, first.expires_at)


def test_remembered_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "MAX_ACCEPTED", 2)
    terms = Terms(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), CA.bundles)
    for _ in range(5):
        terms.accept(CA.chain_der(CA.issue("web")), CA.bundles, CA.now)
        assert len(terms._accepted) <= 2


# ---- a whole handshake in memory --------------------------------------------------------------

LEDGER = require(CA.id("ledger"))


def ends(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection on which no handshake has begun."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    return client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)


def met(authorize: Authorize) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A client that asks `authorize`, and the ledger."""
    client = client_context(FixedIdentity(CA.snapshot("web")), authorize)
    return ends(client, server_context(FixedIdentity(CA.snapshot("ledger"))))


def driven(step: Callable[[], T], server: ssl.SSLObject) -> T:
    """What a client's step comes to when the server shakes hands and then says hello."""
    for _ in range(6):
        with contextlib.suppress(ssl.SSLWantReadError):
            return step()
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
            server.write(b"hello")
    raise AssertionError("neither done nor refused")


@pytest.mark.parametrize(
    ("use", "result"),
    [(lambda c: c.read(5), b"hello"), (lambda c: c.write(b"hello"), 5)],
    ids=["read", "write"],
)
def test_an_object_that_never_shook_hands_moves_bytes_only_once_its_peer_is_checked(
    use: Callable[[ssl.SSLObject], object], result: object
) -> None:
    client, server = met(LEDGER)
    assert driven(lambda: use(client), server) == result
    client, server = met(require(CA.id("other")))
    with pytest.raises(HandshakeRefused, match=r"peer\.unexpected"):
        driven(lambda: use(client), server)


def test_a_handshake_once_refused_stays_refused() -> None:
    errors = [CertificateRejected(Reason.PEER_UNEXPECTED, "not now")]

    def once(_: VerifiedSvid) -> None:
        if errors:
            raise errors.pop()

    client, server = met(once)
    for _ in range(2):
        with pytest.raises(HandshakeRefused, match="not now"):
            driven(client.do_handshake, server)
    assert peer_of(client) is None


def test_a_read_fills_the_buffer_it_is_given() -> None:
    client, server = met(LEDGER)
    buffer, read = bytearray(8), cast("Callable[..., int]", client.read)
    assert driven(lambda: read(8, buffer), server) == 5
    assert buffer == b"hello\0\0\0"


def test_the_protocols_of_the_moment_are_the_ones_agreed_on() -> None:
    client = client_context(FixedIdentity(CA.snapshot("web")), LEDGER)
    server = server_context(FixedIdentity(CA.snapshot("ledger")))
    for protocol in ("http/1.1", "h2"):
        for context in (client, server):
            context.set_alpn_protocols([protocol])
        near, far = ends(client, server)
        driven(near.do_handshake, far)
        assert near.selected_alpn_protocol() == protocol


def test_a_server_is_trusted_by_an_anchor_of_its_own_domain_or_not_at_all() -> None:
    server = bootstrap_context(FixedIdentity(CA.snapshot("ledger")))
    near, far = ends(bootstrap_client_context(CA.bundles, CA.id("ledger")), server)
    driven(near.do_handshake, far)
    near, far = ends(bootstrap_client_context(BundleSet([]), CA.id("ledger")), server)
    with pytest.raises(HandshakeRefused, match=r"peer\.untrusted"):
        driven(near.do_handshake, far)


def test_an_object_of_a_class_derived_from_ours_names_no_peer() -> None:
    verified = accept_leaf(CA.chain_der(CA.issue("web")), CA.bundles, CA.now)

    class Claims(SpiffeObject):
        _peer = verified

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = Claims
    claims: Any = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="web")
    assert claims._peer is verified
    assert peer_of(claims) is None
    assert peer_of(claims._sslobj) is None


def test_a_refusal_is_an_ssl_error_that_says_why() -> None:
    error = CertificateRejected(Reason.PEER_UNEXPECTED, "not now")
    refused = HandshakeRefused(error)
    assert refused.args == (ssl.SSL_ERROR_SSL, str(error))


# ---- what a key leaves behind -----------------------------------------------------------------


def test_the_key_of_an_identity_that_ended_is_not_kept() -> None:
    me = FixedIdentity(CA.snapshot("web"))
    context = server_context(me)
    context._current(SpiffeObject.__new__(SpiffeObject))
    assert context._built is not None
    me.close()
    context._current(SpiffeObject.__new__(SpiffeObject))
    assert context._built is None


def test_the_memory_that_handed_over_a_key_is_closed() -> None:
    context = server_context(FixedIdentity(CA.snapshot("web")))
    context._current(SpiffeObject.__new__(SpiffeObject))
    left = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them is gone by now
            left.append(str(descriptor.readlink()))
    assert not [path for path in left if path.startswith("/memfd:svid")]
