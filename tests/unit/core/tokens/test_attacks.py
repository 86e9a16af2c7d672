"""Attacks on the bytes, headers, claims and times of tokens; each is one change to a good pair."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.tokens import (
    BUNDLES,
    CALLEE,
    DOMAIN,
    ISSUER,
    ISSUER_KID,
    NOW,
    PARTNER,
    PARTNER_ISSUER,
    SUBJECT,
    URI,
    WORKLOAD,
    hash_of,
    json_with,
    nested,
    seal,
    twin,
    wit_bundle,
    wit_claims,
    wit_header,
    without,
    wpt_claims,
    wpt_header,
)
from zerotrust.core.errors import MalformedError, Reason, TokenRejected
from zerotrust.core.jose import PublicJwk, SigningKey, b64url_decode, b64url_encode, compact
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.core.tokens.wpt import verify_wpt

if TYPE_CHECKING:
    from collections.abc import Mapping

WIT = seal(wit_header(), wit_claims(), ISSUER)
VERIFIED = verify_wit(WIT, BUNDLES, NOW)
WPT = seal(wpt_header(), wpt_claims(WIT), WORKLOAD)
verify_wpt(WPT, VERIFIED, {URI}, NOW)


def wit_refusal(token: str, bundles: BundleSet = BUNDLES, **options: Any) -> Reason:
    with pytest.raises(TokenRejected) as caught:
        verify_wit(token, bundles, NOW, **options)
    return caught.value.reason


def wpt_refusal(token: str) -> Reason:
    with pytest.raises(TokenRejected) as caught:
        verify_wpt(token, VERIFIED, {URI}, NOW)
    return caught.value.reason


def both(
    header: Mapping[str, object], claims: Mapping[str, object] | str | None = None
) -> set[Reason]:
    """The reasons for which a WIT and a WPT with these changes are refused."""
    if isinstance(claims, str):
        wit_body: object = json_with(wit_claims(), claims)
        wpt_body: object = json_with(wpt_claims(WIT), claims)
    else:
        wit_body = wit_claims(**(claims or {}))
        wpt_body = wpt_claims(WIT, **(claims or {}))
    return {
        wit_refusal(seal(wit_header(**header), wit_body, ISSUER)),
        wpt_refusal(seal(wpt_header(**header), wpt_body, WORKLOAD)),
    }


def spoiled(token: str, segment: int, change: Any) -> str:
    parts = token.split(".")
    parts[segment] = change(parts[segment])
    return ".".join(parts)


# --- Token bytes and JOSE header


@pytest.mark.parametrize("alg", ["none", "NoNe", "NONE", ""])
def test_an_unsecured_token_is_refused(alg: str) -> None:
    for header, claims, refusal in (
        (wit_header(alg=alg), wit_claims(), wit_refusal),
        (wpt_header(alg=alg), wpt_claims(WIT), wpt_refusal),
    ):
        signed = seal(header, claims, ISSUER)
        assert refusal(signed) is Reason.TOKEN_ALGORITHM
        assert refusal(signed.rpartition(".")[0] + ".") is Reason.TOKEN_ALGORITHM


@pytest.mark.parametrize(
    "secret",
    [
        ISSUER.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ISSUER.public.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        ISSUER.public.key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(ISSUER.public.as_dict()).encode(),
        b"",
    ],
    ids=["PEM", "DER", "SSH", "JWK", "empty"],
)
def test_a_public_key_is_no_hmac_secret(secret: bytes) -> None:
    import hashlib
    import hmac

    for alg, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        signed = seal(wit_header(alg=alg), wit_claims(), ISSUER).rpartition(".")[0]
        mac = hmac.new(secret, signed.encode(), digest).digest()
        assert wit_refusal(f"{signed}.{b64url_encode(mac)}") is Reason.TOKEN_ALGORITHM


@pytest.mark.parametrize("alg", ["ES384", "EdDSA", "Ed25519", "RS256", "PS256"])
def test_an_allowed_algorithm_that_is_not_the_keys_is_refused(alg: str) -> None:
    assert both({"alg": alg}) == {Reason.TOKEN_ALGORITHM}


def test_no_key_means_refused_and_never_a_default() -> None:
    assert wit_refusal(WIT, BundleSet([])) is Reason.TOKEN_ORIGIN
    assert wit_refusal(WIT, BundleSet([wit_bundle(DOMAIN, {})])) is Reason.TOKEN_UNKNOWN_KEY


def test_the_key_in_a_header_is_not_used() -> None:
    attacker = SigningKey.generate()
    header = {"jwk": attacker.public.as_dict()}
    assert wit_refusal(seal(wit_header(**header), wit_claims(), attacker)) is Reason.TOKEN_HEADER
    assert both(header) == {Reason.TOKEN_HEADER}


@pytest.mark.parametrize("name", ["jku", "x5u"])
@pytest.mark.parametrize(
    "url", ["https://evil.example/jwks", "file:///etc/passwd", "data:application/json,{}"]
)
def test_a_key_address_in_a_header_is_refused(name: str, url: str) -> None:
    assert both({name: url}) == {Reason.TOKEN_HEADER}


@pytest.mark.parametrize("name", ["x5c", "x5t", "x5t#S256", "cty", "zip", "enc", "epk", "p2c"])
def test_any_other_member_in_a_header_is_refused(name: str) -> None:
    assert both({name: "x"}) == {Reason.TOKEN_HEADER}


@pytest.mark.parametrize(
    "kid",
    ["../../../dev/null", "' OR 1=1 --", "*)(uid=*", "$(id)", ISSUER_KID + " ", ISSUER_KID[:-1]],
    ids=["path", "sql", "ldap", "shell", "longer", "shorter"],
)
def test_a_kid_is_a_name_and_never_a_path_or_query(kid: str) -> None:
    assert wit_refusal(seal(wit_header(kid=kid), wit_claims(), ISSUER)) is Reason.TOKEN_UNKNOWN_KEY


@pytest.mark.parametrize("kid", [0, 1.0, True, None, [ISSUER_KID], {"a": 1}, "a\0", "ключ"])
def test_a_kid_that_is_no_printable_text_is_refused(kid: object) -> None:
    assert wit_refusal(seal(wit_header(kid=kid), wit_claims(), ISSUER)) is Reason.TOKEN_HEADER


def test_unknown_kids_reach_no_key_and_no_network() -> None:
    with mock.patch.object(compact, "verify_bytes", side_effect=AssertionError):
        for number in range(100):
            token = seal(wit_header(kid=str(number)), wit_claims(), ISSUER)
            assert wit_refusal(token) is Reason.TOKEN_UNKNOWN_KEY


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["x", "y"], [""], [1]])
def test_a_critical_extension_is_refused(crit: list[object]) -> None:
    assert both({"crit": crit, "b64": True}) == {Reason.TOKEN_CRITICAL}


@pytest.mark.parametrize("crit", [[], "b64", None, {}])
def test_a_crit_that_is_no_filled_list_is_refused(crit: object) -> None:
    assert both({"crit": crit}) == {Reason.TOKEN_MALFORMED}


def test_an_unencoded_payload_is_refused() -> None:
    assert both({"b64": False}) == {Reason.TOKEN_HEADER}
    assert both({"b64": False, "crit": ["b64"]}) == {Reason.TOKEN_CRITICAL}


def test_a_detached_payload_is_refused() -> None:
    assert wit_refusal(spoiled(WIT, 1, lambda _: "")) is Reason.TOKEN_MALFORMED


def test_other_serialisations_are_refused() -> None:
    header, claims, signature = WIT.split(".")
    flat = {"protected": header, "payload": claims, "signature": signature}
    general = {"payload": claims, "signatures": [{"protected": header, "signature": signature}]}
    for token in (json.dumps(flat), json.dumps(general), f"{WIT}.AA.AA", WIT.replace(".", "..")):
        assert wit_refusal(token) is Reason.TOKEN_MALFORMED


def test_an_encrypted_token_is_refused() -> None:
    jwe = ".".join([b64url_encode(b'{"alg":"dir","enc":"A256GCM"}'), "", "AA", "AA", "AA"])
    assert wit_refusal(jwe) is Reason.TOKEN_MALFORMED
    assert both({"alg": "PBES2-HS256+A128KW", "p2c": 2**31}) == {Reason.TOKEN_ALGORITHM}


def test_a_nested_token_is_refused() -> None:
    assert wit_refusal(seal(wit_header(cty="JWT"), WIT, ISSUER)) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "token",
    ["a" * 4097, "." * 1_000_000, f"{WIT}{'A' * 4096}", "A" * 1_000_000],
    ids=["one over", "dots", "long signature", "a million"],
)
def test_a_huge_token_is_refused_before_it_is_looked_at(token: str) -> None:
    with mock.patch.object(compact, "verify_bytes", side_effect=AssertionError):
        assert wit_refusal(token) is Reason.TOKEN_TOO_LARGE
        assert wpt_refusal(token) is Reason.TOKEN_TOO_LARGE


def test_a_payload_as_large_as_fits_costs_nothing_more_than_its_size() -> None:
    claims = json_with(wit_claims(), '"a":"' + "x" * 3000 + '"')
    assert wit_refusal(seal(wit_header(), claims, ISSUER)) is Reason.TOKEN_TOO_LARGE


@pytest.mark.parametrize("levels", [8, 9, 100, 1000])
def test_deep_json_is_a_refusal_and_no_crash(levels: int) -> None:
    assert both({}, f'"a":{nested(levels)}') == {Reason.TOKEN_MALFORMED}


def test_an_integer_of_thousands_of_digits_is_a_refusal_and_no_crash() -> None:
    claims = json_with({"sub": str(SUBJECT)}, '"a":' + "9" * 2500)
    assert wit_refusal(seal(wit_header(), claims, ISSUER)) in {
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_CLAIM_MISSING,
    }


def test_a_claim_that_occurs_twice_is_refused() -> None:
    for extra in ('"exp":1', '"\\u0065xp":1', '"cnf":{}', '"x":{"a":1,"a":1}'):
        assert both({}, extra) == {Reason.TOKEN_MALFORMED}


def test_a_header_member_that_occurs_twice_is_refused() -> None:
    for extra in ('"alg":"none"', '"\\u0061lg":"ES256"'):
        header = json_with(wit_header(), extra)
        assert wit_refusal(seal(header, wit_claims(), ISSUER)) is Reason.TOKEN_MALFORMED


def test_a_member_that_occurs_twice_in_the_key_is_refused() -> None:
    key = json_with(WORKLOAD.public.as_dict(), '"alg":"ES256"')
    claims = json_with(without(wit_claims(), "cnf"), f'"cnf":{{"jwk":{key}}}')
    assert wit_refusal(seal(wit_header(), claims, ISSUER)) is Reason.TOKEN_MALFORMED


def _spare_bits(segment: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text + "=" * (-len(text) % 4 or 4), id="padding"),
        pytest.param(lambda text: text[:8] + "\n" + text[8:], id="line feed inside"),
        pytest.param(lambda text: text + "\n", id="line feed behind"),
        pytest.param(lambda text: " " + text, id="space"),
        pytest.param(lambda text: text[:5] + "+" + text[6:], id="plus"),
        pytest.param(lambda text: text[:5] + "/" + text[6:], id="slash"),
        pytest.param(lambda text: text[:5] + "é" + text[6:], id="not ASCII"),
    ],
)
@pytest.mark.parametrize("segment", [0, 1, 2])
def test_base64_that_is_not_canonical_is_refused(segment: int, change: Any) -> None:
    assert wit_refusal(spoiled(WIT, segment, change)) is Reason.TOKEN_MALFORMED
    assert wpt_refusal(spoiled(WPT, segment, change)) is Reason.TOKEN_MALFORMED


def test_spare_bits_are_refused() -> None:
    assert len(WIT.split(".")[2]) % 4 == 2  # 64 bytes leave four spare bits
    token = spoiled(WIT, 2, _spare_bits)
    assert b64url_decode(WIT.split(".")[2]) != b""
    assert wit_refusal(token) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_claims_in_another_encoding_are_refused(encoding: str) -> None:
    claims = json.dumps({"sub": str(SUBJECT), "exp": NOW + 60}).encode(encoding)
    assert wit_refusal(seal(wit_header(), claims, ISSUER)) is Reason.TOKEN_MALFORMED


def test_invalid_utf8_and_lone_surrogates_are_refused() -> None:
    body = json.dumps(wit_claims())[:-1].encode()
    for extra in (b',"a":"\xff"}', b',"a":"\xc0\xaf"}', b',"a":"\\ud800"}', b',"\\udc00":1}'):
        assert wit_refusal(seal(wit_header(), body + extra, ISSUER)) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "signature", [bytes(64), b"\xff" * 64], ids=["psychic", "beyond the order"]
)
def test_an_ecdsa_signature_of_special_values_is_refused(signature: bytes) -> None:
    for token, refusal in ((WIT, wit_refusal), (WPT, wpt_refusal)):
        forged = spoiled(token, 2, lambda _: b64url_encode(signature))
        assert refusal(forged) is Reason.TOKEN_SIGNATURE


def test_a_signature_in_der_or_of_another_length_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    raw = b64url_decode(WIT.split(".")[2])
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    for signature in (der, raw + b"\0", raw[:-1], b"\0" + raw, b"", raw * 2):
        forged = spoiled(WIT, 2, lambda _, new=signature: b64url_encode(new))
        assert wit_refusal(forged) is Reason.TOKEN_MALFORMED


def test_the_twin_of_a_signature_says_the_same_and_keeps_its_jti() -> None:
    other = twin(WPT)
    assert other != WPT
    assert verify_wpt(other, VERIFIED, {URI}, NOW) == verify_wpt(WPT, VERIFIED, {URI}, NOW)


def test_the_twin_of_a_wit_is_another_wit_to_its_proofs() -> None:
    verified = verify_wit(twin(WIT), BUNDLES, NOW)
    with pytest.raises(TokenRejected) as caught:
        verify_wpt(WPT, verified, {URI}, NOW)
    assert caught.value.reason is Reason.TOKEN_WIT_BINDING


def _confirming(**jwk: object) -> str:
    return seal(wit_header(), wit_claims(cnf={"jwk": jwk}), ISSUER)


P256 = WORKLOAD.public.as_dict()
ED = SigningKey.generate("EdDSA").public.as_dict()


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(P256 | {"y": P256["x"]}, id="off the curve"),
        pytest.param(P256 | {"x": P256["x"] + "AA"}, id="too long"),
        pytest.param(P256 | {"crv": "P-192"}, id="a weak curve"),
        pytest.param(ED | {"x": b64url_encode(bytes(32))}, id="low order"),
        pytest.param(ED | {"x": b64url_encode(b"\xff" * 32)}, id="not canonical"),
        pytest.param(ED | {"x": b64url_encode(bytes(31))}, id="31 bytes"),
        pytest.param({"kty": "RSA", "alg": "RS256", "e": "AQ", "n": "_w"}, id="RSA with e = 1"),
        pytest.param(
            {"kty": "RSA", "alg": "RS256", "e": "AQAB", "n": b64url_encode(b"\xff" * 256)},
            id="RSA at all",
        ),
        pytest.param({"kty": "oct", "alg": "HS256", "k": "AAAA"}, id="symmetric"),
        pytest.param(P256 | {"d": "AAAA"}, id="private"),
        pytest.param(P256 | {"alg": "ECDH-ES"}, id="for encryption"),
        pytest.param(P256 | {"use": "enc"}, id="use for encryption"),
        pytest.param(P256 | {"key_ops": ["deriveBits"]}, id="key_ops for agreement"),
        pytest.param(P256 | {"kty": "OKP"}, id="kty of another kind"),
    ],
)
def test_a_key_that_cannot_prove_anything_is_not_confirmed(jwk: dict[str, object]) -> None:
    assert wit_refusal(_confirming(**jwk)) is Reason.TOKEN_CONFIRMATION


def test_an_oversize_key_is_refused_before_it_is_built() -> None:
    oversize = {"kty": "RSA", "alg": "RS256", "e": "AQAB", "n": b64url_encode(b"\xff" * 2000)}
    with mock.patch.object(rsa, "RSAPublicNumbers", side_effect=AssertionError):
        assert wit_refusal(_confirming(**oversize)) is Reason.TOKEN_CONFIRMATION
        with pytest.raises(MalformedError):
            PublicJwk.parse(oversize, allow_rsa=True)


# --- Claims and time


@pytest.mark.parametrize(
    "exp",
    ['"1800000060"', "1800000060.5", "1.80000006e9", "true", "null", "[]", "{}", "0", "-1", '""'],
)
def test_an_exp_that_is_no_positive_integer_is_refused(exp: str) -> None:
    for name, claims, refusal, header, key in (
        ("wit", wit_claims(), wit_refusal, wit_header(), ISSUER),
        ("wpt", wpt_claims(WIT), wpt_refusal, wpt_header(), WORKLOAD),
    ):
        body = json_with(without(claims, "exp"), f'"exp":{exp}')
        assert refusal(seal(header, body, key)) is Reason.TOKEN_CLAIM, name


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_an_exp_that_is_no_number_is_refused(exp: str) -> None:
    body = json_with(without(wit_claims(), "exp"), f'"exp":{exp}')
    assert wit_refusal(seal(wit_header(), body, ISSUER)) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("exp", [NOW + 100 * 365 * 86_400, 2**53, 10**18, 10**30])
def test_an_exp_in_the_far_future_is_refused(exp: int) -> None:
    assert both({}, {"exp": exp}) == {Reason.TOKEN_TOO_LONG_LIVED}


def test_a_token_without_exp_is_refused() -> None:
    wit = seal(wit_header(), without(wit_claims(), "exp"), ISSUER)
    wpt = seal(wpt_header(), without(wpt_claims(WIT), "exp"), WORKLOAD)
    assert {wit_refusal(wit), wpt_refusal(wpt)} == {Reason.TOKEN_CLAIM_MISSING}


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_from_the_future_is_refused(name: str) -> None:
    assert both({}, {name: NOW + 31}) == {Reason.TOKEN_NOT_YET_VALID}
    assert both({}, {name: str(NOW)}) == {Reason.TOKEN_CLAIM}


def test_skew_is_never_added_to_the_end_of_a_life() -> None:
    expired = seal(wit_header(), wit_claims(exp=NOW), ISSUER)
    assert wit_refusal(expired) is Reason.TOKEN_EXPIRED
    long = seal(wit_header(), wit_claims(exp=NOW + 86_401), ISSUER)
    assert wit_refusal(long) is Reason.TOKEN_TOO_LONG_LIVED


@pytest.mark.parametrize("aud", [[URI], [URI, "https://evil.example/"], {"a": URI}, None, 1])
def test_an_audience_that_is_not_one_text_is_refused(aud: object) -> None:
    assert wpt_refusal(seal(wpt_header(), wpt_claims(WIT, aud=aud), WORKLOAD)) is Reason.TOKEN_CLAIM


@pytest.mark.parametrize(
    "aud",
    [
        URI[:-1],
        URI + "/",
        URI + "7",
        URI + "?since=monday",
        URI + "#a",
        URI.upper(),
        URI.replace("https", "http"),
        URI.replace(":8443", ""),
        URI.replace(":8443", ":443"),
        URI.replace("ledger", "LEDGER"),
        URI.replace("example.org", "example.org.evil.example"),
        URI.replace("ledger", "evil@ledger"),
        URI.replace("/accounts", "//accounts"),
        URI.replace("accounts", "%61ccounts"),
        f" {URI}",
        f"{URI}\0",
        CALLEE,
    ],
)
def test_an_audience_that_only_resembles_ours_is_refused(aud: str) -> None:
    token = seal(wpt_header(), wpt_claims(WIT, aud=aud), WORKLOAD)
    assert wpt_refusal(token) is Reason.TOKEN_AUDIENCE


@pytest.mark.parametrize("value", [1, 1.5, True, None, [], {}, ["spiffe://example.org/web"]])
def test_names_of_another_type_are_refused(value: object) -> None:
    for name, reason in (
        ("sub", Reason.TOKEN_SUBJECT),
        ("iss", Reason.TOKEN_CLAIM),
        ("jti", Reason.TOKEN_CLAIM),
    ):
        assert wit_refusal(seal(wit_header(), wit_claims(**{name: value}), ISSUER)) is reason


def test_names_of_any_length_are_refused() -> None:
    for name, longest in (("iss", 2048), ("jti", 256)):
        fits = seal(wit_header(), wit_claims(**{name: "a" * longest}), ISSUER)
        assert verify_wit(fits, BUNDLES, NOW)
        token = seal(wit_header(), wit_claims(**{name: "a" * (longest + 1)}), ISSUER)
        assert wit_refusal(token) is Reason.TOKEN_CLAIM


@pytest.mark.parametrize(
    "iss", ["spiffe", "spiffe://example", "spiffe://example.org.evil", "SPIFFE://EXAMPLE.ORG", "s"]
)
def test_an_issuer_that_only_resembles_the_configured_one_is_refused(iss: str) -> None:
    token = seal(wit_header(), wit_claims(iss=iss), ISSUER)
    assert wit_refusal(token, issuers={DOMAIN: str(DOMAIN)}) is Reason.TOKEN_ISSUER


@pytest.mark.parametrize(
    "typ",
    ["JWT", "jwt", "at+jwt", "txntoken+jwt", "secevent+jwt", "dpop+jwt", "jose", "WIT+JWT", None],
)
def test_a_token_of_another_type_is_refused(typ: str | None) -> None:
    assert both({"typ": typ}) == {Reason.TOKEN_TYPE}
    assert wit_refusal(seal(wit_header(typ="wpt+jwt"), wit_claims(), ISSUER)) is Reason.TOKEN_TYPE
    token = seal(wpt_header(typ="wit+jwt"), wpt_claims(WIT), WORKLOAD)
    assert wpt_refusal(token) is Reason.TOKEN_TYPE


def test_a_token_without_a_type_is_refused() -> None:
    assert wit_refusal(seal(without(wit_header(), "typ"), wit_claims(), ISSUER)) is (
        Reason.TOKEN_TYPE
    )
    assert wpt_refusal(seal({"alg": "ES256"}, wpt_claims(WIT), WORKLOAD)) is Reason.TOKEN_TYPE


def test_a_partner_does_not_name_our_workloads() -> None:
    header = wit_header(kid=PARTNER_ISSUER.public.thumbprint)
    assert wit_refusal(seal(header, wit_claims(), PARTNER_ISSUER)) is Reason.TOKEN_UNKNOWN_KEY
    claims = wit_claims(iss=str(PARTNER))
    assert wit_refusal(seal(header, claims, PARTNER_ISSUER)) is Reason.TOKEN_UNKNOWN_KEY


def test_a_partner_with_our_kid_does_not_name_our_workloads() -> None:
    bundles = BundleSet(
        [
            wit_bundle(DOMAIN, {ISSUER_KID: ISSUER.public}),
            wit_bundle(PARTNER, {ISSUER_KID: PARTNER_ISSUER.public}),
        ]
    )
    forged = seal(wit_header(), wit_claims(), PARTNER_ISSUER)
    assert wit_refusal(forged, bundles) is Reason.TOKEN_SIGNATURE
    ours = seal(wit_header(), wit_claims(sub=str(PARTNER.id("web"))), ISSUER)
    assert wit_refusal(ours, bundles) is Reason.TOKEN_SIGNATURE


def test_the_same_authority_under_another_scheme_is_another_origin() -> None:
    token = seal(wit_header(), wit_claims(sub="wimse://example.org/web"), ISSUER)
    assert wit_refusal(token) is Reason.TOKEN_ORIGIN


@pytest.mark.parametrize(
    "sub",
    [
        "",
        "web",
        "spiffe://example.org",
        "spiffe://example.org/",
        "SPIFFE://example.org/web",
        "spiffe://EXAMPLE.org/web",
        "spiffe://example.org/%77eb",
        "spiffe://example.org/a/%2e%2e/web",
        "spiffe://example.org/a/../web",
        "spiffe://example.org/./web",
        "spiffe://example.org//web",
        "spiffe://example.org/web/",
        "spiffe://example.org/web\0",
        "spiffe://example.org/web\n",
        "spiffe://evil@example.org/web",
        "spiffe://example.org:443/web",
        "spiffe://example.org/web?a",
        "spiffe://example.org/web#a",
        "spiffe://example.org/wеb",  # noqa: RUF001 - the letter is the attack
        "spiffe://[::1]/web",
        "https://example.org/web",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_a_subject_that_is_not_canonical_is_refused(sub: str) -> None:
    token = seal(wit_header(), wit_claims(sub=sub), ISSUER)
    assert wit_refusal(token) is Reason.TOKEN_SUBJECT


# --- Binding


def test_a_proof_taken_to_another_wit_of_the_same_key_is_refused() -> None:
    other = verify_wit(seal(wit_header(), wit_claims(exp=NOW + 60), ISSUER), BUNDLES, NOW)
    with pytest.raises(TokenRejected) as caught:
        verify_wpt(WPT, other, {URI}, NOW)
    assert caught.value.reason is Reason.TOKEN_WIT_BINDING


def test_a_proof_taken_to_the_wit_of_a_neighbour_is_refused() -> None:
    key = SigningKey.generate()
    claims = wit_claims(sub="spiffe://example.org/neighbour", cnf={"jwk": key.public.as_dict()})
    neighbour = verify_wit(seal(wit_header(), claims, ISSUER), BUNDLES, NOW)
    with pytest.raises(TokenRejected) as caught:
        verify_wpt(WPT, neighbour, {URI}, NOW)
    assert caught.value.reason is Reason.TOKEN_SIGNATURE
    assert hash_of(WIT) == VERIFIED.hash
