"""Where the CA keeps its records: the port, its questions and its changes.

1. A store answers questions, applies changes and closes. Questions and changes are plain values,
   so a store can neither
   be asked something else nor half of it.
2. A change is applied whole or not at all, and is on disk when its future completes.
3. What may happen once (a token's use, a parent's child, an identity's entry) is decided by the
   store, while it writes:
   the loser's future raises Conflict.
4. Secrets never come here: of a join token only the SHA-256 is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from zerotrust.core.errors import IssuanceError, Reason

if TYPE_CHECKING:
    from concurrent.futures import Future

    from zerotrust.ca.authority.authority import Certificate, Lineage
    from zerotrust.ca.authority.entries import RegistrationEntry

T_co = TypeVar("T_co", covariant=True)


class Conflict(Exception):
    """What the change relies on is no longer so."""


class StoreUnavailable(IssuanceError):
    """The records cannot be written or read right now; nothing was issued."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.ISSUANCE_STORE, detail)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A join token as the store knows it. `used_for` is the serial it was spent on."""

    hash: bytes  # SHA-256 of the evidence
    entry: str
    csr_key: bytes | None  # SHA-256 of the SPKI it is bound to
    expires_at: float
    used_for: str | None = None


class Question(Generic[T_co]):
    """What a store can be asked; the type argument is the answer's type."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TokenOf(Question["TokenRecord | None"]):
    """The join token with this hash."""

    hash: bytes


@dataclass(frozen=True, slots=True)
class EntryOf(Question["RegistrationEntry | None"]):
    """The entry with this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Entries(Question["tuple[RegistrationEntry, ...]"]):
    """Every entry, by identity."""


@dataclass(frozen=True, slots=True)
class CertificateOf(Question["Certificate | None"]):
    """The certificate with this serial."""

    serial: str


@dataclass(frozen=True, slots=True)
class ChildOf(Question["Certificate | None"]):
    """The certificate this one was renewed into."""

    serial: str


@dataclass(frozen=True, slots=True)
class LineageOf(Question["Lineage | None"]):
    """The lineage with this id."""

    id: str


@dataclass(frozen=True, slots=True)
class AddEntry:
    """Register an identity.

    Conflict: it is registered, or a deleted entry's certificates still live.
    """

    entry: RegistrationEntry


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    """Remove an entry and its unused tokens.

    Its identity stays reserved while certificates live.
    """

    id: str
    now: float


@dataclass(frozen=True, slots=True)
class AddToken:
    """Remember a join token's hash. Conflict: its entry is gone."""

    token: TokenRecord


@dataclass(frozen=True, slots=True)
class RecordIssue:
    """Record a certificate; a first one opens its lineage and may spend a token.

    Conflict: the token is spent, the parent has a child, the lineage is frozen or the entry is
    gone.
    """

    certificate: Certificate
    entry: str | None  # None: the CA's own identity
    lineage: Lineage | None = None
    token: bytes | None = None


@dataclass(frozen=True, slots=True)
class FreezeLineage:
    """Two parties renewed one certificate: nobody renews this lineage again."""

    id: str
    now: float


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop what can no longer be asked for: dead tokens, answers of expired certificates."""

    before: float


Change = AddEntry | DeleteEntry | AddToken | RecordIssue | FreezeLineage | Forget


class Store(Protocol):
    """The records of one CA. Safe to use from any thread."""

    def read(self, question: Question[T_co]) -> T_co:
        """Answer from what is committed; raise StoreUnavailable."""

    def apply(self, change: Change) -> Future[None]:
        """Complete once the change is on disk; fail with Conflict or StoreUnavailable."""

    def close(self) -> None:
        """Finish what was begun and let go of the records."""
