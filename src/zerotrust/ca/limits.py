"""How often one source may ask: the generic cell rate algorithm (GCRA), bounded in memory.

1. A failed attestation costs more than an answered request, so guessing is slow and working is not.
2. The table is bounded; the source not seen for longest is forgotten first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_SOURCES: Final = 65536


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per second of one source, and how many at once."""

    requests: float = 2000.0
    burst: int = 4000
    failures: float = 1.0  # failed attestations per second
    failure_burst: int = 10


class Limiter:
    """Counts one kind of event per source."""

    def __init__(self, rate: float, burst: int, *, sources: int = MAX_SOURCES) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError("a limit allows something")
        self._step, self._slack, self._sources = 1.0 / rate, burst / rate, sources
        self._due: dict[str, float] = {}  # source -> when its cell is empty again

    def is_full(self, source: str, now: float) -> bool:
        """Whether one more event of this source is too many."""
        return self._due.get(source, 0.0) - now > self._slack - self._step

    def count(self, source: str, now: float) -> None:
        """Count one event."""
        due = max(self._due.pop(source, 0.0), now) + self._step
        if len(self._due) >= self._sources:
            del self._due[next(iter(self._due))]
        self._due[source] = due
