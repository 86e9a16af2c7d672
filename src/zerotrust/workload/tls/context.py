"""INTERFACE STUB (owner: workload)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from zerotrust.core.spiffe.x509_svid import VerifiedSvid
from zerotrust.workload.identity import Snapshot


class SnapshotSource(Protocol):
    """WorkloadIdentity satisfies this; so does a fixed snapshot."""

    @property
    def current(self) -> Snapshot: ...


class SpiffeContext(ssl.SSLContext):
    """The SSLContext subclass of http.md section 0; nothing on it can weaken verification."""


def server_context(source: SnapshotSource, *, alpn: Sequence[str] = ("http/1.1",)) -> SpiffeContext:
    raise NotImplementedError


def client_context(source: SnapshotSource, authorize: Callable[[VerifiedSvid], None], *, alpn: Sequence[str] = ("http/1.1",)) -> SpiffeContext:
    """authorize raises CertificateRejected(PEER_UNEXPECTED) for the wrong peer; runs inside the handshake, before any byte is sent."""
    raise NotImplementedError


def bootstrap_context(source: SnapshotSource) -> SpiffeContext:
    """Server side WITHOUT client certificates: only for the CA's bootstrap listener and ... (owner decides shape)."""
    raise NotImplementedError
