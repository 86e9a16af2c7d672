"""INTERFACE STUB (owner: policy)."""

from __future__ import annotations

from dataclasses import dataclass

from zerotrust.core.errors import Reason
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain


@dataclass(frozen=True, slots=True)
class Allow:
    """One allow rule (patterns kept as text in canonical form)."""

    id: str
    principals: tuple[str, ...]
    routes: tuple[str, ...]
    token: Mode = Mode.BOUND
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    id: str
    principals: tuple[str, ...]
    routes: tuple[str, ...]
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """reason is None exactly when the call is allowed (then rule and route say by what)."""

    reason: Reason | None  # RULE_NONE, RULE_DENY, TOKEN_MODE or None
    rule: str | None
    route: str | None  # the route template that matched, for audit
    need: Mode | None = None  # on TOKEN_MODE: what the weakest matching rule asks


class Policy:
    """Compiled, immutable, indexed. decide() cost does not grow with the number of rules."""

    service: str
    trust_domain: TrustDomain
    federated: frozenset[TrustDomain]
    allow: tuple[Allow, ...]
    deny: tuple[Deny, ...]
    open_routes: tuple[str, ...]
    needs_proof: bool  # some rule asks for proof
    digest: str  # sha256 of the canonical text

    def decide(self, principal: SpiffeId, method: str, path: str, mode: Mode) -> Decision:
        """method: an HTTP method, `WS` for WebSocket, `grpc` (then path is `pkg.Service/Method`). path: decoded, already canonical (request.py)."""
        raise NotImplementedError

    def is_open(self, method: str, path: str) -> str | None:
        """Return the open route's text when this call needs no token and no rule, else None."""
        raise NotImplementedError
