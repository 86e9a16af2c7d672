"""What a certificate signing request contributes: a public key and the proof that it is held.

1. Size first, then the key's kind, and only then its signature: no arithmetic on a key of a
   stranger's choosing.
2. A request that asks for anything (subject, extension, attribute) is refused, not trimmed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from zerotrust.core.enrolment import MAX_CSR_BYTES
from zerotrust.core.errors import Reason, RequestRefused

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_CURVES: Final = ("secp256r1", "secp384r1")
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True)
class CertificationKey:
    """A key whose holder signed a request for it. Only `verify_csr` makes one."""

    key: PublicKey
    spki: bytes  # DER SubjectPublicKeyInfo

    @property
    def digest(self) -> bytes:
        """SHA-256 of the SPKI."""
        return hashlib.sha256(self.spki).digest()


def verify_csr(der: bytes) -> CertificationKey:
    """Return the key of a PKCS #10 request (RFC 2986); raise RequestRefused(CSR)."""
    if not 0 < len(der) <= MAX_CSR_BYTES:
        raise _refused(f"a CSR has at most {MAX_CSR_BYTES} bytes")
    try:
        csr = x509.load_der_x509_csr(der)
        key = csr.public_key()
        digest = csr.signature_hash_algorithm
        empty = not list(csr.subject) and not len(csr.attributes)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise _refused("not a CSR with a key of a known kind") from exc
    allowed = require_allowed(key)
    if digest is not None and not isinstance(digest, _HASHES):
        raise _refused("a CSR is signed over SHA-256, SHA-384 or SHA-512")
    if not empty:
        raise _refused("a CSR has no subject, no attributes and no extensions here")
    if not csr.is_signature_valid:
        raise _refused("the CSR's signature does not hold")
    return CertificationKey(allowed, spki_of(allowed))


def require_allowed(key: object) -> PublicKey:
    """Return a public key of a kind that is certified here; raise RequestRefused(CSR)."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise _refused("a key is P-256, P-384 or Ed25519")


def spki_of(key: PublicKey) -> bytes:
    """Return the key as a DER SubjectPublicKeyInfo (RFC 5280 section 4.1)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _refused(detail: str) -> RequestRefused:
    return RequestRefused(Reason.CSR, detail)
