"""What is asked of one certificate, by itself: key, leaf rules, CA rules, validity.

1. Every rule raises CertificateRejected; whoever reads our own files turns that into its own error.
2. Keys are judged by this allow-list before anyone checks a signature with them.
3. An extension that is critical and not named here is refused (RFC 5280 section 4.2).
4. What is remembered of an issuer follows from its bytes alone: neither time nor trust is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from zerotrust.core.errors import BadSpiffeId, CertificateRejected, Reason
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

# An arc under 2.25 needs no registration: the number is a UUID (ITU-T X.667).
DEV_MARKER_OID: Final = x509.ObjectIdentifier("2.25.59883206644190802510321572171769004035")
DEV_MARKER: Final = x509.UnrecognizedExtension(DEV_MARKER_OID, b"\x05\x00")  # DER NULL

_RSA_BITS: Final = range(2048, 4097)
_RSA_EXPONENT: Final = 65537
_SIGNATURES: Final = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
    }
)
_AUTHENTICATION: Final = frozenset(
    {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
)
_LEAF_CRITICAL: Final = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
    }
)
_CA_CRITICAL: Final = _LEAF_CRITICAL | {ExtensionOID.NAME_CONSTRAINTS}
_E = TypeVar("_E", bound=x509.ExtensionType)
_Extensions: TypeAlias = dict[type[x509.ExtensionType], x509.Extension[Any]]
_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate that keeps the rules for keys and CAs, and what it says.

    Whether it is valid now, and whether anyone trusts it, is asked anew for each path.
    """

    certificate: x509.Certificate
    subject: x509.Name
    issuer: x509.Name
    not_before: float  # seconds since the epoch
    not_after: float
    has_rsa_key: bool
    path_length: int | None  # CA certificates that may stand below it and above a leaf; None: any
    name_constraints: x509.NameConstraints | None


@lru_cache(maxsize=64)  # few issuers sign many leaves; at most 64 x 32 KiB, and nothing is proven
def read_issuer(der: bytes) -> Issuer:
    """Parse a CA certificate in DER; PEER_NOT_AN_SVID, PEER_CHAIN or PEER_KEY if it is none."""
    certificate = load_der(der)
    found = _ca_extensions(certificate)
    require_key(certificate, allow_rsa=True)
    constraints = _find(found, x509.NameConstraints)
    return Issuer(
        certificate,
        certificate.subject,
        certificate.issuer,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        isinstance(certificate.public_key(), rsa.RSAPublicKey),
        found[x509.BasicConstraints].value.path_length,
        None if constraints is None else constraints.value,
    )


def load_der(der: bytes) -> x509.Certificate:
    """Parse one DER certificate and its extensions; PEER_NOT_AN_SVID if it is none."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.extensions  # noqa: B018 - parsed once here, cached by the object
        certificate.subject, certificate.issuer  # noqa: B018 - as above
        sound = certificate.version is x509.Version.v3 and certificate.serial_number > 0
    except (
        ValueError,
        TypeError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        UserWarning,
    ) as exc:
        raise _not_an_svid(f"not a certificate: {exc}") from exc
    if not sound:
        raise _not_an_svid("not of version 3, or its serial number is not positive")
    return certificate


def load_pem(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Parse one or more PEM certificates; PEER_NOT_AN_SVID if there is none."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion, UserWarning) as exc:
        raise _not_an_svid("no certificates in PEM form") from exc
    return tuple(load_der(certificate.public_bytes(Encoding.DER)) for certificate in certificates)


def require_key(certificate: x509.Certificate, *, allow_rsa: bool) -> None:
    """P-256, P-384, Ed25519; where allowed RSA 2048 to 4096, e = 65537; else PEER_KEY."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise CertificateRejected(Reason.PEER_KEY, "the key cannot be read") from exc
    match key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return
        case ed25519.Ed25519PublicKey():
            return
        case rsa.RSAPublicKey() if (
            allow_rsa and key.key_size in _RSA_BITS and key.public_numbers().e == _RSA_EXPONENT
        ):
            return
    raise CertificateRejected(Reason.PEER_KEY, "the key is not on the allow-list")


def require_signature_algorithm(certificate: x509.Certificate) -> None:
    """ECDSA and RSA with SHA-2, or Ed25519; anything else is PEER_CHAIN."""
    if certificate.signature_algorithm_oid not in _SIGNATURES:
        raise CertificateRejected(
            Reason.PEER_CHAIN,
            f"signed with {certificate.signature_algorithm_oid.dotted_string}",
        )


def require_validity(not_before: float, not_after: float, now: float) -> None:
    """Refuse outside notBefore <= now < notAfter; all in seconds since the epoch, no skew."""
    # Written so that a NaN is refused as well.
    if not now >= not_before:
        raise CertificateRejected(Reason.PEER_NOT_YET_VALID, f"valid from {_shown(not_before)}")
    if not now < not_after:
        raise CertificateRejected(Reason.PEER_EXPIRED, f"expired at {_shown(not_after)}")


def require_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Check the signature with an issuer whose key has been allowed; else PEER_UNTRUSTED."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as exc:
        raise CertificateRejected(
            Reason.PEER_UNTRUSTED, "a signature in the chain does not verify"
        ) from exc


def require_leaf(certificate: x509.Certificate) -> SpiffeId:
    """Apply the leaf rules of X509-SVID (sections 2 to 5); return the one identity it carries."""
    found = _known(certificate.extensions, _LEAF_CRITICAL, Reason.PEER_NOT_AN_SVID)
    san = _find(found, x509.SubjectAlternativeName)
    constraints = _find(found, x509.BasicConstraints)
    key_usage = _find(found, x509.KeyUsage)
    extended = _find(found, x509.ExtendedKeyUsage)
    if san is None or constraints is None or key_usage is None or extended is None:
        raise _not_an_svid("a leaf has a SAN, basic constraints, key usage and extended key usage")
    if not san.critical and not certificate.subject.rdns:
        raise _not_an_svid("the subject is empty and the SAN is not critical")
    if constraints.value.ca:
        raise _not_an_svid("a CA certificate does not authenticate")
    usage = key_usage.value
    if not key_usage.critical or not usage.digital_signature:
        raise _not_an_svid("key usage must be critical and hold digitalSignature")
    if usage.key_cert_sign or usage.crl_sign:
        raise _not_an_svid("a leaf does not sign certificates or CRLs")
    if not _AUTHENTICATION.issubset(extended.value):
        raise _not_an_svid("extended key usage must hold serverAuth and clientAuth")
    return _identity(san.value)


def require_ca(certificate: x509.Certificate) -> None:
    """Apply the signing certificate rules of X509-SVID (sections 2 to 4); else PEER_CHAIN."""
    _ca_extensions(certificate)


def is_dev(certificate: x509.Certificate) -> bool:
    """Whether the certificate carries the marker of a throw-away CA."""
    return any(extension.oid == DEV_MARKER_OID for extension in certificate.extensions)


def _ca_extensions(certificate: x509.Certificate) -> _Extensions:
    found = _known(certificate.extensions, _CA_CRITICAL, Reason.PEER_CHAIN)
    constraints = _find(found, x509.BasicConstraints)
    key_usage = _find(found, x509.KeyUsage)
    if constraints is None or not constraints.value.ca:
        raise _no_ca("basic constraints do not say CA")
    if key_usage is None or not key_usage.critical or not key_usage.value.key_cert_sign:
        raise _no_ca("key usage must be critical and hold keyCertSign")
    extended = _find(found, x509.ExtendedKeyUsage)
    if extended is not None and not _AUTHENTICATION.issubset(extended.value):
        raise _no_ca("extended key usage excludes serverAuth or clientAuth")
    san = _find(found, x509.SubjectAlternativeName)
    uris = [] if san is None else _uris(san.value)
    if len(uris) > 1 or not all(_names_a_trust_domain(uri) for uri in uris):
        raise _no_ca("its URI SAN is not one SPIFFE ID without a path")
    return found


def _identity(san: x509.SubjectAlternativeName) -> SpiffeId:
    for name in san:
        # A NUL or a blank inside a name has split what is checked from what is used before.
        if isinstance(name.value, str) and not _VISIBLE.fullmatch(name.value):
            raise _not_an_svid(f"a SAN with characters it must not hold: {name.value[:80]!a}")
    uris = _uris(san)
    if len(uris) != 1:
        raise _not_an_svid(f"{len(uris)} URI SANs where there must be exactly one")
    try:
        identity = SpiffeId.parse(uris[0])
    except BadSpiffeId as exc:
        raise _not_an_svid(exc.detail) from exc
    if identity.trust_domain.scheme != "spiffe":
        raise _not_an_svid("the scheme of the identity is not spiffe")
    return identity


def _uris(san: x509.SubjectAlternativeName) -> list[str]:
    return [name.value for name in san if type(name) is x509.UniformResourceIdentifier]


def _names_a_trust_domain(uri: str) -> bool:
    try:
        return str(TrustDomain.parse(uri)) == uri and uri.startswith("spiffe://")
    except BadSpiffeId:
        return False


def _known(
    extensions: x509.Extensions, known: frozenset[x509.ObjectIdentifier], reason: Reason
) -> _Extensions:
    """Return the extensions by type; a certificate never holds two of one OID (load_der)."""
    found: _Extensions = {}
    for extension in extensions:
        if extension.critical and extension.oid not in known:
            raise CertificateRejected(
                reason, f"unknown critical extension {extension.oid.dotted_string}"
            )
        found[type(extension.value)] = extension
    return found


def _find(found: _Extensions, kind: type[_E]) -> x509.Extension[_E] | None:
    return found.get(kind)


def _shown(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC)}"


def _not_an_svid(detail: str) -> CertificateRejected:
    return CertificateRejected(Reason.PEER_NOT_AN_SVID, detail)


def _no_ca(detail: str) -> CertificateRejected:
    return CertificateRejected(Reason.PEER_CHAIN, f"not a CA certificate for SVIDs: {detail}")
