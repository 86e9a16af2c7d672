"""How much one peer, one address and one connection may ask of us.

1. Every number of the ASGI adapter that bounds somebody else stands here.
2. A budget is charged to whom it proves: an address before the handshake, a verified identity after
   it. Nobody can use up another's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_FAILURES: Final = 10  # refused tokens on one connection; then it is closed
HEADER_SECONDS: Final = 10.0  # for the header of one request to arrive
MAX_HEAD_BYTES: Final = 64 * 1024  # of a request's head that has not come to its end
MAX_PIPELINED: Final = 16  # requests that wait for the one before them, on one connection
LOOK_SECONDS: Final = 1.0  # how often a connection's peer, policy and header time are looked at
GRACE_SECONDS: Final = 1.0  # between the end of a peer's chain and the end of its streams
REMEMBERED_DECISIONS: Final = 100_000  # over all connections of one process


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener grants to those who have not yet proved anything, and to all together."""

    connections: int = 10_000
    handshakes: int = 1_000  # begun and not ended
    handshakes_per_address: int = 128
    handshake_seconds: float = 5.0


class FailureBudget:
    """Counts a verified peer's refused tokens: verifying them must not eat the service's time.

    A peer has `size` failures, given back at `per_second`. At most `peers` are remembered; the one
    that failed longest ago is forgotten first.
    """

    def __init__(self, size: int = 200, per_second: float = 20.0, peers: int = 4096) -> None:
        self._size, self._per_second, self._peers = size, per_second, peers
        self._spent: dict[str, tuple[float, float]] = {}  # peer -> (failures, when counted)

    def is_spent(self, peer: str, now: float) -> bool:
        """Whether this peer must wait before another of its tokens is verified."""
        return bool(self._spent) and self._count(peer, now) >= self._size

    def charge(self, peer: str, now: float) -> None:
        """Count one failure of this peer."""
        count = self._count(peer, now) + 1
        self._spent.pop(peer, None)
        if len(self._spent) >= self._peers:
            del self._spent[next(iter(self._spent))]
        self._spent[peer] = (count, now)

    def _count(self, peer: str, now: float) -> float:
        count, at = self._spent.get(peer, (0.0, now))
        return max(0.0, count - max(0.0, now - at) * self._per_second)
