"""The two header fields that carry the tokens, as text; tokens are judged where they are parsed.

1. One token per field: a list, a second scheme or anything after the token is refused.
"""

from __future__ import annotations

from typing import Final

from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.tokens.profile import TXN_HEADER, WIT_HEADER, WPT_HEADER, WPT_SCHEME

IDENTITY_FIELD: Final = WIT_HEADER.encode()
PROOF_FIELD: Final = WPT_HEADER.encode()
TXN_FIELD: Final = TXN_HEADER.encode()

_SCHEME: Final = WPT_SCHEME.lower().encode()


def read_identity_field(value: bytes | None) -> str:
    """Return the compact JWS of a Workload-Identity-Token field; raise TokenRejected."""
    if value is None:
        raise TokenRejected(Reason.TOKEN_MISSING, "no Workload-Identity-Token")
    return _ascii(value)


def read_proof_field(value: bytes | None) -> str:
    """Return the compact JWS of `Authorization: WPT <jws>`; raise TokenRejected.

    The scheme is compared without case (RFC 9110 section 11.1).
    """
    if value is None:
        raise TokenRejected(Reason.TOKEN_MISSING, "no Authorization")
    scheme, space, token = value.partition(b" ")
    if scheme.lower() != _SCHEME or not space:
        raise TokenRejected(Reason.TOKEN_SCHEME, "the Authorization scheme is not WPT")
    return _ascii(token)


def _ascii(value: bytes) -> str:
    if not value.isascii():
        raise TokenRejected(Reason.TOKEN_MALFORMED, "the token is not ASCII")
    return value.decode("ascii")
