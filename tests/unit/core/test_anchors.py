"""A statement of the anchors counts only as a root that is trusted wrote it, whole."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from zerotrust.core.anchors import (
    ANCHORS_TYPE,
    MAX_ANCHORS,
    AnchorStatement,
    fingerprints,
    sign_anchors,
    verify_anchors,
)
from zerotrust.core.errors import CertificateRejected, Reason
from zerotrust.core.jose import SigningKey
from zerotrust.probe.forge import ForgedAuthority, jws

NOW = time.time()
CA = ForgedAuthority("example.org", now=NOW)
DOMAIN = CA.trust_domain
assert isinstance(CA.root_key, ec.EllipticCurvePrivateKey)
ROOT_KEY = SigningKey.from_private(CA.root_key)
DIGESTS = list(fingerprints([CA.root]))
CLAIMS = {"iss": str(DOMAIN), "sequence": 5, "anchors": DIGESTS}


def statement(claims: Mapping[str, object], **header: object) -> str:
    kid = ROOT_KEY.public.thumbprint
    return jws({"alg": "ES256", "typ": ANCHORS_TYPE, "kid": kid, **header}, claims, ROOT_KEY)


def verified(*statements: str, trusted: x509.Certificate = CA.root) -> AnchorStatement:
    return verify_anchors(statements, trust_domain=DOMAIN, trusted=[trusted], sequence=5)


def refused(*statements: str, trusted: x509.Certificate = CA.root) -> Reason:
    with pytest.raises(CertificateRejected) as refusal:
        verified(*statements, trusted=trusted)
    return refusal.value.reason


def test_a_whole_statement_by_a_trusted_root_counts() -> None:
    assert verified(statement(CLAIMS)).anchors == tuple(DIGESTS)


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "spiffe://partner.example"},
        {"iss": "spiffe://Example.org"},
        {"iss": 7},
        {"iss": None},
        {"sequence": 4},
        {"sequence": -1},
        {"sequence": "5"},
        {"sequence": True},
        {"anchors": []},
        {"anchors": {}},
        {"anchors": DIGESTS * (MAX_ANCHORS + 1)},
        {"anchors": [DIGESTS[0].upper()]},
        {"anchors": [DIGESTS[0][:-1]]},
        {"anchors": [7]},
        {"more": 1},
    ],
)
def test_a_statement_that_says_anything_else_does_not_count(change: dict[str, object]) -> None:
    assert refused(statement({**CLAIMS, **change})) is Reason.ANCHOR_UNANNOUNCED


@pytest.mark.parametrize("missing", sorted(CLAIMS))
def test_a_statement_that_leaves_something_out_does_not_count(missing: str) -> None:
    claims = {name: value for name, value in CLAIMS.items() if name != missing}
    assert refused(statement(claims)) is Reason.ANCHOR_UNANNOUNCED


@pytest.mark.parametrize("header", [{"kid": "other"}, {"typ": "JWT"}, {"alg": "none"}], ids=str)
def test_a_statement_under_another_header_does_not_count(header: dict[str, object]) -> None:
    assert refused(statement(CLAIMS, **header)) is Reason.ANCHOR_UNANNOUNCED


def test_a_statement_beside_broken_ones_counts() -> None:
    assert verified("broken", statement({**CLAIMS, "iss": 7}), statement(CLAIMS)).sequence == 5


def test_statements_beyond_the_bound_are_not_read() -> None:
    assert refused(*["broken"] * MAX_ANCHORS, statement(CLAIMS)) is Reason.ANCHOR_UNANNOUNCED


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-384", "Ed25519"],
)
def test_a_root_of_another_kind_speaks_for_itself(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    other = ForgedAuthority("example.org", now=NOW, key=key)
    alg = "Ed25519" if isinstance(key, ed25519.Ed25519PrivateKey) else "ES384"
    signer = SigningKey.from_private(key, alg)
    said = sign_anchors(signer, trust_domain=DOMAIN, sequence=5, anchors=[other.root])
    assert verified(said, trusted=other.root).anchors == fingerprints([other.root])


def test_an_rsa_root_announces_nothing() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    other = ForgedAuthority("example.org", now=NOW, key=key)
    assert refused(statement(CLAIMS), trusted=other.root) is Reason.PEER_KEY
