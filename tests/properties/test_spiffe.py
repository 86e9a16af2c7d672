"""Whatever bytes arrive: a value, or the one error that the parser announces."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from zerotrust.core.errors import BadBundle, BadSpiffeId, CertificateRejected, MalformedError
from zerotrust.core.spiffe.bundle import TrustBundle
from zerotrust.core.spiffe.ids import SpiffeId, TrustDomain
from zerotrust.core.spiffe.x509_svid import X509Svid, accept_leaf, verify_x509_svid
from zerotrust.probe.forge import ForgedAuthority

NOW = 1_800_000_000
AUTHORITY = ForgedAuthority("example.org", now=NOW)
SVID = AUTHORITY.issue("web", dns=["web.test"])
VERIFIED = AUTHORITY.chain_der(SVID)
BUNDLES = AUTHORITY.bundles

id_like = st.text(alphabet="spiffe:/aZ09._-%@?#\\ \x00\n\xe9", max_size=60)
domains = st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True)
segments = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(
    lambda segment: segment not in {".", ".."}
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.text() | id_like | id_like.map("spiffe://example.org/".__add__))
def test_any_text_is_a_canonical_id_or_refused(text: str) -> None:
    try:
        parsed = SpiffeId.parse(text)
    except BadSpiffeId:
        return
    assert str(parsed) == text
    assert SpiffeId.parse(str(parsed)) == parsed


@given(domains, st.lists(segments, min_size=1, max_size=6))
def test_what_the_grammar_allows_is_read(name: str, path: list[str]) -> None:
    text = f"spiffe://{name}/{'/'.join(path)}"
    parsed = SpiffeId.parse(text)
    assert parsed.trust_domain == TrustDomain(name)
    assert parsed.segments == tuple(path)
    assert str(parsed) == text


@given(st.text() | id_like)
def test_any_text_is_a_trust_domain_or_refused(text: str) -> None:
    try:
        parsed = TrustDomain.parse(text)
    except BadSpiffeId:
        return
    assert text in {parsed.name, str(parsed)}


def parse_bundle(data: bytes) -> TrustBundle | None:
    try:
        return TrustBundle.parse(AUTHORITY.trust_domain, data)
    except BadBundle:
        return None


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_bundle_or_refused(data: bytes) -> None:
    parse_bundle(data)


@given(st.lists(json_values | st.fixed_dictionaries({}, optional={
    "kty": st.sampled_from(["EC", "OKP", "RSA", "oct"]) | json_values,
    "use": st.sampled_from(["x509-svid", "wit-svid", "jwt-svid", "sig"]) | json_values,
    "kid": json_values,
    "crv": st.sampled_from(["P-256", "Ed25519"]) | json_values,
    "x": json_values, "y": json_values, "n": json_values, "e": json_values,
    "x5c": json_values | st.lists(st.text(alphabet="AMIa+/=", max_size=40), max_size=2),
}), max_size=4), st.dictionaries(
    st.sampled_from(["spiffe_sequence", "spiffe_refresh_hint", "other"]), json_values
))  # fmt: skip
def test_any_set_of_keys_is_a_bundle_or_refused(keys: list[Any], members: dict[str, Any]) -> None:
    bundle = parse_bundle(json.dumps({"keys": keys, **members}).encode())
    if bundle is not None:
        assert parse_bundle(bundle.dump()) == bundle


@given(st.data())
def test_a_bundle_with_one_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    document = AUTHORITY.bundle_document()
    parse_bundle(changed(data, document))


@given(st.binary(max_size=300))
def test_any_bytes_are_anchors_or_refused(pem: bytes) -> None:
    with pytest.raises(BadBundle):
        TrustBundle.from_pem(AUTHORITY.trust_domain, pem)


@given(st.data())
def test_anchors_with_one_changed_byte_are_read_or_refused(data: st.DataObject) -> None:
    pem = AUTHORITY.root.public_bytes(Encoding.PEM)
    try:
        TrustBundle.from_pem(AUTHORITY.trust_domain, changed(data, pem))
    except BadBundle:
        return


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_an_svid_or_refused(chain_pem: bytes, key_pem: bytes) -> None:
    with pytest.raises(MalformedError):
        X509Svid.parse(chain_pem, SVID.key_pem)
    with pytest.raises(MalformedError):
        X509Svid.parse(SVID.chain_pem, key_pem)


@given(st.data())
def test_an_svid_with_one_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    try:
        X509Svid.parse(changed(data, SVID.chain_pem), SVID.key_pem)
        X509Svid.parse(SVID.chain_pem, changed(data, SVID.key_pem))
    except MalformedError:
        return


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_any_bytes_are_a_chain_that_is_refused(chain: list[bytes]) -> None:
    with pytest.raises(CertificateRejected):
        accept_leaf(chain, BUNDLES, NOW)
    with pytest.raises(CertificateRejected):
        verify_x509_svid(chain, BUNDLES, NOW)


@given(st.data())
def test_a_chain_with_one_changed_byte_is_refused(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(SVID.chain_der) - 1))
    chain = list(SVID.chain_der)
    chain[position] = changed(data, chain[position])
    with pytest.raises(CertificateRejected):
        verify_x509_svid(chain, BUNDLES, NOW)


@given(st.data())
def test_a_path_with_one_changed_byte_is_accepted_or_refused(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(VERIFIED) - 1))
    chain = list(VERIFIED)
    chain[position] = changed(data, chain[position])
    try:
        accept_leaf(chain, BUNDLES, NOW)
    except CertificateRejected:
        return


@given(st.permutations(VERIFIED))
def test_only_the_right_order_is_a_chain(order: list[bytes]) -> None:
    if tuple(order) == VERIFIED:
        assert accept_leaf(order, BUNDLES, NOW)
        return
    with pytest.raises(CertificateRejected):
        accept_leaf(order, BUNDLES, NOW)
    if order[:2] != list(VERIFIED[:2]):
        with pytest.raises(CertificateRejected):
            verify_x509_svid(order, BUNDLES, NOW)


def changed(data: st.DataObject, original: bytes) -> bytes:
    """Return the same bytes but for one."""
    position = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != original[position]))
    return original[:position] + bytes([byte]) + original[position + 1 :]
