"""INTERFACE STUB (owner: tokens)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import final

from zerotrust.core.jose import SigningKey
from zerotrust.core.tokens.wit import WorkloadIdentityToken


@final
@dataclass(frozen=True, slots=True)
class WorkloadProofToken:
    """A verified WPT (wpt-02 form); what it binds is judged by binding.py."""

    audience: str
    expires_at: int
    jti: str
    x5t: str | None  # cnf.x5t#S256
    htm: str | None
    issued_at: int | None
    target_hash: str | None  # our claim over the request-target


def verify_wpt(token: str, wit: WorkloadIdentityToken, audiences: Collection[str], now: float, *, max_lifetime: float = 300,
               skew: float = 30, txn_token: str | None = None, other_tokens: Mapping[str, str] | None = None) -> WorkloadProofToken:
    """audiences: exact strings, empty refuses. other_tokens: lower-case header name -> value present on the request that must be covered by `oth`."""
    raise NotImplementedError


def mint_bound(*, wit: str, key: SigningKey, audience: str, x5t: str, expires_at: int, jti: str,
               other_tokens: Mapping[str, str] | None = None) -> str:
    raise NotImplementedError


def mint_proof(*, wit: str, key: SigningKey, audience: str, method: str, target: bytes, x5t: str, issued_at: int, expires_at: int,
               jti: str, other_tokens: Mapping[str, str] | None = None) -> str:
    """audience = target URI without query; target = raw request-target (path + query) that is hashed."""
    raise NotImplementedError
