"""Time that never goes back by more than the skew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zerotrust import clock
from zerotrust.clock import SKEW, Clock


class Hands:
    """A wall clock and a monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.wall, self.mono = 1_000_000.0, 50.0
        self.clock = Clock(lambda: self.wall, lambda: self.mono)

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def test_time_passes_as_the_wall_clock_says() -> None:
    hands = Hands()
    hands.pass_(10)
    assert hands.clock.now() == 1_000_010.0
    assert not hands.clock.set_back


def test_a_clock_set_back_an_hour_goes_on_from_where_it_was() -> None:
    hands = Hands()
    hands.pass_(10)
    hands.clock.now()
    hands.wall -= 3600
    hands.pass_(5)
    assert hands.clock.now() == 1_000_015.0
    assert hands.clock.set_back


def test_a_clock_that_is_set_right_again_is_believed_again() -> None:
    hands = Hands()
    hands.wall -= 3600
    hands.clock.now()
    hands.wall += 3600
    assert hands.clock.now() == 1_000_000.0
    assert not hands.clock.set_back


def test_a_small_step_back_is_believed() -> None:
    hands = Hands()
    hands.wall -= SKEW - 1
    assert hands.clock.now() == 1_000_000.0 - SKEW + 1


def test_an_hour_forward_is_believed_and_not_taken_back() -> None:
    hands = Hands()
    hands.wall += 3600
    assert hands.clock.now() == 1_003_600.0
    hands.wall -= 3600
    assert hands.clock.now() == 1_003_600.0
    assert hands.clock.set_back


def test_a_suspended_machine_wakes_to_the_time_of_the_wall() -> None:
    """The monotonic clock stands still meanwhile; what expired in sleep is expired."""
    hands = Hands()
    hands.wall += 8 * 3600
    assert hands.clock.now() == 1_000_000.0 + 8 * 3600


def test_many_small_steps_back_do_not_add_up() -> None:
    hands = Hands()
    told = hands.clock.now()
    for _ in range(10):
        hands.wall -= SKEW - 1
        assert hands.clock.now() >= told - SKEW


@given(st.lists(st.tuples(st.floats(0, 3600), st.floats(-7200, 7200)), max_size=30))
def test_time_told_never_falls_by_more_than_the_skew(steps: list[tuple[float, float]]) -> None:
    hands = Hands()
    latest = hands.clock.now()
    for passed, jump in steps:
        hands.pass_(passed)
        hands.wall += jump
        told = hands.clock.now()
        assert told >= latest - SKEW - 1e-3
        latest = max(latest, told)


def test_the_process_has_one_clock() -> None:
    assert abs(clock.now() - clock._CLOCK.now()) < 1
    assert clock.is_set_back() is False
