"""From evidence to selectors: the port of the attestors, and what a verdict is.

1. An attestor says what is true of the asker, never which identity it gets.
2. It refuses with AttestationFailed; unknown, expired and used look alike from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zerotrust.core.errors import NotEntitled, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zerotrust.ca.authority.entries import RegistrationEntry
    from zerotrust.core.enrolment import Evidence


@dataclass(frozen=True, slots=True)
class Connection:
    """What the listener itself knows about the asker."""

    source: str  # for rate limits and audit: an IP address or `uid:1000`
    uid: int | None = None  # of the process on the other end of a unix socket


@dataclass(frozen=True, slots=True)
class Attested:
    """A verdict: what holds of the asker.

    `entry` names the only entry it may have (join tokens); `wanted` picks among the entitled ones.
    A join token also
    says its hash, the key it is bound to (SHA-256 of the SPKI) and, once used, the serial of what
    it was used for.
    """

    selectors: frozenset[str]
    entry: str | None = None
    wanted: str | None = None
    token: bytes | None = None
    csr_key: bytes | None = None
    spent_on: str | None = None


class Attestor(Protocol):
    """Judges one kind of evidence."""

    def attest(self, evidence: Evidence, connection: Connection, now: float) -> Attested:
        """Return what holds, or raise AttestationFailed."""


def entitle(entries: Iterable[RegistrationEntry], attested: Attested) -> RegistrationEntry:
    """Return the one entry this verdict entitles to; raise NotEntitled for none and for several."""
    fitting = [entry for entry in entries if _fits(entry, attested)]
    if not fitting:
        raise NotEntitled(Reason.NOT_ENTITLED, "no entry fits the evidence")
    if len(fitting) > 1:
        raise NotEntitled(Reason.NOT_ENTITLED, "several entries fit the evidence; ask for one")
    return fitting[0]


def _fits(entry: RegistrationEntry, attested: Attested) -> bool:
    if attested.entry is not None:
        return entry.id == attested.entry
    if attested.wanted is not None and attested.wanted != str(entry.spiffe_id):
        return False
    return bool(entry.selectors) and attested.selectors.issuperset(entry.selectors)
