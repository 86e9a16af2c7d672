"""X509Svid is our own; VerifiedSvid is a peer's, after every check.

1. Two ways lead to a VerifiedSvid: `accept_leaf` after OpenSSL built and verified the path, and
   `verify_x509_svid` with a path of our own. The rules and their reasons are the same.
2. A path ends in an anchor of the trust domain that the leaf's own ID names, never of another.
3. Sizes, counts and keys are judged before a signature is checked; there is no clock skew.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Final, NamedTuple, Never, Self, TypeAlias, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from zerotrust.core.errors import CertificateRejected, MalformedError, Reason
from zerotrust.core.spiffe import certificate as rules
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.certificate import Issuer
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.name_constraints import require_permitted

MAX_LIFETIME: Final = 24 * 3600 + 60  # seconds; leaf cap: 24 h plus backdate
MAX_CHAIN: Final = 4  # certificates as presented
MAX_PATH: Final = MAX_CHAIN + 1  # with the anchor on top
MAX_CHAIN_BYTES: Final = 32 * 1024
MAX_KEY_PEM_BYTES: Final = 16 * 1024

_MAX_PATHS: Final = 16  # anchors of one name: a root, its siblings and successors
_Issuers: TypeAlias = tuple[Issuer, ...]  # the leaf's own first, the anchor last


@final
@dataclass(frozen=True, repr=False)
class X509Svid:
    """Our own certificate chain (leaf first) and its private key.

    `repr` shows no key; pickling and copying are refused.
    """

    id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    key: CertificateIssuerPrivateKeyTypes

    @classmethod
    def parse(cls, chain_pem: bytes, key_pem: bytes) -> Self:
        """Read a PEM chain (leaf first) and its unencrypted PKCS#8 or SEC1 key.

        Asks for the leaf rules, CA rules above it, and that key and certificate belong together;
        trust and validity are verify_x509_svid's. Raises MalformedError.
        """
        chain = _load_pem_chain(chain_pem)
        try:
            rules.require_key(chain[0], allow_rsa=False)
            identity = rules.require_leaf(chain[0])
            for issuer in chain[1:]:
                rules.require_key(issuer, allow_rsa=True)
                rules.require_ca(issuer)
        except CertificateRejected as exc:
            raise MalformedError(Reason.BAD_CERTIFICATE, exc.detail) from exc
        key = _load_pem_key(key_pem)
        if key.public_key() != chain[0].public_key():
            raise MalformedError(Reason.BAD_KEY, "the key is not the one the certificate names")
        return cls(identity, chain, key)

    @cached_property
    def thumbprint(self) -> str:
        """x5t#S256 of the leaf (RFC 8705 section 3.1): base64url(SHA-256(DER))."""
        return _thumbprint(self.chain[0].public_bytes(Encoding.DER))

    @cached_property
    def not_before(self) -> float:
        """Seconds since the epoch, of the leaf."""
        return self.chain[0].not_valid_before_utc.timestamp()

    @cached_property
    def not_after(self) -> float:
        """Seconds since the epoch, of the leaf."""
        return self.chain[0].not_valid_after_utc.timestamp()

    @cached_property
    def chain_der(self) -> tuple[bytes, ...]:
        """The chain in DER, leaf first."""
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in self.chain)

    @cached_property
    def chain_pem(self) -> bytes:
        """The chain in PEM, leaf first."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @property
    def key_pem(self) -> bytes:
        """The private key, unencrypted PKCS#8 in PEM, for files that the caller protects."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def __repr__(self) -> str:
        return f"<X509Svid {self.id} {self.thumbprint}, key redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("an X509Svid holds a private key and is not pickled")


@final
@dataclass(frozen=True, slots=True, init=False)
class VerifiedSvid:
    """A peer's SVID after every check: no public constructor, only this module makes one."""

    id: SpiffeId
    chain_der: tuple[bytes, ...] = field(repr=False)  # verified chain: leaf ... anchor
    thumbprint: str  # x5t#S256 of the leaf
    serial: int
    not_after: float  # of the leaf
    expires_at: float  # the earliest notAfter in the verified chain
    bundles: BundleSet  # verified against these; `is` tells whether they are still current

    def __init__(self) -> None:
        """Refuse: what is proven is earned, not built."""
        raise TypeError("a VerifiedSvid is made by accept_leaf and verify_x509_svid only")

    def __reduce__(self) -> Never:
        raise TypeError("a VerifiedSvid does not leave its process")


def accept_leaf(
    verified_chain: Sequence[bytes],
    bundles: BundleSet,
    now: float,
    *,
    max_lifetime: float = MAX_LIFETIME,
) -> VerifiedSvid:
    """Accept a chain (DER, leaf first, anchor last) whose path OpenSSL has built and verified.

    Never call it with a chain as a peer presented it: signatures are not checked here.
    `now` and `max_lifetime` in seconds. Raises CertificateRejected.
    """
    # 1. Limits, then the leaf alone (X509-SVID sections 2 to 5).
    _require_size(verified_chain)
    leaf = _read_leaf(verified_chain[0], now, max_lifetime)
    # 2. The path ends in the leaf's own trust domain (X509-SVID section 5.1).
    own = bundles.of(leaf.id.trust_domain)
    if own is None or verified_chain[-1] not in own.anchors_der:
        elsewhere = any(verified_chain[-1] in bundle.anchors_der for bundle in bundles)
        raise _untrusted(leaf.id, elsewhere=elsewhere)
    # 3. What we ask of a path beyond what OpenSSL asked.
    issuers = (*map(_presented, verified_chain[1:-1]), rules.read_issuer(verified_chain[-1]))
    _require_path(leaf, issuers, now, allow_rsa=_is_foreign(leaf.id, bundles))
    return _verified(leaf, issuers, tuple(verified_chain), bundles)


def verify_x509_svid(
    chain: Sequence[bytes],
    bundles: BundleSet,
    now: float,
    *,
    max_lifetime: float = MAX_LIFETIME,
) -> VerifiedSvid:
    """Verify a chain (DER, leaf first, as presented; the anchor need not be in it) on our own.

    The `chain_der` of a VerifiedSvid may be verified again, against newer bundles or a later time.
    `now` and `max_lifetime` in seconds. Raises CertificateRejected.
    """
    # 1. Limits, then the leaf alone (X509-SVID sections 2 to 5).
    _require_size(chain)
    leaf = _read_leaf(chain[0], now, max_lifetime)
    presented = tuple(map(_presented, chain[1:]))
    # 2. Anchors of the leaf's own trust domain only (X509-SVID section 5.1).
    own = bundles.of(leaf.id.trust_domain)
    paths = [] if own is None else _paths_to(own, leaf, presented)
    if not paths:
        elsewhere = any(_paths_to(other, leaf, presented) for other in bundles)
        raise _untrusted(leaf.id, elsewhere=elsewhere)
    # 3. Keys and rules of the whole path, then its signatures from the anchor down. Only anchors of
    #    one name give more than one path; the first that holds is taken.
    refusal: CertificateRejected | None = None
    for issuers in paths:
        try:
            _require_path(leaf, issuers, now, allow_rsa=_is_foreign(leaf.id, bundles))
            _require_signatures(leaf, issuers)
        except CertificateRejected as exc:
            refusal = refusal or exc
        else:
            anchor_der = issuers[-1].certificate.public_bytes(Encoding.DER)
            return _verified(leaf, issuers, (*chain[: len(issuers)], anchor_der), bundles)
    raise refusal or _untrusted(leaf.id, elsewhere=False)


class _Leaf(NamedTuple):
    """A leaf that has passed what is asked of it alone, at one moment; never kept."""

    certificate: x509.Certificate
    id: SpiffeId
    issuer: x509.Name
    not_after: float


def _read_leaf(der: bytes, now: float, max_lifetime: float) -> _Leaf:
    leaf = rules.load_der(der)
    rules.require_key(leaf, allow_rsa=False)
    identity = rules.require_leaf(leaf)
    rules.require_signature_algorithm(leaf)
    not_before = leaf.not_valid_before_utc.timestamp()
    not_after = leaf.not_valid_after_utc.timestamp()
    rules.require_validity(not_before, not_after, now)
    if not_after - not_before > max_lifetime:
        raise CertificateRejected(
            Reason.PEER_TOO_LONG_LIVED,
            f"lives {not_after - not_before:.0f} s, at most {max_lifetime:.0f} s",
        )
    return _Leaf(leaf, identity, leaf.issuer, not_after)


def _presented(der: bytes) -> Issuer:
    issuer = rules.read_issuer(der)
    rules.require_signature_algorithm(issuer.certificate)  # of an anchor's own it matters to nobody
    return issuer


def _is_foreign(identity: SpiffeId, bundles: BundleSet) -> bool:
    return bundles.own is None or bundles.own.origin != identity.trust_domain


def _require_path(leaf: _Leaf, issuers: _Issuers, now: float, *, allow_rsa: bool) -> None:
    """Ask of issuers what RFC 5280 section 6.1 asks in their places, but for the signatures."""
    below: _Leaf | Issuer = leaf
    for depth, issuer in enumerate(issuers):
        # `depth` counts the CA certificates between this one and the leaf.
        if issuer.has_rsa_key and not allow_rsa:
            raise CertificateRejected(Reason.PEER_KEY, "RSA keys are for foreign CAs alone")
        rules.require_validity(issuer.not_before, issuer.not_after, now)
        if below.issuer != issuer.subject:
            raise CertificateRejected(Reason.PEER_CHAIN, "an issuer's name is not its subject's")
        if issuer.path_length is not None and depth > issuer.path_length:
            raise CertificateRejected(Reason.PEER_CHAIN, "longer than a path length allows")
        if issuer.name_constraints is not None:
            names = (leaf.certificate, *(ca.certificate for ca in issuers[:depth]))
            require_permitted(issuer.name_constraints, names)
        below = issuer


def _verified(
    leaf: _Leaf, issuers: _Issuers, path_der: tuple[bytes, ...], bundles: BundleSet
) -> VerifiedSvid:
    verified = object.__new__(VerifiedSvid)
    for name, value in (
        ("id", leaf.id),
        ("chain_der", path_der),
        ("thumbprint", _thumbprint(path_der[0])),
        ("serial", leaf.certificate.serial_number),
        ("not_after", leaf.not_after),
        ("expires_at", min(leaf.not_after, *[issuer.not_after for issuer in issuers])),
        ("bundles", bundles),
    ):
        object.__setattr__(verified, name, value)
    return verified


def _paths_to(bundle: TrustBundle, leaf: _Leaf, presented: _Issuers) -> list[_Issuers]:
    """Paths by name alone: up to a presented certificate that is an anchor, or one step further."""
    for position, issuer in enumerate(presented):
        for anchor in _anchors_named(bundle, issuer.subject):
            if anchor.certificate.public_key() == issuer.certificate.public_key():
                return [(*presented[:position], anchor)]
    last: _Leaf | Issuer = presented[-1] if presented else leaf
    if last.issuer == last.certificate.subject or len(presented) >= MAX_CHAIN:
        return []  # a root, and none of these; or no room for one
    return [(*presented, anchor) for anchor in _anchors_named(bundle, last.issuer)]


def _anchors_named(bundle: TrustBundle, subject: x509.Name) -> list[Issuer]:
    return [
        rules.read_issuer(anchor.public_bytes(Encoding.DER))
        for anchor in bundle.anchors_named(subject)[:_MAX_PATHS]
    ]


def _require_signatures(leaf: _Leaf, issuers: _Issuers) -> None:
    path = (leaf.certificate, *(issuer.certificate for issuer in issuers))
    for certificate, issuer in reversed(tuple(pairwise(path))):
        rules.require_issued_by(certificate, issuer)


def _untrusted(identity: SpiffeId, *, elsewhere: bool) -> CertificateRejected:
    if elsewhere:
        return CertificateRejected(
            Reason.PEER_WRONG_TRUST_DOMAIN,
            f"{identity} chains to an anchor of another trust domain",
        )
    return CertificateRejected(
        Reason.PEER_UNTRUSTED, f"no anchor of {identity.trust_domain} vouches for {identity}"
    )


def _require_size(chain: Sequence[bytes]) -> None:
    if not chain:
        raise CertificateRejected(Reason.PEER_NONE, "no certificate")
    if len(chain) > MAX_PATH:
        raise CertificateRejected(Reason.PEER_CHAIN, f"more than {MAX_PATH} certificates")
    if sum(map(len, chain)) > MAX_CHAIN_BYTES:
        raise CertificateRejected(Reason.PEER_CHAIN, f"more than {MAX_CHAIN_BYTES} bytes")


def _load_pem_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    if len(pem) > MAX_CHAIN_BYTES:
        raise MalformedError(Reason.BAD_CERTIFICATE, f"longer than {MAX_CHAIN_BYTES} bytes")
    try:
        chain = rules.load_pem(pem)
    except CertificateRejected as exc:
        raise MalformedError(Reason.BAD_CERTIFICATE, exc.detail) from exc
    if len(chain) > MAX_CHAIN:
        raise MalformedError(Reason.BAD_CERTIFICATE, f"more than {MAX_CHAIN} certificates")
    return chain


def _load_pem_key(pem: bytes) -> CertificateIssuerPrivateKeyTypes:
    if len(pem) > MAX_KEY_PEM_BYTES:
        raise MalformedError(Reason.BAD_KEY, f"longer than {MAX_KEY_PEM_BYTES} bytes")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause may quote the input, so it is not kept.
        raise MalformedError(Reason.BAD_KEY, "not an unencrypted private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise MalformedError(Reason.BAD_KEY, "the key is not on the allow-list")
    return key


def _thumbprint(der: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
