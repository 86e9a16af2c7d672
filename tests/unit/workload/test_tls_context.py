"""Nothing on a context can weaken it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import pytest

from support.identities import FixedIdentity
from zerotrust.core.errors import CertificateRejected, Reason, UnsafeSetting, ZeroTrustError
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.tls import peer
from zerotrust.workload.tls.context import SpiffeContext, client_context, require, server_context
from zerotrust.workload.tls.peer import HandshakeRefused, SpiffeObject, Terms

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
    with pytest.raises(HandshakeRefused):
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
