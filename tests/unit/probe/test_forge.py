"""The forge's defaults are right, and each knob changes one thing."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec

from zerotrust.core.errors import Reason, TokenRejected
from zerotrust.core.jose import SigningKey, parse_compact
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.core.spiffe.x509_svid import verify_x509_svid
from zerotrust.core.tokens.binding import prove_mode
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.core.tokens.wpt import verify_wpt
from zerotrust.probe.forge import DROP, ForgedAuthority, common_name, x509_jwk

NOW = 1_800_000_000
SERVER = "spiffe://example.org/ledger"
URI = "https://ledger.test/accounts"


@pytest.fixture(scope="module")
def authority() -> ForgedAuthority:
    return ForgedAuthority("example.org", now=NOW)


def test_a_snapshot_holds_together(authority: ForgedAuthority) -> None:
    partner = ForgedAuthority("partner.test", now=NOW)
    snapshot = authority.snapshot("web", bundles=[partner])
    assert verify_x509_svid(snapshot.svid.chain_der, snapshot.bundles, NOW).id == snapshot.svid.id
    assert snapshot.wit is not None
    wit = verify_wit(snapshot.wit.token, snapshot.bundles, NOW)
    assert wit.subject == snapshot.svid.id
    assert wit.key == snapshot.wit.key.public
    assert wit.expires_at == snapshot.wit.expires_at == snapshot.svid.not_after
    assert [bundle.origin.name for bundle in snapshot.bundles] == ["example.org", "partner.test"]
    assert authority.snapshot("web", with_wit=False).wit is None
    assert authority.snapshot("web", bundles=partner.bundles).bundles == partner.bundles
    assert not snapshot.dev


def test_a_throw_away_authority_says_so() -> None:
    assert ForgedAuthority(TrustDomain("example.org"), now=NOW, dev=True).snapshot("web").dev


def test_both_forms_of_a_proof_verify(authority: ForgedAuthority) -> None:
    key = SigningKey.generate("Ed25519")
    token = authority.wit("web", key)
    wit = verify_wit(token, authority.bundles, NOW)
    bound = authority.wpt(token, key, aud=SERVER, x5t="leaf")
    proof = authority.wpt(token, key, aud=URI, x5t="leaf", method="GET", target=b"/accounts?a=1")
    for wpt, mode in ((bound, Mode.BOUND), (proof, Mode.PROOF)):
        verified = verify_wpt(wpt, wit, [SERVER, URI], NOW)
        proven = prove_mode(
            verified,
            own_id=SERVER,
            target_uris=[URI],
            method="GET",
            target=b"/accounts?a=1",
            peer_x5t="leaf",
            now=NOW,
        )
        assert proven is mode


def test_claims_and_headers_are_set_and_dropped(authority: ForgedAuthority) -> None:
    token = authority.wit("web", iss=DROP, aud="x", header={"kid": DROP, "crit": ["b64"]})
    parsed = parse_compact(token)
    assert "iss" not in parsed.claims
    assert parsed.claims["aud"] == "x"
    assert "kid" not in parsed.header
    assert parsed.header["crit"] == ["b64"]
    key = SigningKey.generate()
    parsed = parse_compact(authority.wpt(token, key, aud="x", claims={"a/b": 1}, jti=DROP, ttl=0))
    assert parsed.claims["a/b"] == 1
    assert "jti" not in parsed.claims
    assert parsed.claims["exp"] == NOW


def test_another_signer_is_found_out(authority: ForgedAuthority) -> None:
    with pytest.raises(TokenRejected) as caught:
        verify_wit(authority.wit(signer=SigningKey.generate()), authority.bundles, NOW)
    assert caught.value.reason is Reason.TOKEN_SIGNATURE


def test_an_identity_is_given_by_path_by_id_or_as_a_value(authority: ForgedAuthority) -> None:
    web = SpiffeId.parse("spiffe://example.org/web")
    assert authority.id("web") == authority.id("/web") == authority.id(str(web)) == web
    assert authority.id(web) is web
    assert authority.issue("spiffe://a.test/web").id.trust_domain.name == "a.test"


def test_a_document_takes_other_keys_and_members(authority: ForgedAuthority) -> None:
    document = json.loads(authority.bundle_document(keys=[], spiffe_sequence=DROP, other=1))
    assert document == {"keys": [], "spiffe_refresh_hint": 300, "other": 1}


def test_a_certificate_is_signed_by_whom_it_is_asked_for(authority: ForgedAuthority) -> None:
    other = ForgedAuthority("example.org", now=NOW, name="other")
    leaf = authority.issue("mallory", subject=common_name("mallory"))
    issuers = {
        "issuing": authority.issuing.chain[0].subject,
        "root": authority.root.subject,
        "self": x509.Name([]),
        other: other.issuing.chain[0].subject,
        leaf: leaf.chain[0].subject,
    }
    for issuer, name in issuers.items():
        issued = authority.issue("web", issuer=issuer)  # type: ignore[arg-type]
        assert issued.chain[0].issuer == name


def test_a_key_that_no_jwk_can_say_is_shown_as_unknown(authority: ForgedAuthority) -> None:
    key = dsa.generate_private_key(2048).public_key()
    svid = authority.issue(
        public_key=key, issuer="self", key=ec.generate_private_key(ec.SECP384R1())
    )
    assert x509_jwk(svid.chain[0])["kty"] == "unknown"
