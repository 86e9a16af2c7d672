"""Base64url and JSON with one spelling each.

1. Size, depth and count are bounded before anything is parsed.
2. What two parsers could read differently is refused: padding and spare bits, duplicate members,
   numbers that lose precision, other encodings than UTF-8 (RFC 4648 3.5, RFC 7493, RFC 8725 3.7).
"""

from __future__ import annotations

import binascii
import json
import re
from typing import Any, Final, NoReturn

from zerotrust.core.errors import MalformedError, Reason

MAX_SAFE_INTEGER: Final = 2**53  # RFC 7493 section 2.2
MAX_CLAIMS_DEPTH: Final = 8


def b64url_encode(data: bytes) -> str:
    """Return unpadded base64url (RFC 7515 section 2)."""
    return b64url_octets(data).decode("ascii")


def b64url_octets(data: bytes) -> bytes:
    """Return unpadded base64url as bytes, for what is signed."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=")


def b64url_decode(text: str | bytes) -> bytes:
    """Decode unpadded base64url in its one canonical spelling; raise MalformedError otherwise."""
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    tail = len(raw) % 4
    try:
        data = binascii.a2b_base64(raw.translate(_FROM_URL) + b"=="[: -tail % 4], strict_mode=True)
    except ValueError as exc:
        raise _malformed("not unpadded base64url") from exc
    # Strict mode leaves one freedom, the spare bits of the last character (RFC 4648 section 3.5).
    if tail and raw[-1] not in _LAST[tail]:
        raise _malformed("not canonical base64url")
    return data


def parse_json_object(
    data: bytes | str,
    *,
    max_bytes: int,
    max_depth: int = 8,
    max_members: int = 4096,
) -> dict[str, Any]:
    """Parse one JSON object of an unambiguous kind (RFC 7493); raise MalformedError for others.

    Refused: over `max_bytes`, `max_depth` levels or `max_members` members or list items; not UTF-8
    or with a BOM; a duplicate member at any depth; NaN, Infinity, a float that overflows; a lone
    surrogate; an integer beyond 2**53 either way.
    """
    text = _bounded_text(data, max_bytes)
    _require_shape(text, max_depth, max_members)
    return _parse_object(text, _DECODER)


def parse_claims(data: bytes) -> dict[str, Any]:
    """Parse a header or claims that came out of a token whose size is bounded already.

    As `parse_json_object`, but for integers, which are bounded by who reads the claim: so that an
    `exp` of 10**18 is refused for what it is.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeError as exc:
        raise _malformed("not UTF-8") from exc
    if text.count("{") + text.count("[") > MAX_CLAIMS_DEPTH:
        _require_shape(text, MAX_CLAIMS_DEPTH, len(text))
    return _parse_object(text, _CLAIMS_DECODER)


_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/***")  # `*` is in no alphabet: refused
_LAST: Final = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def _malformed(detail: str) -> MalformedError:
    return MalformedError(Reason.BAD_JSON, detail)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed("a member occurs twice")
    return members


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _malformed("a number that overflows")
    return value


def _constant(text: str) -> NoReturn:
    raise _malformed(f"{text} is not JSON")


def _integer(text: str) -> int:
    if len(text) > _INTEGER_CHARS or abs(value := int(text)) > MAX_SAFE_INTEGER:
        raise _malformed("an integer beyond 2**53")
    return value


_INTEGER_CHARS: Final = len(f"-{MAX_SAFE_INTEGER}")
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_CLAIMS_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_constant
)


def _bounded_text(data: bytes | str, max_bytes: int) -> str:
    if len(data) > max_bytes:  # before any copy is made
        raise _malformed(f"more than {max_bytes} bytes")
    try:
        if isinstance(data, bytes):
            return data.decode("utf-8")
        size = len(data.encode("utf-8"))
    except UnicodeError as exc:
        raise _malformed("not UTF-8") from exc
    if size > max_bytes:
        raise _malformed(f"more than {max_bytes} bytes")
    return data


def _parse_object(text: str, decoder: json.JSONDecoder) -> dict[str, Any]:
    text = text.strip(" \t\n\r")
    try:
        value, end = decoder.raw_decode(text)
        if "\\u" in text:  # only an escape can spell a lone surrogate
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except MalformedError:
        raise
    except (ValueError, RecursionError) as exc:
        raise _malformed("not JSON, or a lone surrogate in it") from exc
    if not isinstance(value, dict) or end != len(text):
        raise _malformed("not one JSON object")
    return value


def _require_shape(text: str, max_depth: int, max_members: int) -> None:
    """Bound depth and count before parsing: a cheap upper bound first, exactly if that is over."""
    if text.count("{") + text.count("[") <= max_depth and text.count(",") < max_members:
        return
    depth = deepest = count = 0
    for char in _STRING.sub("", text):
        if char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
        elif char == ",":
            count += 1
    if deepest > max_depth or count >= max_members:
        raise _malformed(f"more than {max_depth} levels or {max_members} members")
