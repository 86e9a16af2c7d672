"""What we accept, others accept and read alike; what they read in two ways, we refuse."""

from __future__ import annotations

import base64
import json
import math
from functools import partial
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey, OKPKey

from support.tokens import seal
from zerotrust.core.errors import MalformedError, TokenRejected
from zerotrust.core.jose import (
    PublicJwk,
    SigningKey,
    b64url_decode,
    b64url_encode,
    parse_compact,
    parse_json_object,
    verify_signature,
)
from zerotrust.core.jose.encoding import parse_claims

KEYS = {alg: SigningKey.generate(alg) for alg in ("ES256", "ES384", "EdDSA")}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), JSON, max_size=5)
SMALL = OBJECTS.filter(lambda value: _depth(value) <= 8)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0


@given(st.binary(max_size=200))
def test_base64url_returns_what_it_was_given(data: bytes) -> None:
    text = b64url_encode(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert b64url_decode(text) == data


@given(st.text(st.sampled_from("ABQgwxyz019-_+/=\n é*"), max_size=12) | st.text(max_size=12))
@example("AB")
@example("AAB")
def test_only_one_text_stands_for_the_same_bytes(text: str) -> None:
    try:
        data = b64url_decode(text)
    except MalformedError:
        return
    assert b64url_encode(data) == text


@given(SMALL)
def test_a_json_object_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert parse_json_object(text, max_bytes=10_000) == value
        assert parse_json_object(text.encode(), max_bytes=10_000) == value
        assert parse_claims(text.encode()) == value


@given(st.binary(max_size=60) | st.text('{}[]",:\\ue019nulNaN.-+ \n', max_size=40).map(str.encode))
def test_whatever_the_bytes_json_is_an_object_or_refused(data: bytes) -> None:
    bounded = partial(parse_json_object, max_bytes=1000)
    for parse in (bounded, parse_claims):
        try:
            value = parse(data)
        except MalformedError:
            continue
        assert value == json.loads(data.decode())
        assert all(math.isfinite(leaf) for leaf in value.values() if isinstance(leaf, float))
        json.dumps(value, ensure_ascii=False).encode()


@given(OBJECTS.filter(bool), st.data())
def test_a_member_given_twice_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    spelled = "".join(f"\\u{unit:04x}" for unit in _utf16(name))
    for again in (json.dumps(name), f'"{spelled}"'):
        text = json.dumps(value)[:-1] + f",{again}:0}}"
        with pytest.raises(MalformedError):
            parse_json_object(text, max_bytes=10_000)


def _utf16(text: str) -> list[int]:
    raw = text.encode("utf-16-be")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


@given(st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_=-]*(\.[A-Za-z0-9_=-]*){0,4}"))
def test_whatever_the_text_a_token_is_parsed_or_refused(text: str) -> None:
    try:
        jws = parse_compact(text)
    except TokenRejected:
        return
    assert text.encode() == jws.signing_input + b"." + b64url_encode(jws.signature).encode()


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@given(st.sampled_from(sorted(KEYS)), SMALL)
def test_pyjwt_and_joserfc_accept_what_we_accept(alg: str, claims: dict[str, Any]) -> None:
    key = KEYS[alg]
    token = seal({"alg": alg, "typ": "x+jwt"}, claims, key)
    jws = parse_compact(token, max_bytes=1 << 16)  # the bound on length is tested elsewhere
    verify_signature(jws, key.public)
    theirs = jwt.PyJWS().decode_complete(token, key.public.key, algorithms=[alg])
    assert json.loads(theirs["payload"]) == jws.claims
    assert theirs["header"] == jws.header
    assert json.loads(_joserfc(token, alg)) == jws.claims


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@given(st.sampled_from(sorted(KEYS)), st.binary(max_size=100), st.data())
def test_a_signature_that_we_accept_is_accepted_by_others(
    alg: str, claims: bytes, data: st.DataObject
) -> None:
    """Bytes and signatures at random: the others may accept more than we do, never less."""
    key = KEYS[alg]
    token = seal({"alg": alg}, data.draw(st.sampled_from([claims, b"{}"])), key)
    position = data.draw(st.integers(0, len(token)))
    token = token[:position] + data.draw(st.sampled_from(["", "A", "=", "."])) + token[position:]
    try:
        verify_signature(parse_compact(token), key.public)
    except TokenRejected:
        return
    jwt.PyJWS().decode_complete(token, key.public.key, algorithms=[alg])
    _joserfc(token, alg)


def _joserfc(token: str, alg: str) -> bytes:
    jwk: dict[str, str | list[str]] = {
        name: text for name, text in KEYS[alg].public.as_dict().items() if name != "alg"
    }
    key = OKPKey.import_key(jwk) if alg == "EdDSA" else ECKey.import_key(jwk)
    return joserfc_jws.deserialize_compact(token, key, algorithms=[alg]).payload


@given(st.sampled_from(sorted(KEYS)), st.data())
def test_a_key_with_one_character_changed_is_another_key_or_none(
    alg: str, data: st.DataObject
) -> None:
    jwk = KEYS[alg].public.as_dict()
    name = data.draw(st.sampled_from(["x", "y"] if "y" in jwk else ["x"]))
    position = data.draw(st.integers(0, len(jwk[name]) - 1))
    char = data.draw(st.sampled_from("ABab09-_"))
    changed = jwk[name][:position] + char + jwk[name][position + 1 :]
    try:
        key = PublicJwk.parse(jwk | {name: changed})
    except MalformedError:
        return
    assert (key == KEYS[alg].public) is (changed == jwk[name])


@given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use"]), JSON))
def test_whatever_the_members_a_jwk_is_a_key_or_refused(jwk: dict[str, Any]) -> None:
    try:
        PublicJwk.parse(jwk, allow_rsa=True)
    except MalformedError:
        return
    pytest.fail("random members make no key")
