"""What a join token can be bound to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.issuing import NOW, Asker, make_ca
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.cli.csr_key import MAX_BYTES, read_csr_key
from zerotrust.core.errors import AttestationFailed, ConfigurationError, Reason, RequestRefused

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def csr(name: str = "") -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
    return x509.CertificateSigningRequestBuilder(subject).sign(KEY, hashes.SHA256())


def pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "content",
    [
        SPKI,
        pem(KEY.public_key()),
        csr().public_bytes(Encoding.DER),
        csr().public_bytes(Encoding.PEM),
    ],
    ids=("key-der", "key-pem", "csr-der", "csr-pem"),
)
def test_a_public_key_and_a_csr_name_the_same_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    assert read_csr_key(tmp_path / "key") == hashlib.sha256(SPKI).digest()


def test_a_token_serves_the_key_it_was_bound_to_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(pem(KEY.public_key()))
    with make_ca(tmp_path / "ca") as ca:
        entry = ca.create_entry(NewEntry("/web"), now=NOW)
        digest = read_csr_key(tmp_path / "key")
        evidence = ca.create_token(entry.id, now=NOW, csr_key=digest).evidence
        with pytest.raises(AttestationFailed):
            Asker().enrol(ca, evidence)
        assert Asker(key=KEY).enrol(ca, evidence).chain


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        SPKI[:-1],
        pem(KEY.public_key()) + b" " * MAX_BYTES,
        csr().public_bytes(Encoding.PEM)[:-40],
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
    ids=("empty", "text", "cut-key", "too-long", "cut-csr", "private-key"),
)
def test_what_is_neither_a_public_key_nor_a_csr_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_csr_key(tmp_path / "key")
    assert caught.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize(
    "content",
    [
        pem(rsa.generate_private_key(65537, 2048).public_key()),
        pem(ec.generate_private_key(ec.SECP521R1()).public_key()),
        csr("web").public_bytes(Encoding.PEM),
    ],
    ids=("rsa", "p521", "csr-with-a-subject"),
)
def test_what_no_workload_could_enrol_with_is_refused_at_once(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(RequestRefused) as caught:
        read_csr_key(tmp_path / "key")
    assert caught.value.reason is Reason.CSR
