from __future__ import annotations

from typing import Any

import pytest

from support.tokens import (
    BUNDLES,
    DOMAIN,
    ISSUER,
    ISSUER_KID,
    JTI,
    NOW,
    PARTNER,
    PARTNER_ISSUER,
    SUBJECT,
    WORKLOAD,
    hash_of,
    seal,
    wit_bundle,
    wit_claims,
    wit_header,
    without,
)
from zerotrust.core.errors import MalformedError, Reason, TokenRejected
from zerotrust.core.jose import PublicJwk, SigningKey
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.tokens.wit import mint_wit, verify_wit


def refusal(token: str, now: float = NOW, **options: Any) -> Reason:
    with pytest.raises(TokenRejected) as caught:
        verify_wit(token, options.pop("bundles", BUNDLES), now, **options)
    assert token not in str(caught.value)
    return caught.value.reason


def claims_refusal(claims: object, **options: Any) -> Reason:
    return refusal(seal(wit_header(), claims, ISSUER), **options)


def test_a_minted_wit_verifies_to_what_it_says() -> None:
    token = mint_wit(
        subject=SUBJECT,
        key=WORKLOAD.public,
        issuer_key=ISSUER,
        issued_at=NOW,
        expires_at=NOW + 900,
        jti=JTI,
    )
    wit = verify_wit(token, BUNDLES, NOW, issuers={DOMAIN: "spiffe://example.org"})
    assert (wit.subject, wit.kid, wit.key) == (SUBJECT, ISSUER_KID, WORKLOAD.public)
    assert (wit.issued_at, wit.expires_at, wit.jti) == (NOW, NOW + 900, JTI)
    assert wit.hash == hash_of(token)


def test_a_wit_needs_no_more_than_sub_exp_and_cnf() -> None:
    wit = verify_wit(
        seal(wit_header(), without(wit_claims(), "iss", "iat", "jti"), ISSUER), BUNDLES, NOW
    )
    assert (wit.issued_at, wit.jti) == (None, None)


def test_unknown_claims_are_ignored() -> None:
    assert verify_wit(seal(wit_header(), wit_claims(scope="x", a={"b": [1]}), ISSUER), BUNDLES, NOW)


def test_a_wit_is_not_minted_for_a_key_without_its_algorithm() -> None:
    jwk = PublicJwk.parse(without(WORKLOAD.public.as_dict(), "alg"))
    with pytest.raises(MalformedError):
        mint_wit(
            subject=SUBJECT,
            key=jwk,
            issuer_key=ISSUER,
            issued_at=NOW,
            expires_at=NOW + 900,
            jti=JTI,
        )


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "Ed25519"])
def test_every_listed_kind_of_issuer_key_works_with_its_own_algorithm(alg: str) -> None:
    issuer = SigningKey.generate(alg)
    bundles = BundleSet([wit_bundle(DOMAIN, {"k": issuer.public})])
    token = seal(wit_header(alg=alg, kid="k"), wit_claims(), issuer)
    assert verify_wit(token, bundles, NOW).subject == SUBJECT


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "Ed25519"])
def test_every_listed_kind_of_workload_key_can_be_confirmed(alg: str) -> None:
    jwk = SigningKey.generate(alg).public
    token = seal(wit_header(), wit_claims(cnf={"jwk": jwk.as_dict()}), ISSUER)
    assert verify_wit(token, BUNDLES, NOW).key == jwk


@pytest.mark.parametrize("name", ["sub", "exp", "cnf"])
def test_a_missing_claim_is_named_as_such(name: str) -> None:
    assert claims_refusal(without(wit_claims(), name)) is Reason.TOKEN_CLAIM_MISSING


@pytest.mark.parametrize("kid", [None, 1, "", "a" * 129, "ä", "a\n", ["a"], {}])
def test_a_kid_that_is_no_printable_ascii_text_is_refused(kid: object) -> None:
    token = seal(wit_header(kid=kid), wit_claims(), ISSUER)
    assert refusal(token) is Reason.TOKEN_HEADER


def test_a_wit_without_kid_is_refused() -> None:
    token = seal(without(wit_header(), "kid"), wit_claims(), ISSUER)
    assert refusal(token) is Reason.TOKEN_HEADER


def test_a_kid_is_looked_up_among_the_keys_of_the_subjects_own_origin() -> None:
    foreign = PARTNER_ISSUER.public.thumbprint
    token = seal(wit_header(kid=foreign), wit_claims(), PARTNER_ISSUER)
    assert refusal(token) is Reason.TOKEN_UNKNOWN_KEY
    mine = seal(wit_header(kid=foreign), wit_claims(sub=str(PARTNER.id("web"))), PARTNER_ISSUER)
    assert verify_wit(mine, BUNDLES, NOW).subject.trust_domain == PARTNER


def test_a_domain_without_a_bundle_or_without_keys_verifies_nobody() -> None:
    token = seal(wit_header(), wit_claims(), ISSUER)
    assert refusal(token, bundles=BundleSet([])) is Reason.TOKEN_ORIGIN
    empty = BundleSet([wit_bundle(DOMAIN, {})])
    assert refusal(token, bundles=empty) is Reason.TOKEN_UNKNOWN_KEY


def test_expiry_is_exact() -> None:
    token = seal(wit_header(), wit_claims(exp=NOW + 100), ISSUER)
    assert verify_wit(token, BUNDLES, NOW + 99.9)
    assert refusal(token, now=NOW + 100) is Reason.TOKEN_EXPIRED
    assert refusal(token, now=NOW + 100, skew=1000) is Reason.TOKEN_EXPIRED


def test_the_lifetime_is_capped_from_now_without_skew() -> None:
    token = seal(wit_header(), wit_claims(exp=NOW + 86_400), ISSUER)
    assert verify_wit(token, BUNDLES, NOW)
    assert refusal(token, now=NOW - 1) is Reason.TOKEN_TOO_LONG_LIVED
    assert refusal(token, max_lifetime=3600) is Reason.TOKEN_TOO_LONG_LIVED
    assert refusal(token, max_lifetime=float("nan")) is Reason.TOKEN_TOO_LONG_LIVED


def test_even_without_a_cap_exp_is_a_number_that_others_read_alike() -> None:
    token = seal(wit_header(), wit_claims(exp=2**53), ISSUER)
    assert refusal(token, max_lifetime=float("inf")) is Reason.TOKEN_TOO_LONG_LIVED


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_iat_and_nbf_may_lie_ahead_by_the_skew_and_no_more(name: str) -> None:
    assert verify_wit(seal(wit_header(), wit_claims(**{name: NOW + 30}), ISSUER), BUNDLES, NOW)
    assert claims_refusal(wit_claims(**{name: NOW + 31})) is Reason.TOKEN_NOT_YET_VALID
    assert claims_refusal(wit_claims(**{name: NOW + 1}), skew=0) is Reason.TOKEN_NOT_YET_VALID


@pytest.mark.parametrize("value", ["1", 1.5, True, None, [], 0, -1, 2**53])
@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_iat_and_nbf_are_positive_integers(name: str, value: object) -> None:
    assert claims_refusal(wit_claims(**{name: value})) is Reason.TOKEN_CLAIM


def test_a_configured_issuer_must_be_present_and_equal() -> None:
    issuers = {DOMAIN: "spiffe://example.org"}
    for claims in (
        without(wit_claims(), "iss"),
        wit_claims(iss="spiffe://example.or"),
        wit_claims(iss="spiffe://example.org/"),
        wit_claims(iss="spiffe://partner.example"),
    ):
        assert claims_refusal(claims, issuers=issuers) is Reason.TOKEN_ISSUER
    assert verify_wit(seal(wit_header(), wit_claims(), ISSUER), BUNDLES, NOW, issuers=issuers)


def test_another_domains_issuer_says_nothing_about_ours() -> None:
    issuers = {PARTNER: "https://issuer.partner.example"}
    assert verify_wit(seal(wit_header(), wit_claims(), ISSUER), BUNDLES, NOW, issuers=issuers)


@pytest.mark.parametrize("aud", ["x", [], None, "spiffe://example.org/ledger"])
def test_a_wit_with_an_audience_is_refused(aud: object) -> None:
    assert claims_refusal(wit_claims(aud=aud)) is Reason.TOKEN_AUDIENCE


CONFIRMATIONS = [
    pytest.param(None, id="null"),
    pytest.param([], id="an array"),
    pytest.param({}, id="nothing"),
    pytest.param({"jwk": None}, id="a null key"),
    pytest.param({"jwk": []}, id="a list of keys"),
    pytest.param({"jkt": WORKLOAD.public.thumbprint}, id="a thumbprint"),
    pytest.param({"jwk": WORKLOAD.public.as_dict(), "jku": "https://x"}, id="a second method"),
    pytest.param({"jwk": without(WORKLOAD.public.as_dict(), "alg")}, id="no alg"),
    pytest.param({"jwk": WORKLOAD.public.as_dict() | {"alg": "HS256"}}, id="a symmetric alg"),
    pytest.param({"jwk": WORKLOAD.public.as_dict() | {"d": "AA"}}, id="a private key"),
    pytest.param({"jwk": {"kty": "oct", "k": "AAAA", "alg": "HS256"}}, id="a symmetric key"),
    pytest.param({"jwk": {"kty": "RSA", "e": "AQAB", "n": "AA", "alg": "RS256"}}, id="RSA"),
]


@pytest.mark.parametrize("cnf", CONFIRMATIONS)
def test_a_confirmation_that_is_not_one_public_key_is_refused(cnf: object) -> None:
    assert claims_refusal(wit_claims(cnf=cnf)) is Reason.TOKEN_CONFIRMATION
