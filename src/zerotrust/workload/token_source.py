"""INTERFACE STUB (owner: workload): tokens for one snapshot, cached per audience."""

from __future__ import annotations

from collections.abc import Mapping

from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.workload.identity import Snapshot


class TokenSource:
    """Mints for exactly one snapshot (tokens belong to the connection's generation). Thread-safe, bounded."""

    def __init__(self, snapshot: Snapshot, *, mode: Mode = Mode.BOUND) -> None: ...

    def bound(self, audience: SpiffeId, now: float, *, cover: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
        """Header pairs ('Workload-Identity-Token', wit), ('Authorization', 'WPT ...'); minted again at half life. IdentityUnavailable without a WIT."""
        raise NotImplementedError

    def proof(self, *, target_uri: str, method: str, target: bytes, now: float, cover: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
        """Fresh one-time proof; target_uri without query."""
        raise NotImplementedError
