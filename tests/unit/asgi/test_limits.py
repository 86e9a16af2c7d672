from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zerotrust.asgi.limits import FailureBudget


def test_a_peer_that_failed_too_often_waits_and_others_do_not() -> None:
    budget = FailureBudget(size=3, per_second=1)
    for _ in range(3):
        assert not budget.is_spent("bad", 100)
        budget.charge("bad", 100)
    assert budget.is_spent("bad", 100)
    assert not budget.is_spent("good", 100)


def test_a_budget_comes_back_with_time() -> None:
    budget = FailureBudget(size=2, per_second=1)
    budget.charge("bad", 100)
    budget.charge("bad", 100)
    assert budget.is_spent("bad", 100)
    assert not budget.is_spent("bad", 101.5)


def test_a_clock_that_goes_back_gives_nothing_back() -> None:
    budget = FailureBudget(size=1, per_second=1)
    budget.charge("bad", 100)
    assert budget.is_spent("bad", 50)


@given(st.lists(st.tuples(st.text(max_size=2), st.floats(0, 100)), max_size=60))
def test_the_number_of_remembered_peers_is_bounded(charges: list[tuple[str, float]]) -> None:
    budget = FailureBudget(peers=5)
    for peer, at in charges:
        budget.charge(peer, at)
    assert len(budget._spent) <= 5
