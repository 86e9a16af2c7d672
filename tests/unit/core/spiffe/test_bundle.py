"""Trust bundles: what is read, what is left out with a word, what refuses the whole document."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.handshake import verified_by_openssl
from support.svid_corpus import OVERSIZE
from zerotrust.core.errors import BadBundle, Reason
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe import certificate
from zerotrust.core.spiffe.bundle import (
    DEFAULT_REFRESH_HINT,
    DEV_MARKER_OID,
    MAX_BUNDLE_BYTES,
    BundleSet,
    TrustBundle,
    screen_foreign,
)
from zerotrust.core.spiffe.certificate import DEV_MARKER
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.forge import DROP, ForgedAuthority, common_name, x509_jwk

NOW = 1_800_000_000
ORIGIN = TrustDomain("example.org")


@pytest.fixture(scope="module")
def authority() -> ForgedAuthority:
    return ForgedAuthority("example.org", now=NOW)


def document(*keys: object, **members: object) -> bytes:
    return json.dumps({"keys": list(keys), **members}).encode()


def parse(data: bytes) -> TrustBundle:
    return TrustBundle.parse(ORIGIN, data)


def refusal(data: bytes) -> BadBundle:
    with pytest.raises(BadBundle) as caught:
        parse(data)
    return caught.value


def wit_jwk(kid: object = "one", **members: object) -> dict[str, Any]:
    jwk = {
        **SigningKey.generate().public.as_dict(),
        "use": "wit-svid",
        "kid": kid,
        **members,
    }
    return {name: value for name, value in jwk.items() if value is not DROP}


def ca(authority: ForgedAuthority, **knobs: Any) -> X509Svid:
    """A root that signed itself, outside the authority's own."""
    right: dict[str, Any] = {
        "issuer": "self",
        "ca": True,
        "uris": (),
        "subject": common_name("another root"),
    }
    return authority.issue("ca", **{**right, **knobs})


# What is read


def test_a_bundle_is_read_whole(authority: ForgedAuthority) -> None:
    bundle = parse(authority.bundle_document(spiffe_sequence=7, spiffe_refresh_hint=60))
    assert bundle.origin == ORIGIN
    assert bundle.x509_authorities == (authority.root,)
    assert bundle.anchors_der == {authority.root.public_bytes(Encoding.DER)}
    assert bundle.wit_keys == {authority.wit_kid: authority.wit_key.public}
    assert (bundle.sequence, bundle.refresh_hint, bundle.skipped) == (7, 60, ())


def test_a_bundle_that_is_written_is_read_again(authority: ForgedAuthority) -> None:
    keys = [
        x509_jwk(ca(authority, key=key).chain[0])
        for key in (
            rsa.generate_private_key(65537, 2048),
            ec.generate_private_key(ec.SECP384R1()),
            ed25519.Ed25519PrivateKey.generate(),
        )
    ]
    for data in (document(), document(*keys, wit_jwk()), authority.bundle_document()):
        bundle = parse(data)
        assert parse(bundle.dump()) == bundle
        assert parse(bundle.dump()).x509_authorities == bundle.x509_authorities


def test_sequence_and_hint_may_be_absent() -> None:
    bundle = parse(document())
    assert (bundle.sequence, bundle.refresh_hint) == (None, DEFAULT_REFRESH_HINT)
    assert parse(document(spiffe_refresh_hint=0)).refresh_hint == DEFAULT_REFRESH_HINT
    assert parse(document(spiffe_sequence=0)).sequence == 0


def test_an_empty_bundle_is_a_bundle_that_trusts_nobody() -> None:
    bundle = parse(document())
    assert (bundle.x509_authorities, bundle.wit_keys, bundle.anchors_der) == ((), {}, frozenset())


def test_unknown_members_beside_the_keys_are_ignored(authority: ForgedAuthority) -> None:
    assert parse(document(x509_jwk(authority.root), extra={"a": [1]})).x509_authorities


def test_an_anchor_listed_twice_is_one(authority: ForgedAuthority) -> None:
    jwk = x509_jwk(authority.root)
    assert parse(document(jwk, jwk)).anchors_der == parse(document(jwk)).anchors_der
    assert parse(document(jwk, jwk)) == parse(document(jwk))


def test_keys_of_the_jwt_kind_are_neither_kept_nor_worth_a_word() -> None:
    bundle = parse(document(wit_jwk(use="jwt-svid")))
    assert (bundle.wit_keys, bundle.skipped) == ({}, ())


def test_values_of_x5c_after_the_first_are_ignored(authority: ForgedAuthority) -> None:
    jwk = x509_jwk(authority.root)
    jwk["x5c"].append("junk")
    assert parse(document(jwk)).x509_authorities == (authority.root,)


# What is left out, with a word


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct"},
        {"kty": DROP},
        {"kty": "ec"},
        {"kty": 7},
        {"kty": ["EC"]},
        {"use": "sig"},
        {"use": DROP},
        {"use": "WIT-SVID"},
        {"use": None},
        {"use": ["wit-svid"]},
        {"kid": DROP},
        {"kid": ""},
        {"kid": None},
    ],
    ids=lambda member: str({k: "dropped" if v is DROP else v for k, v in member.items()}),
)
def test_an_element_of_an_unknown_kind_is_left_out_and_named(member: dict[str, object]) -> None:
    bundle = parse(document(wit_jwk("good"), wit_jwk(**{"kid": "other", **member})))
    assert list(bundle.wit_keys) == ["good"]
    assert len(bundle.skipped) == 1
    assert bundle.skipped[0].startswith("keys[1]: ")


@pytest.mark.parametrize("x5c", [DROP, None, []], ids=["absent", "null", "empty"])
def test_an_anchor_without_a_certificate_is_left_out(
    x5c: object, authority: ForgedAuthority
) -> None:
    bundle = parse(document(x509_jwk(authority.root, x5c=x5c)))
    assert bundle.x509_authorities == ()
    assert len(bundle.skipped) == 1


def test_what_was_left_out_does_not_make_bundles_differ(authority: ForgedAuthority) -> None:
    good = x509_jwk(authority.root)
    assert parse(document(good)) == parse(document(good, wit_jwk(use="sig")))


# What refuses the whole document


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"keys": null}',
        b'{"keys": {}}',
        b'{"keys": "x"}',
        b'{"keys": []',
        b'{"keys": []} x',
        b'{"keys": [], "keys": []}',
        b'\xef\xbb\xbf{"keys": []}',
        b'{"keys": [{"kty": "EC", "kty": "EC"}]}',
        b'{"keys": [NaN]}',
        b'{"keys": ["\xff"]}',
        b'{"keys": [1]}',
        b'{"keys": [null]}',
        b'{"keys": [[]]}',
        b'{"keys": ["EC"]}',
        b'{"keys": ' + b"[" * 100000,
        b'{"a": ' + b'{"a": ' * 30 + b"1" + b"}" * 31,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_no_jwks_is_refused(data: bytes) -> None:
    assert refusal(data).reason is Reason.BAD_BUNDLE


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, [1], 2**64])
@pytest.mark.parametrize("name", ["spiffe_sequence", "spiffe_refresh_hint"])
def test_a_sequence_or_hint_that_is_no_count_is_refused(name: str, value: object) -> None:
    refusal(document(**{name: value}))


def test_a_document_of_more_than_a_mebibyte_is_refused() -> None:
    padding = b" " * (MAX_BUNDLE_BYTES - len(document()))
    assert parse(document() + padding)
    refusal(document() + padding + b" ")


def test_256_keys_are_read_and_257_are_not() -> None:
    assert len(parse(document(*({"kty": "x"} for _ in range(256)))).skipped) == 256
    refusal(document(*({"kty": "x"} for _ in range(257))))


def test_a_kid_that_names_two_keys_is_refused() -> None:
    assert len(parse(document(wit_jwk("one"), wit_jwk("two"))).wit_keys) == 2
    refusal(document(wit_jwk("one"), wit_jwk("one")))


@pytest.mark.parametrize("kid", [7, True, ["one"], {"one": 1}])
def test_a_kid_that_is_no_string_is_refused(kid: object) -> None:
    refusal(document(wit_jwk(kid)))


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
@pytest.mark.parametrize("use", ["x509-svid", "wit-svid", "jwt-svid"])
def test_private_key_material_is_refused(member: str, use: str, authority: ForgedAuthority) -> None:
    refusal(document(x509_jwk(authority.root, **{member: "AA", "use": use, "kid": "one"})))


@pytest.mark.parametrize(
    "members", [{"x": "AA"}, {"x": DROP}, {"crv": "P-521"}, {"crv": "P-384"}, {"alg": "HS256"}]
)
def test_a_wit_key_that_is_no_good_key_is_refused(members: dict[str, object]) -> None:
    refusal(document(wit_jwk(**members)))


@pytest.mark.parametrize(
    "x5c",
    ["AAAA", [7], [None], [""], ["AAAA"], ["not base64!"], ["AAA"], ["\u00e9"], {"0": "AAAA"}],
    ids=str,
)
def test_an_x5c_that_is_no_certificate_is_refused(x5c: object, authority: ForgedAuthority) -> None:
    refusal(document(x509_jwk(authority.root, x5c=x5c)))


def test_an_x5c_of_another_key_than_its_jwk_is_refused(authority: ForgedAuthority) -> None:
    other = base64.b64encode(ca(authority).chain[0].public_bytes(Encoding.DER)).decode()
    refusal(document(x509_jwk(authority.root, x5c=[other])))


@pytest.mark.parametrize(
    "knobs",
    [
        {"ca": False},
        {"ca": None},
        {"key_usage": ("crl_sign",)},
        {"uris": ["spiffe://example.org/ca"]},
        {"uris": ["spiffe://example.org", "spiffe://a.test"]},
        {"uris": ["https://example.org"]},
        {"uris": ["spiffe://EXAMPLE.org"]},
    ],
    ids=str,
)
def test_an_anchor_that_is_no_ca_is_refused(
    knobs: dict[str, object], authority: ForgedAuthority
) -> None:
    assert parse(document(x509_jwk(ca(authority).chain[0]))).x509_authorities
    refusal(document(x509_jwk(ca(authority, **knobs).chain[0])))


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1()], ids=lambda c: c.name)
def test_an_anchor_with_another_key_is_refused(
    curve: ec.EllipticCurve, authority: ForgedAuthority
) -> None:
    anchor = ca(authority, key=ec.generate_private_key(curve)).chain[0]
    jwk = {**x509_jwk(authority.root), "x5c": [_b64(anchor.public_bytes(Encoding.DER))]}
    assert "allow-list" in refusal(document(jwk)).detail


def test_an_anchor_with_an_oversize_key_is_refused(authority: ForgedAuthority) -> None:
    anchor = ca(authority, public_key=OVERSIZE).chain[0]
    jwk = {**x509_jwk(authority.root), "x5c": [_b64(anchor.public_bytes(Encoding.DER))]}
    assert "allow-list" in refusal(document(jwk)).detail


def test_a_bundle_made_in_code_is_held_against_the_same_rules(authority: ForgedAuthority) -> None:
    leaf = authority.issue("web").chain[0]
    with pytest.raises(BadBundle):
        TrustBundle(ORIGIN, (leaf,), {})
    with pytest.raises(BadBundle):
        TrustBundle(ORIGIN, (authority.root,) * 257, {})
    with pytest.raises(BadBundle):
        TrustBundle(ORIGIN, (ca(authority, public_key=OVERSIZE).chain[0],), {})


# PEM


def test_anchors_are_read_from_pem_without_wit_keys(authority: ForgedAuthority) -> None:
    pem = authority.root.public_bytes(Encoding.PEM)
    other = ca(authority).chain[0]
    bundle = TrustBundle.from_pem(ORIGIN, pem + other.public_bytes(Encoding.PEM))
    assert bundle.x509_authorities == (authority.root, other)
    assert bundle.wit_keys == {}


def test_pem_that_holds_no_anchor_or_more_than_anchors_is_refused(
    authority: ForgedAuthority,
) -> None:
    pem = authority.root.public_bytes(Encoding.PEM)
    broken = pem.replace(b"M", b"!", 1)
    leaf = authority.issue("web")
    for bad in (b"", b"junk", broken, leaf.chain_pem, pem + leaf.key_pem, pem * 257):
        with pytest.raises(BadBundle):
            TrustBundle.from_pem(ORIGIN, bad)
    with pytest.raises(BadBundle):
        TrustBundle.from_pem(ORIGIN, pem + b"\n" * MAX_BUNDLE_BYTES)


# The dev marker


def test_a_mebibyte_of_pem_is_read_and_one_byte_more_is_not(authority: ForgedAuthority) -> None:
    whole = authority.root.public_bytes(Encoding.PEM).ljust(MAX_BUNDLE_BYTES, b"\n")
    assert TrustBundle.from_pem(ORIGIN, whole).x509_authorities == (authority.root,)
    with pytest.raises(BadBundle):
        TrustBundle.from_pem(ORIGIN, whole + b"\n")


def test_256_certificates_in_pem_are_read_and_257_are_refused_unparsed(
    authority: ForgedAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = authority.root.public_bytes(Encoding.PEM)
    assert len(TrustBundle.from_pem(ORIGIN, pem * 256).x509_authorities) == 256
    parsed: list[bytes] = []
    monkeypatch.setattr(certificate, "load_pem", parsed.append)
    with pytest.raises(BadBundle, match="256"):
        TrustBundle.from_pem(ORIGIN, pem * 257)
    assert parsed == []


def test_a_bundle_made_in_code_holds_256_keys_and_no_more(authority: ForgedAuthority) -> None:
    assert len(TrustBundle(ORIGIN, (authority.root,) * 256, {}).x509_authorities) == 256
    with pytest.raises(BadBundle, match="256"):
        TrustBundle(ORIGIN, (authority.root,) * 257, {})


def test_a_bundle_of_a_throw_away_ca_is_refused_whole_unless_dev_is_said() -> None:
    dev = ForgedAuthority("example.org", now=NOW, dev=True)
    production = ForgedAuthority("example.org", now=NOW)
    mixed = document(*production.bundle_keys(), *dev.bundle_keys())
    for data in (dev.bundle_document(), mixed):
        assert refusal(data).reason is Reason.DEV_MARKER
        assert TrustBundle.parse(ORIGIN, data, allow_dev=True).is_dev
    pem = dev.root.public_bytes(Encoding.PEM)
    with pytest.raises(BadBundle) as caught:
        TrustBundle.from_pem(ORIGIN, pem)
    assert caught.value.reason is Reason.DEV_MARKER
    assert TrustBundle.from_pem(ORIGIN, pem, allow_dev=True).is_dev
    assert not production.bundle.is_dev


def test_the_marker_is_an_extension_that_others_may_ignore() -> None:
    root = ForgedAuthority("example.org", now=NOW, dev=True).root
    marker = root.extensions.get_extension_for_oid(DEV_MARKER_OID)
    assert not marker.critical
    assert marker.value == DEV_MARKER


# Equality and sets


def test_bundles_are_equal_by_content(authority: ForgedAuthority) -> None:
    one, two = authority.bundle, authority.bundle
    assert one == two
    assert one is not two
    assert hash(one) == hash(two)
    assert one != parse(authority.bundle_document(spiffe_sequence=2))
    assert one != parse(authority.bundle_document(spiffe_refresh_hint=2))
    assert one != parse(authority.bundle_document(keys=authority.bundle_keys()[:1]))
    assert one != parse(authority.bundle_document(keys=authority.bundle_keys()[1:]))
    assert one != TrustBundle.parse(TrustDomain("a.test"), authority.bundle_document())
    assert one != "bundle"


def test_a_bundle_does_not_change(authority: ForgedAuthority) -> None:
    keys = {"one": authority.wit_key.public}
    bundle = TrustBundle(ORIGIN, (), keys)
    keys.clear()
    assert list(bundle.wit_keys) == ["one"]
    with pytest.raises(TypeError):
        bundle.wit_keys["two"] = authority.wit_key.public  # type: ignore[index]
    with pytest.raises(AttributeError):
        bundle.x509_authorities = ()  # type: ignore[misc]


def test_a_set_keeps_the_domains_apart(authority: ForgedAuthority) -> None:
    other = ForgedAuthority("a.test", now=NOW)
    bundles = BundleSet([authority.bundle, other.bundle])
    assert bundles.of(ORIGIN) == authority.bundle
    assert bundles.of(TrustDomain("a.test")) == other.bundle
    assert bundles.of(TrustDomain("b.test")) is None
    assert bundles.of(TrustDomain("example.org", "wimse")) is None
    assert list(bundles) == [authority.bundle, other.bundle]
    assert (bundles.own, len(bundles)) == (authority.bundle, 2)
    assert repr(bundles) == "BundleSet(spiffe://example.org, spiffe://a.test)"


def test_an_empty_set_has_no_own_domain() -> None:
    assert BundleSet([]).own is None
    assert BundleSet([]).of(ORIGIN) is None


def test_two_bundles_of_one_domain_are_refused(authority: ForgedAuthority) -> None:
    with pytest.raises(BadBundle):
        BundleSet([authority.bundle, authority.bundle])


def test_sets_are_equal_by_content_and_by_whose_domain_is_first(
    authority: ForgedAuthority,
) -> None:
    second, third = (ForgedAuthority(name, now=NOW).bundle for name in ("a.test", "b.test"))
    own = authority.bundle
    one, two = BundleSet([own, second, third]), BundleSet([authority.bundle, third, second])
    assert one == two
    assert hash(one) == hash(two)
    assert one != BundleSet([second, own, third])
    assert one != BundleSet([own, second])
    assert one != "bundles"


# Foreign anchors


@pytest.fixture(scope="module")
def foreign() -> ForgedAuthority:
    return ForgedAuthority("a.test", now=NOW)


def screened(
    authority: ForgedAuthority, foreign: ForgedAuthority, *anchors: X509Svid
) -> tuple[int, int]:
    keys = [*foreign.bundle_keys(), *(x509_jwk(anchor.chain[0]) for anchor in anchors)]
    bundle = TrustBundle.parse(foreign.trust_domain, document(*keys, spiffe_sequence=3))
    result = screen_foreign(authority.bundle, authority.issue("web").chain, bundle)
    assert result.bundle.wit_keys == bundle.wit_keys
    assert result.bundle.origin == bundle.origin
    assert result.bundle.sequence == bundle.sequence
    assert foreign.root in result.bundle.x509_authorities
    return len(result.bundle.x509_authorities), len(result.alarms)


def test_a_foreign_bundle_that_disturbs_nobody_passes_untouched(
    authority: ForgedAuthority, foreign: ForgedAuthority
) -> None:
    bundle = foreign.bundle
    result = screen_foreign(authority.bundle, authority.issue("web").chain, bundle)
    assert result.bundle is bundle
    assert result.alarms == ()
    assert screened(authority, foreign, ca(foreign)) == (2, 0)


def test_a_foreign_anchor_that_is_one_of_our_own_is_left_out(
    authority: ForgedAuthority, foreign: ForgedAuthority
) -> None:
    root = X509Svid(authority.id("ca"), (authority.root,), authority.root_key)
    assert screened(authority, foreign, root) == (1, 1)
    assert screened(authority, foreign, authority.issuing) == (1, 1)


@pytest.mark.parametrize("whose", ["root", "issuing"])
def test_a_foreign_anchor_with_a_name_of_ours_is_left_out(
    whose: str, authority: ForgedAuthority, foreign: ForgedAuthority
) -> None:
    name = authority.root.subject if whose == "root" else authority.issuing.chain[0].subject
    assert screened(authority, foreign, ca(foreign, subject=name)) == (1, 1)


@pytest.mark.parametrize("whose", ["root", "issuing"])
def test_a_foreign_anchor_with_a_key_of_ours_is_left_out(
    whose: str, authority: ForgedAuthority, foreign: ForgedAuthority
) -> None:
    key = authority.root_key if whose == "root" else authority.issuing.key
    assert screened(authority, foreign, ca(foreign, key=key)) == (1, 1)


def test_a_foreign_anchor_that_did_not_sign_itself_is_left_out(
    authority: ForgedAuthority, foreign: ForgedAuthority
) -> None:
    claimed = ca(foreign, subject=foreign.root.subject, issuer=foreign.issuing)
    pretending = ca(foreign, issuer="root", issuer_name=common_name("another root"))
    assert screened(authority, foreign, foreign.issuing) == (1, 1)
    assert screened(authority, foreign, claimed) == (1, 1)
    assert screened(authority, foreign, pretending) == (1, 1)


def _our_issuing(authority: ForgedAuthority, foreign: ForgedAuthority) -> X509Svid:
    return authority.issuing


def _our_issuers_name(authority: ForgedAuthority, foreign: ForgedAuthority) -> X509Svid:
    return _nameless_key(foreign, authority.issuing.chain[0].subject)


def _our_roots_name(authority: ForgedAuthority, foreign: ForgedAuthority) -> X509Svid:
    return _nameless_key(foreign, authority.root.subject)


def _nameless_key(foreign: ForgedAuthority, subject: x509.Name) -> X509Svid:
    """Without key identifiers, so that OpenSSL goes by the name alone."""
    omit = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
    return ca(foreign, subject=subject, omit=omit)


@pytest.mark.parametrize(
    ("disturbing", "breaks"),
    [(_our_issuing, False), (_our_issuers_name, True), (_our_roots_name, True)],
)
def test_home_handshakes_go_on_whatever_a_partner_publishes(
    disturbing: Callable[[ForgedAuthority, ForgedAuthority], X509Svid], breaks: bool
) -> None:
    home, away = (ForgedAuthority(name, now=time.time()) for name in ("example.org", "a.test"))
    anchor = disturbing(home, away).chain[0]
    published = TrustBundle(away.trust_domain, (anchor, away.root), {})
    client, server = home.issue("web"), home.issue("server")
    screened = screen_foreign(home.bundle, client.chain, published)
    assert len(screened.alarms) == 1
    for foreign, held in ((published, not breaks), (screened.bundle, True)):
        anchors = [*foreign.x509_authorities, home.root]
        verified = verified_by_openssl(client.chain_der, client, server, anchors)
        assert (verified is not None) is held
    assert verified == home.chain_der(client)


def test_an_alarm_names_the_anchor_and_its_domain(
    authority: ForgedAuthority, foreign: ForgedAuthority
) -> None:
    bundle = TrustBundle.parse(foreign.trust_domain, document(x509_jwk(authority.root)))
    (alarm,) = screen_foreign(authority.bundle, (), bundle).alarms
    assert "CN=example.org root" in alarm
    assert "spiffe://a.test" in alarm


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
