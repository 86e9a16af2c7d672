"""Project Wycheproof: signatures and keys as far as we accept their kind.

Its payloads are no JSON objects, so that the segments are judged one by one here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.vectors import shared_json
from zerotrust.core.errors import ZeroTrustError
from zerotrust.core.jose import PublicJwk, b64url_decode
from zerotrust.core.jose.encoding import parse_claims
from zerotrust.core.jose.keys import verify_bytes

FILES = ("json_web_signature_test", "json_web_crypto_test", "json_web_key_test")
KINDS = {"EC", "RSA", "OKP"}
# Valid there, refused here, and why.
STRICTER = {"P-521": "not on the list of curves", "oct": "no symmetric keys"}
OTHER_ALG = {346, 350}  # PS384 under a key that says PS256


def cases() -> list[Any]:
    rows = []
    for name in FILES:
        for group in shared_json(f"wycheproof/{name}.json")["testGroups"]:
            key = group.get("public") or group.get("private")
            keys = key.get("keys", [key])
            for test in group["tests"]:
                if "jws" in test:
                    label = f"{name}-{test['tcId']}-{test['comment']}"
                    rows.append(pytest.param(keys, test, id=label))
    return rows


def accepts(keys: list[dict[str, Any]], token: str) -> bool:
    """As a bundle would: read every key, then verify under the one with the token's kid."""
    header_text, _, rest = token.partition(".")
    claims, _, signature = rest.partition(".")
    try:
        parsed = [(jwk.get("kid"), PublicJwk.parse(jwk, allow_rsa=True)) for jwk in keys]
        header = parse_claims(b64url_decode(header_text))
        b64url_decode(claims)
        if not header.keys() <= {"alg", "typ", "kid"} or not isinstance(header.get("alg"), str):
            return False
        (key,) = (key for kid, key in parsed if len(parsed) == 1 or kid == header.get("kid"))
        signed = f"{header_text}.{claims}".encode()
        verify_bytes(signed, b64url_decode(signature), key, header["alg"])
    except (ZeroTrustError, UnicodeError):
        return False
    return True


@pytest.mark.parametrize(("keys", "test"), cases())
def test_wycheproof(keys: list[dict[str, Any]], test: dict[str, Any]) -> None:
    strict = any(jwk.get("crv") in STRICTER or jwk.get("kty") in STRICTER for jwk in keys)
    strict |= test["comment"] == "Figure20" and test["tcId"] in OTHER_ALG
    token = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
    assert accepts(keys, token) is (test["result"] == "valid" and not strict)
