"""An identity that stands still: what a test needs of a WorkloadIdentity, without its thread."""

from __future__ import annotations

from typing import Self

from zerotrust.core.errors import Closed
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.workload.identity import Snapshot


class FixedIdentity:
    """Holds one snapshot; `rotate` replaces it by another, `close` ends it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot: Snapshot | None = snapshot

    @property
    def current(self) -> Snapshot:
        """The snapshot; raises Closed after `close`."""
        if self._snapshot is None:
            raise Closed
        return self._snapshot

    @property
    def id(self) -> SpiffeId:
        """The identity of the current snapshot."""
        return self.current.svid.id

    def rotate(self, snapshot: Snapshot) -> None:
        """Replace the snapshot, as a renewal does."""
        self._snapshot = snapshot

    def close(self) -> None:
        self._snapshot = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
