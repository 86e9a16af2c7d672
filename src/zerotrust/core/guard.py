"""Decide whether one call may proceed.

1. Nothing here reads a clock, a socket, a file or the environment: `now` and every answer come in
   as arguments.
2. The steps stand in the order in which they run, and only here: shape, bundle, certificate,
   identity token, proof token, binding, replay, policy. The first failure decides.
3. What no rule allows is refused; so is what is not understood.
4. A Guard is one immutable value. Whoever changes the bundles or the policy makes a new Guard; what
   an old one remembered (verified tokens, decisions of a connection) ends with it.
5. Only success is remembered, in bounded maps, under the whole of what was verified; times are
   compared on every use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, NoReturn, TypeAlias, TypeVar, final

from zerotrust.core.errors import (
    AccessDenied,
    CallReplayed,
    CertificateRejected,
    IdentityUnavailable,
    Reason,
    TokenRejected,
    ZeroTrustError,
)
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Policy
from zerotrust.core.request import (
    SINGLE_FIELDS,
    WATCHED_FIELDS,
    WEBSOCKET_METHOD,
    Authorities,
    Target,
    parse_target,
    pick_watched,
    read_fields,
    require_method,
)
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, verify_x509_svid
from zerotrust.core.tokens.binding import prove_mode
from zerotrust.core.tokens.fields import (
    IDENTITY_FIELD,
    PROOF_FIELD,
    TXN_FIELD,
    read_identity_field,
    read_proof_field,
)
from zerotrust.core.tokens.wit import WorkloadIdentityToken, verify_wit
from zerotrust.core.tokens.wpt import WorkloadProofToken, verify_wpt

MAX_REMEMBERED_TOKENS: Final = 4_096  # identity tokens, and callers with proofs
MAX_REMEMBERED_PROOFS: Final = 8  # of one identity token
MAX_REMEMBERED_PEERS: Final = 10_000


Kind: TypeAlias = Literal["http", "websocket"]
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it stood on the wire; a WebSocket handshake is judged as method `WS`."""

    kind: Kind
    method: str  # as sent; GET for a WebSocket handshake
    target: bytes  # raw request target: path and query
    headers: Sequence[tuple[bytes, bytes]]  # in order, as received
    peer: VerifiedSvid | None  # what the TLS handshake proved


@final
class Caller:
    """Proof that a call passed the guard: no public constructor, only the guard makes one."""

    __slots__ = ("expires_at", "id", "mode", "route", "rule")
    id: SpiffeId
    mode: Mode
    rule: str
    route: str
    expires_at: float  # seconds since the epoch; nothing may rest on this Caller after it

    def __init__(self) -> None:
        """Refuse: a Caller is earned, not built."""
        raise TypeError("a Caller is made by the guard only")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Caller does not change")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Caller does not leave its process")

    def __repr__(self) -> str:
        return f"<Caller {self.id} {self.mode.label} rule={self.rule}>"


@dataclass(frozen=True, slots=True)
class Allowed:
    """The call may proceed. `caller` is None exactly on an open route."""

    caller: Caller | None
    route: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The call may not proceed; `error` says why to us and, in constant text, to the peer."""

    error: ZeroTrustError
    route: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class NeedsClaim:
    """All tokens hold; the replay store is asked if the proof is new, then `finish` completes."""

    key: bytes  # SHA-256 over the proof key's thumbprint and the jti
    caller: str  # RFC 7638 thumbprint of the proof key
    subject: str  # SPIFFE ID
    expires_at: float
    _proven: _Proven = field(repr=False)


class Claim(Enum):
    """What a replay store says of a proof's key."""

    NEW = "new"  # recorded now; nobody used it before
    USED = "used"
    FULL = "full"  # no room: nothing can be known
    OVER_QUOTA = "over_quota"  # this caller's share is used up


@dataclass(frozen=True, slots=True)
class _Proven:
    """What steps 1 to 6 established."""

    peer: VerifiedSvid
    method: str
    path: str
    mode: Mode
    expires_at: float


class Guard:
    """The checks of one service under one set of bundles and one policy."""

    def __init__(
        self,
        *,
        own_id: SpiffeId,
        authorities: Collection[str],
        bundles: BundleSet,
        policy: Policy,
        started_at: float,
        covered: Collection[str] = (),
    ) -> None:
        """Bind the guard to who we are and whom we trust.

        `authorities` are `host:port`; `covered` names further token headers a caller must hash
        into its proof; `started_at` is when this process began to remember proofs.
        """
        self.own_id, self.bundles, self.policy = own_id, bundles, policy
        self._authorities = Authorities(authorities)
        self._started_at = started_at
        self._covered = frozenset(name.lower().encode("ascii") for name in covered)
        self._singles = SINGLE_FIELDS | self._covered
        self.watched: Final = WATCHED_FIELDS | self._covered
        self._peers: dict[tuple[bytes, ...], VerifiedSvid] = {}
        self._identities: dict[str, WorkloadIdentityToken] = {}
        # by identity token, so that a caller who mints without end pushes out only its own
        self._proofs: dict[str, dict[str, WorkloadProofToken]] = {}

    def decide(self, call: Call, now: float) -> Allowed | Refused | NeedsClaim:
        """Run the steps; never raises: what nobody foresaw is a refusal too."""
        try:
            return self._decide(call, now)
        except ZeroTrustError as error:
            return Refused(error)
        except Exception as error:  # noqa: BLE001 - rule 5 of the house: the unforeseen is a refusal
            return Refused(_unforeseen(error))

    def finish(self, need: NeedsClaim, claimed: Claim, now: float) -> Allowed | Refused:
        """Complete a decision with the replay store's answer."""
        try:
            _require_new(claimed)
            return self._authorize(need._proven, now)  # noqa: SLF001 - the guard's own value, carried by the adapter
        except ZeroTrustError as error:
            return Refused(error)
        except Exception as error:  # noqa: BLE001 - rule 5 of the house: the unforeseen is a refusal
            return Refused(_unforeseen(error))

    def still_allows(
        self, peer: VerifiedSvid | None, allowed: Allowed, method: str, path: str, now: float
    ) -> bool:
        """Judge a running exchange again, by certificate and policy; what cannot be judged ends.

        `method` and `path` are as policy knows them. Its tokens were for its beginning: their end
        is not the end of the exchange, the end of the peer's chain is.
        """
        try:
            peer = self._require_peer(peer, now)
            if allowed.caller is None:
                return self.policy.is_open(method, path) is not None
            decision = self.policy.decide(peer.id, method, path, allowed.caller.mode)
        except Exception:  # noqa: BLE001 - rule 5 of the house: the unforeseen is a refusal
            return False
        return decision.reason is None

    def _decide(self, call: Call, now: float) -> Allowed | Refused | NeedsClaim:
        # 1. Shape: one reading of target, method, fields and authority (RFC 9110 7, RFC 9112 3.2).
        target = parse_target(call.target)
        require_method(call.method)
        fields = read_fields(pick_watched(call.headers, self.watched), self._singles)
        self._authorities.require(fields.get(b"host", b""))
        # 2. Trust: without anchors of our own domain nothing can be judged.
        own = self.bundles.of(self.own_id.trust_domain)
        if own is None or not own.x509_authorities:
            raise IdentityUnavailable(
                Reason.BUNDLE_NONE, f"no anchors for {self.own_id.trust_domain}"
            )
        # 3. Certificate: on every call, so that a long connection dies with its SVID (RFC 5280 6).
        peer = self._require_peer(call.peer, now)
        method = WEBSOCKET_METHOD if call.kind == "websocket" else call.method
        # Open routes end here: the certificate was asked for, a token and a rule are not.
        if (open_route := self.policy.is_open(method, target.path)) is not None:
            return Allowed(None, open_route, peer.expires_at)
        # 4. Identity token and proof token (draft-ietf-wimse-workload-creds, draft-ietf-wimse-
        # wpt-02).
        wit = self._require_identity(fields, peer, now)
        wpt, uris = self._require_proof(fields, wit, target, now)
        # 5. Binding: which mode the verified claims prove, for this connection and this call.
        mode = prove_mode(
            wpt,
            own_id=str(self.own_id),
            target_uris=uris,
            method=call.method,
            target=call.target,
            peer_x5t=peer.thumbprint,
            now=now,
        )
        expires_at = min(peer.expires_at, wit.expires_at, wpt.expires_at)
        proven = _Proven(peer, method, target.path, mode, expires_at)
        # 6. Replay: a one-time proof must be new; claimed last, so that only its owner can use it
        # up.
        if mode is not Mode.BOUND:
            return self._ask_claim(wit, wpt, proven)
        return self._authorize(proven, now)

    def _authorize(self, proven: _Proven, now: float) -> Allowed | Refused:
        if now >= proven.expires_at:
            raise TokenRejected(Reason.TOKEN_EXPIRED, "expired while the call was being decided")
        # 7. Policy: deny rules, then allow rules; what no rule allows is refused.
        decision = self.policy.decide(proven.peer.id, proven.method, proven.path, proven.mode)
        if decision.reason is not None:
            error = AccessDenied(
                decision.reason,
                f"{proven.peer.id} {proven.method} in mode {proven.mode.label}"
                + (f", the route asks for {decision.need.label}" if decision.need else ""),
                rule=decision.rule,
            )
            return Refused(error, decision.route, decision.rule)
        if decision.rule is None or decision.route is None:
            raise AccessDenied(Reason.RULE_NONE, "a decision without a rule allows nothing")
        caller = _make_caller(proven, decision.rule, decision.route)
        return Allowed(caller, decision.route, proven.expires_at)

    def _require_peer(self, peer: VerifiedSvid | None, now: float) -> VerifiedSvid:
        if peer is None:
            raise CertificateRejected(Reason.PEER_NONE, "the connection proved no identity")
        if peer.bundles is not self.bundles:
            known = self._peers.get(peer.chain_der)
            if known is None:
                known = verify_x509_svid(peer.chain_der, self.bundles, now)
                _remember(self._peers, peer.chain_der, known, MAX_REMEMBERED_PEERS)
            peer = known
        if now >= peer.expires_at:
            raise CertificateRejected(
                Reason.PEER_EXPIRED, f"{peer.id}: its chain ended at {peer.expires_at:.0f}"
            )
        return peer

    def _require_identity(
        self, fields: dict[bytes, bytes], peer: VerifiedSvid, now: float
    ) -> WorkloadIdentityToken:
        text = read_identity_field(fields.get(IDENTITY_FIELD))
        wit = self._identities.get(text)
        if wit is None:
            wit = verify_wit(text, self.bundles, now)
            _remember(self._identities, text, wit, MAX_REMEMBERED_TOKENS)
        elif now >= wit.expires_at:
            raise TokenRejected(
                Reason.TOKEN_EXPIRED, f"the identity token ended at {wit.expires_at}"
            )
        if wit.subject != peer.id:
            raise TokenRejected(
                Reason.TOKEN_BINDING, f"token of {wit.subject} over the connection of {peer.id}"
            )
        return wit

    def _require_proof(
        self,
        fields: dict[bytes, bytes],
        wit: WorkloadIdentityToken,
        target: Target,
        now: float,
    ) -> tuple[WorkloadProofToken, tuple[str, ...]]:
        text = read_proof_field(fields.get(PROOF_FIELD))
        others = {
            name.decode("ascii"): fields[name].decode("latin-1")
            for name in self._covered
            if name in fields
        }
        txn = fields.get(TXN_FIELD)
        plain = not others and txn is None
        mine = self._proofs.get(wit.hash, {})
        if plain and (known := mine.get(text)) is not None:
            if now >= known.expires_at:
                raise TokenRejected(
                    Reason.TOKEN_EXPIRED, f"the proof token ended at {known.expires_at}"
                )
            return known, ()
        uris = self._authorities.target_uris(target.raw_path)
        wpt = verify_wpt(
            text,
            wit,
            {str(self.own_id), *uris},
            now,
            txn_token=txn.decode("latin-1") if txn is not None else None,
            other_tokens=others,
        )
        if plain and wpt.audience == str(self.own_id):
            _remember(mine, text, wpt, MAX_REMEMBERED_PROOFS)
            if len(mine) == 1:
                _remember(self._proofs, wit.hash, mine, MAX_REMEMBERED_TOKENS)
        return wpt, uris

    def _ask_claim(
        self, wit: WorkloadIdentityToken, wpt: WorkloadProofToken, proven: _Proven
    ) -> NeedsClaim:
        if wpt.issued_at is None or wpt.issued_at < self._started_at:
            raise CallReplayed(
                Reason.TOKEN_STALE,
                "the proof was minted before this process began to remember proofs",
            )
        digest = hashlib.sha256(f"{wit.key.thumbprint}\n{wpt.jti}".encode()).digest()
        return NeedsClaim(digest, wit.key.thumbprint, str(wit.subject), wpt.expires_at, proven)


def _require_new(claimed: Claim) -> None:
    if claimed is Claim.NEW:
        return
    if claimed is Claim.USED:
        raise CallReplayed(Reason.TOKEN_REPLAY, "this proof was used before")
    if claimed is Claim.OVER_QUOTA:
        raise CallReplayed(
            Reason.REPLAY_QUOTA, "the caller has used up its share of the replay store"
        )
    raise CallReplayed(Reason.REPLAY_FULL, "the replay store has no room")


def _make_caller(proven: _Proven, rule: str, route: str) -> Caller:
    caller = object.__new__(Caller)
    for name, value in (
        ("id", proven.peer.id),
        ("mode", proven.mode),
        ("rule", rule),
        ("route", route),
        ("expires_at", proven.expires_at),
    ):
        object.__setattr__(caller, name, value)
    return caller


def _remember(cache: dict[_K, _V], key: _K, value: _V, limit: int) -> None:
    while len(cache) >= limit:
        cache.pop(next(iter(cache)), None)
    cache[key] = value


def _unforeseen(error: Exception) -> IdentityUnavailable:
    return IdentityUnavailable(Reason.UNFORESEEN, f"{type(error).__name__} while deciding")
