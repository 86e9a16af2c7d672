"""The Workload Proof Token: one caller to one callee, for seconds to minutes (wpt-02).

1. It is signed by the key inside the WIT that came with it, under exactly that key's `alg`.
2. It covers the WIT (`wth`), the Txn-Token (`tth`) and every other token on the request (`oth`):
   all of them, and nothing that is not there.
3. Here is the form of wpt-02. Which mode it proves, and of which call, is judged by binding.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, final

from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.jose import (
    parse_compact,
    require_header,
    sign_compact,
    verify_signature,
)
from zerotrust.core.tokens import claims as read
from zerotrust.core.tokens.profile import (
    AUDIENCE_MAX_CHARS,
    BOUND_MAX_LIFETIME,
    CNF,
    HTM,
    OTH,
    SKEW,
    TARGET,
    TTH,
    WPT_MAX_BYTES,
    WPT_MEMBERS,
    WPT_TYP,
    WTH,
    X5T,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from zerotrust.core.jose import SigningKey
    from zerotrust.core.tokens.wit import WorkloadIdentityToken


@final
@dataclass(frozen=True, slots=True, repr=False)
class WorkloadProofToken:
    """A verified WPT. Times are seconds since the epoch; what it binds is judged by binding.py."""

    audience: str
    expires_at: int
    jti: str
    x5t: str | None  # cnf.x5t#S256
    htm: str | None
    issued_at: int | None
    target_hash: str | None  # our claim over the request-target

    def __repr__(self) -> str:
        return f"WorkloadProofToken(for {self.audience!a}, expires_at={self.expires_at})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a verified token is verified in one process only")


def verify_wpt(
    token: str,
    wit: WorkloadIdentityToken,
    audiences: Collection[str],
    now: float,
    *,
    max_lifetime: float = BOUND_MAX_LIFETIME,
    skew: float = SKEW,
    txn_token: str | None = None,
    other_tokens: Mapping[str, str] | None = None,
) -> WorkloadProofToken:
    """Verify a WPT under the key of a verified WIT; raise TokenRejected.

    `aud` must be one of `audiences`, character by character; none given refuses all. `txn_token`
    is the request's Txn-Token, `other_tokens` its other tokens by lower-case header name: `tth` and
    `oth` must cover exactly these. `max_lifetime` (seconds) bounds exp - now.
    """
    jws = parse_compact(token, max_bytes=WPT_MAX_BYTES)
    algs = () if wit.key.alg is None else (wit.key.alg,)
    require_header(jws, typ=WPT_TYP, algs=algs, members=WPT_MEMBERS)
    verify_signature(jws, wit.key)

    claims = jws.claims
    audience = read.required_text(claims, "aud", longest=AUDIENCE_MAX_CHARS)
    if isinstance(audiences, str) or audience not in audiences:  # never a substring
        raise TokenRejected(Reason.TOKEN_AUDIENCE, "meant for someone else")
    expires_at = read.expiry(claims, now, max_lifetime)
    if wit.expires_at <= now:  # a verified WIT may be remembered past its life
        raise TokenRejected(Reason.TOKEN_EXPIRED, "the WIT has expired")
    issued_at = read.not_later(claims, "iat", now, skew)
    if "nbf" in claims:
        read.not_later(claims, "nbf", now, skew)
    jti = read.required_text(claims, "jti")
    if claims.get(WTH) != wit.hash:
        read.required_text(claims, WTH)  # absent and of another type have reasons of their own
        raise TokenRejected(Reason.TOKEN_WIT_BINDING, "bound to another WIT")
    if txn_token is not None or other_tokens or TTH in claims or OTH in claims:
        _require_covered(claims, txn_token, other_tokens or {})
    return WorkloadProofToken(
        audience,
        expires_at,
        jti,
        _x5t(claims),
        read.text(claims, HTM),
        issued_at,
        read.text(claims, TARGET),
    )


def mint_bound(
    *,
    wit: str,
    key: SigningKey,
    audience: str,
    x5t: str,
    expires_at: int,
    jti: str,
    txn_token: str | None = None,
    other_tokens: Mapping[str, str] | None = None,
) -> str:
    """Sign a reusable WPT for the callee whose ID is `audience`, over one certificate.

    `x5t` is base64url(SHA-256(DER leaf)) of the connection's own certificate; `jti` carries at
    least 128 random bits.
    """
    claims = _claims(wit, audience, x5t, expires_at, jti, txn_token, other_tokens)
    return sign_compact(_HEADER, claims, key)


def mint_proof(
    *,
    wit: str,
    key: SigningKey,
    audience: str,
    method: str,
    target: bytes,
    x5t: str,
    issued_at: int,
    expires_at: int,
    jti: str,
    txn_token: str | None = None,
    other_tokens: Mapping[str, str] | None = None,
) -> str:
    """Sign a one-time WPT for one request.

    `audience` is the target URI without query, `target` the raw request-target (path and query).
    """
    claims = _claims(wit, audience, x5t, expires_at, jti, txn_token, other_tokens)
    claims |= {"iat": issued_at, HTM: method, TARGET: read.digest(target)}
    return sign_compact(_HEADER, claims, key)


_HEADER = {"typ": WPT_TYP}
# The same WIT stands in every proof of its life.
_wit_hash = lru_cache(maxsize=16)(read.digest)


def _claims(
    wit: str,
    audience: str,
    x5t: str,
    expires_at: int,
    jti: str,
    txn_token: str | None,
    other_tokens: Mapping[str, str] | None,
) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "aud": audience,
        "exp": expires_at,
        "jti": jti,
        WTH: _wit_hash(wit),
        CNF: {X5T: x5t},
    }
    if txn_token is not None:
        claims[TTH] = read.digest(txn_token)
    if other_tokens:
        claims[OTH] = _hashes(other_tokens)
    return claims


def _hashes(other_tokens: Mapping[str, str]) -> dict[str, str]:
    """wpt-02: the field value without its outer white space."""
    return {name: read.digest(value.strip(" \t")) for name, value in other_tokens.items()}


def _require_covered(
    claims: Mapping[str, Any], txn_token: str | None, other_tokens: Mapping[str, str]
) -> None:
    """Refuse a token that is not covered, and a cover whose token was taken away."""
    tth = read.text(claims, TTH)
    if tth != (None if txn_token is None else read.digest(txn_token)):
        raise TokenRejected(Reason.TOKEN_OTHER_BINDING, "`tth` is not of this Txn-Token")
    oth = claims.get(OTH, {})
    if not isinstance(oth, dict):
        raise TokenRejected(Reason.TOKEN_CLAIM, "`oth` is not an object")
    if oth != _hashes(other_tokens):
        raise TokenRejected(Reason.TOKEN_OTHER_BINDING, "`oth` is not exactly of these tokens")


def _x5t(claims: Mapping[str, Any]) -> str | None:
    """Return `cnf.x5t#S256` (RFC 8705 3.1); another confirmation would go unchecked: refused."""
    if CNF not in claims:
        return None
    cnf = claims[CNF]
    if not isinstance(cnf, dict) or len(cnf) != 1 or not isinstance(x5t := cnf.get(X5T), str):
        raise TokenRejected(Reason.TOKEN_CONFIRMATION, "`cnf` is not exactly one x5t#S256")
    return x5t
