"""The Workload Identity Token: one identity and the key that proves it (workload-creds-02).

1. A WIT is no bearer token: it means nothing until a proof under its key came with it.
2. Its key comes from the bundle of exactly the origin of its `sub`, by exact `kid`, and only from
   there (SPIFFE WIT-SVID: `kid` required, no `aud`).
3. Order: bytes, header, origin, key, signature, then claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, final

from zerotrust.core.errors import BadSpiffeId, MalformedError, Reason, TokenRejected
from zerotrust.core.jose import (
    SIGNATURE_ALGORITHMS,
    PublicJwk,
    SigningKey,
    parse_compact,
    require_header,
    sign_compact,
    verify_signature,
)
from zerotrust.core.spiffe.ids import MAX_ID_BYTES, SpiffeId, TrustDomain
from zerotrust.core.tokens import claims as read
from zerotrust.core.tokens.profile import (
    CNF,
    JWK,
    KID_MAX_CHARS,
    SKEW,
    WIT_MAX_BYTES,
    WIT_MAX_LIFETIME,
    WIT_MEMBERS,
    WIT_TYP,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zerotrust.core.spiffe.bundle import BundleSet


@final
@dataclass(frozen=True, slots=True, repr=False)
class WorkloadIdentityToken:
    """A verified WIT. Times are seconds since the epoch."""

    subject: SpiffeId
    kid: str
    expires_at: int
    issued_at: int | None
    jti: str | None
    key: PublicJwk  # cnf.jwk with its alg: what a proof must be signed with
    hash: str  # base64url(SHA-256(ASCII(token))): what a proof's `wth` must be

    def __repr__(self) -> str:
        return f"WorkloadIdentityToken({self.subject}, expires_at={self.expires_at})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a verified token is verified in one process only")


def verify_wit(
    token: str,
    bundles: BundleSet,
    now: float,
    *,
    issuers: Mapping[TrustDomain, str] | None = None,
    max_lifetime: float = WIT_MAX_LIFETIME,
    skew: float = SKEW,
) -> WorkloadIdentityToken:
    """Verify a WIT against the bundle of its subject's own trust domain; raise TokenRejected.

    Where `issuers` names the trust domain, `iss` must be present and equal; it is never used to
    find a key. `max_lifetime` (seconds) bounds exp - now, `skew` is granted to `iat` and `nbf`.
    """
    jws = parse_compact(token, max_bytes=WIT_MAX_BYTES)
    require_header(jws, typ=WIT_TYP, algs=SIGNATURE_ALGORITHMS, members=WIT_MEMBERS)
    kid = _kid(jws.header)
    subject = _subject(jws.claims)

    bundle = bundles.of(subject.trust_domain)
    if bundle is None:
        raise TokenRejected(Reason.TOKEN_ORIGIN, f"no bundle of {subject.trust_domain}")
    key = bundle.wit_keys.get(kid)
    if key is None:
        raise TokenRejected(Reason.TOKEN_UNKNOWN_KEY, f"{subject.trust_domain} has no such kid")
    verify_signature(jws, key)

    expires_at = read.expiry(jws.claims, now, max_lifetime)
    issued_at = read.not_later(jws.claims, "iat", now, skew)
    read.not_later(jws.claims, "nbf", now, skew)
    if "aud" in jws.claims:
        raise TokenRejected(Reason.TOKEN_AUDIENCE, "a WIT has no audience")
    issuer = read.text(jws.claims, "iss", longest=MAX_ID_BYTES)
    if issuers is not None and issuers.get(subject.trust_domain, issuer) != issuer:
        raise TokenRejected(Reason.TOKEN_ISSUER, "not the issuer configured for the trust domain")
    jti = read.text(jws.claims, "jti")
    confirmed = _confirmed(jws.claims)
    return WorkloadIdentityToken(
        subject, kid, expires_at, issued_at, jti, confirmed, read.digest(token)
    )


def mint_wit(
    *,
    subject: SpiffeId,
    key: PublicJwk,
    issuer_key: SigningKey,
    issued_at: int,
    expires_at: int,
    jti: str,
) -> str:
    """Sign a WIT for the workload's public key; its `alg` must be set.

    `iss` is the trust domain's ID and `kid` the RFC 7638 thumbprint of the issuing key.
    """
    if key.alg is None:
        raise MalformedError(Reason.BAD_KEY, "cnf.jwk needs its `alg` (workload-creds-02)")
    header = {"typ": WIT_TYP, "kid": issuer_key.public.thumbprint}
    claims = {
        "iss": str(subject.trust_domain),
        "sub": str(subject),
        "iat": issued_at,
        "exp": expires_at,
        "jti": jti,
        CNF: {JWK: key.as_dict()},
    }
    return sign_compact(header, claims, issuer_key)


def _kid(header: Mapping[str, Any]) -> str:
    """Printable ASCII, so that it can be looked up and logged and nothing else."""
    kid = header["kid"]
    if (
        not isinstance(kid, str)
        or not 0 < len(kid) <= KID_MAX_CHARS
        or not (kid.isascii() and kid.isprintable())
    ):
        raise TokenRejected(Reason.TOKEN_HEADER, "`kid` is not 1 to 128 of printable ASCII")
    return kid


def _subject(claims: Mapping[str, Any]) -> SpiffeId:
    try:
        return SpiffeId.parse(read.required(claims, "sub"))
    except BadSpiffeId as exc:
        raise TokenRejected(Reason.TOKEN_SUBJECT, exc.detail) from exc


def _confirmed(claims: Mapping[str, Any]) -> PublicJwk:
    """Return `cnf.jwk`, alone in its `cnf` (RFC 7800 3.1), with the algorithm it must carry."""
    cnf = read.required(claims, CNF)
    if not isinstance(cnf, dict) or cnf.keys() != {JWK} or not isinstance(cnf[JWK], dict):
        raise TokenRejected(Reason.TOKEN_CONFIRMATION, "`cnf` is not exactly one `jwk`")
    try:
        key = PublicJwk.parse(cnf[JWK])
    except MalformedError as exc:
        raise TokenRejected(Reason.TOKEN_CONFIRMATION, f"`cnf.jwk`: {exc.detail}") from exc
    if key.alg is None:
        raise TokenRejected(Reason.TOKEN_CONFIRMATION, "`cnf.jwk` has no `alg`")
    return key
