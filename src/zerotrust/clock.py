"""The only reader of the clock.

1. `now()` never goes back by more than SKEW: when the wall clock is set back further, time
   continues from the monotonic clock and the alarm hook is told, so that what has expired stays
   expired and what was used stays used.
2. A jump forward is believed: it can only expire things early.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

SKEW: Final = 30.0  # seconds
_DRIFT: Final = 0.001  # seconds the two clocks may part before the anchor is set anew


class Clock:
    """Wall-clock seconds that never go back by more than SKEW."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - the one reader
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._anchor = (wall(), monotonic())
        self.set_back = False  # true while the wall clock is behind what was already told

    def now(self) -> float:
        """Seconds since the epoch."""
        wall, mono = self._wall(), self._monotonic()
        anchor_wall, anchor_mono = self._anchor
        expected = anchor_wall + (mono - anchor_mono)
        if wall >= expected - SKEW:
            if wall > expected + _DRIFT:
                with self._lock:
                    if wall > self._anchor[0] + (mono - self._anchor[1]):
                        self._anchor = (wall, mono)
            self.set_back = False
            return wall
        self.set_back = True
        return expected


_CLOCK: Final = Clock()
now = _CLOCK.now
monotonic = time.monotonic


def is_set_back() -> bool:
    """Whether the wall clock is behind the time already told (an operator should know)."""
    return _CLOCK.set_back
