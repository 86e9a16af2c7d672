"""INTERFACE STUB (owner: workload)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import X509Svid


@dataclass(frozen=True, slots=True)
class WitCredential:
    """Our WIT and the key it names; repr redacts, no pickling."""

    token: str
    key: SigningKey
    expires_at: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one process needs to prove itself and to judge others, never torn."""

    svid: X509Svid
    wit: WitCredential | None  # None: may serve, may not call
    bundles: BundleSet  # the SAME object as before when its content did not change
    dev: bool = False


class Source(Protocol):
    """Port: where snapshots come from. Blocking; only the renewal thread calls it."""

    def fetch(self, previous: Snapshot | None) -> Snapshot:
        """Return a fully checked snapshot (may equal previous) or raise ZeroTrustError."""

    def wait(self, seconds: float) -> None:
        """Sleep up to that long, return early when the source knows of news."""

    def close(self) -> None: ...


class WorkloadIdentity:
    """One immutable snapshot + one renewal thread."""

    def __init__(self, source: Source) -> None:
        """Fetch the first snapshot (blocking, raises) and start the renewal thread."""

    @classmethod
    def from_url(cls, url: str, *, dev: bool | None = None) -> WorkloadIdentity:
        """files:DIR, ca:TOKENFILE[?state=DIR], ca:unix:PATH, worker:PATH."""
        raise NotImplementedError

    @classmethod
    def from_env(cls) -> WorkloadIdentity:
        """From ZEROTRUST_IDENTITY."""
        raise NotImplementedError

    @property
    def current(self) -> Snapshot:
        """One attribute read; raises IdentityUnavailable when closed or expired."""
        raise NotImplementedError

    @property
    def id(self) -> SpiffeId: raise NotImplementedError
    def close(self) -> None: ...
    def __enter__(self) -> Self: return self
    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None: self.close()
