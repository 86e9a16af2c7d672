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
_ANCHOR_SECONDS: Final = 1.0  # how often the two clocks are held against each other


class Clock:
    """Wall-clock seconds that never go back by more than SKEW."""

    _anchor: tuple[float, float]  # both clocks at one moment
    _told: float  # the latest moment that was told
    _anchored_until: float  # then the two are compared again

    def __init__(
        self,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - the one reader
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._set_anchor(wall(), monotonic())
        self.set_back = False  # true while the wall clock is behind what was already told

    def now(self) -> float:
        """Seconds since the epoch."""
        wall = self._wall()
        if self._told <= wall < self._anchored_until:  # the way of nearly every call
            self._told = wall
            return wall
        with self._lock:
            return self._compare(wall)

    def _compare(self, wall: float) -> float:
        """Hold the wall clock against the monotonic one; anchor anew while it runs forward."""
        mono = self._monotonic()
        anchor_wall, anchor_mono = self._anchor
        expected = max(self._told, anchor_wall + (mono - anchor_mono))
        self.set_back = wall < expected - SKEW
        if wall >= expected:
            self._set_anchor(wall, mono)
        elif self.set_back:
            self._told, self._anchored_until = expected, float("-inf")  # look closely from now on
            return expected
        return wall

    def _set_anchor(self, wall: float, mono: float) -> None:
        self._anchor = (wall, mono)
        self._told = wall
        self._anchored_until = wall + _ANCHOR_SECONDS


_CLOCK: Final = Clock()
now = _CLOCK.now
monotonic = time.monotonic


def is_set_back() -> bool:
    """Whether the wall clock is behind the time already told (an operator should know)."""
    return _CLOCK.set_back
