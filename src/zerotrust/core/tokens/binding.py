"""Which mode a verified proof proves, and of which call.

1. The mode is a total function of the verified claims: bound, proof, or refused.
2. A claim that is there is enforced; none is ignored because the mode would not need it.
3. Both modes are tied to the TLS peer's certificate: a token that names none proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.mode import Mode
from zerotrust.core.tokens.claims import digest
from zerotrust.core.tokens.profile import PROOF_MAX_LIFETIME, SKEW

if TYPE_CHECKING:
    from collections.abc import Collection

    from zerotrust.core.tokens.wpt import WorkloadProofToken


def target_hash(target: bytes) -> str:
    """Return base64url(SHA-256(raw request-target)): path and query as they stand on the wire."""
    return digest(target)


def prove_mode(
    wpt: WorkloadProofToken,
    *,
    own_id: str,
    target_uris: Collection[str],
    method: str,
    target: bytes,
    peer_x5t: str,
    now: float,
    proof_max_lifetime: float = PROOF_MAX_LIFETIME,
    skew: float = SKEW,
) -> Mode:
    """Return BOUND or PROOF, or raise TokenRejected with the check that failed.

    bound: `cnf.x5t#S256` of the peer, `aud` = `own_id`, and none of the claims of a proof.
    proof: the same x5t, `aud` one of `target_uris` (this request's URI without query), `htm`,
    `iat` not older than `skew` seconds, at most `proof_max_lifetime` seconds from `iat` and from
    `now` to `exp`, and, where present, the hash of the request-target.
    """
    if wpt.x5t is None:
        raise TokenRejected(Reason.TOKEN_MODE_UNCLEAR, "bound to no certificate")
    if wpt.x5t != peer_x5t:
        raise TokenRejected(Reason.TOKEN_BINDING, "bound to another certificate than the peer's")
    if wpt.audience == own_id:
        if wpt.htm is not None or wpt.target_hash is not None:
            raise TokenRejected(Reason.TOKEN_MODE_UNCLEAR, "one request, but no request's URI")
        return Mode.BOUND
    if wpt.audience not in target_uris or isinstance(target_uris, str):  # never a substring
        raise TokenRejected(Reason.TOKEN_AUDIENCE, "neither this service nor this request's URI")
    if wpt.htm is None or wpt.issued_at is None:
        raise TokenRejected(Reason.TOKEN_MODE_UNCLEAR, "a request's URI without `htm` or `iat`")
    if wpt.htm != method:
        raise TokenRejected(Reason.TOKEN_METHOD, "proves another method")
    if wpt.target_hash is not None and wpt.target_hash != target_hash(target):
        raise TokenRejected(Reason.TOKEN_TARGET, "proves another request-target")
    _require_fresh(wpt.issued_at, wpt.expires_at, now, proof_max_lifetime, skew)
    return Mode.PROOF


def _require_fresh(
    issued_at: int, expires_at: int, now: float, max_lifetime: float, skew: float
) -> None:
    if expires_at - now > max_lifetime or expires_at - issued_at > max_lifetime:
        raise TokenRejected(Reason.TOKEN_TOO_LONG_LIVED, f"a proof of more than {max_lifetime} s")
    if issued_at < now - skew:
        raise TokenRejected(Reason.TOKEN_STALE, f"minted {now - issued_at:.0f} s ago")
