"""Tokens for tests: one good WIT and WPT, and every way to spoil exactly one thing of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from zerotrust.core.jose import PublicJwk, SigningKey, b64url_encode
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOW: Final = 1_800_000_000
DOMAIN: Final = TrustDomain("example.org")
PARTNER: Final = TrustDomain("partner.example")
SUBJECT: Final = DOMAIN.id("web")
CALLEE: Final = "spiffe://example.org/ledger"
URI: Final = "https://ledger.example.org:8443/accounts/7"
TARGET: Final = b"/accounts/7?since=monday"

ISSUER: Final = SigningKey.generate()
PARTNER_ISSUER: Final = SigningKey.generate()
WORKLOAD: Final = SigningKey.generate()
ISSUER_KID: Final = ISSUER.public.thumbprint
X5T: Final = b64url_encode(hashlib.sha256(b"the caller's certificate").digest())
OTHER_X5T: Final = b64url_encode(hashlib.sha256(b"another certificate").digest())
JTI: Final = "c2l4dGVlbi1yYW5kb20tYg"


def wit_bundle(origin: TrustDomain, keys: Mapping[str, PublicJwk]) -> TrustBundle:
    """A bundle of WIT keys alone."""
    return TrustBundle(origin, (), dict(keys))


BUNDLES: Final = BundleSet(
    [
        wit_bundle(DOMAIN, {ISSUER_KID: ISSUER.public}),
        wit_bundle(PARTNER, {PARTNER_ISSUER.public.thumbprint: PARTNER_ISSUER.public}),
    ]
)


def seal(header: object, claims: object, key: SigningKey) -> str:
    """Sign whatever it is: objects become JSON, bytes and str stay as they are. `alg` as given."""
    signed = f"{b64url_encode(_octets(header))}.{b64url_encode(_octets(claims))}"
    return f"{signed}.{b64url_encode(key.sign(signed.encode()))}"


def wit_header(**changes: object) -> dict[str, Any]:
    return {"alg": "ES256", "typ": "wit+jwt", "kid": ISSUER_KID} | changes


def wit_claims(**changes: object) -> dict[str, Any]:
    return {
        "iss": str(DOMAIN),
        "sub": str(SUBJECT),
        "iat": NOW - 10,
        "exp": NOW + 3600,
        "jti": JTI,
        "cnf": {"jwk": WORKLOAD.public.as_dict()},
    } | changes


def wpt_header(**changes: object) -> dict[str, Any]:
    return {"alg": "ES256", "typ": "wpt+jwt"} | changes


def wpt_claims(wit: str, **changes: object) -> dict[str, Any]:
    """The claims of a proof; name a change for anything else."""
    return {
        "aud": URI,
        "exp": NOW + 30,
        "iat": NOW,
        "jti": JTI,
        "wth": hash_of(wit),
        "cnf": {"x5t#S256": X5T},
        "htm": "GET",
        "zerotrust-kit/target": hash_of(TARGET),
    } | changes


def without(members: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


def json_with(members: Mapping[str, Any], extra: str) -> str:
    """JSON of the members with raw text put in before the closing brace."""
    return json.dumps(members)[:-1] + f",{extra}}}"


def hash_of(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return b64url_encode(hashlib.sha256(raw).digest())


def twin(token: str) -> str:
    """The other valid ECDSA signature over P-256: (r, n - s)."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signed, _, segment = token.rpartition(".")
    signature = _decoded(segment)
    s = order - int.from_bytes(signature[32:], "big")
    return f"{signed}.{b64url_encode(signature[:32] + s.to_bytes(32, 'big'))}"


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def one_changed(text: str, replacements: Iterable[str]) -> Iterable[str]:
    """Every text that differs from this one in exactly one character out of `replacements`."""
    for position, char in enumerate(text):
        for other in replacements:
            if other != char:
                yield text[:position] + other + text[position + 1 :]


def _octets(part: object) -> bytes:
    if isinstance(part, bytes):
        return part
    return (part if isinstance(part, str) else json.dumps(part)).encode()


def _decoded(segment: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
