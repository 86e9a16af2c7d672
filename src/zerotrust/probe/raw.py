"""Raw parts of certificates and tokens: nothing here checks what it is given.

1. A part is built from the specification's text, never by the code that will judge it.
2. DROP stands for "leave this member out".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from zerotrust.core.jose import PublicJwk, SigningKey

DROP: Final = object()
Hash: TypeAlias = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512

_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
_CURVE_HASHES: Final[dict[str, Hash]] = {
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


def common_name(text: str) -> x509.Name:
    """Return a name of one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def x509_jwk(certificate: x509.Certificate, **members: object) -> dict[str, Any]:
    """Return the `x509-svid` JWK of an anchor; members replace or (DROP) leave out."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        right: dict[str, Any] = dict(PublicJwk.from_key(key).as_dict())
    elif isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        right = {
            "kty": "RSA",
            "n": b64(numbers.n.to_bytes(key.key_size // 8 + 1, "big").lstrip(b"\0")),
            "e": b64(numbers.e.to_bytes(3, "big").lstrip(b"\0")),
        }
    else:
        right = {"kty": "unknown"}
    x5c = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
    jwk = {**right, "use": "x509-svid", "x5c": x5c, **members}
    return {name: value for name, value in jwk.items() if value is not DROP}


def jws(header: Mapping[str, Any], claims: Mapping[str, Any], key: SigningKey) -> str:
    """Sign a compact JWS over exactly these members (less those that are DROP), unchecked."""
    signing_input = b".".join(b64(json_bytes(part)).encode() for part in (header, claims))
    return f"{signing_input.decode()}.{b64(key.sign(signing_input))}"


def b64(data: bytes) -> str:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def json_bytes(members: Mapping[str, Any]) -> bytes:
    """JSON without blanks of these members, less those that are DROP."""
    kept = {name: value for name, value in members.items() if value is not DROP}
    return json.dumps(kept, separators=(",", ":")).encode()


def key_usage(usages: Collection[str]) -> x509.KeyUsage:
    """Return the extension that holds exactly these usages, by their names in `cryptography`."""
    return x509.KeyUsage(**{usage: usage in usages for usage in _USAGES})


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the whole second that a certificate can say."""
    return datetime.fromtimestamp(int(seconds), UTC)


def hash_for(key: CertificateIssuerPrivateKeyTypes) -> Hash | None:
    """Return the hash a key of this kind signs certificates with; None where there is none."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else ""
    return _CURVE_HASHES.get(curve, hashes.SHA256())
