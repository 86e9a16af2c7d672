from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from support.tokens import CALLEE, JTI, NOW, OTHER_X5T, TARGET, URI, X5T, hash_of
from zerotrust.core.errors import Category, Reason, TokenRejected
from zerotrust.core.mode import Mode
from zerotrust.core.tokens.binding import prove_mode, target_hash
from zerotrust.core.tokens.wpt import WorkloadProofToken

BOUND = WorkloadProofToken(CALLEE, NOW + 120, JTI, X5T, None, None, None)
PROOF = WorkloadProofToken(URI, NOW + 30, JTI, X5T, "GET", NOW, hash_of(TARGET))


def prove(wpt: WorkloadProofToken, **changes: Any) -> Mode:
    call: dict[str, Any] = {
        "own_id": CALLEE,
        "target_uris": {URI},
        "method": "GET",
        "target": TARGET,
        "peer_x5t": X5T,
        "now": NOW,
    }
    return prove_mode(wpt, **(call | changes))


def refusal(wpt: WorkloadProofToken, **changes: Any) -> Reason:
    with pytest.raises(TokenRejected) as caught:
        prove(wpt, **changes)
    return caught.value.reason


def test_the_two_modes() -> None:
    assert prove(BOUND) is Mode.BOUND
    assert prove(PROOF) is Mode.PROOF


def test_a_bound_token_serves_every_request_of_its_connection() -> None:
    assert prove(BOUND, method="POST", target=b"/x", target_uris=()) is Mode.BOUND
    assert prove(replace(BOUND, issued_at=NOW - 100)) is Mode.BOUND


def test_a_proof_without_our_target_hash_is_still_a_proof() -> None:
    assert prove(replace(PROOF, target_hash=None)) is Mode.PROOF


def expected(  # noqa: PLR0911 - one line per row of the matrix
    audience: str, x5t: str | None, htm: str | None, iat: int | None, th: str | None
) -> Any:
    """The mode or reason of each combination, written without regard to the order of checks."""
    if x5t is None:
        return Reason.TOKEN_MODE_UNCLEAR
    if x5t != X5T:
        return Reason.TOKEN_BINDING
    if audience == CALLEE:
        return Mode.BOUND if htm is None and th is None else Reason.TOKEN_MODE_UNCLEAR
    if audience != URI:
        return Reason.TOKEN_AUDIENCE
    if htm is None or iat is None:
        return Reason.TOKEN_MODE_UNCLEAR
    if htm != "GET":
        return Reason.TOKEN_METHOD
    if th not in {None, hash_of(TARGET)}:
        return Reason.TOKEN_TARGET
    return Mode.PROOF


AUDIENCES = (CALLEE, URI, "spiffe://example.org/other", "https://ledger.example.org:8443/", "")
MATRIX = list(
    product(
        AUDIENCES,
        (None, X5T, OTHER_X5T, ""),
        (None, "GET", "POST", "get", ""),
        (None, NOW),
        (None, hash_of(TARGET), hash_of(b"/accounts/7"), ""),
    )
)


def test_every_combination_of_claims_has_one_answer() -> None:
    for audience, x5t, htm, iat, th in MATRIX:
        wpt = WorkloadProofToken(audience, NOW + 30, JTI, x5t, htm, iat, th)
        want = expected(audience, x5t, htm, iat, th)
        got = prove(wpt) if isinstance(want, Mode) else refusal(wpt)
        assert got is want, wpt


def test_only_the_two_modes_are_ever_proven() -> None:
    modes = [expected(*row) for row in MATRIX]
    assert modes.count(Mode.BOUND) == 2
    assert modes.count(Mode.PROOF) == 2


def test_a_fresh_proof_relayed_over_another_identity_is_refused() -> None:
    assert refusal(PROOF, peer_x5t=OTHER_X5T) is Reason.TOKEN_BINDING


def test_a_bound_token_over_another_certificate_is_refused() -> None:
    assert refusal(BOUND, peer_x5t=OTHER_X5T) is Reason.TOKEN_BINDING


def test_the_same_proof_with_another_query_is_refused() -> None:
    assert refusal(PROOF, target=b"/accounts/7?since=sunday") is Reason.TOKEN_TARGET
    assert refusal(PROOF, target=b"/accounts/7") is Reason.TOKEN_TARGET
    assert refusal(PROOF, target=b"/accounts/7?") is Reason.TOKEN_TARGET


def test_the_same_proof_with_another_method_is_refused() -> None:
    for method in ("POST", "HEAD", "get", "WS"):
        assert refusal(PROOF, method=method) is Reason.TOKEN_METHOD


def test_the_same_proof_for_another_path_is_refused() -> None:
    uris = {"https://ledger.example.org:8443/accounts/8"}
    assert refusal(PROOF, target_uris=uris) is Reason.TOKEN_AUDIENCE
    assert refusal(PROOF, target_uris=()) is Reason.TOKEN_AUDIENCE


def test_a_lone_text_is_not_searched_for_the_uri() -> None:
    assert refusal(replace(PROOF, audience="https://ledger"), target_uris=URI) is (
        Reason.TOKEN_AUDIENCE
    )
    assert refusal(PROOF, target_uris=URI) is Reason.TOKEN_AUDIENCE


def test_a_proof_lives_a_minute_at_most() -> None:
    assert prove(replace(PROOF, expires_at=NOW + 60)) is Mode.PROOF
    long = replace(PROOF, expires_at=NOW + 61)
    assert refusal(long) is Reason.TOKEN_TOO_LONG_LIVED
    assert refusal(long, now=NOW + 20) is Reason.TOKEN_TOO_LONG_LIVED
    ahead = replace(PROOF, issued_at=NOW + 20, expires_at=NOW + 70)
    assert refusal(ahead) is Reason.TOKEN_TOO_LONG_LIVED
    assert refusal(PROOF, proof_max_lifetime=29) is Reason.TOKEN_TOO_LONG_LIVED


def test_an_old_proof_is_stale_and_may_be_minted_again() -> None:
    lasting = replace(PROOF, expires_at=NOW + 60)
    assert prove(lasting, now=NOW + 30) is Mode.PROOF
    assert refusal(lasting, now=NOW + 31) is Reason.TOKEN_STALE
    assert refusal(lasting, now=NOW + 6, skew=5) is Reason.TOKEN_STALE
    assert Reason.TOKEN_STALE.category is Category.PROOF_STALE


def test_staleness_is_told_only_to_who_proved_everything_else() -> None:
    lasting = replace(PROOF, expires_at=NOW + 60)
    assert refusal(lasting, now=NOW + 31, peer_x5t=OTHER_X5T) is Reason.TOKEN_BINDING
    assert refusal(lasting, now=NOW + 31, method="POST") is Reason.TOKEN_METHOD


def test_the_target_hash_is_over_the_raw_bytes() -> None:
    assert target_hash(TARGET) == hash_of(TARGET)
    assert target_hash(b"/a%20b") != target_hash(b"/a b")
