"""Which root certificates a trust domain has, as its root keys state it.

1. Anchors change only by a statement signed with a root key that is trusted already: a served
   bundle alone cannot bring a new root.
2. A statement lists anchors and a sequence; an older sequence is not accepted again.
3. It is a compact JWS (RFC 7515) of type `zt-anchors+jwt` under the root key's RFC 7638 thumbprint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.core import jose
from zerotrust.core.errors import CertificateRejected, MalformedError, Reason, TokenRejected
from zerotrust.core.jose import PublicJwk, SigningKey
from zerotrust.core.spiffe.ids import TrustDomain

MAX_ANCHORS: Final = (
    16  # root certificates of one trust domain, as a token or a statement lists them
)
ANCHORS_TYPE: Final = "zt-anchors+jwt"

_ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "Ed25519")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_TOKEN: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class AnchorStatement:
    """A verified statement of which root certificates a trust domain has."""

    trust_domain: TrustDomain
    sequence: int
    anchors: tuple[str, ...]  # hex SHA-256, sorted

    def covers(self, anchors: Iterable[x509.Certificate]) -> None:
        """Raise CertificateRejected(ANCHOR_UNANNOUNCED) unless exactly these are listed."""
        if fingerprints(anchors) != self.anchors:
            raise CertificateRejected(
                Reason.ANCHOR_UNANNOUNCED,
                "the bundle's roots are not those the root key signed for",
            )


def sign_anchors(
    key: SigningKey,
    *,
    trust_domain: TrustDomain,
    sequence: int,
    anchors: Iterable[x509.Certificate],
) -> str:
    """State, with a root key, which root certificates the trust domain has from now on."""
    claims = {
        "iss": str(trust_domain),
        "sequence": sequence,
        "anchors": list(fingerprints(anchors)),
    }
    header = {"typ": ANCHORS_TYPE, "kid": key.public.thumbprint}
    return jose.sign_compact(header, claims, key)


def verify_anchors(
    statements: Sequence[str],
    *,
    trust_domain: TrustDomain,
    trusted: Collection[x509.Certificate],
    sequence: int,
) -> AnchorStatement:
    """Return the first statement that a root in `trusted` signed for this trust domain.

    Not older than `sequence`.

    Raises CertificateRejected(ANCHOR_UNANNOUNCED) when there is none.
    """
    roots = {key.thumbprint: key for key in map(_root_key, trusted)}
    for text in statements[:MAX_ANCHORS]:
        try:
            statement = _statement(text, roots)
        except (MalformedError, TokenRejected):
            continue
        if statement.trust_domain == trust_domain and statement.sequence >= sequence:
            return statement
    raise CertificateRejected(
        Reason.ANCHOR_UNANNOUNCED, "no trusted root key signed a current statement of the anchors"
    )


def fingerprints(anchors: Iterable[x509.Certificate]) -> tuple[str, ...]:
    """Return the SHA-256 of each certificate's DER in lower-case hex, sorted, once each."""
    return tuple(
        sorted({hashlib.sha256(a.public_bytes(Encoding.DER)).hexdigest() for a in anchors})
    )


def _statement(text: str, roots: Mapping[str, PublicJwk]) -> AnchorStatement:
    jws = jose.parse_compact(text, max_bytes=_MAX_TOKEN)
    jose.require_header(jws, typ=ANCHORS_TYPE, algs=_ALGORITHMS, members=("alg", "typ", "kid"))
    key = roots.get(str(jws.header["kid"]))
    if key is None:
        raise TokenRejected(Reason.TOKEN_UNKNOWN_KEY, "signed by no trusted root")
    jose.verify_signature(jws, key)
    claims = jws.claims
    if claims.keys() != {"iss", "sequence", "anchors"}:
        raise _bad("a statement has iss, sequence, anchors and nothing else")
    sequence, anchors = claims["sequence"], claims["anchors"]
    if type(sequence) is not int or sequence < 0 or not isinstance(claims["iss"], str):
        raise _bad("a statement names its trust domain and a sequence from 0")
    if not isinstance(anchors, list) or not 0 < len(anchors) <= MAX_ANCHORS:
        raise _bad(f"a statement lists 1 to {MAX_ANCHORS} anchors")
    if not all(isinstance(anchor, str) and _DIGEST.fullmatch(anchor) for anchor in anchors):
        raise _bad("a statement lists anchors as SHA-256 in lower-case hex")
    return AnchorStatement(TrustDomain.parse(claims["iss"]), sequence, tuple(anchors))


def _root_key(anchor: x509.Certificate) -> PublicJwk:
    key = anchor.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise CertificateRejected(Reason.PEER_KEY, "a root's key is P-256, P-384 or Ed25519")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return PublicJwk.from_key(key, "Ed25519")
    return PublicJwk.from_key(key, "ES256" if key.curve.name == "secp256r1" else "ES384")


def _bad(detail: str) -> MalformedError:
    return MalformedError(Reason.BAD_MESSAGE, detail)
