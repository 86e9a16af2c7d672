"""Any change of a single character of a WIT or WPT is refused, and any claims are judged."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tokens import (
    BUNDLES,
    CALLEE,
    ISSUER,
    NOW,
    TARGET,
    URI,
    WORKLOAD,
    X5T,
    seal,
    twin,
    wit_claims,
    wit_header,
    wpt_claims,
    wpt_header,
)
from zerotrust.core.errors import TokenRejected
from zerotrust.core.mode import Mode
from zerotrust.core.tokens.binding import prove_mode
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.core.tokens.wpt import verify_wpt

WIT = seal(wit_header(), wit_claims(), ISSUER)
VERIFIED = verify_wit(WIT, BUNDLES, NOW)
WPT = seal(wpt_header(), wpt_claims(WIT), WORKLOAD)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
OTHERS = st.sampled_from(ALPHABET + ".=+/ \n\0é")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=9), SCALARS)


def changes(token: str) -> st.SearchStrategy[str]:
    positions = st.integers(0, len(token) - 1)
    swapped = st.tuples(positions, OTHERS).map(
        lambda at: token[: at[0]] + at[1] + token[at[0] + 1 :]
    )
    dropped = positions.map(lambda at: token[:at] + token[at + 1 :])
    added = st.tuples(positions, OTHERS).map(lambda at: token[: at[0]] + at[1] + token[at[0] :])
    return (swapped | dropped | added).filter(lambda text: text not in {token, twin(token)})


@given(changes(WIT))
def test_a_wit_with_one_character_changed_is_refused(token: str) -> None:
    with pytest.raises(TokenRejected):
        verify_wit(token, BUNDLES, NOW)


@given(changes(WPT))
def test_a_wpt_with_one_character_changed_is_refused(token: str) -> None:
    with pytest.raises(TokenRejected):
        verify_wpt(token, VERIFIED, {URI}, NOW)


@pytest.mark.parametrize("token", [WIT, WPT], ids=["wit", "wpt"])
def test_every_single_bit_of_every_character_counts(token: str) -> None:
    for position, char in enumerate(token):
        for bit in range(7):
            changed = token[:position] + chr(ord(char) ^ 1 << bit) + token[position + 1 :]
            with pytest.raises(TokenRejected):
                verify_wit(changed, BUNDLES, NOW)
            with pytest.raises(TokenRejected):
                verify_wpt(changed, VERIFIED, {URI}, NOW)


@given(st.dictionaries(st.sampled_from(["sub", "exp", "iat", "nbf", "aud", "cnf", "iss"]), VALUES))
def test_whatever_the_claims_a_wit_is_verified_or_refused(changed: dict[str, Any]) -> None:
    token = _sealed(wit_header(), wit_claims(**changed), ISSUER)
    try:
        wit = verify_wit(token, BUNDLES, NOW)
    except TokenRejected:
        return
    assert NOW < wit.expires_at <= NOW + 86_400
    assert (wit.subject, wit.key) == (VERIFIED.subject, VERIFIED.key)
    _oracle(token, ISSUER.public.key, None)


@given(
    st.dictionaries(
        st.sampled_from(["aud", "exp", "iat", "nbf", "jti", "wth", "tth", "oth", "cnf", "htm"]),
        VALUES,
    ),
    st.sampled_from([URI, CALLEE]),
)
def test_whatever_the_claims_a_wpt_is_verified_or_refused(
    changed: dict[str, Any], audience: str
) -> None:
    token = _sealed(wpt_header(), wpt_claims(WIT, aud=audience) | changed, WORKLOAD)
    try:
        wpt = verify_wpt(token, VERIFIED, {URI, CALLEE}, NOW)
        mode = prove_mode(
            wpt,
            own_id=CALLEE,
            target_uris={URI},
            method="GET",
            target=TARGET,
            peer_x5t=X5T,
            now=NOW,
        )
    except TokenRejected:
        return
    assert wpt.x5t == X5T
    assert (mode is Mode.PROOF) is (wpt.audience == URI)
    _oracle(token, WORKLOAD.public.key, wpt.audience)


@given(st.text(max_size=60))
def test_whatever_the_text_nothing_else_than_a_refusal_comes_out(text: str) -> None:
    with pytest.raises(TokenRejected):
        verify_wit(text, BUNDLES, NOW)
    with pytest.raises(TokenRejected):
        verify_wpt(text, VERIFIED, {URI}, NOW)


def _sealed(header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:
    return seal(header, claims, key)


def _oracle(token: str, key: Any, audience: str | None) -> None:
    """PyJWT, asked for as much as it can check, must accept it too."""
    jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience=audience,
        options={
            "require": ["exp"],
            "strict_aud": audience is not None,
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
            "verify_aud": audience is not None,
        },
    )
