"""Stores that remember used proofs, behind one port."""

from __future__ import annotations

from typing import Protocol

from zerotrust.core.guard import Claim

__all__ = ["Claim", "ReplayStore"]


class ReplayStore(Protocol):
    """Remembers each key until it expires."""

    def claim(
        self, key: bytes, *, caller: str, subject: str, expires_at: float, now: float
    ) -> Claim:
        """Record the key once, atomically."""
