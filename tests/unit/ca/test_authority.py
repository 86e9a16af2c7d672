from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID

from support.issuing import DOMAIN, NOW, make_csr
from zerotrust.ca.authority import csr as csr_module
from zerotrust.ca.authority.csr import verify_csr
from zerotrust.ca.authority.entries import NewEntry, dns_of, register
from zerotrust.ca.authority.profiles import serial_of
from zerotrust.core.errors import MalformedError, Reason, RequestRefused

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
