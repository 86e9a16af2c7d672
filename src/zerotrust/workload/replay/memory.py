"""Used proofs, remembered in this process.

1. A key stays remembered until its proof has expired, whatever the wall clock does meanwhile: the
   two buckets turn on the monotonic clock, each no sooner than after the longest life of a proof.
2. Nothing live is ever evicted. Full means refuse: what cannot be known to be new is not.
3. No caller key and no identity may hold more than a quarter of the room, so nobody can use it up
   for others.
4. Keys are digests over verified proofs; 16 bytes of each are kept.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from zerotrust import clock
from zerotrust.workload.replay import Claim

TURN: Final = 60.0 + clock.SKEW  # seconds: the cap on a proof's life, and what a clock may go back
SHARE: Final = 4  # nobody holds more than one in SHARE
_KEY_BYTES: Final = 16


class _Bucket:
    """What was claimed in one turn."""

    __slots__ = ("callers", "keys", "subjects")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.callers: Counter[str] = Counter()
        self.subjects: Counter[str] = Counter()


class MemoryReplayStore:
    """Two rotating buckets: `capacity` keys in all, `turn` seconds each."""

    def __init__(
        self,
        capacity: int = 600_000,
        turn: float = TURN,
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._capacity, self._turn, self._monotonic = capacity, turn, monotonic
        self._quota = capacity // SHARE
        self._current, self._previous = _Bucket(), _Bucket()
        self._turned_at = monotonic()
        self._lock = threading.Lock()

    def claim(
        self, key: bytes, *, caller: str, subject: str, expires_at: float, now: float
    ) -> Claim:
        """Record the key once; USED when it was seen before, else why nothing could be recorded.

        A proof that would outlive its bucket cannot be remembered to its end: FULL.
        """
        if expires_at - now > self._turn:
            return Claim.FULL
        short = key[:_KEY_BYTES]
        with self._lock:
            self._rotate()
            new, old = self._current, self._previous
            if short in new.keys or short in old.keys:
                return Claim.USED
            if len(new.keys) + len(old.keys) >= self._capacity:
                return Claim.FULL
            if (
                new.callers[caller] + old.callers[caller] >= self._quota
                or new.subjects[subject] + old.subjects[subject] >= self._quota
            ):
                return Claim.OVER_QUOTA
            new.keys.add(short)
            new.callers[caller] += 1
            new.subjects[subject] += 1
            return Claim.NEW

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._current.keys) + len(self._previous.keys)

    def _rotate(self) -> None:
        elapsed = self._monotonic() - self._turned_at
        if elapsed < self._turn:
            return
        self._previous = self._current if elapsed < 2 * self._turn else _Bucket()
        self._current = _Bucket()
        self._turned_at += elapsed


class NoReplayStore:
    """For one of several processes that share nothing: no proof can be known to be new."""

    def claim(
        self,
        key: bytes,  # noqa: ARG002 - the port's signature
        *,
        caller: str,  # noqa: ARG002
        subject: str,  # noqa: ARG002
        expires_at: float,  # noqa: ARG002
        now: float,  # noqa: ARG002
    ) -> Claim:
        """Refuse every proof."""
        return Claim.FULL
