"""Published test vectors: those beside the checkout, skipped with a reason where they are absent.

1. One table maps the neutral codes of the vectors to our reasons.
2. A case that needs the request around its tokens stands in HTTP_LEVEL, for whoever has one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from zerotrust.core.errors import Reason
from zerotrust.core.jose import PublicJwk
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
SHARED: Final = _REPOSITORY.parent / "shared" / "vectors"
FROZEN: Final = _REPOSITORY / "tests" / "vectors"

# Neutral code -> what we say. Several where the vector leaves open which check comes first.
REASONS: Final[dict[str, frozenset[Reason]]] = {
    "malformed": frozenset(
        {Reason.TOKEN_MALFORMED, Reason.TOKEN_CLAIM, Reason.HEADER_DUPLICATE, Reason.HEADER_INVALID}
    ),
    "alg_not_allowed": frozenset({Reason.TOKEN_ALGORITHM}),
    "alg_mismatch": frozenset({Reason.TOKEN_ALGORITHM}),
    "wrong_typ": frozenset({Reason.TOKEN_TYPE}),
    "unknown_key": frozenset({Reason.TOKEN_UNKNOWN_KEY}),
    "unsupported_critical": frozenset({Reason.TOKEN_CRITICAL}),
    "forbidden_header": frozenset({Reason.TOKEN_HEADER}),
    "lifetime_too_long": frozenset({Reason.TOKEN_TOO_LONG_LIVED}),
    "missing_claim": frozenset({Reason.TOKEN_CLAIM_MISSING}),
    "expired": frozenset({Reason.TOKEN_EXPIRED}),
    "not_yet_valid": frozenset({Reason.TOKEN_NOT_YET_VALID}),
    "untrusted_origin": frozenset({Reason.TOKEN_ORIGIN}),
    "bad_identifier": frozenset({Reason.TOKEN_SUBJECT}),
    "bad_cnf": frozenset({Reason.TOKEN_CONFIRMATION}),
    "policy_reject": frozenset({Reason.TOKEN_AUDIENCE}),
    "wit_binding": frozenset({Reason.TOKEN_WIT_BINDING}),
    "token_binding": frozenset({Reason.TOKEN_OTHER_BINDING}),
    "audience_mismatch": frozenset({Reason.TOKEN_AUDIENCE}),
    "bad_signature": frozenset({Reason.TOKEN_SIGNATURE}),
    "replayed": frozenset({Reason.TOKEN_REPLAY}),
    "wrong_scheme": frozenset({Reason.TOKEN_SCHEME}),
    "missing_wit": frozenset({Reason.TOKEN_MISSING}),
    "missing_proof": frozenset({Reason.TOKEN_MISSING}),
}
ACCEPTED: Final = frozenset({"accept", "policy_reject_or_accept"})

# WPT cases whose fault lies in the request's fields or in its repetition, not in the tokens.
HTTP_LEVEL: Final = frozenset(
    {
        "replay",
        "bearer-plus-wpt",
        "bearer-scheme",
        "comma-joined",
        "wit-header-missing",
        "legacy-header-only",
        "host-header-lies",
    }
)


def shared_json(name: str) -> Any:
    """Read a file under ../shared/vectors, or skip the module that asks for it."""
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs the vectors beside the checkout: {name}", allow_module_level=True)
    return json.loads(path.read_text("utf-8"))


def frozen_json(name: str) -> Any:
    """Read a file under tests/vectors."""
    return json.loads((FROZEN / name).read_text("utf-8"))


def wimse_bundles(vectors: Any) -> BundleSet:
    """Return the trust that the WIMSE examples assume: one published key under `wimse://`."""
    trust = vectors["wit_wpt_01"]["trust"]
    jwk = vectors["wit_wpt_01"]["issuer_public_jwk"]
    origin = TrustDomain.parse(trust["origin"])
    return BundleSet([TrustBundle(origin, (), {jwk["kid"]: PublicJwk.parse(jwk)})])
