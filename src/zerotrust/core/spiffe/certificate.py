"""What is asked of one certificate, by itself: key, leaf rules, CA rules, validity.

1. Every rule raises CertificateRejected; whoever reads our own files turns that into its own error.
2. Keys are judged by this allow-list before anyone checks a signature with them.
3. An extension that is critical and not named here is refused (RFC 5280 section 4.2).
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

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
_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)


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


def require_validity(certificate: x509.Certificate, now: float) -> None:
    """Refuse outside notBefore <= now < notAfter; `now` in seconds since the epoch, no skew."""
    # Written so that a NaN is refused as well.
    if not now >= certificate.not_valid_before_utc.timestamp():
        raise CertificateRejected(
            Reason.PEER_NOT_YET_VALID, f"valid from {certificate.not_valid_before_utc}"
        )
    if not now < certificate.not_valid_after_utc.timestamp():
        raise CertificateRejected(
            Reason.PEER_EXPIRED, f"expired at {certificate.not_valid_after_utc}"
        )


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
    extensions = certificate.extensions
    _require_known(extensions, _LEAF_CRITICAL)
    san = _find(extensions, x509.SubjectAlternativeName)
    constraints = _find(extensions, x509.BasicConstraints)
    key_usage = _find(extensions, x509.KeyUsage)
    extended = _find(extensions, x509.ExtendedKeyUsage)
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
    extensions = certificate.extensions
    _require_known(extensions, _CA_CRITICAL, Reason.PEER_CHAIN)
    constraints = _find(extensions, x509.BasicConstraints)
    key_usage = _find(extensions, x509.KeyUsage)
    if constraints is None or not constraints.value.ca:
        raise _no_ca("basic constraints do not say CA")
    if key_usage is None or not key_usage.critical or not key_usage.value.key_cert_sign:
        raise _no_ca("key usage must be critical and hold keyCertSign")
    extended = _find(extensions, x509.ExtendedKeyUsage)
    if extended is not None and not _AUTHENTICATION.issubset(extended.value):
        raise _no_ca("extended key usage excludes serverAuth or clientAuth")
    san = _find(extensions, x509.SubjectAlternativeName)
    uris = [] if san is None else _uris(san.value)
    if len(uris) > 1 or not all(_names_a_trust_domain(uri) for uri in uris):
        raise _no_ca("its URI SAN is not one SPIFFE ID without a path")


def path_length(certificate: x509.Certificate) -> int | None:
    """How many CA certificates may stand between this one and a leaf; None for any number."""
    constraints = _find(certificate.extensions, x509.BasicConstraints)
    return None if constraints is None else constraints.value.path_length


def is_dev(certificate: x509.Certificate) -> bool:
    """Whether the certificate carries the marker of a throw-away CA."""
    return any(extension.oid == DEV_MARKER_OID for extension in certificate.extensions)


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
    return san.get_values_for_type(x509.UniformResourceIdentifier)


def _names_a_trust_domain(uri: str) -> bool:
    try:
        return str(TrustDomain.parse(uri)) == uri and uri.startswith("spiffe://")
    except BadSpiffeId:
        return False


def _find(extensions: x509.Extensions, kind: type[_E]) -> x509.Extension[_E] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _require_known(
    extensions: x509.Extensions,
    known: frozenset[x509.ObjectIdentifier],
    reason: Reason = Reason.PEER_NOT_AN_SVID,
) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in known:
            raise CertificateRejected(
                reason, f"unknown critical extension {extension.oid.dotted_string}"
            )


def _not_an_svid(detail: str) -> CertificateRejected:
    return CertificateRejected(Reason.PEER_NOT_AN_SVID, detail)


def _no_ca(detail: str) -> CertificateRejected:
    return CertificateRejected(Reason.PEER_CHAIN, f"not a CA certificate for SVIDs: {detail}")
