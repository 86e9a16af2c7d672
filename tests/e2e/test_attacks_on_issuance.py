"""Attacks on a running CA and on a workload that enrols with it, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from zerotrust import clock
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.ca.server import Listeners, Running
from zerotrust.ca.service import CertificateAuthority, init_ca, open_ca
from zerotrust.core.enrolment import JoinToken, parse_address
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.probe.attacks import clients, issuance
from zerotrust.probe.attacks.issuance import IssuanceAttack, Issuer
from zerotrust.probe.catalogue import Material
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.probe.verdict import Outcome
from zerotrust.workload.identity import WorkloadIdentity

DOMAIN = TrustDomain("example.org")


@dataclass
class Office:
    """A CA in service, and one entry the attacker is entitled to."""

    ca: CertificateAuthority
    running: Running
    entry: str

    @property
    def issuer(self) -> Issuer:
        return Issuer(parse_address(self.running.bootstrap), self.ca.id, self.mint)

    def mint(self) -> JoinToken:
        return self.ca.create_token(self.entry, address=self.running.bootstrap, now=clock.now())


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("authority") / "ca"
    now = clock.now()
    init_ca(
        folder,
        DOMAIN,
        root_passphrase=b"a root passphrase",
        passphrase=b"an issuing passphrase",
        now=now,
    )
    listeners = Listeners(bootstrap="127.0.0.1:0", mtls="127.0.0.1:0")
    with (
        open_ca(folder, b"an issuing passphrase", now=now) as ca,
        Running(ca, listeners) as running,
    ):
        entry = ca.create_entry(NewEntry(path="intruder"), now=now)
        yield Office(ca, running, entry.id)


@pytest.fixture
def material() -> Material:
    authority = ForgedAuthority(DOMAIN, now=clock.now())
    return Material(
        now=authority.now,
        authority=authority,
        foreign=authority,
        honest=authority.snapshot("web"),
        neighbour=authority.snapshot("intruder"),
        target=authority.id("ledger"),
        host="localhost:1",
    )


def test_an_honest_enrolment_and_renewal_are_served(office: Office, material: Material) -> None:
    holder = issuance.join(office.issuer)
    assert holder.svid.id == DOMAIN.id("intruder")
    assert issuance.renew(office.issuer, holder, material).status == 200


@pytest.mark.parametrize("attack", issuance.ATTACKS, ids=lambda attack: attack.key)
def test_every_attack_on_the_ca_is_refused(
    office: Office, material: Material, attack: IssuanceAttack
) -> None:
    answer = attack.run(office.issuer, material)
    assert answer.status in attack.statuses, answer
    assert b"Traceback" not in answer.body


def test_a_workload_of_the_domain_posing_as_the_ca_gets_no_byte_of_the_join_token(
    office: Office, material: Material, tmp_path: Path
) -> None:
    joined = office.mint()
    file = tmp_path / "token"

    def enrol(address: str) -> None:
        file.write_text(replace(joined, address=address).dump())
        file.chmod(0o600)
        WorkloadIdentity.from_url(f"ca:{file}").close()

    enrol(office.running.bootstrap)  # the control: the genuine CA gets it
    joined = office.mint()
    holder = issuance.join(office.issuer)  # a genuine SVID of the domain, but not the CA's
    genuine = issuance.fetch_bundle(office.issuer.bootstrap)
    poser = replace(material, neighbour=replace(material.neighbour, svid=holder.svid))
    verdict = clients.pose_as_ca(poser, genuine, joined.evidence.value, enrol)
    assert verdict.outcome is Outcome.REFUSED, verdict
    assert verdict.reason == "CertificateRejected"
