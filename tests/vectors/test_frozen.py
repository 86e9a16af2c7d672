"""Tokens frozen with the first release: a change that reads them differently breaks the wire."""

from __future__ import annotations

from typing import Any

import pytest

from support.vectors import frozen_json
from zerotrust.core.errors import TokenRejected
from zerotrust.core.jose import PublicJwk
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.core.tokens.binding import prove_mode
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.core.tokens.wpt import verify_wpt

FROZEN: Any = frozen_json("tokens.json")
BUNDLES = BundleSet(
    [
        TrustBundle(
            TrustDomain.parse(FROZEN["trust"]["origin"]),
            (),
            {kid: PublicJwk.parse(jwk) for kid, jwk in FROZEN["trust"]["keys"].items()},
        )
    ]
)


def judged(case: Any) -> str:
    """The mode a case proves, or the reason it is refused for."""
    now = FROZEN["now"]
    try:
        wit = verify_wit(case["wit"], BUNDLES, now)
        wpt = verify_wpt(case["wpt"], wit, {FROZEN["own_id"], FROZEN["target_uri"]}, now)
        mode = prove_mode(
            wpt,
            own_id=FROZEN["own_id"],
            target_uris={FROZEN["target_uri"]},
            method=FROZEN["method"],
            target=FROZEN["target"].encode(),
            peer_x5t=FROZEN["peer_x5t"],
            now=now,
        )
    except TokenRejected as exc:
        return str(exc.reason.value)
    return mode.label


@pytest.mark.parametrize("case", FROZEN["cases"], ids=lambda case: case["name"])
def test_a_frozen_token_is_judged_as_ever(case: Any) -> None:
    assert judged(case) == case["expect"]
