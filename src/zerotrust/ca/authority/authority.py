"""What the CA signs, for whom, and when it must not.

1. Pure: `now` and random bytes are arguments; keys arrive opened.
2. The identity is the entry's. From the request come two public keys, each with proof that it is
   held.
3. A certificate has one child. The same parent asking with the same keys gets the same answer;
   with other keys, two
   parties hold one key: the lineage is frozen.
4. Every renewal is a rekey, and asks anew whether the entry still entitles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.ca.authority.entries import require_dns_name, require_sound
from zerotrust.ca.authority.profiles import (
    SERIAL_BYTES,
    authority_key,
    ends_at,
    leaf_profile,
    serial_of,
)
from zerotrust.core.enrolment import ca_id
from zerotrust.core.errors import NotEntitled, Reason, RequestRefused
from zerotrust.core.jose import b64url_encode
from zerotrust.core.tokens.wit import mint_wit

if TYPE_CHECKING:
    from cryptography import x509

    from zerotrust.ca.authority.csr import CertificationKey
    from zerotrust.ca.authority.entries import RegistrationEntry
    from zerotrust.core.jose import PublicJwk, SigningKey
    from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain

RANDOM_BYTES: Final = SERIAL_BYTES + 16  # serial, then the WIT's jti
_SHA256: Final = hashes.SHA256()


@dataclass(frozen=True, slots=True)
class Keys:
    """The two keys to certify; their holder proved both."""

    tls: CertificationKey
    wit: PublicJwk


@dataclass(frozen=True, slots=True)
class Lineage:
    """All certificates that descend from one attestation."""

    id: str
    entry: str
    attested_at: float
    selectors: frozenset[str]
    frozen_at: float | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is recorded of each certificate before anyone receives it.

    Serials are lower-case hex.
    """

    serial: str
    lineage: str
    parent: str | None
    spiffe_id: str
    spki: bytes  # SHA-256
    wit_jkt: str
    issued_at: float
    not_after: float
    leaf: bytes  # DER
    issuer: bytes  # DER
    wit: str = field(repr=False)


class Authority:
    """One issuing key and one WIT key of one trust domain."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        wit_key: SigningKey,
        *,
        dev: bool,
    ) -> None:
        if certificate.public_key() != key.public_key():
            raise RequestRefused(Reason.ENTRY, "the issuing certificate is for another key")
        self.trust_domain, self.certificate, self.dev = trust_domain, certificate, dev
        self._key, self._wit_key = key, wit_key
        self._der = certificate.public_bytes(Encoding.DER)
        self._key_id = authority_key(certificate)

    def issue(
        self,
        entry: RegistrationEntry,
        keys: Keys,
        *,
        lineage: str,
        parent: str | None,
        now: float,
        random: bytes,
    ) -> Certificate:
        """Sign a certificate and a WIT for the entry's identity (`random`: RANDOM_BYTES)."""
        require_sound(entry, trust_domain=self.trust_domain, dev=self.dev)
        wit_ttl = entry.ttl if entry.wit_ttl is None else entry.wit_ttl
        return self._sign(
            entry.spiffe_id,
            entry.dns_names,
            keys,
            ttl=entry.ttl,
            wit_ttl=wit_ttl,
            lineage=lineage,
            parent=parent,
            now=now,
            random=random,
        )

    def issue_own(
        self, keys: Keys, *, dns_names: tuple[str, ...], ttl: float, now: float, random: bytes
    ) -> Certificate:
        """Sign the CA's own identity, which no entry can name."""
        for name in dns_names:
            require_dns_name(name)
        return self._sign(
            ca_id(self.trust_domain),
            dns_names,
            keys,
            ttl=ttl,
            wit_ttl=ttl,
            lineage="own",
            parent=None,
            now=now,
            random=random,
        )

    def _sign(
        self,
        spiffe_id: SpiffeId,
        dns_names: tuple[str, ...],
        keys: Keys,
        *,
        ttl: float,
        wit_ttl: float,
        lineage: str,
        parent: str | None,
        now: float,
        random: bytes,
    ) -> Certificate:
        serial, jti = random[:SERIAL_BYTES], random[SERIAL_BYTES:RANDOM_BYTES]
        profile = leaf_profile(
            keys.tls.key,
            spiffe_id=spiffe_id,
            dns_names=dns_names,
            issuer=self.certificate,
            issuer_key_id=self._key_id,
            dev=self.dev,
            ttl=ttl,
            now=now,
            random=serial,
        )
        not_after = min(int(now + ttl), int(ends_at(self.certificate)))
        wit = mint_wit(
            subject=spiffe_id,
            key=keys.wit,
            issuer_key=self._wit_key,
            issued_at=int(now),
            expires_at=min(not_after, int(now + wit_ttl)),
            jti=b64url_encode(jti),
        )
        return Certificate(
            f"{serial_of(serial):x}",
            lineage,
            parent,
            str(spiffe_id),
            keys.tls.digest,
            keys.wit.thumbprint,
            now,
            float(not_after),
            profile.sign(self._key, _SHA256).public_bytes(Encoding.DER),
            self._der,
            wit,
        )


def same_keys(certificate: Certificate, keys: Keys) -> bool:
    """Whether this certificate was issued for these two keys.

    Then its answer may be given again.
    """
    return certificate.spki == keys.tls.digest and certificate.wit_jkt == keys.wit.thumbprint


def require_rekey(parent: Certificate, keys: Keys) -> None:
    """Raise RequestRefused(CSR) when a renewal brings a key of its parent again."""
    if parent.spki == keys.tls.digest or parent.wit_jkt == keys.wit.thumbprint:
        raise RequestRefused(Reason.CSR, "a renewal brings two new keys")


def require_entitled(
    entry: RegistrationEntry | None,
    lineage: Lineage,
    *,
    spiffe_id: str,
    now: float,
    max_age: float | None,
) -> RegistrationEntry:
    """Return the entry if it still entitles this lineage to this identity; raise NotEntitled."""
    if lineage.frozen_at is not None:
        raise NotEntitled(Reason.LINEAGE_FROZEN, "two parties hold this identity; it is frozen")
    if max_age is not None and now - lineage.attested_at > max_age:
        raise NotEntitled(Reason.LINEAGE_TOO_OLD, "attest again: the lineage is too old")
    if entry is None or str(entry.spiffe_id) != spiffe_id:
        raise NotEntitled(Reason.NOT_ENTITLED, "no entry entitles to this identity any more")
    if not lineage.selectors.issuperset(entry.selectors):
        raise NotEntitled(Reason.NOT_ENTITLED, "the entry now asks for what was not attested")
    return entry
