"""Claims read out of untrusted JSON: the type that was meant, within limits, or TokenRejected.

1. Absent is TOKEN_CLAIM_MISSING, of the wrong type or size is TOKEN_CLAIM; nothing is coerced.
2. `exp` gets no skew; `iat` and `nbf` do, and it never lengthens a lifetime.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.jose import MAX_SAFE_INTEGER, b64url_encode
from zerotrust.core.tokens.profile import TEXT_MAX_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping


def digest(text: str | bytes) -> str:
    """Return base64url(SHA-256(text)); raise TokenRejected for a str that is not ASCII."""
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as exc:
        raise TokenRejected(Reason.TOKEN_MALFORMED, "not ASCII") from exc
    return b64url_encode(hashlib.sha256(data).digest())


def required(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim; raise TokenRejected where it is absent."""
    try:
        return claims[name]
    except KeyError:
        raise TokenRejected(Reason.TOKEN_CLAIM_MISSING, f"`{name}` is missing") from None


def text(claims: Mapping[str, Any], name: str, longest: int = TEXT_MAX_CHARS) -> str | None:
    """Return a string of 1 to `longest` characters, or None where the claim is absent."""
    return required_text(claims, name, longest) if name in claims else None


def required_text(claims: Mapping[str, Any], name: str, longest: int = TEXT_MAX_CHARS) -> str:
    """Return a string of 1 to `longest` characters."""
    value = claims[name] if name in claims else required(claims, name)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise TokenRejected(Reason.TOKEN_CLAIM, f"`{name}` is not a string of 1 to {longest}")
    return value


def expiry(claims: Mapping[str, Any], now: float, max_lifetime: float) -> int:
    """Return `exp`, later than `now` and at most `max_lifetime` seconds away."""
    value = required(claims, "exp")
    if type(value) is not int or value <= 0:
        raise TokenRejected(Reason.TOKEN_CLAIM, "`exp` is not a positive integer")
    if value <= now:
        raise TokenRejected(Reason.TOKEN_EXPIRED, f"expired {now - value:.0f} s ago")
    if not value - now <= max_lifetime or value >= MAX_SAFE_INTEGER:
        raise TokenRejected(Reason.TOKEN_TOO_LONG_LIVED, f"lives more than {max_lifetime:.0f} s")
    return value


def not_later(claims: Mapping[str, Any], name: str, now: float, skew: float) -> int | None:
    """Return `iat` or `nbf`, at most `skew` seconds ahead of `now`, or None where it is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int or not 0 < value < MAX_SAFE_INTEGER:
        raise TokenRejected(Reason.TOKEN_CLAIM, f"`{name}` is not a positive integer")
    if value > now + skew:
        raise TokenRejected(Reason.TOKEN_NOT_YET_VALID, f"`{name}` is {value - now:.0f} s ahead")
    return value
