from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.workload.replay import Claim
from zerotrust.workload.replay.memory import TURN, MemoryReplayStore, NoReplayStore

NOW = 1_800_000_000.0


class Hand:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def claim(store: MemoryReplayStore, key: bytes, caller: str = "jkt", subject: str = "web") -> Claim:
    return store.claim(key, caller=caller, subject=subject, expires_at=NOW + 30, now=NOW)


def key() -> bytes:
    return secrets.token_bytes(32)


@given(st.lists(st.floats(0, TURN), min_size=1, max_size=6))
def test_a_key_is_remembered_for_at_least_one_turn(steps: list[float]) -> None:
    hand = Hand()
    store = MemoryReplayStore(monotonic=hand)
    hand.at += steps[0]
    used, started = key(), hand.at
    assert claim(store, used) is Claim.NEW
    for step in steps[1:]:
        hand.at += step
        claim(store, key())
        if hand.at - started < TURN:
            assert claim(store, used) is Claim.USED


def test_a_key_is_forgotten_after_two_turns() -> None:
    hand = Hand()
    store = MemoryReplayStore(monotonic=hand)
    claim(store, key())
    hand.at += 2 * TURN
    claim(store, key())
    assert len(store) == 1


def test_room_comes_back_when_buckets_turn() -> None:
    hand = Hand()
    store = MemoryReplayStore(4, monotonic=hand)
    for n in range(4):
        assert claim(store, key(), f"c{n}", f"s{n}") is Claim.NEW
    assert claim(store, key(), "c9", "s9") is Claim.FULL
    hand.at += 2 * TURN
    assert claim(store, key(), "c9", "s9") is Claim.NEW


def test_a_full_store_refuses_and_forgets_nothing() -> None:
    store = MemoryReplayStore(8)
    keys = [key() for _ in range(8)]
    assert [claim(store, k, f"c{i}", f"s{i}") for i, k in enumerate(keys)] == [Claim.NEW] * 8
    assert claim(store, key(), "new", "new") is Claim.FULL
    assert all(claim(store, k, "any", "any") is Claim.USED for k in keys)


def test_no_caller_key_gets_more_than_a_quarter() -> None:
    store = MemoryReplayStore(8)
    assert [claim(store, key(), "greedy", f"s{n}") for n in range(3)] == [
        Claim.NEW,
        Claim.NEW,
        Claim.OVER_QUOTA,
    ]
    assert claim(store, key(), "other", "other") is Claim.NEW


def test_no_identity_gets_more_than_a_quarter_by_changing_its_key() -> None:
    store = MemoryReplayStore(8)
    assert [claim(store, key(), f"c{n}", "greedy") for n in range(3)] == [
        Claim.NEW,
        Claim.NEW,
        Claim.OVER_QUOTA,
    ]


def test_a_used_key_of_a_caller_over_its_quota_is_still_told_as_used() -> None:
    store = MemoryReplayStore(4)
    used = key()
    assert claim(store, used) is Claim.NEW
    assert claim(store, key()) is Claim.OVER_QUOTA
    assert claim(store, used) is Claim.USED


def test_keys_that_share_their_first_bytes_are_told_apart() -> None:
    store = MemoryReplayStore()
    assert claim(store, b"a" * 15 + b"x" + b"z" * 16) is Claim.NEW
    assert claim(store, b"a" * 15 + b"y" + b"z" * 16) is Claim.NEW


def test_without_a_store_no_proof_is_new() -> None:
    answer = NoReplayStore().claim(key(), caller="jkt", subject="web", expires_at=NOW + 30, now=NOW)
    assert answer is Claim.FULL


@pytest.mark.parametrize("capacity", [4, 100, 1000])
def test_memory_is_bounded_by_the_capacity(capacity: int) -> None:
    store = MemoryReplayStore(capacity)
    for n in range(capacity * 2):
        claim(store, key(), f"c{n}", f"s{n}")
    assert len(store) == capacity
