"""A client's connections, grouped by what they were opened with.

1. One generation is one expected peer, one identity snapshot and one connection pool, so a token
   minted from a generation always belongs to the certificate of the connection that carries it.
2. A new snapshot starts a new generation; so does the approach of the first certificate's end on
   either side. We retire before the server closes, because a request written into a closing
   connection cannot be told from a lost one.
3. A retired generation is closed when its last call is over, and at the end of its certificates at
   the latest.
4. Nothing here waits: what must be closed is returned, and each adapter closes it in its own
   colour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from zerotrust.core.errors import CertificateRejected, Closed, Reason
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import VerifiedSvid
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.tls.context import SnapshotSource, SpiffeContext, client_context
from zerotrust.workload.token_source import TokenSource

RETIRE_SHARE: Final = 0.1  # of the life that is left when a certificate is first seen
RETIRE_AT_MOST: Final = 30.0  # seconds before a certificate's end
GRACE: Final = 1.0  # seconds after a certificate's end, as the server grants them

Pool = TypeVar("Pool")


class Generation(Generic[Pool]):
    """One pool of connections to one expected peer, opened under one snapshot."""

    __slots__ = (
        "expected",
        "expires_at",
        "in_flight",
        "pool",
        "retire_at",
        "retired",
        "snapshot",
        "tokens",
    )

    pool: Pool

    def __init__(self, expected: SpiffeId, snapshot: Snapshot, mode: Mode, now: float) -> None:
        self.expected = expected
        self.snapshot = snapshot
        self.tokens = TokenSource(snapshot, mode=mode)
        self.in_flight = 0
        self.retired = False
        self.expires_at = snapshot.svid.not_after
        self.retire_at = _retirement(self.expires_at, now)

    @property
    def current(self) -> Snapshot:
        """The one snapshot every connection of this generation is opened with."""
        return self.snapshot

    def require_alive(self, now: float) -> None:
        """Refuse to go on over connections whose certificates have ended."""
        if now >= self.expires_at + GRACE:
            raise CertificateRejected(
                Reason.PEER_EXPIRED, f"the connection to {self.expected} outlived its certificates"
            )

    def meet(self, peer: VerifiedSvid, now: float) -> None:
        """Refuse a peer that is not the expected one; learn when its certificate ends."""
        if peer.id != self.expected:
            raise CertificateRejected(
                Reason.PEER_UNEXPECTED, f"expected {self.expected}, reached {peer.id}"
            )
        self.expires_at = min(self.expires_at, peer.expires_at)
        self.retire_at = min(self.retire_at, _retirement(peer.expires_at, now))


class Generations(Generic[Pool]):
    """The generations of one client. Thread-safe; at most one live generation per expected peer."""

    def __init__(
        self,
        me: SnapshotSource,
        open_pool: Callable[[SpiffeContext], Pool],
        *,
        mode: Mode,
        clock: Callable[[], float],
    ) -> None:
        self._me, self._open_pool, self._mode, self._clock = me, open_pool, mode, clock
        self._lock = threading.Lock()
        self._live: dict[SpiffeId, Generation[Pool]] = {}
        self._retired: list[Generation[Pool]] = []
        self._closed = False

    def lease(self, expected: SpiffeId, now: float) -> tuple[Generation[Pool], Sequence[Pool]]:
        """Return the generation of the next call, counted in, and the pools to close now."""
        with self._lock:
            snapshot = self._me.current
            live = self._live.get(expected)
            if live is not None and live.snapshot is snapshot and now < live.retire_at:
                live.in_flight += 1
                return live, ()
            if self._closed:
                raise Closed("the client was closed")
            fresh = self._open(expected, snapshot, now)
            self._live[expected] = fresh
            fresh.in_flight = 1
            if live is not None:
                live.retired = True
                self._retired.append(live)
            return fresh, self._sweep(now)

    def release(self, generation: Generation[Pool]) -> Sequence[Pool]:
        """Count one call out; return the pools to close now."""
        with self._lock:
            generation.in_flight -= 1
            if generation.in_flight or not generation.retired:
                return ()
            return self._sweep(self._clock())

    def close(self) -> Sequence[Pool]:
        """Refuse further calls; return every pool that is still open."""
        with self._lock:
            self._closed = True
            pools = [g.pool for g in (*self._live.values(), *self._retired)]
            self._live.clear()
            self._retired.clear()
            return pools

    def _open(self, expected: SpiffeId, snapshot: Snapshot, now: float) -> Generation[Pool]:
        generation: Generation[Pool] = Generation(expected, snapshot, self._mode, now)

        def meet(peer: VerifiedSvid) -> None:
            at = self._clock()
            with self._lock:
                generation.meet(peer, at)

        generation.pool = self._open_pool(client_context(generation, meet))
        return generation

    def _sweep(self, now: float) -> Sequence[Pool]:
        over = [g for g in self._retired if not g.in_flight or now >= g.expires_at + GRACE]
        self._retired = [g for g in self._retired if g not in over]
        return [g.pool for g in over]


def _retirement(expires_at: float, now: float) -> float:
    return expires_at - min(RETIRE_SHARE * max(0.0, expires_at - now), RETIRE_AT_MOST)
