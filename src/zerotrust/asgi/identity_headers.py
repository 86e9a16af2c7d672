"""Header fields by which some proxy or protocol says who calls: the application sees none of them.

1. An application that believed one would believe its sender; it has its Caller instead.
2. Every mix of `-` and `_` counts: gateways in the manner of CGI fold the two into one name.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Final

_IDENTITY_HEADERS: Final = (
    "authorization",
    "workload-identity-token",
    "txn-token",
    "client-cert",  # RFC 9440
    "client-cert-chain",
    "x-forwarded-client-cert",  # Envoy
    "x-forwarded-tls-client-cert",  # Traefik
    "x-forwarded-tls-client-cert-info",
    "ssl-client-cert",  # nginx ingress
    "x-ssl-client-cert",
    "x-client-cert",
)
# every name above under every mix of `-` and `_`; our protocol classes hand on lower-case names
HIDDEN: Final = frozenset(
    "".join(
        part for pair in zip(name.split("-"), (*marks, ""), strict=True) for part in pair
    ).encode()
    for name in _IDENTITY_HEADERS
    for marks in product("-_", repeat=name.count("-"))
)


def visible(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the fields the application may see, in order."""
    return [field for field in headers if field[0].lower() not in HIDDEN]
