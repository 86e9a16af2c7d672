"""Stores that remember used proofs, behind one port."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Claim(Enum):
    """What the store says of a proof's key."""

    NEW = "new"  # recorded now; nobody used it before
    USED = "used"
    FULL = "full"  # no room: nothing can be known, so refuse
    OVER_QUOTA = "over_quota"  # this caller's share is used up


class ReplayStore(Protocol):
    """Remembers each key until it expires."""

    def claim(self, key: bytes, *, caller: str, subject: str, expires_at: float, now: float) -> Claim:
        """Record the key once, atomically."""
