"""Our own SVID: what is read from files, and what never leaves the object."""

from __future__ import annotations

import copy
import hashlib
import pickle
from base64 import urlsafe_b64encode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from zerotrust.core.errors import MalformedError, Reason
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.forge import ForgedAuthority

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def authority() -> ForgedAuthority:
    return ForgedAuthority("example.org", now=NOW)


def refusal(chain_pem: bytes, key_pem: bytes) -> MalformedError:
    with pytest.raises(MalformedError) as caught:
        X509Svid.parse(chain_pem, key_pem)
    return caught.value


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "Ed25519"],
)
def test_what_is_written_is_read_again(
    authority: ForgedAuthority, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    svid = authority.issue("web", key=key)
    again = X509Svid.parse(svid.chain_pem, svid.key_pem)
    assert again.chain == svid.chain
    assert again.id == svid.id
    assert again.key.public_key() == key.public_key()
    assert again.chain_der == svid.chain_der
    assert (again.not_before, again.not_after) == (NOW - 30, NOW + 3600)


def test_a_sec1_key_is_read(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    sec1 = svid.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert X509Svid.parse(svid.chain_pem, sec1).id == svid.id


def test_the_thumbprint_is_that_of_rfc_8705(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    digest = hashlib.sha256(svid.chain[0].public_bytes(Encoding.DER)).digest()
    assert svid.thumbprint == urlsafe_b64encode(digest).decode().rstrip("=")


def test_the_private_key_is_in_no_repr_and_no_pickle(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    assert repr(svid) == f"<X509Svid spiffe://example.org/web {svid.thumbprint}, key redacted>"
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="private key"):
            copied(svid)


def test_a_key_that_is_not_the_certificates_is_refused(authority: ForgedAuthority) -> None:
    one, other = authority.issue("web"), authority.issue("web")
    assert refusal(one.chain_pem, other.key_pem).reason is Reason.BAD_KEY


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        dsa.generate_private_key(2048),
    ],
    ids=["RSA", "DSA"],
)
def test_a_key_of_another_kind_is_refused(
    authority: ForgedAuthority, key: rsa.RSAPrivateKey | dsa.DSAPrivateKey
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert refusal(authority.issue("web").chain_pem, pem).reason is Reason.BAD_KEY


def test_an_encrypted_key_is_refused_without_a_word_of_it(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    sealed = svid.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    error = refusal(svid.chain_pem, sealed)
    assert error.reason is Reason.BAD_KEY
    assert error.__cause__ is None


@pytest.mark.parametrize("key_pem", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\n", b"x" * 20000])
def test_what_is_no_key_is_refused(authority: ForgedAuthority, key_pem: bytes) -> None:
    assert refusal(authority.issue("web").chain_pem, key_pem).reason is Reason.BAD_KEY


@pytest.mark.parametrize(
    "chain_pem", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\n", b"x" * 32769]
)
def test_what_is_no_chain_is_refused(authority: ForgedAuthority, chain_pem: bytes) -> None:
    assert refusal(chain_pem, authority.issue("web").key_pem).reason is Reason.BAD_CERTIFICATE


def test_a_chain_of_32_kib_is_read_and_one_byte_more_is_not(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    whole = svid.chain_pem.ljust(32 * 1024, b"\n")
    assert X509Svid.parse(whole, svid.key_pem).chain == svid.chain
    assert refusal(whole + b"\n", svid.key_pem).reason is Reason.BAD_CERTIFICATE


def test_a_key_of_16_kib_is_read_and_one_byte_more_is_not(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    whole = svid.key_pem.ljust(16 * 1024, b"\n")
    assert X509Svid.parse(svid.chain_pem, whole).id == svid.id
    assert refusal(svid.chain_pem, whole + b"\n").reason is Reason.BAD_KEY


def test_a_chain_of_four_is_read_and_of_five_is_not(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    issuer = svid.chain[1].public_bytes(Encoding.PEM)
    assert len(X509Svid.parse(svid.chain_pem + issuer * 2, svid.key_pem).chain) == 4
    assert refusal(svid.chain_pem + issuer * 3, svid.key_pem).reason is Reason.BAD_CERTIFICATE


def test_a_leaf_that_breaks_a_rule_is_refused(authority: ForgedAuthority) -> None:
    svid = authority.issue("web", uris=["spiffe://example.org/a", "spiffe://example.org/b"])
    assert refusal(svid.chain_pem, svid.key_pem).reason is Reason.BAD_CERTIFICATE


def test_a_leaf_with_another_key_is_refused(authority: ForgedAuthority) -> None:
    svid = authority.issue("web", key=ec.generate_private_key(ec.SECP521R1()))
    assert refusal(svid.chain_pem, svid.key_pem).reason is Reason.BAD_CERTIFICATE


def test_an_issuer_that_is_no_ca_is_refused(authority: ForgedAuthority) -> None:
    svid = authority.issue("web", issuer=authority.issue("mallory"))
    assert refusal(svid.chain_pem, svid.key_pem).reason is Reason.BAD_CERTIFICATE


def test_an_issuer_with_a_key_outside_the_allow_list_is_refused(
    authority: ForgedAuthority,
) -> None:
    good = authority.intermediate(key=ec.generate_private_key(ec.SECP384R1()))
    svid = authority.issue("web", issuer=good)
    assert X509Svid.parse(svid.chain_pem, svid.key_pem).id == svid.id
    bad = authority.intermediate(key=ec.generate_private_key(ec.SECP521R1()))
    svid = authority.issue("web", issuer=bad)
    assert refusal(svid.chain_pem, svid.key_pem).reason is Reason.BAD_CERTIFICATE


def test_the_root_is_not_in_the_chain_that_is_presented(authority: ForgedAuthority) -> None:
    svid = authority.issue("web")
    assert [len(svid.chain), len(authority.chain_der(svid))] == [2, 3]
    assert x509.load_der_x509_certificate(authority.chain_der(svid)[2]) == authority.root
