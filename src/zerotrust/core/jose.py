"""Strict JSON, JWK and compact JWS; the only importer of PyJWT, whose algorithms sign and verify.

1. Size, depth and count are bounded before anything is parsed; all is parsed before a key is used.
2. One spelling: base64url is decoded, encoded again and compared; a JSON member occurs once.
3. A key has its algorithm; a token's `alg` is compared with it and never chooses (RFC 8725 3.1).
4. Only compact JWS exists here: no JWE, no JSON form, no symmetric key, no key out of a header.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import (  # noqa: TID251 - this is the one place that may
    ECAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    RSAPSSAlgorithm,
)

from zerotrust.core.errors import MalformedError, Reason, TokenRejected

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MAX_TOKEN_BYTES: Final = 4096
MAX_SAFE_INTEGER: Final = 2**53  # RFC 7493 section 2.2

_EDDSA: Final = ("EdDSA", "Ed25519")  # RFC 8037 and RFC 9864 names of the same thing
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
SIGNATURE_ALGORITHMS: Final = ("ES256", "ES384", *_EDDSA, *_RSA)

_ALGORITHMS: Final[dict[str, Any]] = {
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "EdDSA": OKPAlgorithm(),
    "Ed25519": OKPAlgorithm(),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
}
_CURVES: Final[dict[str, tuple[ec.EllipticCurve, str]]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
}
_CURVE_NAMES: Final = {curve.name: name for name, (curve, _) in _CURVES.items()}


def b64url_encode(data: bytes) -> str:
    """Return unpadded base64url (RFC 7515 section 2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """Decode unpadded base64url in its one canonical spelling; raise MalformedError otherwise."""
    try:
        raw = text.encode("ascii").translate(_FROM_URL)
        data = binascii.a2b_base64(raw + b"=="[: -len(raw) % 4])
    except ValueError as exc:
        raise MalformedError(Reason.BAD_JSON, "not base64url") from exc
    if b64url_encode(data) != text:
        raise MalformedError(Reason.BAD_JSON, "not the canonical unpadded base64url")
    return data


def parse_json_object(
    data: bytes | str, *, max_bytes: int, max_depth: int = 8, max_members: int = 4096
) -> dict[str, Any]:
    """Parse one JSON object of an unambiguous kind (RFC 7493); raise MalformedError for others.

    Refused: over `max_bytes`, `max_depth` levels or `max_members` members or list items; not UTF-8
    or with a BOM; a duplicate member at any depth; NaN, Infinity, an integer beyond 2**53 either
    way, a float that overflows; a lone surrogate.
    """
    return _parse_object(data, max_bytes, max_depth, max_members, _DECODER)


@final
@dataclass(frozen=True, slots=True)
class PublicJwk:
    """A public key that passed every check. `alg` is the JWK's own `alg` member, or None.

    Equality is by `kty`, `alg` and `thumbprint` (RFC 7638); `members` are the required ones
    other than `kty`.
    """

    kty: str
    alg: str | None
    key: PublicKey = field(compare=False, repr=False)
    members: Mapping[str, str] = field(compare=False, repr=False)
    thumbprint: str

    @classmethod
    def parse(cls, jwk: Mapping[str, Any], *, allow_rsa: bool = False) -> PublicJwk:
        """Accept P-256, P-384 and Ed25519, and RSA 2048 to 4096 with e = 65537 where `allow_rsa`.

        Raise MalformedError (BAD_KEY) for other kinds, private or symmetric members, points off
        the curve or of low order, an `alg` of another kind of key, `use` or `key_ops` that are
        not for signatures.
        """
        if not _PRIVATE_MEMBERS.isdisjoint(jwk):
            raise _bad_key("a private or symmetric member")
        kty = jwk.get("kty")
        if kty == "EC":
            key, members, algs = _ec_key(jwk)
        elif kty == "OKP":
            key, members, algs = _okp_key(jwk)
        elif kty == "RSA" and allow_rsa:
            key, members, algs = _rsa_key(jwk)
        else:
            raise _bad_key("a kind of key that is not accepted here")
        alg = jwk.get("alg")
        if "alg" in jwk and alg not in algs:
            raise _bad_key("`alg` does not belong to this kind of key")
        _require_signature_use(jwk)
        return cls(kty, alg, key, MappingProxyType(members), _thumbprint(kty, members))

    @classmethod
    def from_key(
        cls, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, alg: str | None = None
    ) -> PublicJwk:
        """Wrap a public key of ours under the same rules as `parse`."""
        jwk: dict[str, str] = {} if alg is None else {"alg": alg}
        if isinstance(key, ec.EllipticCurvePublicKey):
            point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
            half = len(point) // 2
            jwk |= {"kty": "EC", "crv": _CURVE_NAMES.get(key.curve.name, key.curve.name)}
            jwk |= {"x": b64url_encode(point[:half]), "y": b64url_encode(point[half:])}
        elif isinstance(key, ed25519.Ed25519PublicKey):
            jwk |= {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(key.public_bytes_raw())}
        return cls.parse(jwk)

    def as_dict(self) -> dict[str, str]:
        """Return the JWK: `kty`, the required members, and `alg` where it is set."""
        jwk = {"kty": self.kty, **self.members}
        return jwk if self.alg is None else jwk | {"alg": self.alg}


@final
class SigningKey:
    """A private key with its one algorithm: ES256, ES384, EdDSA or Ed25519.

    `public` carries the same `alg`. The key is not shown by repr and refuses pickling and copying.
    """

    __slots__ = ("_private", "_sign", "alg", "public")

    alg: str
    public: PublicJwk

    def __init__(self, private: PrivateKey, alg: str) -> None:
        self.alg = alg
        self.public = PublicJwk.from_key(private.public_key(), alg)
        self._private = private
        self._sign: Callable[[bytes, PrivateKey], bytes] = _ALGORITHMS[alg].sign

    @classmethod
    def generate(cls, alg: str = "ES256") -> SigningKey:
        """Make a new key for this algorithm; raise MalformedError for an unknown one."""
        if alg in _EDDSA:
            return cls(ed25519.Ed25519PrivateKey.generate(), alg)
        for curve, curve_alg in _CURVES.values():
            if alg == curve_alg:
                return cls(ec.generate_private_key(curve), alg)
        raise _bad_key("no algorithm we sign with")

    @classmethod
    def from_pem(cls, pem: bytes, alg: str | None = None) -> SigningKey:
        """Load an unencrypted PEM private key; raise MalformedError (BAD_KEY)."""
        try:
            private = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # No cause: what a PEM parser says may quote the file.
            raise _bad_key("not an unencrypted PEM private key") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise _bad_key("use P-256, P-384 or Ed25519")
        return cls.from_private(private, alg)

    @classmethod
    def from_private(cls, key: PrivateKey, alg: str | None = None) -> SigningKey:
        """Wrap a private key. Without `alg` the curve decides; Ed25519 signs as `EdDSA`."""
        if alg is None:
            implied = _implied_algs(key.public_key())
            if not implied:
                raise _bad_key("use P-256, P-384 or Ed25519")
            alg = implied[0]
        return cls(key, alg)

    def to_pem(self) -> bytes:
        """Return unencrypted PKCS#8, for a file that the caller protects."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """Return the JOSE signature: r and s of fixed length for ECDSA (RFC 7518 section 3.4)."""
        return self._sign(data, self._private)

    def __repr__(self) -> str:
        return f"SigningKey({self.alg}, {self.public.thumbprint})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied")


@dataclass(frozen=True, slots=True)
class CompactJws:
    """A parsed token. Nothing about it is verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


def parse_compact(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> CompactJws:
    """Parse header.claims.signature, each canonical, both objects strict; raise TokenRejected."""
    if len(token) > max_bytes:
        raise TokenRejected(Reason.TOKEN_TOO_LARGE, f"more than {max_bytes} bytes")
    if token.count(".") != 2:  # noqa: PLR2004 - RFC 7515 section 7.1: two dots
        raise TokenRejected(Reason.TOKEN_MALFORMED, "not three segments")
    signed, _, signature = token.rpartition(".")
    header, _, claims = signed.partition(".")
    try:
        return CompactJws(
            _parse_header(header),
            _parse_segment(claims),
            signed.encode("ascii"),
            b64url_decode(signature),
        )
    except MalformedError as exc:
        raise TokenRejected(Reason.TOKEN_MALFORMED, exc.detail) from exc


def require_header(
    jws: CompactJws, *, typ: str, algs: Collection[str], members: Collection[str]
) -> None:
    """Hold the JOSE header against an allow-list, in this order; raise TokenRejected.

    `alg` (before any key is looked up), `crit`, members that are not ours, `typ`, missing members.
    """
    header = jws.header
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in algs:
        raise TokenRejected(Reason.TOKEN_ALGORITHM, "`alg` is not allowed here")
    if "crit" in header:
        if not isinstance(header["crit"], list) or not header["crit"]:
            raise TokenRejected(Reason.TOKEN_MALFORMED, "`crit` is not a filled list")
        raise TokenRejected(Reason.TOKEN_CRITICAL, "no critical extension is understood")
    if not header.keys() <= set(members):
        raise TokenRejected(Reason.TOKEN_HEADER, "a header member that has no place here")
    if header.get("typ") != typ:
        raise TokenRejected(Reason.TOKEN_TYPE, f"`typ` is not {typ}")
    if len(header) != len(members):
        raise TokenRejected(Reason.TOKEN_HEADER, "a header member is missing")


def verify_signature(jws: CompactJws, key: PublicJwk) -> None:
    """Verify under a key whose algorithm equals the header's; raise TokenRejected.

    A signature of the wrong length (RFC 7518 section 3.4: 64 or 96 bytes) is TOKEN_MALFORMED.
    """
    alg = jws.header.get("alg")
    if not isinstance(alg, str) or alg not in _algs_of(key):
        raise TokenRejected(Reason.TOKEN_ALGORITHM, "`alg` is not the key's algorithm")
    if len(jws.signature) != _signature_length(key.key):
        raise TokenRejected(Reason.TOKEN_MALFORMED, "a signature of the wrong length")
    if not _ALGORITHMS[alg].verify(jws.signing_input, key.key, jws.signature):
        raise TokenRejected(Reason.TOKEN_SIGNATURE, "the signature does not verify")


def sign_compact(header: Mapping[str, str], claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return the compact JWS; `alg` is the key's and is written here."""
    segment = _header_segment(key.alg, tuple(header.items()))
    signed = f"{segment}.{b64url_encode(_ENCODER.encode(claims).encode('ascii'))}"
    return f"{signed}.{b64url_encode(key.sign(signed.encode('ascii')))}"


# --- JSON ---------------------------------------------------------------------------------------

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def _malformed(detail: str) -> MalformedError:
    return MalformedError(Reason.BAD_JSON, detail)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed("a member occurs twice")
    return members


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _malformed("a number that overflows")
    return value


def _constant(text: str) -> NoReturn:
    raise _malformed(f"{text} is not JSON")


def _decoder(limit: int) -> json.JSONDecoder:
    digits = len(str(limit)) + 1

    def integer(text: str) -> int:
        if len(text) > digits or abs(value := int(text)) > limit:
            raise _malformed("an integer out of range")
        return value

    return json.JSONDecoder(
        object_pairs_hook=_object, parse_int=integer, parse_float=_float, parse_constant=_constant
    )


_DECODER: Final = _decoder(MAX_SAFE_INTEGER)
# Claims get room up to 2**63, so that an `exp` of 10**18 is refused for what it is: too far away.
_CLAIMS_DECODER: Final = _decoder(2**63)
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _parse_object(
    data: bytes | str, max_bytes: int, max_depth: int, max_members: int, decoder: json.JSONDecoder
) -> dict[str, Any]:
    if len(data) > max_bytes:
        raise _malformed(f"more than {max_bytes} bytes")
    try:
        raw = data if isinstance(data, bytes) else data.encode("utf-8")
        text = raw.decode("utf-8")
    except UnicodeError as exc:
        raise _malformed("not UTF-8") from exc
    if len(raw) > max_bytes:
        raise _malformed(f"more than {max_bytes} bytes")
    _require_shape(text, max_depth, max_members)
    try:
        value = decoder.decode(text)
        if "\\u" in text:  # only an escape can spell a lone surrogate
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedError:
        raise
    except (ValueError, RecursionError) as exc:
        raise _malformed("not JSON, or a lone surrogate in it") from exc
    if not isinstance(value, dict):
        raise _malformed("not a JSON object")
    return value


def _require_shape(text: str, max_depth: int, max_members: int) -> None:
    """Bound depth and count before parsing: a cheap upper bound first, exactly if that is over."""
    if text.count("{") + text.count("[") <= max_depth and text.count(",") < max_members:
        return
    depth = deepest = count = 0
    for char in _STRING.sub("", text):
        if char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
        elif char == ",":
            count += 1
    if deepest > max_depth or count >= max_members:
        raise _malformed(f"more than {max_depth} levels or {max_members} members")


def _parse_segment(segment: str) -> dict[str, Any]:
    return _parse_object(b64url_decode(segment), MAX_TOKEN_BYTES, 8, 256, _CLAIMS_DECODER)


@lru_cache(maxsize=256)  # few headers exist; what strangers send cannot grow it
def _parse_header(segment: str) -> Mapping[str, Any]:
    return MappingProxyType(_parse_segment(segment))


@lru_cache(maxsize=64)
def _header_segment(alg: str, members: tuple[tuple[str, str], ...]) -> str:
    return b64url_encode(_ENCODER.encode({**dict(members), "alg": alg}).encode("ascii"))


# --- Keys ---------------------------------------------------------------------------------------

_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 4096
_RSA_EXPONENT: Final = 65537
_ED25519_BYTES: Final = 32
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
# y of the points whose order divides 8: anyone can sign under them, or one signature fits all.
_LOW_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
            "little",
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
            "little",
        ),
    }
)

_Checked: TypeAlias = tuple[PublicKey, dict[str, str], tuple[str, ...]]


def _bad_key(detail: str) -> MalformedError:
    return MalformedError(Reason.BAD_KEY, detail)


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    if not isinstance(text, str):
        raise _bad_key(f"`{name}` is not a string")
    try:
        return b64url_decode(text)
    except MalformedError as exc:
        raise _bad_key(f"`{name}` is not canonical base64url") from exc


def _ec_key(jwk: Mapping[str, Any]) -> _Checked:
    crv = jwk.get("crv")
    if not isinstance(crv, str) or crv not in _CURVES:
        raise _bad_key("the curve is not P-256 or P-384")
    curve, alg = _CURVES[crv]
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    if not len(x) == len(y) == curve.key_size // 8:
        raise _bad_key("a coordinate of the wrong length")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    except ValueError as exc:
        raise _bad_key("not a point on the curve") from exc
    return key, {"crv": crv, "x": jwk["x"], "y": jwk["y"]}, (alg,)


def _okp_key(jwk: Mapping[str, Any]) -> _Checked:
    if jwk.get("crv") != "Ed25519":
        raise _bad_key("the curve is not Ed25519")
    x = _octets(jwk, "x")
    if len(x) != _ED25519_BYTES:
        raise _bad_key("a coordinate of the wrong length")
    # OpenSSL takes any 32 bytes as a key: RFC 8032 section 5.1.3 decoding is checked here.
    y = int.from_bytes(x, "little") & (2**255 - 1)
    if y >= _P or y in _LOW_ORDER_Y:
        raise _bad_key("a point of low order or not canonical")
    u, v = y * y - 1, _D * y * y + 1
    if pow(u * v, (_P - 1) // 2, _P) != 1:
        raise _bad_key("not a point on the curve")
    key = ed25519.Ed25519PublicKey.from_public_bytes(x)
    return key, {"crv": "Ed25519", "x": jwk["x"]}, _EDDSA


def _rsa_key(jwk: Mapping[str, Any]) -> _Checked:
    n, e = _octets(jwk, "n"), _octets(jwk, "e")
    # RFC 7518 section 6.3.1: no leading zero octets, so that one key has one thumbprint.
    if n[:1] == b"\0" or e != _RSA_EXPONENT.to_bytes(3, "big"):
        raise _bad_key("RSA needs e = 65537 and the shortest n")
    modulus = int.from_bytes(n, "big")
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        raise _bad_key(f"RSA of other than {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")
    try:
        key = rsa.RSAPublicNumbers(_RSA_EXPONENT, modulus).public_key()
    except ValueError as exc:
        raise _bad_key("not an RSA key") from exc
    return key, {"e": jwk["e"], "n": jwk["n"]}, _RSA


def _require_signature_use(jwk: Mapping[str, Any]) -> None:
    """RFC 7517 sections 4.2 and 4.3: a key for something else is not a signature key."""
    if "use" in jwk and (not isinstance(jwk["use"], str) or jwk["use"] == "enc"):
        raise _bad_key("`use` is not for signatures")
    if "key_ops" in jwk and jwk["key_ops"] != ["verify"]:
        raise _bad_key("`key_ops` is not exactly verify")


def _thumbprint(kty: str, members: Mapping[str, str]) -> str:
    """RFC 7638 section 3: required members in order, no spaces."""
    canonical = json.dumps({"kty": kty, **members}, sort_keys=True, separators=(",", ":"))
    return b64url_encode(hashlib.sha256(canonical.encode("ascii")).digest())


def _implied_algs(key: PublicKey) -> tuple[str, ...]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = _CURVE_NAMES.get(key.curve.name)
        return () if name is None else (_CURVES[name][1],)
    return _EDDSA if isinstance(key, ed25519.Ed25519PublicKey) else _RSA


def _algs_of(key: PublicJwk) -> tuple[str, ...]:
    return _implied_algs(key.key) if key.alg is None else (key.alg,)


def _signature_length(key: PublicKey) -> int:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return 2 * (key.key_size // 8)
    return 64 if isinstance(key, ed25519.Ed25519PublicKey) else key.key_size // 8
