"""INTERFACE STUB (owner: spiffe)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.ids import SpiffeId

MAX_LIFETIME = 24 * 3600 + 60  # seconds; leaf cap: 24 h plus backdate


@final
@dataclass(frozen=True)
class X509Svid:
    """Our own certificate chain (leaf first) and its private key. repr redacts, pickling is refused."""

    id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    key: CertificateIssuerPrivateKeyTypes

    @classmethod
    def parse(cls, chain_pem: bytes, key_pem: bytes) -> X509Svid:
        """PEM chain + unencrypted PKCS#8/SEC1 key -> X509Svid; checks leaf rules and key <-> certificate. MalformedError."""
        raise NotImplementedError

    @property
    def thumbprint(self) -> str:
        """x5t#S256 of the leaf (RFC 8705): base64url(SHA-256(DER))."""
        raise NotImplementedError

    @property
    def not_before(self) -> float: raise NotImplementedError
    @property
    def not_after(self) -> float: raise NotImplementedError  # of the leaf
    @property
    def chain_pem(self) -> bytes: raise NotImplementedError
    @property
    def key_pem(self) -> bytes: raise NotImplementedError  # PKCS#8


@final
@dataclass(frozen=True, slots=True)
class VerifiedSvid:
    """A peer's SVID after every check; only this module makes one."""

    id: SpiffeId
    chain_der: tuple[bytes, ...]  # verified chain: leaf ... anchor
    thumbprint: str  # x5t#S256 of the leaf
    serial: int
    not_after: float  # of the leaf
    expires_at: float  # the earliest notAfter in the verified chain
    bundles: BundleSet  # what it was verified against; `is` comparison tells whether that is still current


def accept_leaf(verified_chain: Sequence[bytes], bundles: BundleSet, now: float, *, max_lifetime: float = MAX_LIFETIME) -> VerifiedSvid:
    """After OpenSSL built the path: leaf rules + the last certificate is an anchor of the leaf's OWN domain. CertificateRejected."""
    raise NotImplementedError


def verify_x509_svid(chain: Sequence[bytes], bundles: BundleSet, now: float, *, max_lifetime: float = MAX_LIFETIME) -> VerifiedSvid:
    """Own path check (chain as presented, leaf first, anchors not needed in it) + the same leaf rules. CertificateRejected."""
    raise NotImplementedError
