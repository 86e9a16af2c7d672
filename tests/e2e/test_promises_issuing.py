"""What the CA promises when things go wrong, over real sockets and with real processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from support.home_ca import Home, home
from support.served import until
from zerotrust import clock
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.core.enrolment import (
    EnrolRequest,
    Evidence,
    RenewRequest,
    parse_address,
    prove_wit_key,
)
from zerotrust.core.errors import NotYetIssued
from zerotrust.core.jose import SigningKey
from zerotrust.probe.attacks.issuance import Issuer, enrol
from zerotrust.probe.deliver import Answer
from zerotrust.probe.forge import ForgedAuthority, x509_jwk
from zerotrust.workload.identity import WorkloadIdentity
from zerotrust.workload.sources.ca import open_source

__all__ = ["home"]

COMMAND = [sys.executable, "-P", "-m", "zerotrust"]
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("ZEROTRUST_")}

# ---- what is asked with -----------------------------------------------------------------------

Csr = x509.CertificateSigningRequestBuilder
P256 = ec.generate_private_key(ec.SECP256R1())


def plain() -> Csr:
    return Csr().subject_name(x509.Name([]))


def signed(builder: Csr, key: object = P256) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def asked(home: Home, csr: bytes, evidence: Evidence | None = None) -> Answer:
    """The answer to an enrolment with this CSR and a fresh token, or with this evidence."""
    token = home.ca.create_token(home.entry.id, now=clock.now())
    evidence = evidence or token.evidence
    wit_key = SigningKey.generate()
    proof = prove_wit_key(wit_key, csr=csr, ca=home.ca.id, evidence=evidence)
    keys = RenewRequest(csr, wit_key.public.as_dict(), proof)
    issuer = Issuer(parse_address(home.running.bootstrap), home.ca.id, lambda: token)
    return enrol(issuer, EnrolRequest(evidence, keys))


def test_a_plain_csr_with_a_fresh_token_is_served(home: Home) -> None:
    assert asked(home, signed(plain())).status == 200


UNEXPECTED: dict[str, Callable[[], bytes]] = {
    "an RSA key": lambda: signed(plain(), rsa.generate_private_key(65537, 2048)),
    "an oversize RSA key": lambda: signed(plain(), rsa.generate_private_key(3, 2048)),
    "P-521": lambda: signed(plain(), ec.generate_private_key(ec.SECP521R1())),
    "a key of another curve": lambda: signed(plain(), ec.generate_private_key(ec.SECP256K1())),
    "a subject": lambda: signed(
        Csr().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")]))
    ),
    "a DNS name": lambda: signed(
        plain().add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=False)
    ),
    "the wish to be a CA": lambda: signed(
        plain().add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    ),
    "an unknown extension": lambda: signed(
        plain().add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0"),
            critical=False,
        )
    ),
    "a challenge password": lambda: signed(
        plain().add_attribute(x509.ObjectIdentifier("1.2.840.113549.1.9.7"), b"secret")
    ),
    "PEM": lambda: plain().sign(P256, hashes.SHA256()).public_bytes(Encoding.PEM),
    "bytes behind it": lambda: signed(plain()) + b"\0",
    "two requests": lambda: signed(plain()) * 2,
    "no request": lambda: b"\x30\x03\x02\x01\x00",
    "nothing": lambda: b"",
    "nine kilobytes": lambda: signed(plain()) + bytes(9216),
}


@pytest.mark.parametrize("make", UNEXPECTED.values(), ids=UNEXPECTED)
def test_a_csr_with_anything_unexpected_is_refused_and_the_token_is_not_spent(
    home: Home, make: Callable[[], bytes]
) -> None:
    evidence = home.ca.create_token(home.entry.id, now=clock.now()).evidence
    answer = asked(home, make(), evidence)
    assert answer.status == 400
    assert answer.header("content-type") == "application/problem+json"
    assert asked(home, signed(plain()), evidence).status == 200


def test_a_join_token_after_its_end_is_refused(home: Home) -> None:
    late = home.ca.create_token(home.entry.id, now=clock.now() - 120, ttl=60)
    answer = asked(home, signed(plain()), late.evidence)
    assert answer.status == 401
    unknown = asked(home, signed(plain()), replace(late.evidence, value="A" * 43))
    assert unknown.status == 401
    assert json.loads(answer.body)["title"] == json.loads(unknown.body)["title"]


def test_a_join_token_for_one_key_serves_no_other(home: Home) -> None:
    spki = P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(spki).digest()
    bound = home.ca.create_token(home.entry.id, now=clock.now(), csr_key=digest)
    other = signed(plain(), ec.generate_private_key(ec.SECP256R1()))
    assert asked(home, other, bound.evidence).status == 401
    assert asked(home, signed(plain()), bound.evidence).status == 200


# ---- what is answered -------------------------------------------------------------------------


def test_a_root_that_no_root_announced_is_refused_with_an_alarm_and_the_old_ones_stay(
    home: Home,
) -> None:
    entry = home.ca.create_entry(NewEntry("/short", ttl=5.0), now=clock.now())
    home.entry = entry
    alarms: list[tuple[str, str]] = []
    source = open_source(str(home.token()), dev=True)
    with WorkloadIdentity(source, on_alarm=lambda *alarm: alarms.append(alarm)) as identity:
        before = identity.current
        document = json.loads(home.ca.published.bundle)
        extra = ForgedAuthority("example.org", now=clock.now(), dev=True)
        document["keys"].append(x509_jwk(extra.root))
        document["spiffe_sequence"] += 1
        bundle = json.dumps(document).encode()
        home.ca.published = replace(home.ca.published, bundle=bundle)
        until(lambda: alarms)
        assert "anchor" in alarms[0][0] or "root" in alarms[0][1]
        assert identity.current.bundles is before.bundles


# ---- faults, each to a CA in a process of its own ---------------------------------------------


class Shop:
    """A folder with a CA, and a process that runs it at a fixed address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("issuing", "root"):
            (folder / name).write_text(f"passphrase-of-{name}\n")
            (folder / name).chmod(0o600)
        with (
            socket.create_server(("127.0.0.1", 0)) as a,
            socket.create_server(("127.0.0.1", 0)) as b,
        ):
            self.ports = [f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)]
        both = ("--passphrase-file", "issuing", "--root-passphrase-file", "root")
        assert self.run("ca", "init", "ca", "--trust-domain", "example.org", *both).returncode == 0

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *argv],
            cwd=self.folder,
            env=CLEAN,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @contextlib.contextmanager
    def open(self, *, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
        """Run the CA; `before` is Python that runs in its process first."""
        main = f"{before}\nfrom zerotrust.cli import main\nmain()"
        argv = ["ca", "run", "ca", "--bootstrap", self.ports[0], "--mtls", self.ports[1]]
        with (
            (self.folder / "ca.log").open("ab") as log,
            subprocess.Popen(
                [sys.executable, "-P", "-c", main, *argv, "--passphrase-file", "issuing"],
                cwd=self.folder,
                env=CLEAN,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                end = time.monotonic() + 30
                while self.run("entry", "list").returncode != 0:
                    assert process.poll() is None, (self.folder / "ca.log").read_text()
                    assert time.monotonic() < end
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def serials(self) -> set[str]:
        """Every certificate on record, the CA's own as well."""
        with contextlib.closing(sqlite3.connect(self.folder / "ca" / "ca.db")) as db:
            return {row[0] for row in db.execute("SELECT serial FROM certificates")}

    def token(self) -> str:
        assert self.run("entry", "create", "spiffe://example.org/web").returncode == 0
        done = self.run("token", "create", "spiffe://example.org/web", "--out", "token")
        assert done.returncode == 0, done.stderr
        return str(self.folder / "token")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


DIE = """
import os, signal
from zerotrust.ca import service
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
service.CertificateAuthority._answer = die
"""


def test_a_ca_killed_between_commit_and_answer_gives_the_same_answer_to_the_retry(
    shop: Shop,
) -> None:
    with shop.open(before=DIE) as dying:
        source = open_source(shop.token(), dev=False)
        before = shop.serials()
        with pytest.raises(NotYetIssued):
            source.fetch(None)
        assert dying.wait(20) == -signal.SIGKILL
    (serial,) = shop.serials() - before
    with shop.open():
        own = shop.serials()
        snapshot = source.fetch(None)
        assert f"{snapshot.svid.chain[0].serial_number:x}" == serial
        assert shop.serials() == own
        assert shop.run("svid", "fetch", "--identity", "ca:token", "--out", "b").returncode == 1
    source.close()


def test_a_full_disk_refuses_an_enrolment_and_loses_nothing(shop: Shop) -> None:
    fetch = ("svid", "fetch", "--identity", "ca:token", "--out", "id")
    with shop.open() as process:
        shop.token()
        before = shop.serials()
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, hard))
        full = shop.run(*fetch)
        assert full.returncode not in {0, 2}
        assert "Traceback" not in full.stderr
        assert "answered 503" in full.stderr
        assert process.poll() is None
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert shop.serials() == before
        done = shop.run(*fetch)
        assert done.returncode == 0, done.stderr
        assert len(shop.serials() - before) == 1
    assert "Traceback" not in (shop.folder / "ca.log").read_text()
