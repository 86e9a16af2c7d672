"""The compact JWS: parsed whole, held against an allow-list, verified, signed (RFC 7515).

1. Bytes, then header, then key, then signature: nothing later is touched when one fails.
2. What is parsed is not verified; `verify_signature` raises or returns, it answers nothing.
"""

from __future__ import annotations

import json
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from zerotrust.core.errors import MalformedError, Reason, TokenRejected
from zerotrust.core.jose.encoding import b64url_decode, b64url_octets, parse_claims
from zerotrust.core.jose.keys import PublicJwk, SigningKey, verify_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_TOKEN_BYTES: Final = 4096

# What is signed was built by us a moment ago: it has no cycles to look for.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)


class CompactJws(NamedTuple):
    """A parsed token. Nothing about it is verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes

    def __repr__(self) -> str:
        return "CompactJws(unverified)"


def parse_compact(token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> CompactJws:
    """Parse header.claims.signature, each canonical, both objects strict; raise TokenRejected."""
    if len(token) > max_bytes:
        raise TokenRejected(Reason.TOKEN_TOO_LARGE, f"more than {max_bytes} bytes")
    try:
        raw = token.encode("ascii")
        header, claims, signature = raw.split(b".", 3)
    except ValueError as exc:
        raise TokenRejected(Reason.TOKEN_MALFORMED, "not three segments of ASCII") from exc
    try:
        return CompactJws(
            _parse_header(header),
            parse_claims(b64url_decode(claims)),
            raw[: -len(signature) - 1],
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
    if header.get("typ") == typ and header.keys() == members:  # all but always
        return
    if not header.keys() <= set(members):
        raise TokenRejected(Reason.TOKEN_HEADER, "a header member that has no place here")
    if header.get("typ") != typ:
        raise TokenRejected(Reason.TOKEN_TYPE, f"`typ` is not {typ}")
    if header.keys() != set(members):
        raise TokenRejected(Reason.TOKEN_HEADER, "a header member is missing")


def verify_signature(jws: CompactJws, key: PublicJwk) -> None:
    """Verify under a key whose algorithm equals the header's; raise TokenRejected.

    A signature of the wrong length is TOKEN_MALFORMED, one that does not verify TOKEN_SIGNATURE.
    """
    alg = jws.header.get("alg")
    if not isinstance(alg, str):
        raise TokenRejected(Reason.TOKEN_ALGORITHM, "`alg` is not a string")
    verify_bytes(jws.signing_input, jws.signature, key, alg)


def sign_compact(header: Mapping[str, str], claims: Mapping[str, Any], key: SigningKey) -> str:
    """Return the compact JWS; `alg` is the key's and is written here."""
    payload = b64url_octets(_ENCODER.encode(claims).encode("ascii"))
    signed = _header_segment(key.alg, tuple(header.items())) + b"." + payload
    return (signed + b"." + b64url_octets(key.sign(signed))).decode("ascii")


@lru_cache(maxsize=256)  # few headers exist; what strangers send cannot grow it
def _parse_header(segment: bytes) -> Mapping[str, Any]:
    return MappingProxyType(parse_claims(b64url_decode(segment)))


@lru_cache(maxsize=64)
def _header_segment(alg: str, members: tuple[tuple[str, str], ...]) -> bytes:
    return b64url_octets(_ENCODER.encode({**dict(members), "alg": alg}).encode("ascii"))
