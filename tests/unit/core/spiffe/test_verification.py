"""Both ways to a VerifiedSvid, held against one corpus."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.handshake import verified_by_openssl
from support.svid_corpus import DAY, MUTANTS, OVERSIZE, Chain, Mutant, World
from support.tools import tool
from zerotrust.core.errors import CertificateRejected, Reason
from zerotrust.core.spiffe import certificate
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.certificate import DEV_MARKER
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.core.spiffe.x509_svid import (
    MAX_LIFETIME,
    VerifiedSvid,
    X509Svid,
    accept_leaf,
    verify_x509_svid,
)
from zerotrust.probe.forge import ForgedAuthority, common_name

TABLE_WAS_MADE_WITH = (3, 0)  # other versions may refuse more; we refuse all the same
NOW = int(time.time())  # OpenSSL reads the real clock, so the chains must be of today


@pytest.fixture(scope="module")
def world() -> World:
    return World(NOW)


def accept(chain: Chain, bundles: BundleSet, now: float = NOW) -> VerifiedSvid:
    return accept_leaf(chain.verified, bundles, now)


def verify(chain: Chain, bundles: BundleSet, now: float = NOW) -> VerifiedSvid:
    return verify_x509_svid(chain.presented, bundles, now)


def verify_with_anchor(chain: Chain, bundles: BundleSet, now: float = NOW) -> VerifiedSvid:
    return verify_x509_svid(chain.verified, bundles, now)


Way = Callable[..., VerifiedSvid]
WAYS: tuple[Way, ...] = (accept, verify, verify_with_anchor)
both = pytest.mark.parametrize("way", WAYS)


def refusal(way: Way, chain: Chain, bundles: BundleSet, now: float = NOW) -> Reason:
    with pytest.raises(CertificateRejected) as caught:
        way(chain, bundles, now)
    return caught.value.reason


@both
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_chain_one_change_from_a_good_one_is_refused_for_that_change(
    way: Way, mutant: Mutant, world: World
) -> None:
    assert refusal(way, mutant.make(world), world.bundles) is mutant.reason


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_what_openssl_lets_pass_is_known(mutant: Mutant, world: World) -> None:
    chain = mutant.make(world)
    anchors = [anchor for bundle in world.bundles for anchor in bundle.x509_authorities]
    verified = verified_by_openssl(chain.presented, chain.svid, world.own.issue("server"), anchors)
    if ssl.OPENSSL_VERSION_INFO[:2] == TABLE_WAS_MADE_WITH:
        assert (verified is not None) is mutant.openssl
    if verified is not None:
        with pytest.raises(CertificateRejected) as caught:
            accept_leaf(verified, world.bundles, NOW)
        assert caught.value.reason is mutant.reason


def _with_ed25519(world: World) -> Chain:
    return world.chain(world.own.issue("web", key=ed25519.Ed25519PrivateKey.generate()))


def _with_p384(world: World) -> Chain:
    issuer = world.own.intermediate("p384", key=ec.generate_private_key(ec.SECP384R1()))
    key = ec.generate_private_key(ec.SECP384R1())
    return world.chain(world.own.issue("web", issuer=issuer, key=key))


def _with_ed25519_issuer(world: World) -> Chain:
    issuer = world.own.intermediate("ed", key=ed25519.Ed25519PrivateKey.generate())
    return world.chain(world.own.issue("web", issuer=issuer))


def _by_the_root(world: World) -> Chain:
    return world.chain(world.own.issue("web", issuer="root"))


def _with_a_subject(world: World) -> Chain:
    return world.chain(world.own.issue("web", subject=common_name("web")))


def _of_the_partner(world: World) -> Chain:
    return world.chain(world.partner.issue("pay"), world.partner)


def _of_a_partner_with_rsa(world: World) -> Chain:
    issuer = world.partner.intermediate("rsa", key=rsa.generate_private_key(65537, 2048))
    return world.chain(world.partner.issue("pay", issuer=issuer), world.partner)


def _marked_dev(world: World) -> Chain:
    return world.chain(world.own.issue("web", extra=[(DEV_MARKER, False)]))


def _constrained(
    *permitted: x509.GeneralName, excluded: Sequence[x509.GeneralName] = ()
) -> Callable[[World], Chain]:
    def make(world: World) -> Chain:
        constraints = x509.NameConstraints(permitted or None, excluded or None)
        issuer = world.own.intermediate("bound", extra=[(constraints, True)])
        names = [
            x509.UniformResourceIdentifier("spiffe://example.org/web"),
            x509.DNSName("a.web.test"),
            x509.IPAddress(ip_address("127.0.0.1")),
        ]
        return world.chain(world.own.issue("web", sans=names, issuer=issuer))

    return make


GOOD: dict[str, Callable[[World], Chain]] = {
    "P-256": World.good,
    "Ed25519": _with_ed25519,
    "P-384": _with_p384,
    "an Ed25519 issuer": _with_ed25519_issuer,
    "signed by the root": _by_the_root,
    "with a subject": _with_a_subject,
    "of a partner": _of_the_partner,
    "of a partner whose CA has an RSA key": _of_a_partner_with_rsa,
    "marked as made by a throw-away CA": _marked_dev,
    "within a URI constraint": _constrained(x509.UniformResourceIdentifier("example.org")),
    "within a DNS constraint": _constrained(x509.DNSName("web.test")),
    "within a DNS subdomain constraint": _constrained(x509.DNSName(".web.test")),
    "within a constraint on an address": _constrained(
        x509.IPAddress(ip_network("127.0.0.0/8")), x509.IPAddress(ip_network("::1/128"))
    ),
    "whose names are excluded for other forms of name": _constrained(
        excluded=[x509.UniformResourceIdentifier("a.web.test"), x509.DNSName("example.org")]
    ),
}


@both
@pytest.mark.parametrize("name", GOOD)
def test_a_good_chain_is_accepted(way: Way, name: str, world: World) -> None:
    chain = GOOD[name](world)
    verified = way(chain, world.bundles)
    assert verified.id == chain.svid.id
    assert verified.chain_der == chain.verified
    assert verified.thumbprint == chain.svid.thumbprint
    assert verified.serial == chain.svid.chain[0].serial_number
    assert verified.not_after == verified.expires_at == chain.svid.not_after
    assert verified.bundles is world.bundles


@pytest.mark.parametrize("name", GOOD)
def test_openssl_builds_the_path_that_we_build(name: str, world: World) -> None:
    chain = GOOD[name](world)
    anchors = [anchor for bundle in world.bundles for anchor in bundle.x509_authorities]
    verified = verified_by_openssl(chain.presented, chain.svid, world.own.issue("server"), anchors)
    assert verified is not None
    assert accept_leaf(verified, world.bundles, NOW) == verify(chain, world.bundles)


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_the_openssl_command_agrees(purpose: str, world: World, tmp_path: Path) -> None:
    chain = world.good()
    leaf, issuing, root = (x509.load_der_x509_certificate(der) for der in chain.verified)
    files = {"leaf": leaf, "issuing": issuing, "root": root}
    for name, parsed in files.items():
        (tmp_path / name).write_bytes(parsed.public_bytes(Encoding.PEM))
    subprocess.run(
        [
            tool("openssl"),
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            "root",
            "-untrusted",
            "issuing",
            "leaf",
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )


@both
def test_a_verified_svid_expires_with_the_first_certificate_of_its_chain(
    way: Way, world: World
) -> None:
    issuer = world.own.intermediate("short", ttl=DAY + 60)
    chain = world.chain(world.own.issue("web", issuer=issuer))
    verified = way(chain, world.bundles)
    assert verified.expires_at == NOW + 60
    assert verified.not_after == NOW + 3600
    assert refusal(way, chain, world.bundles, NOW + 60) is Reason.PEER_EXPIRED


@both
def test_there_is_no_skew_on_either_end(way: Way, world: World) -> None:
    chain = world.chain(world.own.issue("web", not_before=NOW, ttl=60))
    way(chain, world.bundles, NOW)
    way(chain, world.bundles, NOW + 59.999)
    assert refusal(way, chain, world.bundles, NOW - 0.001) is Reason.PEER_NOT_YET_VALID
    assert refusal(way, chain, world.bundles, NOW + 60) is Reason.PEER_EXPIRED


@both
def test_a_clock_that_is_not_a_number_verifies_nobody(way: Way, world: World) -> None:
    assert refusal(way, world.good(), world.bundles, math.nan) is Reason.PEER_NOT_YET_VALID


@both
def test_the_longest_lifetime_is_accepted_and_one_second_more_is_not(
    way: Way, world: World
) -> None:
    exact = world.chain(world.own.issue("web", not_before=NOW - 60, ttl=MAX_LIFETIME))
    more = world.chain(world.own.issue("web", not_before=NOW - 60, ttl=MAX_LIFETIME + 1))
    way(exact, world.bundles)
    assert refusal(way, more, world.bundles) is Reason.PEER_TOO_LONG_LIVED


def test_the_cap_on_lifetime_is_a_setting(world: World) -> None:
    chain = world.good()
    with pytest.raises(CertificateRejected) as caught:
        accept_leaf(chain.verified, world.bundles, NOW, max_lifetime=600)
    assert caught.value.reason is Reason.PEER_TOO_LONG_LIVED
    with pytest.raises(CertificateRejected):
        verify_x509_svid(chain.presented, world.bundles, NOW, max_lifetime=600)


@both
def test_an_expired_anchor_vouches_for_nobody(way: Way, world: World) -> None:
    root = world.own.issue(
        subject=common_name("old"), issuer="self", ca=True, uris=(), not_before=NOW - DAY, ttl=DAY
    )
    svid = world.own.issue("web", issuer=root)
    bundles = BundleSet([TrustBundle(world.own.trust_domain, root.chain, {})])
    chain = Chain(svid.chain_der[:1], svid.chain_der, svid)
    assert refusal(way, chain, bundles) is Reason.PEER_EXPIRED
    assert way(chain, bundles, NOW - 1).id == svid.id


@both
def test_a_constraint_of_the_anchor_holds_for_leaves_below_a_nameless_issuer(
    way: Way, world: World
) -> None:
    constraints = x509.NameConstraints(
        permitted_subtrees=[x509.UniformResourceIdentifier("example.org"), x509.DNSName("a.test")],
        excluded_subtrees=None,
    )
    root = world.own.issue(
        subject=common_name("bound"),
        issuer="self",
        ca=True,
        uris=(),
        ttl=DAY,
        extra=[(constraints, True)],
    )
    issuer = world.own.intermediate("below", issuer=root, uris=())
    bundles = BundleSet([TrustBundle(world.own.trust_domain, root.chain, {})])
    inside, outside = (
        world.own.issue("web", dns=[name], issuer=issuer) for name in ("x.a.test", "x.b.test")
    )
    chain = Chain(inside.chain_der[:2], inside.chain_der, inside)
    assert way(chain, bundles).id == inside.id
    chain = Chain(outside.chain_der[:2], outside.chain_der, outside)
    assert refusal(way, chain, bundles) is Reason.PEER_CHAIN


@both
def test_an_rsa_anchor_of_our_own_domain_vouches_for_nobody(way: Way, world: World) -> None:
    authority = ForgedAuthority(
        "example.org", now=NOW, key=rsa.generate_private_key(65537, 2048), name="rsa"
    )
    chain = world.chain(authority.issue("web"), authority)
    assert refusal(way, chain, authority.bundles) is Reason.PEER_KEY
    assert way(chain, BundleSet([world.partner.bundle, authority.bundle])).id.path == "/web"


@both
def test_an_empty_bundle_vouches_for_nobody(way: Way, world: World) -> None:
    empty = BundleSet([TrustBundle.parse(world.own.trust_domain, b'{"keys": []}')])
    assert refusal(way, world.good(), empty) is Reason.PEER_UNTRUSTED
    assert refusal(way, world.good(), BundleSet([])) is Reason.PEER_UNTRUSTED


@both
def test_an_anchor_of_the_same_name_does_not_hide_the_right_one(way: Way, world: World) -> None:
    authorities = (world.stranger.root, world.own.root)
    for anchors in (authorities, authorities[::-1]):
        bundles = BundleSet([TrustBundle(world.own.trust_domain, anchors, {})])
        assert way(world.good(), bundles).chain_der[-1] == world.own.root.public_bytes(Encoding.DER)


@both
def test_an_intermediate_may_be_the_anchor(way: Way, world: World) -> None:
    anchor = world.own.issuing.chain[0]
    bundles = BundleSet([TrustBundle(world.own.trust_domain, (anchor,), {})])
    svid = world.own.issue("web")
    chain = Chain(svid.chain_der, svid.chain_der, svid)
    assert way(chain, bundles).chain_der == svid.chain_der


def test_a_root_that_was_signed_again_with_its_old_key_still_ends_a_path(world: World) -> None:
    again = world.own.issue(
        subject=world.own.root.subject,
        issuer="self",
        key=world.own.root_key,
        ca=True,
        path_length=1,
        uris=(),
        not_before=NOW - 60,
        ttl=DAY,
    )
    bundles = BundleSet([TrustBundle(world.own.trust_domain, again.chain, {})])
    chain = world.good()
    for presented in (chain.presented, chain.verified):
        verified = verify_x509_svid(presented, bundles, NOW)
        assert verified.chain_der[-1] == again.chain_der[0]


@both
def test_no_certificate_is_its_own_reason(way: Way, world: World) -> None:
    nothing = Chain((), (), world.own.issue("web"))
    assert refusal(way, nothing, world.bundles) is Reason.PEER_NONE


@both
def test_a_chain_of_too_many_certificates_is_refused_unparsed(way: Way, world: World) -> None:
    junk = (b"junk",) * 6
    assert refusal(way, Chain(junk, junk, world.own.issue("web")), world.bundles) is (
        Reason.PEER_CHAIN
    )


def deep(depth: int) -> tuple[Chain, BundleSet]:
    """A root without path length and `depth` certificates below it, the leaf included."""
    authority = ForgedAuthority("example.org", now=NOW, name="deep")
    issuer = authority.issue(
        subject=common_name("0"), issuer="self", ca=True, uris=(), ttl=DAY, not_before=NOW - 60
    )
    root = issuer.chain[0]
    for level in range(1, depth):
        issuer = authority.intermediate(str(level), issuer=issuer, path_length=None)
    svid = authority.issue("web", issuer=issuer)
    presented = svid.chain_der[:-1]
    bundle = TrustBundle(authority.trust_domain, (root,), {})
    assert len(presented) == depth
    return Chain(presented, (*presented, svid.chain_der[-1]), svid), BundleSet([bundle])


@both
def test_four_certificates_below_the_anchor_are_accepted_and_five_are_not(way: Way) -> None:
    chain, bundles = deep(4)
    verified = way(chain, bundles)
    assert verify_x509_svid(verified.chain_der, bundles, NOW) == verified
    chain, bundles = deep(5)
    assert refusal(way, chain, bundles) in {Reason.PEER_CHAIN, Reason.PEER_UNTRUSTED}


@both
def test_a_chain_of_too_many_bytes_is_refused_unparsed(way: Way, world: World) -> None:
    svid = world.own.issue("web")
    for size, reason in ((32 * 1024, Reason.PEER_NOT_AN_SVID), (32 * 1024 + 1, Reason.PEER_CHAIN)):
        big = (b"\0" * size,)
        assert refusal(way, Chain(big, big, svid), world.bundles) is reason


@both
@pytest.mark.parametrize("position", [0, 1])
def test_bytes_that_are_no_certificate_are_refused(way: Way, position: int, world: World) -> None:
    good = world.good()
    presented, verified = list(good.presented), list(good.verified)
    presented[position] = verified[position] = b"\x30\x03\x02\x01\x01"
    chain = Chain(tuple(presented), tuple(verified), good.svid)
    assert refusal(way, chain, world.bundles) is Reason.PEER_NOT_AN_SVID


@both
def test_bytes_after_a_certificate_are_refused(way: Way, world: World) -> None:
    good = world.good()
    presented = (good.presented[0] + b"\0", *good.presented[1:])
    verified = (good.verified[0] + b"\0", *good.verified[1:])
    chain = Chain(presented, verified, good.svid)
    assert refusal(way, chain, world.bundles) is Reason.PEER_NOT_AN_SVID


@pytest.mark.parametrize("position", [0, 1])
def test_a_flipped_bit_in_a_signature_is_refused(position: int, world: World) -> None:
    """OpenSSL's part of the work in the other way, so `accept_leaf` is not asked."""
    presented = list(world.good().presented)
    presented[position] = presented[position][:-1] + bytes([presented[position][-1] ^ 1])
    with pytest.raises(CertificateRejected) as caught:
        verify_x509_svid(presented, world.bundles, NOW)
    assert caught.value.reason is Reason.PEER_UNTRUSTED


def test_inner_and_outer_signature_algorithm_must_agree(world: World) -> None:
    presented = list(world.good().presented)
    sha256, sha384 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040303")
    presented[0] = presented[0].replace(sha256, sha384, 1)
    with pytest.raises(CertificateRejected):
        verify_x509_svid(presented, world.bundles, NOW)


@pytest.fixture
def signature_checks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []
    real = certificate.require_issued_by

    def spy(subject: x509.Certificate, issuer: x509.Certificate) -> None:
        calls.append((subject, issuer))
        real(subject, issuer)

    monkeypatch.setattr(certificate, "require_issued_by", spy)
    return calls


def test_a_good_chain_has_its_signatures_checked(
    world: World, signature_checks: list[object]
) -> None:
    verify(world.good(), world.bundles)
    assert len(signature_checks) == 2


@pytest.mark.parametrize("where", ["leaf", "issuer"])
def test_no_signature_is_checked_in_a_chain_with_an_oversize_key(
    where: str, world: World, signature_checks: list[object]
) -> None:
    if where == "leaf":
        svid = world.partner.issue("web", public_key=OVERSIZE)
    else:
        issuer = world.partner.intermediate("big", public_key=OVERSIZE)
        svid = world.partner.issue("web", issuer=issuer)
    chain = world.chain(svid, world.partner)
    assert refusal(verify, chain, world.bundles) is Reason.PEER_KEY
    assert signature_checks == []


def test_signatures_are_checked_in_one_place_alone() -> None:
    folder = Path(certificate.__file__).parent
    places = {
        path.name: path.read_text().count("verify_directly_issued_by(")
        for path in folder.glob("*.py")
    }
    assert {name for name, count in places.items() if count} == {"certificate.py"}
    assert places["certificate.py"] == 1


@pytest.mark.parametrize(
    ("bits", "exponent"), [(1024, 65537), (2047, 65537), (4097, 65537), (2048, 3), (2048, 65539)]
)
def test_an_rsa_issuer_outside_the_bounds_is_refused(
    bits: int, exponent: int, world: World
) -> None:
    key = rsa.RSAPublicNumbers(exponent, 2 ** (bits - 1) + 1).public_key()
    issuer = world.partner.intermediate("rsa", public_key=key)
    chain = world.chain(world.partner.issue("web", issuer=issuer), world.partner)
    for way in WAYS:
        assert refusal(way, chain, world.bundles) is Reason.PEER_KEY


@pytest.mark.filterwarnings("ignore::UserWarning")
@both
@pytest.mark.parametrize("serial", [b"\x00", b"\xff"], ids=["zero", "negative"])
def test_a_serial_number_that_the_library_only_warns_of_is_refused(
    way: Way, serial: bytes, world: World
) -> None:
    svid = world.own.issue("web", serial=1)
    leaf = svid.chain_der[0].replace(b"\x02\x01\x01", b"\x02\x01" + serial, 1)
    chain = world.chain(svid)
    patched = Chain((leaf, *chain.presented[1:]), (leaf, *chain.verified[1:]), svid)
    way(chain, world.bundles)
    assert refusal(way, patched, world.bundles) is Reason.PEER_NOT_AN_SVID


def test_a_key_that_cannot_be_read_is_refused(world: World) -> None:
    good = world.good()
    p256 = bytes.fromhex("06082a8648ce3d030107")
    unknown = bytes.fromhex("06082a8648ce3d03017f")
    leaf = good.presented[0].replace(p256, unknown, 1)
    chain = Chain((leaf, *good.presented[1:]), (leaf, *good.verified[1:]), good.svid)
    for way in WAYS:
        assert refusal(way, chain, world.bundles) is Reason.PEER_KEY


def test_an_origin_of_another_scheme_verifies_no_certificate(world: World) -> None:
    wimse = TrustBundle(TrustDomain("example.org", "wimse"), (world.own.root,), {})
    for way in WAYS:
        # The anchor is known, but not as one of spiffe://example.org.
        assert refusal(way, world.good(), BundleSet([wimse])) is Reason.PEER_WRONG_TRUST_DOMAIN


def test_trust_in_a_domain_is_not_trust_in_what_its_ca_says_of_another(world: World) -> None:
    svid: X509Svid = world.partner.issue(uris=["spiffe://example.org/admin"])
    chain = world.chain(svid, world.partner)
    for way in WAYS:
        assert refusal(way, chain, world.bundles) is Reason.PEER_WRONG_TRUST_DOMAIN


def test_a_verified_svid_is_earned_and_neither_built_nor_changed_nor_sent(world: World) -> None:
    verified = verify(world.good(), world.bundles)
    with pytest.raises(TypeError, match="verify_x509_svid"):
        VerifiedSvid()
    with pytest.raises(TypeError):
        dataclasses.replace(verified, id=world.own.id("root"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        verified.expires_at = math.inf  # type: ignore[misc]
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(verified)
    assert "spiffe://example.org" in repr(verified)
    assert len(repr(verified)) < 500
