from __future__ import annotations

import threading

import pytest

from support.identities import FixedIdentity
from zerotrust import clock
from zerotrust.core.errors import CertificateRejected, Closed, Reason
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, verify_x509_svid
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.generations import Generation, Generations
from zerotrust.workload.tls.context import SpiffeContext

NOW = float(int(clock.now()))
ORDERS = SpiffeId.parse("spiffe://example.org/orders")
LEDGER = SpiffeId.parse("spiffe://example.org/ledger")


@pytest.fixture(scope="module")
def ca() -> ForgedAuthority:
    return ForgedAuthority(now=NOW)


@pytest.fixture
def me(ca: ForgedAuthority) -> FixedIdentity:
    return FixedIdentity(ca.snapshot("web", ttl=1000))


@pytest.fixture
def generations(me: FixedIdentity) -> Generations[SpiffeContext]:
    return Generations(me, lambda context: context, mode=Mode.BOUND, clock=lambda: NOW)


def _peer(ca: ForgedAuthority, name: str, ttl: float) -> VerifiedSvid:
    return verify_x509_svid(ca.issue(name, ttl=ttl).chain_der, ca.bundles, NOW)


def test_calls_to_one_peer_share_a_generation(generations: Generations[SpiffeContext]) -> None:
    first, _ = generations.lease(ORDERS, NOW)
    second, over = generations.lease(ORDERS, NOW + 1)
    assert first is second
    assert over == ()


def test_two_peers_never_share_a_pool(generations: Generations[SpiffeContext]) -> None:
    orders, _ = generations.lease(ORDERS, NOW)
    ledger, _ = generations.lease(LEDGER, NOW)
    assert orders.pool is not ledger.pool


def test_a_new_snapshot_starts_a_generation_and_closes_the_idle_one(
    ca: ForgedAuthority, me: FixedIdentity, generations: Generations[SpiffeContext]
) -> None:
    old, _ = generations.lease(ORDERS, NOW)
    generations.release(old)
    me.rotate(ca.snapshot("web"))
    new, over = generations.lease(ORDERS, NOW)
    assert new is not old
    assert over == [old.pool]
    assert (new.snapshot, new.tokens.snapshot) == (me.current, me.current)


def test_a_retired_generation_is_closed_after_its_last_call(
    ca: ForgedAuthority, me: FixedIdentity, generations: Generations[SpiffeContext]
) -> None:
    old, _ = generations.lease(ORDERS, NOW)
    generations.lease(ORDERS, NOW)
    me.rotate(ca.snapshot("web"))
    assert generations.lease(ORDERS, NOW)[1] == []
    assert not generations.release(old)
    assert generations.release(old) == [old.pool]


def test_a_retired_generation_is_closed_at_the_end_of_its_certificates_at_the_latest(
    ca: ForgedAuthority, me: FixedIdentity, generations: Generations[SpiffeContext]
) -> None:
    leaked, _ = generations.lease(ORDERS, NOW)  # its body is never closed
    for seconds, over in ((1, []), (900, []), (1001, [leaked.pool])):
        me.rotate(ca.snapshot("web"))
        generation, closing = generations.lease(ORDERS, NOW + seconds)
        assert [pool for pool in closing if pool is leaked.pool] == over
        generations.release(generation)


@pytest.mark.parametrize(("ttl", "retired_at"), [(1000, 970), (100, 90), (5, 4.5)])
def test_a_generation_retires_a_tenth_or_half_a_minute_before_the_first_end(
    ca: ForgedAuthority, generations: Generations[SpiffeContext], ttl: float, retired_at: float
) -> None:
    generation, _ = generations.lease(ORDERS, NOW)
    generation.meet(_peer(ca, "orders", ttl), NOW)
    assert generations.lease(ORDERS, NOW + retired_at - 0.1)[0] is generation
    assert generations.lease(ORDERS, NOW + retired_at)[0] is not generation


def test_a_peer_that_is_not_the_expected_one_is_refused(
    ca: ForgedAuthority, generations: Generations[SpiffeContext]
) -> None:
    generation, _ = generations.lease(ORDERS, NOW)
    generation.meet(_peer(ca, "orders", 60), NOW)
    with pytest.raises(CertificateRejected) as refused:
        generation.meet(_peer(ca, "orders2", 60), NOW)
    assert refused.value.reason is Reason.PEER_UNEXPECTED


def test_a_connection_that_outlived_its_certificates_is_not_read(
    ca: ForgedAuthority, generations: Generations[SpiffeContext]
) -> None:
    generation: Generation[SpiffeContext] = generations.lease(ORDERS, NOW)[0]
    generation.meet(_peer(ca, "orders", 60), NOW)
    generation.require_alive(NOW + 60.9)
    with pytest.raises(CertificateRejected) as refused:
        generation.require_alive(NOW + 61)
    assert refused.value.reason is Reason.PEER_EXPIRED


def test_after_closing_every_pool_is_returned_and_no_call_begins(
    ca: ForgedAuthority, me: FixedIdentity, generations: Generations[SpiffeContext]
) -> None:
    running, _ = generations.lease(ORDERS, NOW)
    me.rotate(ca.snapshot("web"))
    live, _ = generations.lease(ORDERS, NOW)
    assert set(generations.close()) == {running.pool, live.pool}
    assert not generations.release(running)
    with pytest.raises(Closed):
        generations.lease(ORDERS, NOW)


def test_threads_that_meet_a_new_snapshot_together_open_one_generation(
    generations: Generations[SpiffeContext],
) -> None:
    ready, met = threading.Barrier(8), []

    def call() -> None:
        ready.wait()
        met.append(generations.lease(ORDERS, NOW)[0])

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, met))) == 1
    assert met[0].in_flight == 8
