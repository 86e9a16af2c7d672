"""A real CA over real sockets, with one entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zerotrust import clock
from zerotrust.ca.authority.entries import NewEntry, RegistrationEntry
from zerotrust.ca.server import Listeners, Running
from zerotrust.ca.service import CertificateAuthority, init_ca, open_ca
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload.layout import write_private

DOMAIN = TrustDomain("example.org")
ROOT, PASSPHRASE = b"root-passphrase", b"issuer-passphrase"


@dataclass
class Home:
    """A running CA with one entry, and where it keeps things."""

    ca: CertificateAuthority
    running: Running
    entry: RegistrationEntry
    path: Path

    def token(self, name: str = "token", **options: Any) -> Path:
        token = self.ca.create_token(
            self.entry.id, address=self.running.bootstrap, now=clock.now(), **options
        )
        path = self.path / name
        write_private(path, token.dump().encode())
        return path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    init_ca(
        tmp_path / "ca",
        DOMAIN,
        root_passphrase=ROOT,
        passphrase=PASSPHRASE,
        now=clock.now(),
        dev=True,
    )
    with opened(tmp_path) as ca, Running(ca, listeners(tmp_path)) as running:
        entry = ca.create_entry(NewEntry("/web", ttl=60.0), now=clock.now())
        yield Home(ca, running, entry, tmp_path)


def opened(path: Path) -> CertificateAuthority:
    return open_ca(path / "ca", PASSPHRASE, now=clock.now())


def listeners(path: Path, bootstrap: str = "127.0.0.1:0", mtls: str = "127.0.0.1:0") -> Listeners:
    return Listeners(bootstrap, mtls, workload_socket=path / "workload" / "sock")
