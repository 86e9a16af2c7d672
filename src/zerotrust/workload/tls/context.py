"""One SSLContext for a process's whole life: identity and trust of this moment in every handshake.

1. TLS 1.3 only, no session tickets, sessions never resumed: what TLS 1.2 and tickets keep alive
   outlives its certificate.
2. Every TLS object comes from an inner context that is built once per snapshot and never changed
   afterwards: a live context that is changed keeps old keys of another type and cannot forget an
   anchor. The front holds no key and no anchor, so whatever would reach it past us refuses
   everybody.
3. Nothing on a context can weaken it: what sets, loads or replaces raises UnsafeSetting; only ALPN
   may be chosen.
4. Own anchors come first and foreign ones that could shadow them are left out: OpenSSL picks by
   name and does not go back.
5. No identity means that handshakes are refused, never that wrapping fails: some servers answer a
   failing context by listening in the clear.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol, Self, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.core.errors import (
    CertificateRejected,
    Reason,
    UnsafeSetting,
    ZeroTrustError,
)
from zerotrust.core.spiffe.bundle import BundleSet, screen_foreign
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, X509Svid
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.tls.peer import (
    Authorize,
    OnRefused,
    SpiffeObject,
    SpiffeSocket,
    Terms,
)


class SnapshotSource(Protocol):
    """Where the identity is read: a WorkloadIdentity, or anything with a fixed snapshot."""

    @property
    def current(self) -> Snapshot:
        """Return the snapshot of this moment; raise IdentityUnavailable when there is none."""


def server_context(
    source: SnapshotSource,
    *,
    alpn: Sequence[str] = ("http/1.1",),
    on_refused: OnRefused | None = None,
) -> SpiffeContext:
    """Mutual TLS for a listener.

    Every peer shows an X509-SVID that its own trust domain vouches for. `on_refused` is told each
    refusal; it must return at once and may be called from any thread.
    """
    return SpiffeContext(ssl.PROTOCOL_TLS_SERVER, _mutual(source), alpn=alpn, on_refused=on_refused)


def client_context(
    source: SnapshotSource,
    authorize: Authorize,
    *,
    alpn: Sequence[str] = ("http/1.1",),
    on_refused: OnRefused | None = None,
) -> SpiffeContext:
    """Mutual TLS for connections, each to a peer whom `authorize` accepts.

    It runs before any byte of ours is sent, and raises CertificateRejected(PEER_UNEXPECTED) for
    the wrong peer.
    """
    return SpiffeContext(
        ssl.PROTOCOL_TLS_CLIENT,
        _mutual(source),
        alpn=alpn,
        authorize=authorize,
        on_refused=on_refused,
    )


def bootstrap_context(
    source: SnapshotSource,
    *,
    alpn: Sequence[str] = ("http/1.1",),
    on_refused: OnRefused | None = None,
) -> SpiffeContext:
    """TLS without client certificates: for the CA's listener for those who have none yet."""

    def read() -> _Material:
        snapshot = source.current
        return _Material(snapshot, snapshot.svid.id.trust_domain, snapshot.svid, None)

    return SpiffeContext(ssl.PROTOCOL_TLS_SERVER, read, alpn=alpn, on_refused=on_refused)


def bootstrap_client_context(
    bundles: BundleSet, expected: SpiffeId, *, alpn: Sequence[str] = ("http/1.1",)
) -> SpiffeContext:
    """TLS without a certificate of ours, to a server verified for exactly `expected`."""
    material = _Material(bundles, expected.trust_domain, None, bundles)
    return SpiffeContext(
        ssl.PROTOCOL_TLS_CLIENT, lambda: material, alpn=alpn, authorize=require(expected)
    )


def unsafe_unverified_context() -> ssl.SSLContext:
    """Return a client context that verifies NOBODY.

    For one use only: reading the CA's bundle as untrusted bytes, which are then compared with the
    hash in the join token. Nothing secret may be sent over it, nothing read may be believed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def require(expected: SpiffeId) -> Authorize:
    """Return an `authorize` that accepts exactly this peer."""

    def authorize(peer: VerifiedSvid) -> None:
        if peer.id != expected:
            raise CertificateRejected(
                Reason.PEER_UNEXPECTED, f"expected {expected}, the peer is {peer.id}"
            )

    return authorize


def _mutual(source: SnapshotSource) -> Callable[[], _Material]:
    def read() -> _Material:
        snapshot = source.current
        return _Material(snapshot, snapshot.svid.id.trust_domain, snapshot.svid, snapshot.bundles)

    return read


class _Material(NamedTuple):
    """What an inner context is built from; it stays right while `origin` is the same object."""

    origin: object
    own: TrustDomain
    svid: X509Svid | None  # None: we show no certificate
    bundles: BundleSet | None  # None: we ask for none


class _Built(NamedTuple):
    origin: object
    alpn: tuple[str, ...]
    context: _Sealed
    terms: Terms


class _Sealed(ssl.SSLContext):
    """A context that only this module can fill, through ssl.SSLContext itself."""

    sslobject_class = SpiffeObject
    sslsocket_class = SpiffeSocket

    def __setattr__(self, name: str, value: object) -> None:
        raise UnsafeSetting(f"{name} of a SPIFFE context cannot be set")

    def __delattr__(self, name: str) -> None:
        raise UnsafeSetting(f"{name} of a SPIFFE context cannot be removed")

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise UnsafeSetting("keys and trust of a SPIFFE context come from the identity alone")

    load_cert_chain = load_verify_locations = load_default_certs = _refuse
    set_default_verify_paths = load_dh_params = set_ecdh_curve = set_ciphers = _refuse
    set_servername_callback = set_npn_protocols = _refuse
    set_psk_client_callback = set_psk_server_callback = _refuse
    set_ciphersuites = set_groups = set_client_sigalgs = set_server_sigalgs = _refuse


@final
class SpiffeContext(_Sealed):
    """The context that servers and clients hold; made by the functions above."""

    _alpn: tuple[str, ...]
    _read: Callable[[], _Material]
    _authorize: Authorize | None
    _on_refused: OnRefused | None
    _lock: threading.Lock
    _built: _Built | None

    def __new__(cls, protocol: int, *_: object, **__: object) -> Self:
        """Make the front: strict, and empty."""
        return super().__new__(cls, protocol)

    def __init__(
        self,
        protocol: int,  # noqa: ARG002 - consumed by __new__
        read: Callable[[], _Material],
        *,
        alpn: Sequence[str],
        authorize: Authorize | None = None,
        on_refused: OnRefused | None = None,
    ) -> None:
        _harden(self)
        for name, value in {
            "_alpn": tuple(alpn),
            "_read": read,
            "_authorize": authorize,
            "_on_refused": on_refused,
            "_lock": threading.Lock(),
            "_built": None,
        }.items():
            object.__setattr__(self, name, value)

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Choose the application protocols of later handshakes (httpcore does, at each connect)."""
        object.__setattr__(self, "_alpn", tuple(alpn_protocols))

    def _wrap_bio(self, *args: Any, owner: Any, **kwargs: Any) -> Any:
        """Make the TLS object of one connection: what `wrap_bio` ends in."""
        built = self._current(owner)
        inner: Any = super(_Sealed, built.context)
        return inner._wrap_bio(  # noqa: SLF001 - its C part
            *args, **{**kwargs, "session": None}, owner=owner
        )

    def _wrap_socket(self, *args: Any, owner: Any, **kwargs: Any) -> Any:
        """Make one connection's TLS object: what `wrap_socket`, `accept` and `connect` end in."""
        built = self._current(owner)
        inner: Any = super(_Sealed, built.context)
        return inner._wrap_socket(  # noqa: SLF001 - its C part
            *args, **{**kwargs, "session": None}, owner=owner
        )

    def _current(self, owner: SpiffeObject | SpiffeSocket) -> _Built:
        try:
            material, alpn = self._read(), self._alpn
            built = self._built
            if built is None or built.origin is not material.origin or built.alpn != alpn:
                built = self._build(material, alpn)
        except ZeroTrustError as exc:
            built = self._refusing(exc)
        except Exception as exc:  # noqa: BLE001 - no context, no handshake; the next tries again
            built = self._refusing(CertificateRejected(Reason.UNFORESEEN, type(exc).__name__))
        owner._terms = built.terms  # noqa: SLF001 - the two modules are one room
        return built

    def _build(self, material: _Material, alpn: tuple[str, ...]) -> _Built:
        with self._lock:
            built = self._built
            if built is not None and built.origin is material.origin and built.alpn == alpn:
                return built
            context = _filled(self.protocol, material, alpn)
            terms = Terms(self, material.bundles, self._authorize, self._on_refused)
            built = _Built(material.origin, alpn, context, terms)
            object.__setattr__(self, "_built", built)
            return built

    def _refusing(self, error: ZeroTrustError) -> _Built:
        object.__setattr__(self, "_built", None)  # a dead identity's key is not kept
        return _Built(None, (), self, Terms(self, None, None, self._on_refused, error))


def _filled(protocol: int, material: _Material, alpn: tuple[str, ...]) -> _Sealed:
    """Build a context from nothing; about a millisecond."""
    context = _Sealed(protocol)
    _harden(context)
    if material.svid is not None:
        _load_key(context, material.svid)
    if material.bundles is None:
        ssl.SSLContext.__setattr__(context, "verify_mode", ssl.CERT_NONE)
    else:
        _load_anchors(context, material, material.bundles)
    if alpn:
        ssl.SSLContext.set_alpn_protocols(context, alpn)
    return context


def _harden(context: _Sealed) -> None:
    for name, value in {
        "check_hostname": False,  # the SPIFFE ID takes its place
        "verify_mode": ssl.CERT_REQUIRED,
        "minimum_version": ssl.TLSVersion.TLSv1_3,
        **({"num_tickets": 0} if context.protocol == ssl.PROTOCOL_TLS_SERVER else {}),
    }.items():
        ssl.SSLContext.__setattr__(context, name, value)


def _load_key(context: _Sealed, svid: X509Svid) -> None:
    """Hand chain and key to OpenSSL, which takes paths only, through nameless memory."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as memory:
            memory.write(svid.chain_pem + svid.key_pem)
        ssl.SSLContext.load_cert_chain(context, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _load_anchors(context: _Sealed, material: _Material, bundles: BundleSet) -> None:
    own = bundles.of(material.own)
    if own is None:
        return  # no anchor at all: everybody is refused
    if not all(map(_is_self_signed, own.x509_authorities)):
        flags = context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN
        ssl.SSLContext.__setattr__(context, "verify_flags", flags)
    chain = material.svid.chain if material.svid is not None else ()
    foreign = [screen_foreign(own, chain, b).bundle for b in bundles if b.origin != own.origin]
    for bundle in (own, *foreign):
        for anchor in bundle.x509_authorities:
            der = anchor.public_bytes(Encoding.DER)
            ssl.SSLContext.load_verify_locations(context, cadata=der)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    if certificate.issuer != certificate.subject:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
