"""Tokens for one snapshot, minted when needed and kept while fresh.

1. A token belongs to the certificate of the connection that carries it: one source, one snapshot,
   never refreshed.
2. A bound token lives at most BOUND_SECONDS, and never longer than the WIT or the leaf it names; it
   is minted anew at half of its life. A proof is used once and lives at most PROOF_SECONDS.
3. Warm reads take no lock: one dictionary read of an immutable entry. Two threads that miss
   together mint twice, harmlessly.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

from zerotrust.core.errors import IdentityUnavailable, Reason
from zerotrust.core.jose import b64url_encode
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.tokens.wpt import mint_bound, mint_proof
from zerotrust.workload.identity import Snapshot, WitCredential

BOUND_SECONDS: Final = 120
PROOF_SECONDS: Final = 30
MAX_ENTRIES: Final = 1024

Headers = tuple[tuple[str, str], ...]
Fields = list[tuple[bytes, bytes]]  # the same, as on the wire

_JTI_BYTES: Final = 16


class _Minted(NamedTuple):
    headers: Headers
    fields: Fields
    renew_at: float


class TokenSource:
    """Mints for exactly one snapshot. Thread-safe, bounded; `mode` is what its owner asks for."""

    __slots__ = ("_bound", "mode", "snapshot")

    def __init__(self, snapshot: Snapshot, *, mode: Mode = Mode.BOUND) -> None:
        self.snapshot = snapshot
        self.mode = mode
        self._bound: dict[tuple[SpiffeId, tuple[tuple[str, str], ...]], _Minted] = {}

    def bound(
        self, audience: SpiffeId, now: float, *, cover: Mapping[str, str] | None = None
    ) -> Headers:
        """Return the two header pairs of a reusable token for `audience`, bound to our certificate.

        `cover` maps lower-case header names to the values that the token must vouch for. Raises
        IdentityUnavailable without a WIT, or once the WIT or the certificate is over.
        """
        return self._fresh(audience, now, cover).headers

    def bound_fields(
        self, audience: SpiffeId, now: float, *, cover: Mapping[str, str] | None = None
    ) -> Fields:
        """Return what `bound` does, encoded once for all calls; not to be changed."""
        return self._fresh(audience, now, cover).fields

    def proof(
        self,
        *,
        target_uri: str,
        method: str,
        target: bytes,
        now: float,
        cover: Mapping[str, str] | None = None,
    ) -> Headers:
        """Return the two header pairs of a one-time token for this very request.

        `target_uri` is the URI without its query; `target` the raw request target, query included.
        """
        wit = self._wit()
        token = mint_proof(
            wit=wit.token,
            key=wit.key,
            audience=target_uri,
            method=method,
            target=target,
            x5t=self.snapshot.svid.thumbprint,
            issued_at=int(now),
            expires_at=self._end(wit, now, PROOF_SECONDS),
            jti=_jti(),
            other_tokens=cover or None,
        )
        return _headers(wit, token)

    def _fresh(self, audience: SpiffeId, now: float, cover: Mapping[str, str] | None) -> _Minted:
        key = (audience, tuple(cover.items()) if cover else ())
        minted = self._bound.get(key)
        if minted is None or now >= minted.renew_at:
            minted = self._mint(audience, now, cover)
            self._keep(key, minted)
        return minted

    def _mint(self, audience: SpiffeId, now: float, cover: Mapping[str, str] | None) -> _Minted:
        wit = self._wit()
        expires_at = self._end(wit, now, BOUND_SECONDS)
        token = mint_bound(
            wit=wit.token,
            key=wit.key,
            audience=str(audience),
            x5t=self.snapshot.svid.thumbprint,
            expires_at=expires_at,
            jti=_jti(),
            other_tokens=cover or None,
        )
        headers = _headers(wit, token)
        return _Minted(headers, encoded(headers), now + (expires_at - now) / 2)

    def _wit(self) -> WitCredential:
        if self.snapshot.wit is None:
            raise IdentityUnavailable(
                Reason.NOT_YET_ISSUED,
                "the identity has no Workload Identity Token, so it may serve but not call",
            )
        return self.snapshot.wit

    def _end(self, wit: WitCredential, now: float, seconds: int) -> int:
        """Return the expiry, in whole seconds, rounded down: never past what the token rests on."""
        expires_at = int(min(now + seconds, wit.expires_at, self.snapshot.svid.not_after))
        if expires_at <= now:
            raise IdentityUnavailable(
                Reason.IDENTITY_EXPIRED, "the certificate or the Workload Identity Token is over"
            )
        return expires_at

    def _keep(self, key: tuple[SpiffeId, tuple[tuple[str, str], ...]], minted: _Minted) -> None:
        if len(self._bound) >= MAX_ENTRIES and key not in self._bound:
            self._bound = {}  # rare, and cheaper than an order kept on every warm read
        self._bound[key] = minted


def encoded(headers: Headers) -> Fields:
    """Return header pairs as they go on the wire."""
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]


def _headers(wit: WitCredential, token: str) -> Headers:
    return (("Workload-Identity-Token", wit.token), ("Authorization", f"WPT {token}"))


def _jti() -> str:
    return b64url_encode(secrets.token_bytes(_JTI_BYTES))
