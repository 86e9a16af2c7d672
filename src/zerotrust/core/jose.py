"""INTERFACE STUB (owner: tokens)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


def b64url_encode(data: bytes) -> str:
    """Unpadded base64url."""
    raise NotImplementedError


def b64url_decode(text: str) -> bytes:
    """Canonical unpadded base64url only (re-encoded and compared); MalformedError otherwise."""
    raise NotImplementedError


def parse_json_object(data: bytes | str, *, max_bytes: int, max_depth: int = 8, max_members: int = 4096) -> dict[str, Any]:
    """Strict UTF-8 JSON object: no duplicate members, NaN, Infinity, lone surrogates, BOM, big ints (> 2**53), depth. MalformedError."""
    raise NotImplementedError


@final
@dataclass(frozen=True, slots=True)
class PublicJwk:
    """A checked public key. alg is the JWK's own `alg` member or None."""

    kty: str  # EC, OKP, RSA
    alg: str | None
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
    members: Mapping[str, str]  # required members only (crv, x, y ...)
    thumbprint: str  # RFC 7638

    @classmethod
    def parse(cls, jwk: Mapping[str, Any], *, allow_rsa: bool = False) -> PublicJwk:
        """Allow-list P-256, P-384, Ed25519 (RSA 2048-4096 e=65537 only if allow_rsa); private or symmetric members refused. MalformedError(BAD_KEY)."""
        raise NotImplementedError

    @classmethod
    def from_key(cls, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey, alg: str | None = None) -> PublicJwk:
        raise NotImplementedError

    def as_dict(self) -> dict[str, str]:
        """kty + members + alg if set."""
        raise NotImplementedError


@final
class SigningKey:
    """A private key with its one algorithm (ES256, ES384, EdDSA, Ed25519). repr redacts, pickling refused."""

    alg: str
    public: PublicJwk  # with alg set

    @classmethod
    def generate(cls, alg: str = "ES256") -> SigningKey:
        raise NotImplementedError

    @classmethod
    def from_pem(cls, pem: bytes, alg: str | None = None) -> SigningKey:
        raise NotImplementedError

    @classmethod
    def from_private(cls, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, alg: str | None = None) -> SigningKey:
        raise NotImplementedError

    def to_pem(self) -> bytes:
        """Unencrypted PKCS#8, for files the caller protects."""
        raise NotImplementedError

    def sign(self, data: bytes) -> bytes:
        """JOSE signature (r||s for ECDSA)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class CompactJws:
    """Parsed, NOT verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


def parse_compact(token: str, *, max_bytes: int = 4096) -> CompactJws:
    """Exactly three canonical segments, strict JSON objects. TokenRejected(TOKEN_MALFORMED / TOKEN_TOO_LARGE)."""
    raise NotImplementedError


def require_header(jws: CompactJws, *, typ: str, algs: Collection[str], members: Collection[str]) -> None:
    """alg allow-list first, crit, exact member set, typ. TokenRejected."""
    raise NotImplementedError


def verify_signature(jws: CompactJws, key: PublicJwk) -> None:
    """Header alg must equal the key's alg; 64/96/64 byte signatures. TokenRejected(TOKEN_SIGNATURE)."""
    raise NotImplementedError


def sign_compact(header: Mapping[str, Any], claims: Mapping[str, Any], key: SigningKey) -> str:
    """Compact JWS; alg is written by this function."""
    raise NotImplementedError
