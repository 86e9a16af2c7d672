"""Name constraints of a CA (RFC 5280 section 4.2.1.10), for the name forms an SVID carries.

1. URI, DNS and IP constraints are evaluated; any other form cannot be, so it is refused.
2. A name of a form that is constrained must match a permitted subtree and no excluded one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from zerotrust.core.errors import CertificateRejected, Reason

_FORMS: Final = (x509.UniformResourceIdentifier, x509.DNSName, x509.IPAddress)


def require_permitted(constraints: x509.NameConstraints, below: Sequence[x509.Certificate]) -> None:
    """Refuse with PEER_CHAIN when a name below an issuer is outside its constraints."""
    permitted = tuple(constraints.permitted_subtrees or ())
    excluded = tuple(constraints.excluded_subtrees or ())
    if not all(isinstance(tree, _FORMS) for tree in permitted + excluded):
        raise CertificateRejected(Reason.PEER_CHAIN, "a name constraint of a form we cannot judge")
    for certificate in below:
        for name in _names(certificate):
            allowed = [tree for tree in permitted if type(tree) is type(name)]
            if allowed and not any(_within(name, tree) for tree in allowed):
                raise CertificateRejected(Reason.PEER_CHAIN, f"{name.value!a} is not permitted")
            if any(_within(name, tree) for tree in excluded if type(tree) is type(name)):
                raise CertificateRejected(Reason.PEER_CHAIN, f"{name.value!a} is excluded")


def _within(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    if isinstance(name, x509.IPAddress):
        return bool(name.value in tree.value)
    bound: str = tree.value.lower()
    if isinstance(name, x509.UniformResourceIdentifier):
        host = urlsplit(name.value).hostname or ""
        # A leading dot means subdomains alone; without one it is this host alone.
        return host.endswith(bound) if bound.startswith(".") else host == bound
    host = str(name.value).lower()
    return host == bound or host.endswith(bound if bound[:1] in {"", "."} else f".{bound}")


def _names(certificate: x509.Certificate) -> Sequence[x509.GeneralName]:
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            return tuple(extension.value)
    return ()
