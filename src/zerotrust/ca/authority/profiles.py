"""The fields of every certificate we sign: root, issuing CA and leaf (X509-SVID, RFC 5280).

1. Every field is written here; none is copied from a request.
2. Validity is whole seconds. A leaf begins min(60 s, ttl/10) early and never outlives its issuer.
3. A CA certificate has a subject unique to its key, so two generations are never confused.
4. A dev CA marks its root, and copies the mark into issuer and leaf for whoever looks at one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zerotrust.ca.authority.entries import dns_of
from zerotrust.core.errors import Reason, RequestRefused
from zerotrust.core.spiffe.certificate import DEV_MARKER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric import ec

    from zerotrust.ca.authority.csr import PublicKey
    from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

ROOT_LIFETIME: Final = 10 * 365 * 86400.0  # seconds
ISSUER_LIFETIME: Final = 7 * 86400.0
BACKDATE: Final = 60.0
SERIAL_BYTES: Final = 20

Kind = TypeVar("Kind", bound=x509.ExtensionType)


def _extension(value: Kind, *, critical: bool) -> x509.Extension[Kind]:
    return x509.Extension(value.oid, critical, value)


_LEAF_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_LEAF_EXTENDED_USAGE: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
_NOT_A_CA: Final = x509.BasicConstraints(ca=False, path_length=None)
_NO_SUBJECT: Final = x509.Name([])
_ALIKE: Final = (  # in every leaf
    _extension(_LEAF_USAGE, critical=True),
    _extension(_NOT_A_CA, critical=True),
    _extension(_LEAF_EXTENDED_USAGE, critical=False),
)


def root_profile(
    key: ec.EllipticCurvePublicKey,
    *,
    trust_domain: TrustDomain,
    dev: bool,
    now: float,
    random: bytes,
    lifetime: float = ROOT_LIFETIME,
) -> x509.CertificateBuilder:
    """Return a self-issued root: path length 1. `random`: 20 bytes."""
    builder = _ca_profile(key, "root", trust_domain, dev=dev, random=random, path_length=1)
    return _valid(builder.issuer_name(_ca_name(key, "root")), now - BACKDATE, now + lifetime)


def issuer_profile(
    key: ec.EllipticCurvePublicKey,
    *,
    root: x509.Certificate,
    trust_domain: TrustDomain,
    dev: bool,
    now: float,
    random: bytes,
    lifetime: float = ISSUER_LIFETIME,
) -> x509.CertificateBuilder:
    """Return an issuing CA under `root`: path length 0, never outliving the root."""
    builder = _ca_profile(key, "issuer", trust_domain, dev=dev, random=random, path_length=0)
    builder = builder.issuer_name(root.subject).add_extension(authority_key(root), critical=False)
    return _valid(builder, now - BACKDATE, min(now + lifetime, ends_at(root)))


def leaf_profile(
    key: PublicKey,
    *,
    spiffe_id: SpiffeId,
    dns_names: Iterable[str],
    issuer: x509.Certificate,
    issuer_key_id: x509.AuthorityKeyIdentifier,
    dev: bool,
    ttl: float,
    now: float,
    random: bytes,
) -> x509.CertificateBuilder:
    """Return an X509-SVID: one URI, the entry's names and `dns_of(id)`.

    Refused when the issuer is at its end.
    """
    not_after = min(int(now + ttl), int(ends_at(issuer)))
    if not_after <= now or issuer.not_valid_before_utc.timestamp() > now:
        raise RequestRefused(Reason.ISSUANCE_CLOCK, "the issuing CA is not valid now: rotate it")
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    names += [x509.DNSName(name) for name in (*dns_names, dns_of(spiffe_id))]
    extensions: list[x509.Extension[Any]] = [
        _extension(x509.SubjectAlternativeName(names), critical=True),
        *_ALIKE,
        _extension(issuer_key_id, critical=False),
        *([_extension(DEV_MARKER, critical=False)] if dev else []),
    ]
    return x509.CertificateBuilder(
        issuer_name=issuer.subject,
        subject_name=_NO_SUBJECT,
        public_key=key,
        serial_number=serial_of(random),
        not_valid_before=_time(now - min(BACKDATE, ttl / 10)),
        not_valid_after=_time(not_after),
        extensions=extensions,
    )


def authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the AuthorityKeyIdentifier of what `issuer` signs."""
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def serial_of(random: bytes) -> int:
    """Return a positive serial of 159 bits from 20 random bytes (RFC 5280 section 4.1.2.2)."""
    if len(random) != SERIAL_BYTES:
        raise ValueError(f"a serial is made from {SERIAL_BYTES} bytes")
    return int.from_bytes(random, "big") >> 1 or 1


def ends_at(certificate: x509.Certificate) -> float:
    """Return notAfter as seconds since the epoch."""
    return certificate.not_valid_after_utc.timestamp()


def _ca_profile(
    key: ec.EllipticCurvePublicKey,
    word: str,
    trust_domain: TrustDomain,
    *,
    dev: bool,
    random: bytes,
    path_length: int,
) -> x509.CertificateBuilder:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(trust_domain))])
    builder = (
        x509.CertificateBuilder(public_key=key, serial_number=serial_of(random))
        .subject_name(_ca_name(key, word))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(names, critical=False)
    )
    return builder.add_extension(DEV_MARKER, critical=False) if dev else builder


def _ca_name(key: ec.EllipticCurvePublicKey, word: str) -> x509.Name:
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    common = f"zerotrust {word} {hashlib.sha256(spki).hexdigest()[:16]}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _valid(
    builder: x509.CertificateBuilder, not_before: float, not_after: float
) -> x509.CertificateBuilder:
    return builder.not_valid_before(_time(not_before)).not_valid_after(_time(not_after))


def _time(at: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(at), dt.UTC)
