"""Tokens of one snapshot: minted when needed, kept while fresh, never outliving their ground."""

from __future__ import annotations

import time

import pytest

from zerotrust.core.errors import IdentityUnavailable
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.core.tokens.wpt import WorkloadProofToken, verify_wpt
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload import token_source
from zerotrust.workload.identity import Snapshot
from zerotrust.workload.token_source import Headers, TokenSource

NOW = float(int(time.time()))
CA = ForgedAuthority(now=NOW)
LEDGER = CA.id("ledger")


def read(headers: Headers, snapshot: Snapshot, audience: str, now: float) -> WorkloadProofToken:
    (wit_name, wit), (name, value) = headers
    assert (wit_name, name) == ("Workload-Identity-Token", "Authorization")
    scheme, _, token = value.partition(" ")
    assert scheme == "WPT"
    verified = verify_wit(wit, snapshot.bundles, now)
    return verify_wpt(token, verified, [audience], now)


def test_a_bound_token_names_callee_and_certificate_for_two_minutes() -> None:
    snapshot = CA.snapshot("web")
    wpt = read(TokenSource(snapshot).bound(LEDGER, NOW), snapshot, str(LEDGER), NOW)
    assert wpt.x5t == snapshot.svid.thumbprint
    assert wpt.expires_at == NOW + 120
    assert wpt.htm is None


def test_a_bound_token_is_kept_for_half_of_its_life() -> None:
    source = TokenSource(CA.snapshot("web"))
    first = source.bound(LEDGER, NOW)
    assert source.bound(LEDGER, NOW + 59) is first
    assert source.bound(LEDGER, NOW + 60) is not first


def test_each_audience_and_each_cover_has_its_own_token() -> None:
    source = TokenSource(CA.snapshot("web"))
    plain = source.bound(LEDGER, NOW)
    assert source.bound(CA.id("orders"), NOW) is not plain
    covered = source.bound(LEDGER, NOW, cover={"x-user-token": "a"})
    assert covered is not plain
    assert source.bound(LEDGER, NOW, cover={"x-user-token": "a"}) is covered
    assert source.bound(LEDGER, NOW, cover={"x-user-token": "b"}) is not covered


@pytest.mark.parametrize(
    "snapshot",
    [CA.snapshot("web", wit_ttl=40), CA.snapshot("web", ttl=40)],
    ids=["the WIT", "the certificate"],
)
def test_a_token_never_outlives_what_it_rests_on(snapshot: Snapshot) -> None:
    source = TokenSource(snapshot)
    wpt = read(source.bound(LEDGER, NOW + 0.9), snapshot, str(LEDGER), NOW)
    assert wpt.expires_at == NOW + 40
    with pytest.raises(IdentityUnavailable):
        source.bound(LEDGER, NOW + 40)


def test_a_proof_is_for_one_request_and_thirty_seconds() -> None:
    snapshot = CA.snapshot("web")
    source = TokenSource(snapshot)
    uri = "https://localhost:8443/pay"
    wanted = {"target_uri": uri, "method": "POST", "target": b"/pay?x=1", "now": NOW + 0.5}
    first, second = source.proof(**wanted), source.proof(**wanted)  # type: ignore[arg-type]
    one, two = (read(headers, snapshot, uri, NOW) for headers in (first, second))
    assert one.jti != two.jti
    assert len(one.jti) == 22
    assert (one.htm, one.issued_at, one.expires_at) == ("POST", NOW, NOW + 30)
    assert one.x5t == snapshot.svid.thumbprint


def test_without_a_wit_nothing_is_minted() -> None:
    source = TokenSource(CA.snapshot("web", with_wit=False))
    with pytest.raises(IdentityUnavailable, match="may serve but not call"):
        source.bound(LEDGER, NOW)
    with pytest.raises(IdentityUnavailable):
        source.proof(target_uri="https://a/", method="GET", target=b"/", now=NOW)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_source, "MAX_ENTRIES", 3)
    source = TokenSource(CA.snapshot("web"))
    for number in range(8):
        source.bound(CA.id(f"callee-{number}"), NOW)
        assert len(source._bound) <= 3
