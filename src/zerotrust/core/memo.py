"""Remember a connection's allowed calls, so that the next one like it is decided by comparison.

1. A remembered decision is used only while its guard is the current one: a guard is one immutable
   value, built anew when the trust bundles, the policy or the identity change, so nothing decided
   under older ones survives.
2. The key holds everything the decision depended on: kind, method, raw target and, in order,
   every watched field under any spelling. Comparing all fields first is only a shortcut: equal
   fields have equal watched fields.
3. Only an allowed call in `bound` mode is remembered, never a proof, never a refusal, until the
   earliest moment at which anything it rests on expires. One refusal empties the memo.
4. Nothing here waits: between reading an entry and acting on it no other task runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zerotrust.core.guard import Allowed, Call, Guard
from zerotrust.core.mode import Mode
from zerotrust.core.request import pick_watched

if TYPE_CHECKING:
    from zerotrust.core.request import Headers

MAX_ENTRIES: Final = 16  # routes remembered on one connection


class Budget:
    """How many decisions one process remembers over all its connections."""

    __slots__ = ("left",)

    def __init__(self, entries: int) -> None:
        self.left = entries


@dataclass(frozen=True, slots=True)
class Remembered:
    """One decision and what it rests on; `kept` is what the adapter derived from its call."""

    guard: Guard
    headers: Headers
    watched: tuple[tuple[bytes, bytes], ...]
    allowed: Allowed
    kept: object


class Memo:
    """The decisions remembered on one connection (whose peer never changes)."""

    __slots__ = ("_budget", "_entries")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._entries: dict[tuple[str, str, bytes], Remembered] = {}

    def recall(
        self, guard: Guard, kind: str, method: str, target: bytes, headers: Headers, now: float
    ) -> Remembered | None:
        """Return what was decided for exactly this call, or None when it must be decided afresh."""
        entry = self._entries.get((kind, method, target))
        if entry is None or entry.guard is not guard or now >= entry.allowed.expires_at:
            return None
        if headers == entry.headers or pick_watched(headers, guard.watched) == entry.watched:
            return entry
        return None

    def remember(self, guard: Guard, call: Call, allowed: Allowed, kept: object = None) -> None:
        """Remember an allowed call if it may be; make room by forgetting the oldest."""
        caller = allowed.caller
        if caller is None or caller.mode is not Mode.BOUND:
            return
        key = (call.kind, call.method, call.target)
        if key not in self._entries:
            if len(self._entries) >= MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
            elif self._budget.left <= 0:
                return
            else:
                self._budget.left -= 1
        headers = list(call.headers)
        watched = pick_watched(headers, guard.watched)
        self._entries[key] = Remembered(guard, headers, watched, allowed, kept)

    def forget(self) -> None:
        """Drop everything: after one refusal, and when the connection ends."""
        self._budget.left += len(self._entries)
        self._entries.clear()
