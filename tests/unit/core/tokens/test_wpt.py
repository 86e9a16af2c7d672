from __future__ import annotations

import pickle
from typing import Any

import pytest

from support.tokens import (
    BUNDLES,
    CALLEE,
    DOMAIN,
    ISSUER,
    JTI,
    NOW,
    SUBJECT,
    TARGET,
    URI,
    WORKLOAD,
    X5T,
    hash_of,
    seal,
    without,
    wpt_claims,
    wpt_header,
)
from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.jose import PublicJwk, SigningKey, parse_compact
from zerotrust.core.tokens.wit import WorkloadIdentityToken, mint_wit, verify_wit
from zerotrust.core.tokens.wpt import WorkloadProofToken, mint_bound, mint_proof, verify_wpt


def minted_wit(key: SigningKey = WORKLOAD, expires_at: int = NOW + 3600) -> str:
    return mint_wit(
        subject=SUBJECT,
        key=key.public,
        issuer_key=ISSUER,
        issued_at=NOW,
        expires_at=expires_at,
        jti=JTI,
    )


WIT = minted_wit()
VERIFIED = verify_wit(WIT, BUNDLES, NOW)
OTHERS = {"x-user-token": "abc.def", "x-device": " d "}


def accepted(claims: object, **options: Any) -> WorkloadProofToken:
    return verify_wpt(seal(wpt_header(), claims, WORKLOAD), VERIFIED, {URI}, NOW, **options)


def refusal(token: str, wit: WorkloadIdentityToken = VERIFIED, **options: Any) -> Reason:
    audiences = options.pop("audiences", {URI, CALLEE})
    with pytest.raises(TokenRejected) as caught:
        verify_wpt(token, wit, audiences, options.pop("now", NOW), **options)
    assert token not in str(caught.value)
    return caught.value.reason


def claims_refusal(claims: object, **options: Any) -> Reason:
    return refusal(seal(wpt_header(), claims, WORKLOAD), **options)


def test_a_minted_bound_token_verifies_to_what_it_says() -> None:
    token = mint_bound(
        wit=WIT, key=WORKLOAD, audience=CALLEE, x5t=X5T, expires_at=NOW + 120, jti=JTI
    )
    wpt = verify_wpt(token, VERIFIED, {CALLEE}, NOW)
    assert wpt == WorkloadProofToken(CALLEE, NOW + 120, JTI, X5T, None, None, None)
    assert parse_compact(token).header == {"typ": "wpt+jwt", "alg": "ES256"}


def test_a_minted_proof_verifies_to_what_it_says() -> None:
    token = mint_proof(
        wit=WIT,
        key=WORKLOAD,
        audience=URI,
        method="GET",
        target=TARGET,
        x5t=X5T,
        issued_at=NOW,
        expires_at=NOW + 30,
        jti=JTI,
    )
    wpt = verify_wpt(token, VERIFIED, {URI}, NOW)
    assert wpt == WorkloadProofToken(URI, NOW + 30, JTI, X5T, "GET", NOW, hash_of(TARGET))


def test_the_tokens_that_are_minted_for_are_covered() -> None:
    cases: tuple[tuple[Any, dict[str, Any]], ...] = (
        (mint_bound, {}),
        (mint_proof, {"method": "GET", "target": TARGET, "issued_at": NOW}),
    )
    for mint, more in cases:
        token = mint(
            wit=WIT,
            key=WORKLOAD,
            audience=URI,
            x5t=X5T,
            expires_at=NOW + 30,
            jti=JTI,
            txn_token="t.x.n",
            other_tokens=OTHERS,
            **more,
        )
        assert verify_wpt(token, VERIFIED, {URI}, NOW, txn_token="t.x.n", other_tokens=OTHERS)
        trimmed = {"x-user-token": "\tabc.def ", "x-device": "d"}
        assert verify_wpt(token, VERIFIED, {URI}, NOW, txn_token="t.x.n", other_tokens=trimmed)
        assert refusal(token) is Reason.TOKEN_OTHER_BINDING


def test_a_wpt_needs_no_more_than_aud_exp_jti_and_wth() -> None:
    claims = without(wpt_claims(WIT), "iat", "htm", "cnf", "zerotrust-kit/target")
    assert accepted(claims) == WorkloadProofToken(URI, NOW + 30, JTI, None, None, None, None)


def test_unknown_claims_are_ignored() -> None:
    assert accepted(wpt_claims(WIT, ath="x", iss="me", scope=["a"]))


@pytest.mark.parametrize("name", ["aud", "exp", "jti", "wth"])
def test_a_missing_claim_is_named_as_such(name: str) -> None:
    assert claims_refusal(without(wpt_claims(WIT), name)) is Reason.TOKEN_CLAIM_MISSING


@pytest.mark.parametrize("value", [None, 1, [], {}, "", True])
@pytest.mark.parametrize("name", ["aud", "jti", "wth", "htm", "zerotrust-kit/target", "tth"])
def test_a_text_claim_of_another_type_is_refused(name: str, value: object) -> None:
    assert claims_refusal(wpt_claims(WIT, **{name: value})) is Reason.TOKEN_CLAIM


def test_a_text_claim_of_any_length_is_not_kept() -> None:
    assert claims_refusal(wpt_claims(WIT, jti="a" * 257)) is Reason.TOKEN_CLAIM
    assert accepted(wpt_claims(WIT, jti="a" * 256))


def test_a_token_under_another_key_than_the_wits_is_refused() -> None:
    token = seal(wpt_header(), wpt_claims(WIT), SigningKey.generate())
    assert refusal(token) is Reason.TOKEN_SIGNATURE


def test_the_algorithm_is_exactly_the_one_the_wit_names() -> None:
    for named, used in (("EdDSA", "Ed25519"), ("Ed25519", "EdDSA")):
        key = SigningKey.generate(named)
        wit = minted_wit(key)
        verified = verify_wit(wit, BUNDLES, NOW)
        good = seal(wpt_header(alg=named), wpt_claims(wit), key)
        assert verify_wpt(good, verified, {URI}, NOW)
        other = seal(wpt_header(alg=used), wpt_claims(wit), key)
        assert refusal(other, wit=verified) is Reason.TOKEN_ALGORITHM


def test_a_wit_whose_key_names_no_algorithm_proves_nothing() -> None:
    jwk = PublicJwk.parse(without(WORKLOAD.public.as_dict(), "alg"))
    wit = WorkloadIdentityToken(SUBJECT, "k", NOW + 60, None, None, jwk, hash_of(WIT))
    token = seal(wpt_header(), wpt_claims(WIT), WORKLOAD)
    assert refusal(token, wit=wit) is Reason.TOKEN_ALGORITHM


def test_a_kid_has_no_place_in_a_wpt() -> None:
    token = seal(wpt_header(kid="a"), wpt_claims(WIT), WORKLOAD)
    assert refusal(token) is Reason.TOKEN_HEADER


def test_no_audience_means_nobody() -> None:
    token = seal(wpt_header(), wpt_claims(WIT), WORKLOAD)
    nobody: tuple[Any, ...] = ((), [], frozenset(), "")
    for audiences in nobody:
        assert refusal(token, audiences=audiences) is Reason.TOKEN_AUDIENCE


def test_a_lone_text_is_not_searched_for_the_audience() -> None:
    token = seal(wpt_header(), wpt_claims(WIT, aud="https://ledger"), WORKLOAD)
    assert refusal(token, audiences=URI) is Reason.TOKEN_AUDIENCE


def test_expiry_is_exact_and_the_lifetime_capped() -> None:
    token = seal(wpt_header(), wpt_claims(WIT, exp=NOW + 300), WORKLOAD)
    assert verify_wpt(token, VERIFIED, {URI}, NOW)
    assert verify_wpt(token, VERIFIED, {URI}, NOW + 299.9)
    assert refusal(token, now=NOW + 300) is Reason.TOKEN_EXPIRED
    assert refusal(token, now=NOW - 0.5) is Reason.TOKEN_TOO_LONG_LIVED
    assert refusal(token, max_lifetime=60) is Reason.TOKEN_TOO_LONG_LIVED


def test_a_remembered_wit_does_not_outlive_itself() -> None:
    wit = minted_wit(expires_at=NOW + 10)
    verified = verify_wit(wit, BUNDLES, NOW)
    token = seal(wpt_header(), wpt_claims(wit), WORKLOAD)
    assert verify_wpt(token, verified, {URI}, NOW + 9)
    assert refusal(token, wit=verified, now=NOW + 10) is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_from_the_future_is_refused(name: str) -> None:
    assert accepted(wpt_claims(WIT, **{name: NOW + 30}))
    assert claims_refusal(wpt_claims(WIT, **{name: NOW + 31})) is Reason.TOKEN_NOT_YET_VALID


def test_a_token_for_another_wit_is_refused() -> None:
    other = minted_wit(expires_at=NOW + 3601)
    assert claims_refusal(wpt_claims(other)) is Reason.TOKEN_WIT_BINDING


def test_a_txn_token_and_its_hash_come_together_or_not_at_all() -> None:
    covered = wpt_claims(WIT, tth=hash_of("t.x.n"))
    assert accepted(covered, txn_token="t.x.n")
    bare = wpt_claims(WIT)
    assert claims_refusal(bare, txn_token="t.x.n") is Reason.TOKEN_OTHER_BINDING
    assert claims_refusal(covered) is Reason.TOKEN_OTHER_BINDING
    assert claims_refusal(covered, txn_token="t.x.m") is Reason.TOKEN_OTHER_BINDING
    assert claims_refusal(covered, txn_token="") is Reason.TOKEN_OTHER_BINDING
    assert claims_refusal(covered, txn_token="é") is Reason.TOKEN_MALFORMED


def test_other_tokens_and_their_hashes_are_the_same_set() -> None:
    both = {"x-user-token": hash_of("abc.def"), "x-device": hash_of("d")}
    one = {"x-user-token": both["x-user-token"]}
    assert accepted(wpt_claims(WIT, oth=both), other_tokens=OTHERS)
    assert accepted(wpt_claims(WIT, oth={}))
    assert accepted(wpt_claims(WIT), other_tokens={})
    for oth in ({}, one, both | {"x-more": hash_of("m")}, both | {"x-device": hash_of("e")}):
        claims = wpt_claims(WIT, oth=oth)
        assert claims_refusal(claims, other_tokens=OTHERS) is Reason.TOKEN_OTHER_BINDING
    assert claims_refusal(wpt_claims(WIT), other_tokens=OTHERS) is Reason.TOKEN_OTHER_BINDING
    assert claims_refusal(wpt_claims(WIT, oth=one)) is Reason.TOKEN_OTHER_BINDING
    capital = {"X-User-Token": both["x-user-token"]}
    header = {"x-user-token": "abc.def"}
    claims = wpt_claims(WIT, oth=capital)
    assert claims_refusal(claims, other_tokens=header) is Reason.TOKEN_OTHER_BINDING


@pytest.mark.parametrize("oth", ["x", [], None, 1])
def test_other_hashes_that_are_no_object_are_refused(oth: object) -> None:
    assert claims_refusal(wpt_claims(WIT, oth=oth)) is Reason.TOKEN_CLAIM


CONFIRMATIONS: list[object] = [
    None,
    [],
    {},
    "x",
    {"jkt": "x"},
    {"x5t#S256": 1},
    {"x5t#S256": X5T, "jkt": "x"},
]


@pytest.mark.parametrize("cnf", CONFIRMATIONS)
def test_a_confirmation_that_would_go_unchecked_is_refused(cnf: object) -> None:
    assert claims_refusal(wpt_claims(WIT, cnf=cnf)) is Reason.TOKEN_CONFIRMATION


def test_a_verified_token_shows_little_and_stays_in_its_process() -> None:
    wpt = accepted(wpt_claims(WIT))
    assert repr(VERIFIED) == f"WorkloadIdentityToken({SUBJECT}, expires_at={NOW + 3600})"
    assert repr(wpt) == f"WorkloadProofToken(for '{URI}', expires_at={NOW + 30})"
    for token in (VERIFIED, wpt):
        with pytest.raises(TypeError):
            pickle.dumps(token)


def test_a_wit_is_no_wpt_and_a_wpt_is_no_wit() -> None:
    assert refusal(WIT) is Reason.TOKEN_HEADER
    token = seal(wpt_header(), wpt_claims(WIT), WORKLOAD)
    with pytest.raises(TokenRejected) as caught:
        verify_wit(token, BUNDLES, NOW)
    assert caught.value.reason is Reason.TOKEN_TYPE
    assert VERIFIED.subject.trust_domain == DOMAIN
