"""What is tried: an honest call with exactly one change, and the refusal it must meet.

1. An id is stable and names the class of attack; a name tells its variants apart.
2. An attack says where it must be refused: a refusal elsewhere, or for another reason, is no pass.
3. Nothing here opens a socket or reads a clock; `Material.now` is when the attack happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

from zerotrust.core.errors import Category, Reason
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.deliver import Delivery, Request
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.identity import Snapshot, WitCredential

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

STATUS: Final = {
    Category.MALFORMED: 400,
    Category.UNAUTHENTICATED: 401,
    Category.PROOF_STALE: 401,
    Category.MODE_INSUFFICIENT: 401,
    Category.FORBIDDEN: 403,
    Category.MISDIRECTED: 421,
    Category.UNAVAILABLE: 503,
}


class Layer(StrEnum):
    """Where an attack must be refused."""

    HANDSHAKE = "TLS handshake"
    SERVER = "HTTP server"  # by the server's own parser, before any application code
    GUARD = "guard"


@dataclass(frozen=True)
class Material:
    """What the attacker holds, and whom it attacks.

    `authority` is the issuing handle of a test or staging CA: everything signed with it is
    genuine but for the one thing an attack changes. `honest` may make the control call;
    `neighbour` is a valid workload that may not.
    """

    now: float
    authority: ForgedAuthority
    foreign: ForgedAuthority
    honest: Snapshot
    neighbour: Snapshot
    target: SpiffeId
    host: str  # host:port the target answers for
    path: bytes = b"/"
    proof_path: bytes | None = None  # a path of the control caller, judged in proof mode

    def call(
        self,
        *,
        svid: X509Svid | None = None,
        certificate: bool = True,
        wit: str | None = None,
        wpt: str | None = None,
        method: str = "GET",
        target: bytes | None = None,
        host: str | None = None,
        extra: Fields = (),
        drop: Sequence[bytes] = (),
        **options: Any,
    ) -> Delivery:
        """Return the control call with what is given changed, and nothing else."""
        svid = svid or self.honest.svid
        wit = self.wit if wit is None else wit
        wpt = self.bound(wit=wit, svid=svid) if wpt is None else wpt
        headers: Fields = (
            (b"Host", (self.host if host is None else host).encode("latin-1")),
            (b"Workload-Identity-Token", wit.encode("latin-1")),
            (b"Authorization", b"WPT " + wpt.encode("latin-1")),
            (b"Connection", b"close"),
        )
        kept = tuple(pair for pair in headers if pair[0].lower() not in drop)
        request = Request(method, self.path if target is None else target, (*kept, *extra))
        return Delivery(request, svid if certificate else None, **options)

    @property
    def wit(self) -> str:
        """The honest caller's own WIT."""
        return _credential(self.honest).token

    @property
    def key(self) -> SigningKey:
        """The honest caller's proof key."""
        return _credential(self.honest).key

    @property
    def of_neighbour(self) -> WitCredential:
        """The neighbour's own WIT and key."""
        return _credential(self.neighbour)

    def neighbour_bound(self) -> str:
        """Return the proof the neighbour would send the target over its own certificate."""
        mine = self.of_neighbour
        return self.authority.wpt(
            mine.token,
            mine.key,
            aud=str(self.target),
            x5t=self.neighbour.svid.thumbprint,
            now=self.now,
        )

    def bound(self, *, wit: str | None = None, svid: X509Svid | None = None, **changes: Any) -> str:
        """Return a proof in bound form for the target, with claims or header changed."""
        credential = _credential(self.honest)
        return self.authority.wpt(
            credential.token if wit is None else wit,
            credential.key,
            aud=changes.pop("aud", str(self.target)),
            x5t=changes.pop("x5t", (svid or self.honest.svid).thumbprint),
            now=self.now,
            **changes,
        )

    def proof(self, *, method: str = "GET", target: bytes | None = None, **changes: Any) -> str:
        """Return a one-time proof for one request to the target."""
        credential = _credential(self.honest)
        raw = (self.proof_path or self.path) if target is None else target
        uri = f"https://{self.host}{raw.partition(b'?')[0].decode('latin-1')}"
        return self.authority.wpt(
            credential.token,
            credential.key,
            aud=changes.pop("aud", uri),
            x5t=self.honest.svid.thumbprint,
            method=method,
            target=raw,
            now=changes.pop("now", self.now),
            **changes,
        )


@dataclass(frozen=True)
class Attack:
    """One attack; `make` returns what is sent in order: all but the last must be answered."""

    id: str
    name: str
    tried: str
    layer: Layer
    make: Callable[[Material], tuple[Delivery, ...]] = field(repr=False)
    reasons: frozenset[Reason] = frozenset()

    @property
    def key(self) -> str:
        """The id and variant, unique in the catalogue."""
        return f"{self.id}/{self.name}"

    @property
    def statuses(self) -> frozenset[int]:
        """The HTTP statuses that are the expected refusal."""
        return frozenset(STATUS[reason.category] for reason in self.reasons)


def guarded(
    ident: str, name: str, tried: str, change: Callable[[Material], Delivery], *reasons: Reason
) -> Attack:
    """Return an attack over a good connection that the guard must refuse for such a reason."""
    return Attack(ident, name, tried, Layer.GUARD, lambda m: (change(m),), frozenset(reasons))


def _credential(snapshot: Snapshot) -> WitCredential:
    if snapshot.wit is None:
        raise ValueError("the probe needs an identity that holds a WIT")
    return snapshot.wit
