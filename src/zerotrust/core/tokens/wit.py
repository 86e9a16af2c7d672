"""INTERFACE STUB (owner: tokens)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from zerotrust.core.jose import PublicJwk, SigningKey
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain


@final
@dataclass(frozen=True, slots=True)
class WorkloadIdentityToken:
    """A verified WIT."""

    subject: SpiffeId
    kid: str
    expires_at: int
    issued_at: int | None
    jti: str | None
    key: PublicJwk  # cnf.jwk, alg set
    hash: str  # wth: base64url(SHA-256(ASCII(token)))


def verify_wit(token: str, bundles: BundleSet, now: float, *, issuers: Mapping[TrustDomain, str] | None = None,
               max_lifetime: float = 86400, skew: float = 30) -> WorkloadIdentityToken:
    raise NotImplementedError


def mint_wit(*, subject: SpiffeId, key: PublicJwk, issuer_key: SigningKey, issued_at: int, expires_at: int, jti: str) -> str:
    """iss = str(trust domain), kid = issuer jkt."""
    raise NotImplementedError
