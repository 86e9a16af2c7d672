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
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, Never, Self, TypeAlias, final

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
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.name_constraints import require_permitted

MAX_LIFETIME: Final = 24 * 3600 + 60  # seconds; leaf cap: 24 h plus backdate
MAX_CHAIN: Final = 4  # certificates as presented
MAX_PATH: Final = MAX_CHAIN + 1  # with the anchor on top
MAX_CHAIN_BYTES: Final = 32 * 1024
MAX_KEY_PEM_BYTES: Final = 16 * 1024

_MAX_PATHS: Final = 16  # anchors of one name: a root, its siblings and successors
_Path: TypeAlias = tuple[x509.Certificate, ...]  # leaf first


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
    leaf = rules.load_der(verified_chain[0])
    identity = _require_leaf(leaf, now, max_lifetime)
    # 2. The path ends in the leaf's own trust domain (X509-SVID section 5.1).
    own = bundles.of(identity.trust_domain)
    anchor = None if own is None else own.anchor(verified_chain[-1])
    if anchor is None:
        elsewhere = any(verified_chain[-1] in bundle.anchors_der for bundle in bundles)
        raise _untrusted(identity, elsewhere=elsewhere)
    # 3. What we ask of a path beyond what OpenSSL asked.
    path = (leaf, *map(_load_issuer, verified_chain[1:-1]), anchor)
    _require_path(path, now, allow_rsa=_is_foreign(identity, bundles))
    return _verified(identity, path, tuple(verified_chain), bundles)


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
    leaf = rules.load_der(chain[0])
    identity = _require_leaf(leaf, now, max_lifetime)
    presented = (leaf, *map(_load_issuer, chain[1:]))
    # 2. Anchors of the leaf's own trust domain only (X509-SVID section 5.1).
    own = bundles.of(identity.trust_domain)
    paths = [] if own is None else _paths_to(own, presented)
    if not paths:
        raise _untrusted(identity, elsewhere=any(_paths_to(other, presented) for other in bundles))
    # 3. Keys and rules of the whole path, then its signatures from the anchor down. Only anchors of
    #    one name give more than one path; the first that holds is taken.
    refusal: CertificateRejected | None = None
    for path in paths:
        try:
            _require_path(path, now, allow_rsa=_is_foreign(identity, bundles))
            _require_signatures(path)
        except CertificateRejected as exc:
            refusal = refusal or exc
        else:
            path_der = (*chain[: len(path) - 1], path[-1].public_bytes(Encoding.DER))
            return _verified(identity, path, path_der, bundles)
    raise refusal or _untrusted(identity, elsewhere=False)


def _require_leaf(leaf: x509.Certificate, now: float, max_lifetime: float) -> SpiffeId:
    rules.require_key(leaf, allow_rsa=False)
    identity = rules.require_leaf(leaf)
    rules.require_signature_algorithm(leaf)
    rules.require_validity(leaf, now)
    lifetime = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
    if lifetime > max_lifetime:
        raise CertificateRejected(
            Reason.PEER_TOO_LONG_LIVED, f"lives {lifetime:.0f} s, at most {max_lifetime:.0f} s"
        )
    return identity


def _is_foreign(identity: SpiffeId, bundles: BundleSet) -> bool:
    return bundles.own is None or bundles.own.origin != identity.trust_domain


def _require_path(path: _Path, now: float, *, allow_rsa: bool) -> None:
    """Ask of issuers what RFC 5280 section 6.1 asks in their places, but for the signatures."""
    for depth, issuer in enumerate(path[1:]):
        # `depth` counts the CA certificates between this one and the leaf.
        rules.require_key(issuer, allow_rsa=allow_rsa)
        rules.require_validity(issuer, now)
        if path[depth].issuer != issuer.subject:
            raise CertificateRejected(Reason.PEER_CHAIN, "an issuer's name is not its subject's")
        limit = rules.path_length(issuer)
        if limit is not None and depth > limit:
            raise CertificateRejected(Reason.PEER_CHAIN, "longer than a path length allows")
        require_permitted(issuer, path[: depth + 1])


def _verified(
    identity: SpiffeId, path: _Path, path_der: tuple[bytes, ...], bundles: BundleSet
) -> VerifiedSvid:
    ends = [certificate.not_valid_after_utc.timestamp() for certificate in path]
    verified = object.__new__(VerifiedSvid)
    for name, value in (
        ("id", identity),
        ("chain_der", path_der),
        ("thumbprint", _thumbprint(path_der[0])),
        ("serial", path[0].serial_number),
        ("not_after", ends[0]),
        ("expires_at", min(ends)),
        ("bundles", bundles),
    ):
        object.__setattr__(verified, name, value)
    return verified


def _paths_to(bundle: TrustBundle, presented: _Path) -> list[_Path]:
    """Paths by name alone: up to a presented certificate that is an anchor, or one step further."""
    for position, certificate in enumerate(presented[1:], start=1):
        for anchor in bundle.anchors_named(certificate.subject):
            if anchor.public_key() == certificate.public_key():
                return [(*presented[:position], anchor)]
    if presented[-1].issuer == presented[-1].subject or len(presented) > MAX_CHAIN:
        return []  # a root, and none of these; or no room for one
    named = bundle.anchors_named(presented[-1].issuer)
    return [(*presented, anchor) for anchor in named[:_MAX_PATHS]]


def _require_signatures(path: _Path) -> None:
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


@lru_cache(maxsize=64)  # few issuers sign many leaves; at most 64 x 32 KiB, and nothing is proven
def _load_issuer(der: bytes) -> x509.Certificate:
    issuer = rules.load_der(der)
    rules.require_ca(issuer)
    rules.require_signature_algorithm(issuer)
    return issuer


def _load_pem_chain(pem: bytes) -> _Path:
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
