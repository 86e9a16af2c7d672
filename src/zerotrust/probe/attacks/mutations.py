"""Changes to the text of a token: pure, each makes exactly one thing wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from zerotrust.core.jose import SigningKey
from zerotrust.probe.forge import b64

_COORDINATE: Final = 32  # bytes of r and of s
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def unsigned(token: str, spelling: str) -> str:
    """Name `spelling` as the algorithm and leave the signature empty."""
    header, claims, _ = token.split(".")
    return f"{_with_members(header, alg=spelling)}.{claims}."


def confused(token: str, secret: bytes) -> str:
    """Sign with HMAC under a public key, as if it were a shared secret."""
    header, claims, _ = token.split(".")
    text = f"{_with_members(header, alg='HS256')}.{claims}"
    return f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def swapped(token: str) -> str:
    """Put the claims where the header belongs."""
    header, claims, signature = token.split(".")
    return f"{claims}.{header}.{signature}"


def with_signature(token: str, change: Callable[[bytes], bytes]) -> str:
    """Change the bytes of the signature."""
    header, claims, signature = token.split(".")
    return f"{header}.{claims}.{b64(change(_decode(signature)))}"


def flip(raw: bytes) -> bytes:
    """Flip one bit."""
    return bytes([raw[0] ^ 1]) + raw[1:]


def as_der(raw: bytes) -> bytes:
    """Spell an ECDSA signature in ASN.1."""
    return encode_dss_signature(
        int.from_bytes(raw[:_COORDINATE], "big"), int.from_bytes(raw[_COORDINATE:], "big")
    )


def with_spare_bit(token: str) -> str:
    """Spell the same bytes with an unused bit set in the last character."""
    return token[:-1] + _ALPHABET[_ALPHABET.index(token[-1]) ^ 1]


def with_claims_text(token: str, key: SigningKey, change: Callable[[str], str]) -> str:
    """Change the JSON text of the claims and sign it again."""
    header, claims, _ = token.split(".")
    text = change(json.dumps(json.loads(_decode(claims)), separators=(",", ":")))
    return _sign(header, b64(text.encode()), key)


def with_exp(token: str, key: SigningKey, value: str) -> str:
    """Replace the number of `exp` by other JSON text and sign it again."""

    def swap(text: str) -> str:
        return text.replace(f'"exp":{json.loads(text)["exp"]}', f'"exp":{value}')

    return with_claims_text(token, key, swap)


def with_second_alg(token: str, key: SigningKey) -> str:
    """Give the header a second `alg` and sign it again."""
    header, claims, _ = token.split(".")
    twice = _decode(header).replace(b"{", b'{"alg":"none",', 1)
    return _sign(b64(twice), claims, key)


def _sign(header: str, claims: str, key: SigningKey) -> str:
    return f"{header}.{claims}.{b64(key.sign(f'{header}.{claims}'.encode()))}"


def _with_members(segment: str, **members: Any) -> str:
    changed = {**json.loads(_decode(segment)), **members}
    return b64(json.dumps(changed, separators=(",", ":")).encode())


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "==")
