from __future__ import annotations

from typing import Any

import pytest

from support.tokens import nested, seal, without
from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.jose import (
    CompactJws,
    PublicJwk,
    SigningKey,
    b64url_encode,
    parse_compact,
    require_header,
    sign_compact,
    verify_signature,
)
from zerotrust.core.jose.compact import _parse_header

KEY = SigningKey.generate()
MEMBERS = ("alg", "typ", "kid")
GOOD = {"alg": "ES256", "typ": "x+jwt", "kid": "a"}


def refusal(token: str) -> Reason:
    with pytest.raises(TokenRejected) as caught:
        parse_compact(token)
    assert not token or token[:40] not in str(caught.value)
    return caught.value.reason


def test_a_signed_token_is_parsed_held_against_the_list_and_verified() -> None:
    token = sign_compact({"typ": "x+jwt", "kid": "a"}, {"sub": "é", "n": 1}, KEY)
    jws = parse_compact(token)
    assert (jws.header, jws.claims) == (GOOD, {"sub": "é", "n": 1})
    assert jws.signing_input == token.rpartition(".")[0].encode()
    require_header(jws, typ="x+jwt", algs=("ES256",), members=MEMBERS)
    require_header(jws, typ="x+jwt", algs=("ES256",), members=frozenset(MEMBERS))
    verify_signature(jws, KEY.public)


def test_the_algorithm_of_a_signed_token_is_always_the_keys() -> None:
    jws = parse_compact(sign_compact({"alg": "none"}, {}, KEY))
    assert jws.header == {"alg": "ES256"}


def test_a_number_that_is_not_json_is_not_signed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        sign_compact({}, {"exp": float("nan")}, KEY)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="nothing"),
        pytest.param("e30.e30", id="two segments"),
        pytest.param("e30.e30.AA.AA", id="four segments"),
        pytest.param("." * 4000, id="four thousand dots"),
        pytest.param("..", id="three empty segments"),
        pytest.param("e30..AA", id="no payload"),
        pytest.param(".e30.AA", id="no header"),
        pytest.param("e30.e30.A", id="an impossible signature"),
        pytest.param("e30.e30.AA==", id="padding"),
        pytest.param(" e30.e30.AA", id="a space in front"),
        pytest.param("e30.e30.AA\n", id="a line feed behind"),
        pytest.param("e30.e30.Aé", id="not ASCII"),
        pytest.param('{"protected":"e30","payload":"e30","signature":"AA"}', id="JSON form"),
        pytest.param("e30.e30.AA, e30.e30.AA", id="a list"),
        pytest.param("W10.e30.AA", id="a header that is an array"),
        pytest.param("e30.W10.AA", id="a payload that is an array"),
        pytest.param("e30.Zm9v.AA", id="a payload that is not JSON"),
        pytest.param(f"{b64url_encode(nested(50).encode())}.e30.AA", id="deep"),
    ],
)
def test_what_is_not_three_canonical_segments_of_json_is_malformed(token: str) -> None:
    assert refusal(token) is Reason.TOKEN_MALFORMED


def test_a_token_over_the_limit_is_refused_before_it_is_split() -> None:
    fits = f"e30.{b64url_encode(b'{' + b' ' * 3060 + b'}')}.AA"
    assert parse_compact(fits, max_bytes=len(fits)).claims == {}
    with pytest.raises(TokenRejected) as caught:
        parse_compact(fits, max_bytes=len(fits) - 1)
    assert caught.value.reason is Reason.TOKEN_TOO_LARGE
    assert refusal("a" * 1_000_000) is Reason.TOKEN_TOO_LARGE


def header_refusal(header: dict[str, Any]) -> Reason:
    jws = CompactJws(header, {}, b"", b"")
    with pytest.raises(TokenRejected) as caught:
        require_header(jws, typ="x+jwt", algs=("ES256", "EdDSA"), members=MEMBERS)
    return caught.value.reason


@pytest.mark.parametrize(
    "alg", ["none", "NoNe", "HS256", "es256", "ES384", "Ed25519", "", None, 1, ["ES256"], {}]
)
def test_an_algorithm_that_is_not_on_the_list_is_refused_first(alg: object) -> None:
    header = GOOD | {"alg": alg, "crit": ["x"], "jwk": {}, "typ": "JWT"}
    assert header_refusal(header) is Reason.TOKEN_ALGORITHM


def test_a_header_without_alg_is_refused() -> None:
    assert header_refusal({"typ": "x+jwt", "kid": "a"}) is Reason.TOKEN_ALGORITHM


@pytest.mark.parametrize("crit", [[], {}, "x", None, 1])
def test_a_crit_that_is_no_filled_list_is_malformed(crit: object) -> None:
    assert header_refusal(GOOD | {"crit": crit}) is Reason.TOKEN_MALFORMED


def test_any_critical_extension_is_refused() -> None:
    for crit in (["x"], ["b64"], ["exp"]):
        assert header_refusal(GOOD | {"crit": crit}) is Reason.TOKEN_CRITICAL


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "x5t#S256", "b64", "cty", "zip"])
def test_a_header_member_that_is_not_ours_is_refused(name: str) -> None:
    assert header_refusal(GOOD | {name: "x"}) is Reason.TOKEN_HEADER


@pytest.mark.parametrize(
    "typ", ["JWT", "X+JWT", "application/x+jwt", "x+jwt ", "", None, ["x+jwt"]]
)
def test_another_type_is_refused(typ: object) -> None:
    assert header_refusal(GOOD | {"typ": typ}) is Reason.TOKEN_TYPE


def test_a_header_without_type_or_kid_is_refused() -> None:
    assert header_refusal({"alg": "ES256", "kid": "a"}) is Reason.TOKEN_TYPE
    assert header_refusal({"alg": "ES256", "typ": "x+jwt"}) is Reason.TOKEN_HEADER


def test_a_token_of_another_key_does_not_verify() -> None:
    jws = parse_compact(seal(GOOD, {}, SigningKey.generate()))
    with pytest.raises(TokenRejected) as caught:
        verify_signature(jws, KEY.public)
    assert caught.value.reason is Reason.TOKEN_SIGNATURE


@pytest.mark.parametrize("alg", [None, ["ES256"], "none", "ES384"])
def test_the_header_never_chooses_the_algorithm(alg: object) -> None:
    bare = PublicJwk.parse(without(KEY.public.as_dict(), "alg"))
    for header in ({"alg": alg}, {}):
        jws = parse_compact(seal(header, {}, KEY))
        for key in (KEY.public, bare):
            with pytest.raises(TokenRejected) as caught:
                verify_signature(jws, key)
            assert caught.value.reason is Reason.TOKEN_ALGORITHM


def test_an_unverified_token_is_not_shown() -> None:
    token = sign_compact({}, {"sub": "spiffe://example.org/web"}, KEY)
    assert repr(parse_compact(token)) == "CompactJws(unverified)"


def test_remembered_headers_are_bounded_and_read_only() -> None:
    for number in range(1000):
        parse_compact(seal({"alg": "ES256", "kid": str(number)}, {}, KEY))
    info = _parse_header.cache_info()
    assert info.maxsize is not None
    assert info.currsize <= info.maxsize <= 256
    jws = parse_compact(seal(GOOD, {}, KEY))
    with pytest.raises(TypeError):
        jws.header["alg"] = "none"  # type: ignore[index]
