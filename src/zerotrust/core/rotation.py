"""When an identity is renewed. Pure: it is told the time and the dice, and owns no timer.

1. Renewal is due at half of the life, give or take a twentieth, so that a fleet started together
   does not renew together.
2. Each attempt that brought nothing newer doubles the pause, up to a cap that shrinks with the life
   itself; the pause is drawn, never fixed.
3. There is no giving up: an expired identity is still renewed, only its owner ends it.
4. Below a twentieth of the life left, somebody must be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DUE: Final = 0.5  # of the life
SPREAD: Final = 0.05  # of the life, to either side
EMERGENCY: Final = 0.05  # of the life left
FIRST_PAUSE: Final = 1.0  # seconds
MAX_PAUSE: Final = 300.0  # seconds
MAX_PAUSE_OF_LIFE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """Renew after `wait` seconds (0: now); `emergency` when little of the life is left."""

    wait: float
    emergency: bool


def next_step(
    *, not_before: float, not_after: float, now: float, attempts: int, jitter: float
) -> Step:
    """Return what to do for the identity in hand.

    All times are seconds since the epoch. `attempts` counts renewals tried since this identity was
    obtained that brought nothing newer. `jitter` in [0, 1) is drawn once per identity and once per
    attempt.
    """
    life = max(not_after - not_before, 0.0)
    emergency = not_after - now < life * EMERGENCY
    if attempts == 0:
        due = not_before + life * (DUE - SPREAD + 2 * SPREAD * jitter)
        return Step(max(due - now, 0.0), emergency)
    return Step(_pause(attempts, life, jitter), emergency)


def _pause(attempts: int, life: float, jitter: float) -> float:
    cap = min(MAX_PAUSE, max(life * MAX_PAUSE_OF_LIFE, 0.05))
    full = min(cap, FIRST_PAUSE * 2.0 ** min(attempts - 1, 30))
    return full * (0.5 + jitter / 2)
