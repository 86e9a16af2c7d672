from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from zerotrust.core.errors import MalformedError, Reason, TokenRejected
from zerotrust.core.jose import PublicJwk, SigningKey, b64url_decode, b64url_encode
from zerotrust.core.jose.keys import verify_bytes

P256 = SigningKey.generate("ES256").public.as_dict()
P384 = SigningKey.generate("ES384").public.as_dict()
ED = SigningKey.generate("EdDSA").public.as_dict()
_RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA = {
    "kty": "RSA",
    "e": "AQAB",
    "n": b64url_encode(_RSA_KEY.public_key().public_numbers().n.to_bytes(256, "big")),
}
P = 2**255 - 19


def test_a_key_of_each_accepted_kind_is_read_and_written_alike() -> None:
    for jwk, kty, alg in (
        (P256, "EC", "ES256"),
        (P384, "EC", "ES384"),
        (ED, "OKP", "EdDSA"),
    ):
        key = PublicJwk.parse(jwk)
        assert (key.kty, key.alg, key.as_dict()) == (kty, alg, jwk)
        assert PublicJwk.parse(key.as_dict()) == key


def test_rsa_is_accepted_where_the_caller_says_so() -> None:
    assert PublicJwk.parse(RSA, allow_rsa=True).as_dict() == RSA
    with pytest.raises(MalformedError):
        PublicJwk.parse(RSA)


@pytest.mark.parametrize("key", [P256, P384, ED])
def test_a_key_without_alg_has_the_algorithms_of_its_kind(key: dict[str, str]) -> None:
    parsed = PublicJwk.parse({name: key[name] for name in key if name != "alg"})
    assert parsed.alg is None
    assert "alg" not in parsed.as_dict()
    assert key["alg"] in parsed.algorithms


def test_thumbprints_are_those_of_the_rfcs() -> None:
    okp = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert PublicJwk.parse(okp).thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    p256 = {
        "kty": "EC",
        "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    }
    assert PublicJwk.parse(p256).thumbprint == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_other_members_do_not_make_another_key() -> None:
    assert PublicJwk.parse(P256 | {"kid": "a", "use": "sig", "key_ops": ["verify"]}) == (
        PublicJwk.parse(P256)
    )


REFUSED = [
    pytest.param(P256 | {"d": "AA"}, id="a private EC key"),
    pytest.param(ED | {"d": "AA"}, id="a private OKP key"),
    pytest.param(RSA | {"p": "AA"}, id="a prime of RSA"),
    pytest.param(P256 | {"k": "AA"}, id="a symmetric member beside a point"),
    pytest.param({"kty": "oct", "k": "AAAA"}, id="a symmetric key"),
    pytest.param({"kty": "oct", "alg": "HS256"}, id="a symmetric key without its secret"),
    pytest.param({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}, id="an unknown kind"),
    pytest.param({}, id="nothing"),
    pytest.param(P256 | {"kty": ["EC"]}, id="kty of another type"),
    pytest.param(P256 | {"crv": "P-384"}, id="coordinates of another curve"),
    pytest.param(P256 | {"crv": "P-521"}, id="a curve that is not on the list"),
    pytest.param(P256 | {"crv": "secp256k1"}, id="a curve of another family"),
    pytest.param(P256 | {"crv": ["P-256"]}, id="crv of another type"),
    pytest.param(ED | {"crv": "Ed448"}, id="Ed448"),
    pytest.param(ED | {"crv": "X25519"}, id="a curve for key agreement"),
    pytest.param(P256 | {"x": 1}, id="a coordinate of another type"),
    pytest.param(P256 | {"y": P256["y"] + "="}, id="a padded coordinate"),
    pytest.param(P256 | {"x": P256["x"][:-4]}, id="a short coordinate"),
    pytest.param(P256 | {"x": b64url_encode(b"\0" + bytes(32))}, id="a long coordinate"),
    pytest.param(P256 | {"y": P256["x"]}, id="a point off the curve"),
    pytest.param(P256 | {"x": b64url_encode(bytes(32)), "y": b64url_encode(bytes(32))}, id="zero"),
    pytest.param({name: P256[name] for name in ("kty", "crv", "x")}, id="a missing coordinate"),
    pytest.param(ED | {"x": ED["x"][:-4]}, id="a short OKP coordinate"),
    pytest.param(
        ED | {"x": b64url_encode(b64url_decode(ED["x"]) + b"\0")}, id="a long OKP coordinate"
    ),
    pytest.param(P256 | {"alg": "ES384"}, id="the algorithm of another curve"),
    pytest.param(P256 | {"alg": "EdDSA"}, id="the algorithm of another kind"),
    pytest.param(P256 | {"alg": "none"}, id="no algorithm"),
    pytest.param(P256 | {"alg": "HS256"}, id="a symmetric algorithm"),
    pytest.param(P256 | {"alg": None}, id="a null algorithm"),
    pytest.param(P256 | {"alg": ["ES256"]}, id="a list of algorithms"),
    pytest.param(P256 | {"use": "enc"}, id="use for encryption"),
    pytest.param(P256 | {"use": 1}, id="use of another type"),
    pytest.param(P256 | {"key_ops": ["encrypt"]}, id="key_ops for encryption"),
    pytest.param(P256 | {"key_ops": ["verify", "sign"]}, id="key_ops for more"),
    pytest.param(P256 | {"key_ops": []}, id="key_ops for nothing"),
    pytest.param(RSA | {"e": "AQ"}, id="RSA with e = 1"),
    pytest.param(RSA | {"e": "Aw"}, id="RSA with e = 3"),
    pytest.param(RSA | {"e": "AAEAAQ"}, id="RSA with a long e"),
    pytest.param(RSA | {"n": b64url_encode(b"\xff" * 128)}, id="RSA of 1024 bits"),
    pytest.param(RSA | {"n": b64url_encode(b"\x7f" + b"\xff" * 255)}, id="RSA of 2047 bits"),
    pytest.param(RSA | {"n": b64url_encode(b"\xff" * 513)}, id="RSA of 4104 bits"),
    pytest.param(RSA | {"n": b64url_encode(b"\0" + b"\xff" * 256)}, id="RSA with a zero octet"),
    pytest.param(RSA | {"n": b64url_encode(b"\xff" * 255 + b"\xfe")}, id="RSA with an even n"),
    pytest.param(RSA | {"alg": "ES256"}, id="RSA with an algorithm of EC"),
]


@pytest.mark.parametrize("jwk", REFUSED)
def test_a_key_with_one_fault_is_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        PublicJwk.parse(jwk, allow_rsa=True)
    assert caught.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize(("bits", "beyond"), [(2048, 2047), (4096, 4097)])
def test_an_rsa_key_at_a_limit_is_accepted_and_one_bit_beyond_is_refused(
    bits: int, beyond: int
) -> None:
    def jwk(length: int) -> dict[str, str]:
        modulus = (1 << (length - 1)) + 12345
        return RSA | {"n": b64url_encode(modulus.to_bytes((length + 7) // 8, "big"))}

    assert PublicJwk.parse(jwk(bits), allow_rsa=True).kty == "RSA"
    with pytest.raises(MalformedError):
        PublicJwk.parse(jwk(beyond), allow_rsa=True)


def test_an_rsa_key_of_the_roca_family_is_refused() -> None:
    period = math.prod((11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157))
    family = pow(65537, 5, period) + (2**2047 // period + 1) * period
    modulus = family if family % 2 else family + period
    for n, spoiled in ((modulus, True), (modulus + 2, False)):
        jwk = RSA | {"n": b64url_encode(n.to_bytes(256, "big"))}
        if not spoiled:
            assert PublicJwk.parse(jwk, allow_rsa=True).kty == "RSA"
            continue
        with pytest.raises(MalformedError, match="ROCA"):
            PublicJwk.parse(jwk, allow_rsa=True)


def _low_order() -> list[bytes]:
    eighth = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
    other = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    ys = [int.from_bytes(eighth, "little"), int.from_bytes(other, "little"), 0, 1, P - 1]
    signs = (0, 1 << 255)
    return [(y | sign).to_bytes(32, "little") for y in (*ys, P, P + 1) for sign in signs]


@pytest.mark.parametrize("point", _low_order(), ids=bytes.hex)
def test_an_ed25519_point_of_low_order_is_refused(point: bytes) -> None:
    with pytest.raises(MalformedError, match="low order"):
        PublicJwk.parse(ED | {"x": b64url_encode(point)})


def test_an_ed25519_value_off_the_curve_is_refused() -> None:
    with pytest.raises(MalformedError, match="curve"):
        PublicJwk.parse(ED | {"x": b64url_encode((2).to_bytes(32, "little"))})


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "Ed25519"])
def test_a_signing_key_signs_what_its_public_half_verifies(alg: str) -> None:
    key = SigningKey.generate(alg)
    signature = key.sign(b"data")
    verify_bytes(b"data", signature, key.public, alg)
    assert (key.alg, key.public.alg) == (alg, alg)
    again = SigningKey.from_pem(key.to_pem(), alg)
    assert again.public == key.public


def test_without_an_algorithm_the_kind_of_key_decides() -> None:
    for alg in ("ES256", "ES384", "EdDSA"):
        assert SigningKey.from_pem(SigningKey.generate(alg).to_pem()).alg == alg


def _pem(private: Any) -> bytes:
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


ENCRYPTED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(b"secret"),
)


@pytest.mark.parametrize(
    "pem",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", id="noise"),
        pytest.param(ENCRYPTED, id="an encrypted key"),
        pytest.param(_pem(_RSA_KEY), id="RSA"),
        pytest.param(_pem(ec.generate_private_key(ec.SECP521R1())), id="P-521"),
        pytest.param(_pem(ed448.Ed448PrivateKey.generate()), id="Ed448"),
    ],
)
def test_a_file_that_holds_no_key_we_sign_with_is_refused(pem: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        SigningKey.from_pem(pem)
    assert caught.value.reason is Reason.BAD_KEY
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("alg", ["RS256", "HS256", "none", ""])
def test_no_key_is_generated_for_an_algorithm_we_do_not_sign_with(alg: str) -> None:
    with pytest.raises(MalformedError):
        SigningKey.generate(alg)


def test_a_private_key_does_not_sign_under_the_algorithm_of_another_kind() -> None:
    with pytest.raises(MalformedError):
        SigningKey.from_private(ed25519.Ed25519PrivateKey.generate(), "ES256")
    with pytest.raises(MalformedError):
        SigningKey.from_private(ec.generate_private_key(ec.SECP384R1()), "ES256")
    with pytest.raises(MalformedError):
        SigningKey.from_private(ec.generate_private_key(ec.SECP256K1()))


def test_a_public_key_of_another_kind_is_not_wrapped() -> None:
    with pytest.raises(MalformedError):
        PublicJwk.from_key(_RSA_KEY.public_key())  # type: ignore[arg-type]


def test_a_signing_key_shows_no_secret_and_is_not_copied() -> None:
    key = SigningKey.generate()
    assert repr(key) == f"SigningKey(ES256, {key.public.thumbprint})"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="private key"):
            attempt(key)


def test_a_signature_is_verified_only_under_the_keys_own_algorithm() -> None:
    key = SigningKey.generate("EdDSA")
    signature = key.sign(b"data")
    for alg in ("Ed25519", "ES256", "none", "HS256"):
        with pytest.raises(TokenRejected) as caught:
            verify_bytes(b"data", signature, key.public, alg)
        assert caught.value.reason is Reason.TOKEN_ALGORITHM


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "Ed25519"])
def test_a_signature_of_another_length_is_malformed(alg: str) -> None:
    key = SigningKey.generate(alg)
    signature = key.sign(b"data")
    for wrong in (signature + b"\0", signature[:-1], b""):
        with pytest.raises(TokenRejected) as caught:
            verify_bytes(b"data", wrong, key.public, alg)
        assert caught.value.reason is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA"])
def test_a_signature_over_something_else_is_refused(alg: str) -> None:
    key = SigningKey.generate(alg)
    with pytest.raises(TokenRejected) as caught:
        verify_bytes(b"data", key.sign(b"date"), key.public, alg)
    assert caught.value.reason is Reason.TOKEN_SIGNATURE


_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize("r", [0, 1, _ORDER, _ORDER - 1, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, _ORDER, _ORDER - 1, 2**256 - 1])
def test_an_ecdsa_signature_of_special_values_is_refused(r: int, s: int) -> None:
    key = SigningKey.generate()
    with pytest.raises(TokenRejected) as caught:
        verify_bytes(b"data", r.to_bytes(32, "big") + s.to_bytes(32, "big"), key.public, "ES256")
    assert caught.value.reason is Reason.TOKEN_SIGNATURE


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_a_foreign_rsa_key_verifies_under_the_algorithm_it_names(alg: str) -> None:
    import jwt

    token = jwt.encode({"a": 1}, _RSA_KEY, algorithm=alg)
    signed, _, segment = token.rpartition(".")
    from zerotrust.core.jose import b64url_decode

    signature = b64url_decode(segment)
    verify_bytes(signed.encode(), signature, PublicJwk.parse(RSA, allow_rsa=True), alg)
    key = PublicJwk.parse(RSA | {"alg": alg}, allow_rsa=True)
    verify_bytes(signed.encode(), signature, key, alg)
    with pytest.raises(TokenRejected):
        verify_bytes(signed.encode() + b"x", signature, key, alg)
    with pytest.raises(TokenRejected):
        verify_bytes(signed.encode(), signature[:-1], key, alg)
    other = "PS256" if alg != "PS256" else "RS256"
    with pytest.raises(TokenRejected):
        verify_bytes(signed.encode(), signature, key, other)
