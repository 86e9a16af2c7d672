"""When an identity is renewed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zerotrust.core.rotation import MAX_PAUSE, next_step

LIFE = 3600.0


def wait(now: float, attempts: int = 0, jitter: float = 0.5, life: float = LIFE) -> float:
    step = next_step(not_before=0.0, not_after=life, now=now, attempts=attempts, jitter=jitter)
    return step.wait


def test_renewal_is_due_at_half_of_the_life() -> None:
    assert wait(0.0) == LIFE / 2
    assert wait(LIFE / 2) == 0.0


def test_the_spread_is_a_twentieth_to_either_side() -> None:
    assert wait(0.0, jitter=0.0) == LIFE * 0.45
    assert abs(wait(0.0, jitter=0.9999999) - LIFE * 0.55) < 0.01


def test_each_failure_doubles_the_pause_up_to_a_cap() -> None:
    pauses = [wait(LIFE / 2, attempts=n, jitter=0.999999) for n in range(1, 10)]
    assert [round(pause) for pause in pauses[:6]] == [1, 2, 4, 8, 16, 32]
    assert round(pauses[-1]) == round(LIFE * 0.02)


def test_a_short_life_has_short_pauses() -> None:
    assert wait(3.0, attempts=9, jitter=0.5, life=5.0) <= 0.1


def test_there_is_no_giving_up_after_the_end() -> None:
    assert 0 < wait(LIFE * 2, attempts=500) <= MAX_PAUSE


def test_the_last_twentieth_is_an_emergency() -> None:
    def emergency(now: float) -> bool:
        return next_step(not_before=0, not_after=LIFE, now=now, attempts=0, jitter=0).emergency

    assert not emergency(LIFE * 0.949)
    assert emergency(LIFE * 0.951)
    assert emergency(LIFE + 1)


@given(
    life=st.floats(0, 86400),
    now=st.floats(-86400, 2 * 86400),
    attempts=st.integers(0, 10**6),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_never_negative_and_a_retry_never_spins(
    life: float, now: float, attempts: int, jitter: float
) -> None:
    pause = wait(now, attempts, jitter, life)
    assert pause >= 0
    if attempts:
        assert 0.02 <= pause <= MAX_PAUSE
