from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.issuing import DOMAIN, NOW, make_csr
from zerotrust.ca.authority.profiles import root_profile
from zerotrust.core import jose
from zerotrust.core.enrolment import (
    EnrolRequest,
    Evidence,
    Issued,
    JoinToken,
    Published,
    RenewRequest,
    ca_id,
    fingerprints,
    parse_address,
    prove_wit_key,
    sign_anchors,
    verify_anchors,
    verify_wit_key,
)
from zerotrust.core.errors import CertificateRejected, MalformedError, Reason, TokenRejected
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.ids import TrustDomain

CA = ca_id(DOMAIN)
TOKEN = JoinToken("localhost:8441", CA, ("a" * 64, "b" * 64), b"s" * 32)
WIT_KEY = SigningKey.generate()
CSR = make_csr()
PUBLISHED = Published(b'{"keys":[]}', ("a.b.c",))
ISSUED = Issued((b"leaf", b"issuer"), "a.b.c", PUBLISHED, "localhost:8442")


def renewal(evidence: Evidence | None = None, key: SigningKey = WIT_KEY) -> RenewRequest:
    proof = prove_wit_key(key, csr=CSR, ca=CA, evidence=evidence)
    return RenewRequest(CSR, key.public.as_dict(), proof)


ENROLMENT = EnrolRequest(TOKEN.evidence, renewal(TOKEN.evidence))


def changed(body: bytes, **changes: Any) -> bytes:
    members = {**json.loads(body), **changes}
    return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()


def test_messages_survive_the_wire() -> None:
    assert EnrolRequest.parse(ENROLMENT.dump()) == ENROLMENT
    assert RenewRequest.parse(renewal().dump()).csr == CSR
    assert Issued.parse(ISSUED.dump()) == ISSUED
    assert Published.parse(PUBLISHED.dump()) == PUBLISHED
    assert JoinToken.parse(TOKEN.dump() + "\n") == TOKEN


@pytest.mark.parametrize(
    "changes",
    [
        {"csr": ...},
        {"more": 1},
        {"csr": 1},
        {"csr": ""},
        {"csr": "=="},
        {"csr": jose.b64url_encode(b"x" * 8193)},
        {"wit_key": []},
        {"wit_key": {"kty": 1}},
        {"wit_proof": "x" * 8193},
        {"evidence": {}},
        {"evidence": {"kind": "join_token"}},
        {"evidence": {"kind": "Join-Token", "value": ""}},
        {"evidence": {"kind": "join_token", "value": "x" * 16385}},
        {"evidence": {"kind": "join_token", "value": "", "more": ""}},
    ],
)
def test_a_misshapen_enrolment_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        EnrolRequest.parse(changed(ENROLMENT.dump(), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"csr": jose.b64url_encode(b"x" * 8192)},
        {"wit_proof": "x" * 8192},
        {"evidence": {"kind": "join_token", "value": "x" * 16384}},
    ],
    ids=["csr", "proof", "evidence"],
)
def test_an_enrolment_at_a_limit_is_read(changes: dict[str, Any]) -> None:
    EnrolRequest.parse(changed(ENROLMENT.dump(), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": ["AAAA"] * 4},
        {"chain": [jose.b64url_encode(b"x" * 16384)]},
        {"wit": "x" * 8192},
        {"anchors": ["x"] * 16},
    ],
    ids=["chain", "certificate", "wit", "anchors"],
)
def test_an_answer_at_a_limit_is_read(changes: dict[str, Any]) -> None:
    Issued.parse(changed(ISSUED.dump(), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"chain": []},
        {"chain": ["AAAA"] * 5},
        {"chain": [1]},
        {"chain": [jose.b64url_encode(b"x" * 16385)]},
        {"wit": "x" * 8193},
        {"renew": "localhost"},
        {"anchors": ["x"] * 17},
        {"bundle": {}},
    ],
)
def test_a_misshapen_answer_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Issued.parse(changed(ISSUED.dump(), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "localhost"},
        {"address": "LOCALHOST:1"},
        {"ca": DOMAIN.id("/ledger")},
        {"anchors": ()},
        {"anchors": ("b" * 64, "a" * 64)},
        {"anchors": ("a" * 64, "a" * 64)},
        {"anchors": ("A" * 64,)},
        {"secret": b"short"},
    ],
)
def test_an_unsound_join_token_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        replace(TOKEN, **changes)


def test_a_join_token_lists_at_most_sixteen_roots() -> None:
    roots = [f"{n:064x}" for n in range(17)]
    assert len(replace(TOKEN, anchors=tuple(roots[:16])).anchors) == 16
    with pytest.raises(MalformedError):
        replace(TOKEN, anchors=tuple(roots))


def test_a_join_token_has_one_spelling() -> None:
    text = TOKEN.dump()
    spaced = "ztjoin1." + jose.b64url_encode(
        json.dumps(json.loads(jose.b64url_decode(text[8:]))).encode()
    )
    for other in (spaced, text + " ", text + "\n\n", text.upper(), text[:-1], "x" * 5000, ""):
        with pytest.raises(MalformedError):
            JoinToken.parse(other)


def test_secrets_stand_in_no_repr() -> None:
    assert jose.b64url_encode(TOKEN.secret) not in repr(TOKEN) + repr(ENROLMENT)


def test_the_proof_of_a_wit_key_holds_for_its_request() -> None:
    key = verify_wit_key(ENROLMENT.keys, ca=CA, evidence=TOKEN.evidence, spki=b"")
    assert key.thumbprint == WIT_KEY.public.thumbprint


def test_the_proof_of_a_wit_key_holds_for_no_other_request() -> None:
    elsewhere = ca_id(TrustDomain("other.example"))
    cases: list[tuple[RenewRequest, Any, Any]] = [
        (ENROLMENT.keys, elsewhere, TOKEN.evidence),
        (ENROLMENT.keys, CA, None),
        (ENROLMENT.keys, CA, Evidence("join_token", "other")),
        (replace(ENROLMENT.keys, csr=make_csr()), CA, TOKEN.evidence),
        (replace(renewal(), wit_proof=ENROLMENT.keys.wit_proof), CA, None),
        (replace(renewal(), wit_proof=renewal(key=SigningKey.generate()).wit_proof), CA, None),
    ]
    for request, ca, evidence in cases:
        with pytest.raises(TokenRejected):
            verify_wit_key(request, ca=ca, evidence=evidence, spki=b"")


def test_a_wit_key_that_is_the_tls_key_is_refused() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    request = renewal(key=SigningKey.from_private(private))
    assert verify_wit_key(request, ca=CA, evidence=None, spki=b"another key")
    with pytest.raises(MalformedError) as caught:
        verify_wit_key(request, ca=CA, evidence=None, spki=spki)
    assert caught.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "Ed25519"])
def test_a_wit_key_of_each_allowed_kind_is_accepted(alg: str) -> None:
    key = SigningKey.generate(alg)
    assert verify_wit_key(renewal(key=key), ca=CA, evidence=None, spki=b"").alg == alg


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "wpt+jwt"}, Reason.TOKEN_TYPE),
        ({}, Reason.TOKEN_TYPE),
        ({"typ": "zt-wit-key+jwt", "kid": "k"}, Reason.TOKEN_HEADER),
    ],
    ids=["another type", "no type", "a kid"],
)
def test_a_token_of_another_kind_is_no_proof_of_a_wit_key(
    header: dict[str, str], reason: Reason
) -> None:
    honest = renewal()
    claims = json.loads(jose.b64url_decode(honest.wit_proof.split(".")[1]))
    request = replace(honest, wit_proof=jose.sign_compact(header, claims, WIT_KEY))
    with pytest.raises(TokenRejected) as caught:
        verify_wit_key(request, ca=CA, evidence=None, spki=b"")
    assert caught.value.reason is reason


def root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    profile = root_profile(
        key.public_key(), trust_domain=DOMAIN, dev=False, now=NOW, random=b"r" * 20
    )
    return profile.sign(key, hashes.SHA256())


KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
ROOTS = [root(key) for key in KEYS]


def statement(signer: int = 0, sequence: int = 5, domain: TrustDomain = DOMAIN) -> str:
    key = SigningKey.from_private(KEYS[signer])
    return sign_anchors(key, trust_domain=domain, sequence=sequence, anchors=ROOTS)


def test_a_trusted_root_announces_anchors() -> None:
    said = verify_anchors(
        ["junk", statement(1), statement()], trust_domain=DOMAIN, trusted=ROOTS[:1], sequence=5
    )
    assert (said.sequence, said.anchors) == (5, fingerprints(ROOTS))
    said.covers(ROOTS)
    with pytest.raises(CertificateRejected):
        said.covers(ROOTS[:1])


@pytest.mark.parametrize(
    "statements",
    [
        [],
        ["junk"],
        [statement(1)],
        [statement(sequence=4)],
        [statement(domain=TrustDomain("other.example"))],
        ["junk"] * 16 + [statement()],
    ],
    ids=["none", "junk", "unknown root", "old", "other domain", "too many"],
)
def test_anchors_nobody_trusted_announced_are_refused(statements: list[str]) -> None:
    with pytest.raises(CertificateRejected):
        verify_anchors(statements, trust_domain=DOMAIN, trusted=ROOTS[:1], sequence=5)


@pytest.mark.parametrize("text", ["a:1", "localhost:65535", "10.0.0.1:80", "[::1]:443"])
def test_an_address_is_host_and_port(text: str) -> None:
    host, port = parse_address(text)
    assert f"{host}:{port}" == text.replace("[", "").replace("]", "")


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a", "a:", "a:0", "a:65536", "A:1", "a:1 ", "a:1\n", "::1:1", "a/b:1", "-a:1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_address(text)


def test_a_join_token_matches_exactly_its_roots() -> None:
    token = replace(TOKEN, anchors=fingerprints(ROOTS))
    token.matches(ROOTS)
    for others in (ROOTS[:1], []):
        with pytest.raises(CertificateRejected):
            token.matches(others)
