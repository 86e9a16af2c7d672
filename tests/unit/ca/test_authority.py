from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID

from support.issuing import DOMAIN, NOW, make_csr
from zerotrust.ca.attestors.unix import UnixAttestor
from zerotrust.ca.authority import csr as csr_module
from zerotrust.ca.authority.attestation import Connection
from zerotrust.ca.authority.authority import (
    Authority,
    Certificate,
    Keys,
    Lineage,
    require_entitled,
    require_rekey,
    same_keys,
)
from zerotrust.ca.authority.csr import verify_csr
from zerotrust.ca.authority.entries import NewEntry, dns_of, register
from zerotrust.ca.authority.profiles import issuer_profile, root_profile, serial_of
from zerotrust.core.enrolment import Evidence
from zerotrust.core.errors import (
    AttestationFailed,
    MalformedError,
    NotEntitled,
    Reason,
    RequestRefused,
)
from zerotrust.core.jose import SigningKey, b64url_decode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

EMPTY = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))


def signed(
    key: CertificateIssuerPrivateKeyTypes,
    builder: x509.CertificateSigningRequestBuilder = EMPTY,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else digest or hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "key",
    [p256(), ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-256", "P-384", "Ed25519"],
)
def test_a_csr_with_an_allowed_key_gives_that_key(key: ec.EllipticCurvePrivateKey) -> None:
    assert verify_csr(signed(key)).key == key.public_key()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["P-521", "secp256k1", "RSA"],
)
def test_a_csr_with_another_key_is_refused_before_its_signature_is_looked_at(
    key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bool] = []

    class Spied:
        def __init__(self, csr: x509.CertificateSigningRequest) -> None:
            self._csr = csr

        def __getattr__(self, name: str) -> object:
            if name == "is_signature_valid":
                looked.append(True)
            return getattr(self._csr, name)

    class Module:
        load_der_x509_csr = staticmethod(lambda der: Spied(x509.load_der_x509_csr(der)))

    monkeypatch.setattr(csr_module, "x509", Module)
    with pytest.raises(RequestRefused) as caught:
        verify_csr(signed(key))
    assert caught.value.reason is Reason.CSR
    assert looked == []
    verify_csr(make_csr())
    assert looked == [True]


SAN = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://example.org/admin")])


@pytest.mark.parametrize(
    "builder",
    [
        EMPTY.add_extension(SAN, critical=False),
        EMPTY.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True),
        EMPTY.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"x"),
        x509.CertificateSigningRequestBuilder(
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
        ),
    ],
    ids=["another identity", "a CA", "an attribute", "a subject"],
)
def test_a_csr_that_asks_for_something_is_refused(
    builder: x509.CertificateSigningRequestBuilder,
) -> None:
    with pytest.raises(RequestRefused, match="no subject"):
        verify_csr(signed(p256(), builder))


def test_a_csr_whose_signature_does_not_hold_is_refused() -> None:
    der = bytearray(make_csr())
    der[-1] ^= 1
    with pytest.raises(RequestRefused, match="signature"):
        verify_csr(bytes(der))


@pytest.mark.parametrize(
    "der", [b"", b"0", b"\x30\x00", make_csr() + b"\0", b"\x30" * 8193, make_csr()[:-1]]
)
def test_bytes_that_are_no_csr_are_refused(der: bytes) -> None:
    with pytest.raises(RequestRefused):
        verify_csr(der)


def test_a_csr_of_more_than_8_kib_is_refused_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []

    class Module:
        @staticmethod
        def load_der_x509_csr(der: bytes) -> NoReturn:
            parsed.append(len(der))
            raise ValueError

    monkeypatch.setattr(csr_module, "x509", Module)
    for size in (8192, 8193):
        with pytest.raises(RequestRefused):
            verify_csr(b"\x30" * size)
    assert parsed == [8192]


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_a_csr_over_an_allowed_hash_is_accepted(digest: hashes.HashAlgorithm) -> None:
    verify_csr(signed(p256(), digest=digest))


def test_a_csr_over_another_hash_is_refused() -> None:
    with pytest.raises(RequestRefused, match="SHA-256"):
        verify_csr(signed(p256(), digest=hashes.SHA224()))


def new(**changes: object) -> NewEntry:
    return NewEntry(**{"path": "/ledger", **changes})  # type: ignore[arg-type]


def registered(entry: NewEntry, *, dev: bool = False) -> object:
    return register(entry, trust_domain=DOMAIN, dev=dev, now=NOW, random=b"r" * 16)


@pytest.mark.parametrize(
    "entry",
    [
        new(path="/zerotrust/ca"),
        new(path="/zerotrust"),
        new(path="/ZeroTrust/x"),
        new(path=""),
        new(path="/a//b"),
        new(path="/a/../b"),
        new(dns_names=(dns_of(DOMAIN.id("/ledger")),)),
        new(dns_names=("x.svid.internal",)),
        new(dns_names=("svid.internal",)),
        new(dns_names=("*.example.org",)),
        new(dns_names=("Web.example.org",)),
        new(dns_names=("web.example.org.",)),
        new(dns_names=("",)),
        new(dns_names=("a_b",)),
        new(dns_names=("10.0.0.1",)),
        new(dns_names=("aa." + "a." * 125 + "a",)),
        new(dns_names=("xn--\u00e9",)),
        new(dns_names=tuple(f"n{i}" for i in range(17))),
        new(ttl=59.9),
        new(ttl=86401),
        new(ttl=float("nan")),
        new(wit_ttl=1.0),
        new(selectors=("unix:uid",)),
        new(selectors=("",)),
        new(selectors=("unix:uid:1\n",)),
    ],
)
def test_an_unsound_entry_is_refused(entry: NewEntry) -> None:
    with pytest.raises((RequestRefused, MalformedError)):
        registered(entry)


@pytest.mark.parametrize(
    "entry",
    [
        new(),
        new(path="/zerotrusted"),
        new(path="/a/zerotrust"),
        new(dns_names=("web", "web.example.org", "svid.internal.example.org")),
        new(dns_names=("a." * 126 + "a",)),
        new(ttl=60),
        new(ttl=86400, wit_ttl=60),
        new(selectors=("unix:uid:1000",)),
    ],
)
def test_a_sound_entry_is_registered(entry: NewEntry) -> None:
    registered(entry)


def test_a_dev_entry_may_live_for_five_seconds() -> None:
    registered(new(ttl=5), dev=True)
    with pytest.raises(RequestRefused):
        registered(new(ttl=4.9), dev=True)


def test_a_serial_is_positive_and_has_at_most_159_bits() -> None:
    assert serial_of(b"\xff" * 20).bit_length() == 159
    assert serial_of(b"\0" * 20) == 1
    with pytest.raises(ValueError, match="20 bytes"):
        serial_of(b"\xff" * 19)


def authority(lifetime: float = 86400.0) -> Authority:
    key = p256()
    profile = root_profile(
        key.public_key(),
        trust_domain=DOMAIN,
        dev=False,
        now=NOW,
        random=b"r" * 20,
        lifetime=lifetime,
    )
    issuer = profile.sign(key, hashes.SHA256())
    return Authority(DOMAIN, issuer, key, SigningKey.generate(), dev=False)


def keys() -> Keys:
    return Keys(verify_csr(make_csr()), SigningKey.generate().public)


@pytest.mark.parametrize(("lifetime", "lives"), [(86400, 3600), (1000, 1000)])
def test_neither_certificate_nor_wit_outlives_the_issuer(lifetime: float, lives: float) -> None:
    entry = register(new(ttl=3600.0), trust_domain=DOMAIN, dev=False, now=NOW, random=bytes(16))
    issued = authority(lifetime).issue(
        entry, keys(), lineage="l", parent=None, now=NOW, random=bytes(range(36))
    )
    leaf = x509.load_der_x509_certificate(issued.leaf)
    claims = json.loads(b64url_decode(issued.wit.split(".")[1]))
    ends = leaf.not_valid_after_utc.timestamp()
    assert (issued.not_after, ends, claims["exp"]) == (NOW + lives,) * 3


@pytest.mark.parametrize(("ttl", "early"), [(3600.0, 60), (60.0, 6)])
def test_a_leaf_begins_a_minute_or_a_tenth_of_its_life_early(ttl: float, early: int) -> None:
    entry = register(new(ttl=ttl), trust_domain=DOMAIN, dev=False, now=NOW, random=bytes(16))
    issued = authority().issue(
        entry, keys(), lineage="l", parent=None, now=NOW, random=bytes(range(36))
    )
    leaf = x509.load_der_x509_certificate(issued.leaf)
    assert leaf.not_valid_before_utc.timestamp() == NOW - early


@pytest.mark.parametrize(("lifetime", "lives"), [(1000.0, 1000), (86401.0, 86400)])
def test_an_issuing_ca_does_not_outlive_its_root(lifetime: float, lives: int) -> None:
    profile = issuer_profile(
        p256().public_key(),
        root=authority(86400.0).certificate,
        trust_domain=DOMAIN,
        dev=False,
        now=NOW,
        random=b"r" * 20,
        lifetime=lifetime,
    )
    issuer = profile.sign(p256(), hashes.SHA256())
    assert issuer.not_valid_after_utc.timestamp() == NOW + lives


def test_unix_evidence_counts_on_a_unix_socket_only() -> None:
    evidence = Evidence("unix")
    attested = UnixAttestor().attest(evidence, Connection("uid:1000", uid=1000), NOW)
    assert attested.selectors == {"unix:uid:1000"}
    with pytest.raises(AttestationFailed):
        UnixAttestor().attest(evidence, Connection("192.0.2.1"), NOW)


def test_an_issuing_certificate_for_another_key_is_refused() -> None:
    with pytest.raises(RequestRefused):
        Authority(DOMAIN, authority().certificate, p256(), SigningKey.generate(), dev=False)


def issued_for(asked: Keys) -> Certificate:
    entry = register(new(), trust_domain=DOMAIN, dev=False, now=NOW, random=bytes(16))
    return authority().issue(
        entry, asked, lineage="l", parent=None, now=NOW, random=bytes(range(36))
    )


def test_only_both_keys_together_get_the_same_answer_again() -> None:
    first, other = keys(), keys()
    certificate = issued_for(first)
    assert same_keys(certificate, first)
    assert not same_keys(certificate, replace(first, tls=other.tls))
    assert not same_keys(certificate, replace(first, wit=other.wit))


def test_a_renewal_that_brings_either_key_again_is_refused() -> None:
    first, other = keys(), keys()
    parent = issued_for(first)
    require_rekey(parent, other)
    for asked in (replace(other, tls=first.tls), replace(other, wit=first.wit)):
        with pytest.raises(RequestRefused) as caught:
            require_rekey(parent, asked)
        assert caught.value.reason is Reason.CSR


SELECTORS = ("unix:uid:1000",)


def entitled(entry: NewEntry | None, lineage: Lineage, *, now: float = NOW) -> None:
    require_entitled(
        None
        if entry is None
        else register(entry, trust_domain=DOMAIN, dev=False, now=NOW, random=bytes(16)),
        lineage,
        spiffe_id=str(DOMAIN.id("/ledger")),
        now=now,
        max_age=100.0,
    )


def test_a_lineage_entitles_until_its_last_second() -> None:
    lineage = Lineage("l", "e", NOW, frozenset(SELECTORS))
    entitled(new(selectors=SELECTORS), lineage, now=NOW + 100)
    with pytest.raises(NotEntitled) as caught:
        entitled(new(selectors=SELECTORS), lineage, now=NOW + 100.1)
    assert caught.value.reason is Reason.LINEAGE_TOO_OLD


@pytest.mark.parametrize(
    ("entry", "change", "reason"),
    [
        (new(selectors=SELECTORS), {"frozen_at": NOW}, Reason.LINEAGE_FROZEN),
        (new(selectors=SELECTORS), {"selectors": frozenset()}, Reason.NOT_ENTITLED),
        (new(path="/other", selectors=SELECTORS), {}, Reason.NOT_ENTITLED),
        (None, {}, Reason.NOT_ENTITLED),
    ],
    ids=["frozen", "another selector", "another identity", "no entry"],
)
def test_a_lineage_that_entitles_no_more_is_refused(
    entry: NewEntry | None, change: dict[str, Any], reason: Reason
) -> None:
    lineage = Lineage("l", "e", NOW, frozenset(SELECTORS))
    entitled(new(selectors=SELECTORS), lineage)
    with pytest.raises(NotEntitled) as caught:
        entitled(entry, replace(lineage, **change))
    assert caught.value.reason is reason
