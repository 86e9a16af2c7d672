"""Every call between services proves who is calling, or it is refused.

This is the whole public surface of the core. Adapters and products are imported by path
(`zerotrust.asgi`, `zerotrust.httpx`, ...): importing this loads nothing optional, starts nothing.
"""

from zerotrust.core.errors import (
    AccessDenied,
    CallReplayed,
    CertificateRejected,
    ConfigurationError,
    IdentityUnavailable,
    IssuanceError,
    MalformedError,
    PeerError,
    TokenRejected,
    ZeroTrustError,
)
from zerotrust.core.guard import Call, Caller, Guard
from zerotrust.core.policy.model import Allow, Decision, Deny, Policy
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.workload.identity import WorkloadIdentity

__all__ = [
    "AccessDenied",
    "Allow",
    "BundleSet",
    "Call",
    "CallReplayed",
    "Caller",
    "CertificateRejected",
    "ConfigurationError",
    "Decision",
    "Deny",
    "Guard",
    "IdentityUnavailable",
    "IssuanceError",
    "MalformedError",
    "PeerError",
    "Policy",
    "SpiffeId",
    "TokenRejected",
    "TrustBundle",
    "TrustDomain",
    "WorkloadIdentity",
    "X509Svid",
    "ZeroTrustError",
]
