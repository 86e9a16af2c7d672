"""What a CA answers is not believed: it must fit what was asked and what is trusted already.

1. The keys are ours, made here and never sent; one pair for TLS, another one for the token.
2. The anchors are those the join token lists, or those we trust, or announced by one of those.
3. Sequences never fall. Nothing is taken from an answer of which any part is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Never, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from zerotrust.core.enrolment import (
    Evidence,
    Issued,
    JoinToken,
    Published,
    RenewRequest,
    prove_wit_key,
    verify_anchors,
)
from zerotrust.core.errors import (
    CertificateRejected,
    ConfigurationError,
    Reason,
    TokenRejected,
)
from zerotrust.core.jose import SigningKey, parse_json_object
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.core.spiffe.x509_svid import X509Svid, verify_x509_svid
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.workload.identity import Snapshot, WitCredential

_MAX_PENDING_BYTES: Final = 64 * 1024
_DAMAGED: Final = (
    "pending.json is damaged: empty the state folder and enrol again with a new join token"
)


@dataclass(frozen=True, slots=True, repr=False)
class Pending:
    """New keys on their way to be certified. The same ones are sent again until an answer is in."""

    key: ec.EllipticCurvePrivateKey
    wit_key: SigningKey
    request: RenewRequest
    parent: str  # what asks: the thumbprint of a certificate, or the digest of evidence

    @classmethod
    def generate(cls, *, ca: SpiffeId, evidence: Evidence | None, parent: str) -> Self:
        """Make both key pairs, an empty CSR, and the proof that binds the one to the other."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        wit_key = SigningKey.generate("ES256")
        proof = prove_wit_key(wit_key, csr=csr, ca=ca, evidence=evidence)
        return cls(key, wit_key, RenewRequest(csr, wit_key.public.as_dict(), proof), parent)

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Read what `dump` wrote; raise ConfigurationError."""
        try:
            members = parse_json_object(document, max_bytes=_MAX_PENDING_BYTES)
            key = load_pem_private_key(members["key"].encode(), None)
            wit_key = SigningKey.from_pem(members["wit_key"].encode())
            request = RenewRequest.parse(json.dumps(members["request"]).encode())
            parent = str(members["parent"])
        except (KeyError, AttributeError, TypeError, ValueError, UnsupportedAlgorithm) as exc:
            raise ConfigurationError(_DAMAGED, Reason.FILE_ACCESS) from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigurationError(_DAMAGED, Reason.FILE_ACCESS)
        return cls(key, wit_key, request, parent)

    def dump(self) -> bytes:
        """Return it as JSON, private keys included, for a file that nobody else can read."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        members: dict[str, Any] = {
            "key": pem.decode(),
            "wit_key": self.wit_key.to_pem().decode(),
            "request": self.request.members(),
            "parent": self.parent,
        }
        return json.dumps(members).encode()

    def __repr__(self) -> str:
        return "<Pending, keys redacted>"

    def __reduce__(self) -> Never:
        raise TypeError("Pending holds private keys and is not pickled")


@dataclass(frozen=True, slots=True)
class Trust:
    """The bundle in use, and the sequence of the last statement of its anchors."""

    bundle: TrustBundle
    announced: int = 0

    @classmethod
    def first(cls, published: Published, token: JoinToken, *, dev: bool) -> Self:
        """Trust a bundle because its roots are exactly those that the join token lists."""
        bundle = TrustBundle.parse(token.ca.trust_domain, published.bundle, allow_dev=dev)
        token.matches(bundle.x509_authorities)
        return cls(bundle)

    def follow(self, published: Published, *, dev: bool) -> Trust:
        """Trust a successor of this bundle, announced by a root of this one.

        Raises CertificateRejected(ANCHOR_UNANNOUNCED) for other roots and for an older bundle.
        """
        origin = self.bundle.origin
        fresh = TrustBundle.parse(origin, published.bundle, allow_dev=dev)
        if (fresh.sequence or 0) < (self.bundle.sequence or 0):
            raise CertificateRejected(
                Reason.ANCHOR_UNANNOUNCED, "the CA's bundle is older than the one in use"
            )
        statement = verify_anchors(
            published.anchors,
            trust_domain=origin,
            trusted=self.bundle.x509_authorities,
            sequence=self.announced,
        )
        statement.covers(fresh.x509_authorities)
        return Trust(fresh, statement.sequence)


def believe(
    issued: Issued, pending: Pending, trust: Trust, *, previous: Snapshot | None, now: float
) -> Snapshot:
    """Return the identity an answer holds, once each part is found to be what was asked for.

    `trust` is what the answer's own bundle led to. Raises CertificateRejected or TokenRejected.
    """
    bundles = BundleSet([trust.bundle])
    if previous is not None and previous.bundles == bundles:
        bundles = previous.bundles  # the same object: nothing has to be verified again
    # 1. The chain holds under our bundle, is an SVID, and certifies the key made here.
    verified = verify_x509_svid(issued.chain, bundles, now)
    chain = tuple(x509.load_der_x509_certificate(der) for der in issued.chain)
    if chain[0].public_key() != pending.key.public_key():
        raise CertificateRejected(Reason.PEER_KEY, "the CA certified a key that is not ours")
    # 2. The identity is one that a workload of this trust domain can have, and stays the same.
    _require_plausible(verified.id, trust.bundle.origin, previous)
    # 3. The token names the same identity and the other key made here.
    wit = verify_wit(
        issued.wit, bundles, now, issuers={trust.bundle.origin: str(trust.bundle.origin)}
    )
    if wit.subject != verified.id:
        raise TokenRejected(Reason.TOKEN_SUBJECT, "the WIT is for another identity than the SVID")
    if wit.key.thumbprint != pending.wit_key.public.thumbprint:
        raise TokenRejected(Reason.TOKEN_CONFIRMATION, "the WIT names a key that is not ours")
    credential = WitCredential(issued.wit, pending.wit_key, wit.expires_at)
    svid = X509Svid(verified.id, chain, pending.key)
    return Snapshot(svid, credential, bundles, dev=trust.bundle.is_dev)


def _require_plausible(id_: SpiffeId, origin: TrustDomain, previous: Snapshot | None) -> None:
    if id_.trust_domain != origin or id_.segments[0] == "zerotrust":
        raise CertificateRejected(
            Reason.PEER_WRONG_TRUST_DOMAIN, f"the CA issued {id_}, which is no workload of {origin}"
        )
    if previous is not None and id_ != previous.svid.id:
        raise CertificateRejected(
            Reason.PEER_UNEXPECTED, f"the CA renewed {previous.svid.id} as {id_}"
        )
