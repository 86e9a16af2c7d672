"""INTERFACE STUB (owner: tokens)."""

from __future__ import annotations

from collections.abc import Collection

from zerotrust.core.mode import Mode
from zerotrust.core.tokens.wpt import WorkloadProofToken


def target_hash(target: bytes) -> str:
    """base64url(SHA-256(raw request-target))."""
    raise NotImplementedError


def prove_mode(wpt: WorkloadProofToken, *, own_id: str, target_uris: Collection[str], method: str, target: bytes, peer_x5t: str) -> Mode:
    """decisions.md 1.3: total function of the verified claims; TokenRejected(mode / TOKEN_BINDING / TOKEN_AUDIENCE / TOKEN_METHOD / TOKEN_TARGET)."""
    raise NotImplementedError
