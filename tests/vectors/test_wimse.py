from __future__ import annotations

from typing import Any

import pytest

from support.vectors import ACCEPTED, HTTP_LEVEL, REASONS, shared_json, wimse_bundles
from zerotrust.core.errors import TokenRejected
from zerotrust.core.jose import PublicJwk
from zerotrust.core.tokens.wit import WorkloadIdentityToken, verify_wit
from zerotrust.core.tokens.wpt import WorkloadProofToken, verify_wpt

VECTORS: Any = shared_json("wimse.json")
BUNDLES = wimse_bundles(VECTORS)
GOOD = VECTORS["wit_wpt_02"]
NOW = GOOD["verify_now"]
WIT_CASES = VECTORS["derived_negative"]["wit"]
WPT_CASES = VECTORS["derived_negative"]["wpt"]


def verified_wit(token: str = GOOD["wit"]) -> WorkloadIdentityToken:
    return verify_wit(token, BUNDLES, NOW, skew=0)


def verified_wpt(case: Any) -> WorkloadProofToken:
    added = dict(case.get("context", {}).get("add_headers", ()))
    return verify_wpt(
        case["wpt"],
        verified_wit(),
        {GOOD["request"]["target_uri"]},
        NOW,
        skew=0,
        txn_token=added.get("Txn-Token"),
    )


def test_the_positive_of_wpt_02_is_accepted() -> None:
    wit = verified_wit()
    assert str(wit.subject) == "wimse://example.com/specific-workload"
    wpt = verified_wpt(GOOD)
    claims = GOOD["wpt_claims"]
    assert (wpt.audience, wpt.expires_at, wpt.jti) == (claims["aud"], claims["exp"], claims["jti"])
    assert claims["wth"] == wit.hash


def test_the_tokens_of_wpt_01_differ_in_nothing_that_is_signed() -> None:
    earlier = VECTORS["wit_wpt_01"]
    assert earlier["wit"] == GOOD["wit"]
    assert verified_wpt(earlier) == verified_wpt(GOOD)


@pytest.mark.parametrize("case", WIT_CASES, ids=lambda case: case["id"])
def test_a_spoiled_wit_is_refused_for_its_own_reason(case: Any) -> None:
    if case["expect"] in ACCEPTED:
        assert verified_wit(case["wit"]).subject == verified_wit().subject
        assert verified_wit(case["wit"]).hash != verified_wit().hash
        return
    with pytest.raises(TokenRejected) as caught:
        verified_wit(case["wit"])
    assert caught.value.reason in REASONS[case["expect"]]


@pytest.mark.parametrize(
    "case",
    [case for case in WPT_CASES if case["id"] not in HTTP_LEVEL],
    ids=lambda case: case["id"],
)
def test_a_spoiled_wpt_is_refused_for_its_own_reason(case: Any) -> None:
    if case["expect"] in ACCEPTED:
        assert verified_wpt(case) == verified_wpt(GOOD)
        return
    with pytest.raises(TokenRejected) as caught:
        verified_wpt(case)
    assert caught.value.reason in REASONS[case["expect"]]


@pytest.mark.parametrize("name", ["comma-joined", "host-header-lies"])
def test_what_lies_in_the_tokens_of_an_http_case_is_refused_here_too(name: str) -> None:
    case = next(case for case in WPT_CASES if case["id"] == name)
    with pytest.raises(TokenRejected) as caught:
        verified_wpt(case)
    assert caught.value.reason in REASONS[case["expect"]]


def test_every_case_is_run_here_or_named_for_the_request() -> None:
    names = {case["id"] for case in WPT_CASES}
    assert names > HTTP_LEVEL
    known = REASONS.keys() | ACCEPTED
    assert {case["expect"] for case in WIT_CASES + WPT_CASES} <= known


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS["related_rfc_vectors"] if "jkt" in vector],
    ids=lambda vector: vector["spec"],
)
def test_thumbprints_are_those_of_the_rfcs(vector: Any) -> None:
    assert PublicJwk.parse(vector["jwk"], allow_rsa=True).thumbprint == vector["jkt"]
