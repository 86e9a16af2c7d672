"""A CA in a folder of its own, and what a workload sends to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust.ca.authority.attestation import Connection
from zerotrust.ca.service import CaSettings, CertificateAuthority, init_ca, open_ca
from zerotrust.core.enrolment import EnrolRequest, Evidence, Issued, RenewRequest, prove_wit_key
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, verify_x509_svid

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
DOMAIN = TrustDomain("example.org")
ROOT_PASSPHRASE, PASSPHRASE = b"root passphrase", b"issuing passphrase"
SOMEWHERE = Connection("192.0.2.1")


def make_ca(
    directory: Path, *, now: float = NOW, settings: CaSettings | None = None, dev: bool = True
) -> CertificateAuthority:
    """Make and open a CA; a dev one, because its keys are sealed at the least cost."""
    init_ca(
        directory,
        DOMAIN,
        root_passphrase=ROOT_PASSPHRASE,
        passphrase=PASSPHRASE,
        now=now,
        dev=dev,
    )
    return open_ca(directory, PASSPHRASE, now=now, settings=settings)


def make_csr(key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """Return an empty CSR (DER)."""
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
    csr = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return csr.public_bytes(Encoding.DER)


@dataclass
class Asker:
    """A workload with its two new keys."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    wit_key: SigningKey = field(default_factory=SigningKey.generate)

    def renewal(self, ca: CertificateAuthority, evidence: Evidence | None = None) -> RenewRequest:
        """Return the keys with their proofs."""
        csr = make_csr(self.key)
        proof = prove_wit_key(self.wit_key, csr=csr, ca=ca.id, evidence=evidence)
        return RenewRequest(csr, self.wit_key.public.as_dict(), proof)

    def enrolment(self, ca: CertificateAuthority, evidence: Evidence) -> EnrolRequest:
        """Return the keys with their proofs, and the evidence."""
        return EnrolRequest(evidence, self.renewal(ca, evidence))

    def enrol(
        self,
        ca: CertificateAuthority,
        evidence: Evidence,
        now: float = NOW,
        *,
        by: Connection = SOMEWHERE,
    ) -> Issued:
        """Enrol in process."""
        return ca.enrol(self.enrolment(ca, evidence), by, now=now).result(10)


def proven(ca: CertificateAuthority, issued: Issued, now: float = NOW) -> VerifiedSvid:
    """Return what a TLS handshake with this certificate proves."""
    return verify_x509_svid(issued.chain, BundleSet([ca.bundle]), now)
