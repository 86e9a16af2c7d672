"""Keys with their one algorithm: the JWK we accept, the keys we sign with.

1. A key is checked whole before any signature is: kind, size, point, use (RFC 7517, RFC 8037).
2. The only importer of PyJWT, whose algorithm objects do RSA and EdDSA.
3. A private key is never shown, pickled or copied.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import (  # noqa: TID251 - this is the one place that may
    OKPAlgorithm,
    RSAAlgorithm,
    RSAPSSAlgorithm,
)

from zerotrust.core.errors import MalformedError, Reason, TokenRejected
from zerotrust.core.jose.encoding import b64url_decode, b64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_EDDSA: Final = ("EdDSA", "Ed25519")  # RFC 8037 and RFC 9864 names of the same thing
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
SIGNATURE_ALGORITHMS: Final = ("ES256", "ES384", *_EDDSA, *_RSA)

_CURVES: Final[dict[str, tuple[ec.EllipticCurve, str]]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
}
_CURVE_NAMES: Final = {curve.name: name for name, (curve, _) in _CURVES.items()}


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

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What may be verified under this key: its own `alg`, or what its kind allows."""
        return _implied_algs(self.key) if self.alg is None else (self.alg,)

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


def verify_bytes(data: bytes, signature: bytes, key: PublicJwk, alg: str) -> None:
    """Verify a JOSE signature under a key that has this `alg` (or has none of its own).

    Raise TokenRejected: TOKEN_ALGORITHM for another one, TOKEN_MALFORMED for a wrong length (RFC
    7518 sections 3.3 and 3.4), TOKEN_SIGNATURE where it does not verify.
    """
    if alg != key.alg and alg not in key.algorithms:
        raise TokenRejected(Reason.TOKEN_ALGORITHM, "`alg` is not the key's algorithm")
    if len(signature) != (_SIGNATURE_BYTES.get(alg) or len(b64url_decode(key.members["n"]))):
        raise TokenRejected(Reason.TOKEN_MALFORMED, "a signature of the wrong length")
    if not _ALGORITHMS[alg].verify(data, key.key, signature):
        raise TokenRejected(Reason.TOKEN_SIGNATURE, "the signature does not verify")


_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 4096
_RSA_EXPONENT: Final = 65537
# CVE-2017-15361: both primes, and so n, are powers of 65537 modulo every one of these.
_ROCA: Final = {
    prime: frozenset(pow(_RSA_EXPONENT, power, prime) for power in range(prime))
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}
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
    if modulus % 2 == 0 or not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        raise _bad_key(f"RSA with an even n or not of {_MIN_RSA_BITS} to {_MAX_RSA_BITS} bits")
    if all(modulus % prime in powers for prime, powers in _ROCA.items()):
        raise _bad_key("an RSA key of the ROCA family, which can be factored")
    key = rsa.RSAPublicNumbers(_RSA_EXPONENT, modulus).public_key()
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


class _Ecdsa:
    """ECDSA over the JOSE form, r and s of fixed length, as PyJWT's objects have it.

    Theirs converts the long way and builds anew on each call: a tenth of a verification.
    """

    __slots__ = ("_digest", "_ecdsa", "_size")

    def __init__(self, algorithm: hashes.HashAlgorithm, size: int) -> None:
        self._digest = getattr(hashlib, algorithm.name)
        self._ecdsa = ec.ECDSA(Prehashed(algorithm))
        self._size = size

    def sign(self, data: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        r, s = decode_dss_signature(key.sign(self._digest(data).digest(), self._ecdsa))
        return r.to_bytes(self._size, "big") + s.to_bytes(self._size, "big")

    def verify(self, data: bytes, key: ec.EllipticCurvePublicKey, signature: bytes) -> bool:
        r, s = signature[: self._size], signature[self._size :]
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        try:
            key.verify(der, self._digest(data).digest(), self._ecdsa)
        except InvalidSignature:
            return False
        return True


_ALGORITHMS: Final[dict[str, Any]] = {
    "ES256": _Ecdsa(hashes.SHA256(), 32),
    "ES384": _Ecdsa(hashes.SHA384(), 48),
    "EdDSA": OKPAlgorithm(),
    "Ed25519": OKPAlgorithm(),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
}
_SIGNATURE_BYTES: Final = {"ES256": 64, "ES384": 96, "EdDSA": 64, "Ed25519": 64}
