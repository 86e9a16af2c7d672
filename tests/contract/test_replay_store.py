"""The one suite that every replay store passes."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

import pytest

from zerotrust.workload.replay import Claim, ReplayStore
from zerotrust.workload.replay.memory import MemoryReplayStore

NOW = 1_800_000_000.0
STORES: list[Callable[[], ReplayStore]] = [MemoryReplayStore]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> ReplayStore:
    made: ReplayStore = request.param()
    return made


def claim(store: ReplayStore, key: bytes, *, life: float = 30, now: float = NOW) -> Claim:
    return store.claim(
        key, caller="jkt", subject="spiffe://example.org/web", expires_at=now + life, now=now
    )


def test_a_key_is_new_once(store: ReplayStore) -> None:
    key = secrets.token_bytes(32)
    assert claim(store, key) is Claim.NEW
    assert [claim(store, key) for _ in range(3)] == [Claim.USED] * 3


def test_another_key_is_new(store: ReplayStore) -> None:
    assert claim(store, secrets.token_bytes(32)) is Claim.NEW
    assert claim(store, secrets.token_bytes(32)) is Claim.NEW


def test_a_key_is_new_for_exactly_one_of_many_threads(store: ReplayStore) -> None:
    key, answers = secrets.token_bytes(32), []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        answers.append(claim(store, key))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.value for answer in answers) == ["new"] + ["used"] * 7


@pytest.mark.parametrize("shift", [3600.0, -3600.0, 29.0, -29.0])
def test_a_used_key_stays_used_when_the_wall_clock_is_set(store: ReplayStore, shift: float) -> None:
    key = secrets.token_bytes(32)
    assert claim(store, key) is Claim.NEW
    assert claim(store, key, now=NOW + shift) is Claim.USED


def test_a_proof_that_lives_longer_than_can_be_remembered_is_refused(store: ReplayStore) -> None:
    assert claim(store, secrets.token_bytes(32), life=3600) is Claim.FULL
