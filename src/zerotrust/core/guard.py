"""INTERFACE STUB (owner: guard)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, final

from zerotrust.core.errors import ZeroTrustError
from zerotrust.core.mode import Mode
from zerotrust.core.policy.model import Policy
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import VerifiedSvid


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it stood on the wire. method: HTTP method as sent; kind `websocket` is judged as method `WS`."""

    kind: Literal["http", "websocket", "grpc"]
    method: str
    target: bytes  # raw request target (path + query)
    headers: Sequence[tuple[bytes, bytes]]  # ordered, as received
    peer: VerifiedSvid | None


@final
class Caller:
    """Proof that a call passed the guard. No public constructor: only the guard makes one."""

    id: SpiffeId
    mode: Mode
    rule: str
    route: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Allowed:
    caller: Caller | None  # None exactly on an open route
    route: str  # template that matched, for audit
    expires_at: float  # the decision's own bound


@dataclass(frozen=True, slots=True)
class Refused:
    error: ZeroTrustError  # reason, category, public text, detail
    route: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class NeedsClaim:
    """The replay store must be asked before the decision can be finished."""

    key: bytes  # 32 bytes, digest of (jkt, jti)
    caller: str  # jkt
    subject: str  # SPIFFE ID
    expires_at: float


class Guard:
    """One immutable value per (identity, bundles, policy, revocation epoch): its identity IS the generation.

    Adapters build a new Guard when the workload snapshot or the policy object changed and remember per connection
    `(guard, key, Allowed)`: a memo is only used when its guard `is` the current one.
    """

    def __init__(self, *, own_id: SpiffeId, authorities: Collection[str], bundles: BundleSet, policy: Policy,
                 started_at: float, epoch: int = 0) -> None: ...

    def decide(self, call: Call, now: float) -> Allowed | Refused | NeedsClaim:
        raise NotImplementedError

    def finish(self, need: NeedsClaim, claimed: object, now: float) -> Allowed | Refused:
        raise NotImplementedError
