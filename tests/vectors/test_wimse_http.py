"""The published negatives whose fault is in the request, each held by an attack of the catalogue.

The examples' identities are `wimse://`, which no certificate here may carry, so their bytes
cannot come over a connection; the same fault is made with tokens of ours and goes through the
guard with the whole catalogue.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.vectors import HTTP_LEVEL, REASONS, shared_json
from zerotrust.probe.run import ATTACKS

HELD_BY = {
    "replay": "ZT-TOK-018/replay",
    "bearer-plus-wpt": "ZT-TOK-021/two-authorizations",
    "bearer-scheme": "ZT-TOK-001/bearer",
    "comma-joined": "ZT-TOK-021/comma-joined",
    "wit-header-missing": "ZT-TOK-001/no-identity",
    "legacy-header-only": "ZT-TOK-001/legacy-field",
    "host-header-lies": "ZT-TOK-019/other-host",
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    vectors = shared_json("wimse.json")
    return {case["id"]: case for case in vectors["derived_negative"]["wpt"]}


def test_every_such_case_is_held() -> None:
    assert HELD_BY.keys() == HTTP_LEVEL


@pytest.mark.parametrize("name", sorted(HTTP_LEVEL))
def test_the_attack_expects_what_the_vector_expects(cases: dict[str, Any], name: str) -> None:
    (attack,) = (attack for attack in ATTACKS if attack.key == HELD_BY[name])
    assert attack.reasons <= REASONS[cases[name]["expect"]]
