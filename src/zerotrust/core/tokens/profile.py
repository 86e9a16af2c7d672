"""Every name and limit of the token wire, each with the revision it was taken from.

1. A name that goes over the wire stands here and nowhere else.
2. One pinned revision per document; to follow a newer one is a change of this file with its tests.
"""

from __future__ import annotations

from typing import Final

# The pinned revisions.
WORKLOAD_CREDS: Final = "draft-ietf-wimse-workload-creds-02"
WPT: Final = "draft-ietf-wimse-wpt-02"  # 2026-08-27

# Workload Identity Token: workload-creds-02; SPIFFE WIT-SVID where it is stricter.
WIT_HEADER: Final = "workload-identity-token"
WIT_TYP: Final = "wit+jwt"
WIT_MEMBERS: Final = frozenset({"alg", "typ", "kid"})
WIT_MAX_BYTES: Final = 4096
WIT_MAX_LIFETIME: Final = 86_400.0  # seconds
KID_MAX_CHARS: Final = 128

# Workload Proof Token: wpt-02.
WPT_HEADER: Final = "authorization"
WPT_SCHEME: Final = "WPT"  # compared without case (RFC 9110 section 11.1), written like this
WPT_CHALLENGE: Final = "WPT"  # the value of WWW-Authenticate, without parameters
WPT_TYP: Final = "wpt+jwt"
WPT_MEMBERS: Final = frozenset({"alg", "typ"})
WPT_MAX_BYTES: Final = 4096
TXN_HEADER: Final = "txn-token"  # draft-ietf-oauth-transaction-tokens-11
WTH: Final = "wth"
TTH: Final = "tth"
OTH: Final = "oth"

# Registered claims (RFC 7519, RFC 7800) and those borrowed: RFC 8705 section 3.1, RFC 9449 4.2.
CNF: Final = "cnf"
JWK: Final = "jwk"
X5T: Final = "x5t#S256"
HTM: Final = "htm"

# Ours: base64url(SHA-256(raw request-target)), a collision-resistant name (RFC 7519 section 2).
TARGET: Final = "zerotrust-kit/target"

# Limits of ours, in seconds and characters.
BOUND_MAX_LIFETIME: Final = 300.0
PROOF_MAX_LIFETIME: Final = 60.0
BOUND_MINT_LIFETIME: Final = 120.0
PROOF_MINT_LIFETIME: Final = 30.0
SKEW: Final = 30.0  # for iat and nbf; exp gets none
TEXT_MAX_CHARS: Final = 256  # jti and the like
AUDIENCE_MAX_CHARS: Final = 4096
