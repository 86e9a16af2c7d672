from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.issuing import DOMAIN
from zerotrust.ca.signers import file as signer
from zerotrust.ca.signers.file import LEAST, open_key, seal_key
from zerotrust.core.errors import ConfigurationError, Reason
from zerotrust.core.spiffe.ids import TrustDomain

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE = b"correct horse"


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def sealed(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path = tmp_path / "issuer.sealed"
    seal_key(path, key, PASSPHRASE, purpose="issuer", trust_domain=DOMAIN, cost=LEAST)
    return path


def opened(path: Path, **changes: Any) -> ec.EllipticCurvePrivateKey:
    asked = {"passphrase": PASSPHRASE, "purpose": "issuer", "trust_domain": DOMAIN, **changes}
    return open_key(path, **asked)


def rewrite(path: Path, **changes: Any) -> None:
    header, rest = path.read_bytes().split(b"\n", 1)
    members = {**json.loads(header), **changes}
    text = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    path.write_bytes(text + b"\n" + rest)


def test_a_sealed_key_opens(sealed: Path, key: ec.EllipticCurvePrivateKey) -> None:
    assert opened(sealed).private_numbers() == key.private_numbers()
    assert sealed.stat().st_mode & 0o777 == 0o600


def test_a_sealed_file_does_not_hold_the_key(sealed: Path, key: ec.EllipticCurvePrivateKey) -> None:
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert der[40:60] not in sealed.read_bytes()


def test_sealing_twice_shares_nothing(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    bodies = []
    for name in "ab":
        path = tmp_path / name
        seal_key(path, key, PASSPHRASE, purpose="issuer", trust_domain=DOMAIN, cost=LEAST)
        bodies.append(path.read_bytes().split(b"\n")[1])
    assert bodies[0] != bodies[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"passphrase": b"wrong horse"}, Reason.PASSPHRASE),
        ({"purpose": "root"}, Reason.SEALED_FILE),
        ({"trust_domain": TrustDomain("other.example")}, Reason.SEALED_FILE),
    ],
)
def test_what_it_is_not_it_does_not_open_as(
    sealed: Path, changes: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        opened(sealed, **changes)
    assert caught.value.reason is reason
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": LEAST.memory - 1},
        {"memory": 1 << 30},
        {"iterations": 1},
        {"iterations": 10**9},
        {"lanes": 0},
        {"lanes": 255},
        {"memory": True},
        {"memory": "65536"},
        {"version": 2},
        {"salt": ""},
        {"salt": "AAAA"},
        {"more": 1},
    ],
)
def test_a_header_out_of_bounds_is_refused_before_any_work(
    sealed: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer, "Argon2id", None)  # calling it would be a TypeError
    rewrite(sealed, **changes)
    with pytest.raises(ConfigurationError) as caught:
        opened(sealed)
    assert caught.value.reason is Reason.SEALED_FILE
    assert sealed.name in caught.value.detail


def test_a_header_that_says_more_does_not_open(sealed: Path) -> None:
    rewrite(sealed, iterations=3)
    with pytest.raises(ConfigurationError) as caught:
        opened(sealed)
    assert caught.value.reason is Reason.PASSPHRASE


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"{}\n\n", b"{}\nAAAA\n", b"x" * 9000, b"a\nb\nc"]
)
def test_a_file_that_is_no_sealed_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "issuer.sealed"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        opened(path)


def test_each_bit_of_the_body_counts(sealed: Path) -> None:
    header, body, _ = sealed.read_bytes().split(b"\n")
    for place in (0, len(body) // 2):
        changed = bytearray(body)
        changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
        sealed.write_bytes(header + b"\n" + bytes(changed) + b"\n")
        with pytest.raises(ConfigurationError):
            opened(sealed)


def test_a_short_passphrase_is_refused(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(ConfigurationError, match="at least 8"):
        seal_key(tmp_path / "x", key, b"1234567", purpose="root", trust_domain=DOMAIN, cost=LEAST)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.sealed"):
        opened(tmp_path / "gone.sealed")


def test_without_argon2id_nothing_is_sealed(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    def missing(**_: object) -> None:
        raise UnsupportedAlgorithm("Argon2id")

    monkeypatch.setattr(signer, "Argon2id", missing)
    with pytest.raises(ConfigurationError, match="Argon2id"):
        seal_key(tmp_path / "x", key, PASSPHRASE, purpose="root", trust_domain=DOMAIN, cost=LEAST)
    assert list(tmp_path.iterdir()) == []
