"""INTERFACE STUB (owner: spiffe)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509

from zerotrust.core.jose import PublicJwk
from zerotrust.core.spiffe.ids import TrustDomain


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Anchors and WIT keys of exactly one trust domain. Immutable; equality by content."""

    origin: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...]
    wit_keys: Mapping[str, PublicJwk]  # kid -> key, only `use: wit-svid`
    sequence: int | None = None
    refresh_hint: int = 300  # seconds

    @classmethod
    def parse(cls, origin: TrustDomain, document: bytes, *, allow_dev: bool = False) -> TrustBundle:
        """Strict JWKS -> TrustBundle, raise BadBundle. A marked (dev) anchor refuses the bundle whole unless allow_dev."""
        raise NotImplementedError

    @classmethod
    def from_pem(cls, origin: TrustDomain, pem: bytes, *, allow_dev: bool = False) -> TrustBundle:
        """Anchors alone (bundle.pem): no WIT keys."""
        raise NotImplementedError

    def dump(self) -> bytes:
        """The SPIFFE bundle document (UTF-8 JSON)."""
        raise NotImplementedError

    @property
    def anchors_der(self) -> frozenset[bytes]:
        """DER of every anchor."""
        raise NotImplementedError

    @property
    def is_dev(self) -> bool:
        """Whether an anchor carries the dev marker."""
        raise NotImplementedError


class BundleSet:
    """Bundles by origin, own domain first; immutable; never merges two domains."""

    def __init__(self, bundles: Iterable[TrustBundle]) -> None:
        raise NotImplementedError

    def of(self, origin: TrustDomain) -> TrustBundle | None:
        """Return the bundle of exactly this origin, or None (which verifies nothing)."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[TrustBundle]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        raise NotImplementedError

    def __hash__(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Screened:
    """A foreign bundle less the anchors that could disturb ours, and a sentence for each one left out."""

    bundle: TrustBundle
    alarms: tuple[str, ...]


def screen_foreign(own: TrustBundle, own_chain: Sequence[x509.Certificate], foreign: TrustBundle) -> Screened:
    """decisions.md 3.2."""
    raise NotImplementedError
