"""INTERFACE STUB (owner: workload)."""

from __future__ import annotations

from typing import Any

from zerotrust.core.spiffe.x509_svid import VerifiedSvid


def peer_of(ssl_object: Any) -> VerifiedSvid | None:
    """Return the verified peer of one of OUR ssl objects after its handshake; None for anything else."""
    raise NotImplementedError
