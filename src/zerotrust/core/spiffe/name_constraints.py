"""Name constraints of a CA (RFC 5280 section 4.2.1.10), for the name forms an SVID carries.

1. URI, DNS and IP constraints are evaluated; any other form cannot be, so it is refused.
2. A name of a form that is constrained must match a permitted subtree and no excluded one.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from cryptography import x509

from zerotrust.core.errors import CertificateRejected, Reason

_FORMS = (x509.UniformResourceIdentifier, x509.DNSName, x509.IPAddress)


def require_permitted(issuer: x509.Certificate, below: Sequence[x509.Certificate]) -> None:
    """Refuse with PEER_CHAIN when a name of a certificate below is outside the issuer's constraints."""
    constraints = _extension(issuer, x509.NameConstraints)
    if constraints is None:
        return
    permitted = tuple(constraints.permitted_subtrees or ())
    excluded = tuple(constraints.excluded_subtrees or ())
    if not all(isinstance(tree, _FORMS) for tree in permitted + excluded):
        raise CertificateRejected(Reason.PEER_CHAIN, "a name constraint of a form we cannot judge")
    for certificate in below:
        for name in _extension(certificate, x509.SubjectAlternativeName) or ():
            allowed = [tree for tree in permitted if type(tree) is type(name)]
            if allowed and not any(_within(name, tree) for tree in allowed):
                raise CertificateRejected(Reason.PEER_CHAIN, f"{name.value} is not permitted")
            if any(_within(name, tree) for tree in excluded if type(tree) is type(name)):
                raise CertificateRejected(Reason.PEER_CHAIN, f"{name.value} is excluded")


def _within(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    match name, tree:
        case x509.UniformResourceIdentifier(), x509.UniformResourceIdentifier():
            host, bound = urlsplit(name.value).hostname or "", tree.value.lower()
            # A leading dot means subdomains only, none means this host only.
            return host.endswith(bound) if bound.startswith(".") else host == bound
        case x509.DNSName(), x509.DNSName():
            host, bound = name.value.lower(), tree.value.lower().removeprefix(".")
            return not bound or host == bound or host.endswith("." + bound)
    return getattr(name.value, "version", 0) == tree.value.version and name.value in tree.value


def _extension(certificate, kind):
    return next((e.value for e in certificate.extensions if isinstance(e.value, kind)), None)
