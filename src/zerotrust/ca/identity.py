"""The CA's own identity: issued by itself, in process, and renewed like any other.

1. Its name stands in no entry; the certificate is recorded like every other one.
2. No message leaves the process: where the CA gets its identity from cannot be attacked over the
   network.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from zerotrust import clock
from zerotrust.ca.authority.authority import Keys
from zerotrust.ca.authority.csr import verify_csr
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.workload.identity import Snapshot, WitCredential

if TYPE_CHECKING:
    from zerotrust.ca.service import CertificateAuthority


class OwnIdentity:
    """A Source for WorkloadIdentity."""

    def __init__(self, ca: CertificateAuthority) -> None:
        self._ca = ca
        self._closed = threading.Event()

    def fetch(self, previous: Snapshot | None) -> Snapshot:  # noqa: ARG002 - the port's
        """Return a new certificate and WIT under new keys."""
        key, wit_key = ec.generate_private_key(ec.SECP256R1()), SigningKey.generate()
        csr = (
            x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
            .sign(key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )
        issued = self._ca.issue_own(Keys(verify_csr(csr), wit_key.public), now=clock.now())
        chain = tuple(x509.load_der_x509_certificate(der) for der in (issued.leaf, issued.issuer))
        wit = WitCredential(issued.wit, wit_key, issued.not_after)
        svid = X509Svid(self._ca.id, chain, key)
        return Snapshot(svid, wit, BundleSet([self._ca.bundle]), dev=self._ca.state.dev)

    def wait(self, seconds: float) -> None:
        """Sleep; there is no news but time."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Wake whoever sleeps."""
        self._closed.set()
