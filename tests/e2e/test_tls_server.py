"""Who gets through the handshake of a listener, in every world; one change away from who does."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.identities import FixedIdentity
from support.listeners import GREETING, HOST, WORLDS, Listener, ask, credulous, listening, load
from zerotrust.core.errors import Reason
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.tls.context import (
    bootstrap_context,
    client_context,
    require,
    server_context,
)

NOW = time.time()
CA = ForgedAuthority(now=NOW)
PARTNER = ForgedAuthority("partner.example", now=NOW)
SAME_NAME = ForgedAuthority(now=NOW)  # the names of CA, other keys
ELSEWHERE = ForgedAuthority("elsewhere.example", now=NOW)


def _reporting(identity: FixedIdentity) -> Callable[[Listener], ssl.SSLContext]:
    return lambda listener: server_context(identity, on_refused=listener.refused.append)


@pytest.fixture(params=WORLDS)
def server(request: pytest.FixtureRequest) -> Iterator[Listener]:
    identity = FixedIdentity(CA.snapshot("ledger", bundles=[PARTNER]))
    with listening(request.param, _reporting(identity)) as listener:
        yield listener


def test_a_workload_of_the_domain_is_let_in_and_known(server: Listener) -> None:
    assert ask(server.port, credulous(CA.issue("web"))) == b"spiffe://example.org/web"
    assert server.refused == []


def test_an_ed25519_workload_is_let_in(server: Listener) -> None:
    svid = CA.issue("web", key=ed25519.Ed25519PrivateKey.generate())
    assert ask(server.port, credulous(svid)) == b"spiffe://example.org/web"


def test_a_federated_workload_is_let_in_under_its_own_name(server: Listener) -> None:
    assert ask(server.port, credulous(PARTNER.issue("till"))) == b"spiffe://partner.example/till"


def test_a_leaf_signed_by_the_root_itself_is_let_in(server: Listener) -> None:
    assert (
        ask(server.port, credulous(CA.issue("web", issuer="root"))) == b"spiffe://example.org/web"
    )


def expired_intermediate() -> X509Svid:
    issuer = CA.intermediate(not_before=NOW - 7200, ttl=3600)
    return CA.issue("web", issuer=issuer, not_before=NOW - 7000, ttl=10000)


REFUSED: dict[str, tuple[Callable[[], X509Svid | None], Reason]] = {
    "no client certificate": (lambda: None, Reason.PEER_NONE),
    "self-signed with a perfect SAN": (
        lambda: CA.issue("web", issuer="self"),
        Reason.PEER_UNTRUSTED,
    ),
    "a CA with the names of ours": (lambda: SAME_NAME.issue("web"), Reason.PEER_UNTRUSTED),
    "a domain nobody federated": (lambda: ELSEWHERE.issue("web"), Reason.PEER_UNTRUSTED),
    "a federated root that signs our ID": (
        lambda: PARTNER.issue("spiffe://example.org/web"),
        Reason.PEER_WRONG_TRUST_DOMAIN,
    ),
    "our root that signs a partner's ID": (
        lambda: CA.issue("spiffe://partner.example/till"),
        Reason.PEER_WRONG_TRUST_DOMAIN,
    ),
    "two URI SANs": (
        lambda: CA.issue("web", uris=("spiffe://example.org/web", "spiffe://example.org/ledger")),
        Reason.PEER_NOT_AN_SVID,
    ),
    "no SAN at all": (lambda: CA.issue("web", sans=()), Reason.PEER_NOT_AN_SVID),
    "a DNS SAN that reads like an ID": (
        lambda: CA.issue("web", uris=(), dns=("spiffe://example.org/web",)),
        Reason.PEER_NOT_AN_SVID,
    ),
    "an ID without a path": (
        lambda: CA.issue("web", uris=("spiffe://example.org",)),
        Reason.PEER_NOT_AN_SVID,
    ),
    "a CA certificate": (
        lambda: CA.issue(
            "web", ca=True, issuer="root", key_usage=("digital_signature", "key_cert_sign")
        ),
        Reason.PEER_NOT_AN_SVID,
    ),
    "no basic constraints": (lambda: CA.issue("web", ca=None), Reason.PEER_NOT_AN_SVID),
    "a leaf that may sign certificates": (
        lambda: CA.issue("web", key_usage=("digital_signature", "key_cert_sign")),
        Reason.PEER_NOT_AN_SVID,
    ),
    "a leaf for servers only": (
        lambda: CA.issue("web", eku=[ExtendedKeyUsageOID.SERVER_AUTH]),
        Reason.PEER_UNTRUSTED,
    ),
    "expired": (lambda: CA.issue("web", not_before=NOW - 7200, ttl=3600), Reason.PEER_EXPIRED),
    "not yet valid": (lambda: CA.issue("web", not_before=NOW + 600), Reason.PEER_NOT_YET_VALID),
    "an expired intermediate": (expired_intermediate, Reason.PEER_EXPIRED),
    "a leaf as issuer": (lambda: CA.issue("web", issuer=CA.issue("other")), Reason.PEER_UNTRUSTED),
    "a life of two days": (lambda: CA.issue("web", ttl=2 * 86400), Reason.PEER_TOO_LONG_LIVED),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_client_is_refused_and_its_bytes_never_arrive(case: str, server: Listener) -> None:
    make, reason = REFUSED[case]
    assert ask(server.port, credulous(make())) == b""
    assert server.reasons() == [reason]
    assert server.received == []


def test_a_tls_1_2_client_is_refused(server: Listener) -> None:
    client = credulous(CA.issue("web"))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(server.port, client) == b""
    assert server.reasons() == [Reason.PEER_HANDSHAKE]


def test_plain_http_to_the_tls_port_gets_no_http_answer(server: Listener) -> None:
    with socket.create_connection((HOST, server.port), timeout=10) as raw:
        raw.sendall(GREETING)
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in raw.recv(4096)
    assert server.reasons() == [Reason.PEER_HANDSHAKE]
    assert server.received == []


def test_no_session_is_given_out_and_none_is_resumed(server: Listener) -> None:
    client = credulous(CA.issue("web"))
    with socket.create_connection((HOST, server.port)) as raw, client.wrap_socket(raw) as first:
        first.sendall(GREETING)
        first.recv(4096)
        session = first.session
    assert session is None or not session.has_ticket
    with (
        socket.create_connection((HOST, server.port)) as raw,
        client.wrap_socket(raw, session=session) as again,
    ):
        again.sendall(GREETING)
        again.recv(4096)
        assert not again.session_reused


@pytest.mark.parametrize("world", WORLDS)
def test_a_resumed_session_is_refused(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tickets are switched on by force, so that only the check of our own is left."""
    identity = FixedIdentity(CA.snapshot("ledger"))

    def make(listener: Listener) -> ssl.SSLContext:
        context = server_context(identity, on_refused=listener.refused.append)
        built = context._build(context._read(), context._alpn)
        ssl.SSLContext.__setattr__(built.context, "num_tickets", 2)
        return context

    client = credulous(CA.issue("web"))
    with listening(world, make) as listener:
        with (
            socket.create_connection((HOST, listener.port)) as raw,
            client.wrap_socket(raw) as first,
        ):
            first.sendall(GREETING)
            first.recv(4096)
            session = first.session
        assert session is not None
        assert session.has_ticket
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            socket.create_connection((HOST, listener.port)) as raw,
            client.wrap_socket(raw, session=session) as again,
        ):
            assert again.session_reused
            again.sendall(GREETING)
            assert again.recv(4096) == b""
        assert listener.reasons() == [Reason.PEER_RESUMED]
        assert listener.received == [GREETING]


def test_a_listener_without_identity_refuses_everyone_and_recovers() -> None:
    for world in WORLDS:
        identity = FixedIdentity(CA.snapshot("ledger"))
        fresh = identity.current
        identity.close()
        with listening(world, _reporting(identity)) as listener:
            assert ask(listener.port, credulous(CA.issue("web"))) == b""
            assert listener.reasons() == [Reason.IDENTITY_CLOSED]
            identity.rotate(fresh)
            assert ask(listener.port, credulous(CA.issue("web"))) == b"spiffe://example.org/web"


def test_an_empty_bundle_refuses_everyone() -> None:
    snapshot = CA.snapshot("ledger")
    empty = type(CA.bundle)(CA.trust_domain, (), {})
    identity = FixedIdentity(type(snapshot)(snapshot.svid, snapshot.wit, BundleSet([empty])))
    with listening("asyncio", _reporting(identity)) as listener:
        assert ask(listener.port, credulous(CA.issue("web"))) == b""
        assert listener.reasons() == [Reason.PEER_UNTRUSTED]


@pytest.mark.parametrize("world", WORLDS)
def test_a_rotation_swaps_everything_and_open_connections_go_on(world: str) -> None:
    successor = ForgedAuthority(now=NOW)
    identity = FixedIdentity(CA.snapshot("ledger"))
    with listening(world, lambda _: server_context(identity)) as listener:
        old_client, new_client = credulous(CA.issue("web")), credulous(successor.issue("web"))
        with (
            socket.create_connection((HOST, listener.port)) as raw,
            old_client.wrap_socket(raw) as opened,
        ):
            opened.sendall(b"before")
            assert opened.recv(4096) == b"spiffe://example.org/web"
            before = opened.getpeercert(binary_form=True)
            assert ask(listener.port, new_client) == b""
            identity.rotate(successor.snapshot("ledger"))
            opened.sendall(b"after")
            assert opened.recv(4096) == b"spiffe://example.org/web"
        assert ask(listener.port, new_client) == b"spiffe://example.org/web"
        assert ask(listener.port, old_client) == b""
        with (
            socket.create_connection((HOST, listener.port)) as raw,
            new_client.wrap_socket(raw) as fresh,
        ):
            assert fresh.getpeercert(binary_form=True) != before


def test_another_key_type_after_rotation_leaves_no_old_certificate_behind() -> None:
    identity = FixedIdentity(CA.snapshot("ledger"))
    edwards = CA.issue("ledger", key=ed25519.Ed25519PrivateKey.generate())
    with listening("blocking", lambda _: server_context(identity)) as listener:
        assert ask(listener.port, credulous(CA.issue("web")))
        identity.rotate(CA.snapshot(svid=edwards))
        with (
            socket.create_connection((HOST, listener.port)) as raw,
            credulous(CA.issue("web")).wrap_socket(raw) as opened,
        ):
            assert opened.getpeercert(binary_form=True) == edwards.chain_der[0]


COLLISIONS = {
    "our root's subject": lambda: ForgedAuthority("partner.example", now=NOW, name=CA.name),
    "our root's key": lambda: ForgedAuthority("partner.example", now=NOW, key=CA.root_key),
}


@pytest.mark.parametrize("case", COLLISIONS)
def test_a_federated_bundle_that_collides_with_ours_disturbs_nobody_at_home(case: str) -> None:
    partner = COLLISIONS[case]()
    identity = FixedIdentity(CA.snapshot("ledger", bundles=BundleSet([CA.bundle, partner.bundle])))
    with listening("asyncio", lambda _: server_context(identity)) as listener:
        assert ask(listener.port, credulous(CA.issue("web"))) == b"spiffe://example.org/web"
        assert ask(listener.port, credulous(partner.issue("till"))) == b""


def test_a_foreign_root_with_our_issuers_subject_disturbs_nobody_at_home() -> None:
    issuing = CA.issuing.chain[0].subject
    twin = PARTNER.issue(
        "x", subject=issuing, ca=True, path_length=1, issuer="self", uris=(), ttl=86400
    ).chain[0]
    bundle = type(PARTNER.bundle)(PARTNER.trust_domain, (twin,), {})
    identity = FixedIdentity(CA.snapshot("ledger", bundles=BundleSet([CA.bundle, bundle])))
    with listening("asyncio", lambda _: server_context(identity)) as listener:
        assert ask(listener.port, credulous(CA.issue("web"))) == b"spiffe://example.org/web"


def test_a_partner_that_lists_our_issuing_certificate_gains_nothing() -> None:
    bundle = type(PARTNER.bundle)(PARTNER.trust_domain, (CA.issuing.chain[0],), {})
    identity = FixedIdentity(CA.snapshot("ledger", bundles=BundleSet([CA.bundle, bundle])))
    with listening("asyncio", lambda _: server_context(identity)) as listener:
        assert ask(listener.port, credulous(CA.issue("spiffe://partner.example/till"))) == b""
        assert ask(listener.port, credulous(CA.issue("web"))) == b"spiffe://example.org/web"


def test_an_intermediate_of_our_own_may_be_the_anchor() -> None:
    own = type(CA.bundle)(CA.trust_domain, (CA.issuing.chain[0],), {})
    identity = FixedIdentity(CA.snapshot("ledger", bundles=BundleSet([own])))
    with listening("asyncio", lambda _: server_context(identity)) as listener:
        assert ask(listener.port, credulous(CA.issue("web"))) == b"spiffe://example.org/web"
        assert ask(listener.port, credulous(SAME_NAME.issue("web"))) == b""


@pytest.mark.parametrize("world", WORLDS)
def test_the_bootstrap_listener_asks_for_no_certificate_and_names_no_peer(world: str) -> None:
    identity = FixedIdentity(CA.snapshot("zerotrust/ca"))
    with listening(world, lambda _: bootstrap_context(identity)) as listener:
        assert ask(listener.port, credulous()) == b"nobody"
        assert ask(listener.port, credulous(CA.issue("web"))) == b"nobody"


@pytest.mark.parametrize("world", WORLDS)
def test_our_client_and_our_server_agree(world: str) -> None:
    web, ledger = FixedIdentity(CA.snapshot("web")), FixedIdentity(CA.snapshot("ledger"))
    with listening(world, lambda _: server_context(ledger)) as listener:
        client = client_context(web, require(CA.id("ledger")))
        assert ask(listener.port, client) == b"spiffe://example.org/web"


def test_a_handshake_left_to_the_first_read_is_still_checked() -> None:
    """Some servers wrap with do_handshake_on_connect=False and simply read."""
    identity = FixedIdentity(CA.snapshot("ledger", bundles=[PARTNER]))
    context = server_context(identity)
    for svid, welcome in (
        (CA.issue("web"), True),
        (PARTNER.issue("spiffe://example.org/web"), False),
    ):
        ours, theirs = socket.socketpair()
        client = credulous(svid)
        with context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False) as left:

            def attack(theirs: socket.socket = theirs, client: ssl.SSLContext = client) -> None:
                try:
                    with client.wrap_socket(theirs) as right:
                        right.sendall(b"secret")
                        right.recv(1)
                except (ssl.SSLError, ConnectionError):
                    pass

            thread = threading.Thread(target=attack)
            thread.start()
            if welcome:
                assert left.recv(100) == b"secret"
            else:
                with pytest.raises(ssl.SSLError):
                    left.recv(100)
                with pytest.raises(ssl.SSLError):
                    left.recv(100)  # and it stays refused
        thread.join(5)


def test_attackers_tools_do_work() -> None:
    """The raw client would be let in by plain mTLS: what refuses it above is our check."""
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.verify_mode = ssl.CERT_REQUIRED
    load(plain, CA.issue("ledger"))
    for authority in (CA, PARTNER):
        plain.load_verify_locations(cadata=authority.root.public_bytes(Encoding.DER))
    for case in ("a federated root that signs our ID", "two URI SANs", "a CA certificate"):
        with listening("blocking", lambda _: plain) as listener:
            assert ask(listener.port, credulous(REFUSED[case][0]())) == b"nobody"
