"""Strict JSON, JWK and compact JWS, and no more of JOSE than that.

1. Only the compact JWS exists here: no JWE, no JSON form, no symmetric key, no key out of a header.
2. A key has its algorithm; a token's `alg` is compared with it and never chooses (RFC 8725 3.1).
"""

from zerotrust.core.jose.compact import (
    MAX_TOKEN_BYTES,
    CompactJws,
    parse_compact,
    require_header,
    sign_compact,
    verify_signature,
)
from zerotrust.core.jose.encoding import (
    MAX_SAFE_INTEGER,
    b64url_decode,
    b64url_encode,
    parse_json_object,
)
from zerotrust.core.jose.keys import SIGNATURE_ALGORITHMS, PublicJwk, SigningKey

__all__ = [
    "MAX_SAFE_INTEGER",
    "MAX_TOKEN_BYTES",
    "SIGNATURE_ALGORITHMS",
    "CompactJws",
    "PublicJwk",
    "SigningKey",
    "b64url_decode",
    "b64url_encode",
    "parse_compact",
    "parse_json_object",
    "require_header",
    "sign_compact",
    "verify_signature",
]
