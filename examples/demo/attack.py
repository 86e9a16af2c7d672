"""The catalogue, turned against the demo: ledger, the CA and our own client.

The attacker is given more than a real one has: the issuing handle of the throw-away CA. So every
forged certificate and token is genuine but for the one thing that is wrong with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.x509 import Certificate

from zerotrust import BundleSet, WorkloadIdentity, X509Svid
from zerotrust.ca import dev
from zerotrust.ca.signers.file import open_key
from zerotrust.ca.state import State
from zerotrust.core.enrolment import JoinToken, ca_id, parse_address
from zerotrust.core.jose import SigningKey
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.httpx import Client
from zerotrust.probe.attacks import clients, issuance
from zerotrust.probe.catalogue import Material
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.probe.run import ATTACKS, run
from zerotrust.probe.verdict import Outcome

DOMAIN = TrustDomain("example.org")
LEDGER = DOMAIN.id("ledger")
STREAM_SECONDS = 6.0  # by when a stream over a certificate of three seconds must be dead
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the demo's table."""

    key: str
    tried: str
    outcome: str
    where: str

    @property
    def refused(self) -> bool:
        """Whether the attack was refused where it had to be."""
        return self.outcome == Outcome.REFUSED


class HeldAuthority(ForgedAuthority):
    """The throw-away CA itself, in the attacker's hands."""

    def __init__(self, folder: Path) -> None:
        certs = folder / "certs-dev"
        state = State.load(certs / "ca")
        passphrase = (certs / "passphrase").read_bytes()
        self.trust_domain, self.now, self.dev = DOMAIN, time.time(), True
        self.name = _common_name(state.issuer)
        self.root = state.roots[0]
        issuing = open_key(
            certs / "ca" / f"issuer-{state.issuer_key}.sealed",
            passphrase,
            purpose="issuer",
            trust_domain=DOMAIN,
        )
        self.issuing = X509Svid(ca_id(DOMAIN), (state.issuer,), issuing)
        self.wit_key = SigningKey.from_private(
            open_key(
                certs / "ca" / f"wit-{state.wit_key}.sealed",
                passphrase,
                purpose="wit",
                trust_domain=DOMAIN,
            )
        )
        self.wit_kid = self.wit_key.public.thumbprint


def material(authority: ForgedAuthority, port: int) -> Material:
    """Return what the attacker holds at this moment."""
    authority.now = time.time()
    bundles = BundleSet([authority.bundle])
    return Material(
        now=authority.now,
        authority=authority,
        foreign=ForgedAuthority("partner.example", now=authority.now),
        honest=authority.snapshot("orders", bundles=bundles),
        neighbour=authority.snapshot("intruder", bundles=bundles),
        target=LEDGER,
        host=f"localhost:{port}",
        path=b"/accounts/7",
        proof_path=b"/closings/7",
    )


def attack_ledger(folder: Path, port: int, progress: Progress) -> Iterator[Row]:
    """Run the whole catalogue against the running ledger service."""
    authority = HeldAuthority(folder)

    def reasons() -> dict[str, str]:
        lines = (folder / "ledger.audit").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return {event["id"]: event["reason"] for event in events if event.get("id")}

    results = run(
        ("127.0.0.1", port),
        lambda: material(authority, port),
        attacks=ATTACKS,
        reasons_by_id=reasons,
    )
    for number, result in enumerate(results, 1):
        progress(f"attacking ledger: {number} of {len(ATTACKS)}")
        attack, verdict = result.attack, result.verdict
        where = f"{attack.layer}: {verdict.seen}" + (f" {verdict.reason}" if verdict.reason else "")
        yield Row(attack.key, attack.tried, verdict.outcome, where)
    yield attack_stream(authority, port)


def attack_stream(authority: ForgedAuthority, port: int) -> Row:
    """Hold a stream open with a certificate that ends in three seconds."""
    from zerotrust.probe.stream import hold

    now = material(authority, port)
    svid = authority.issue(now.honest.svid.id, ttl=3)
    seconds = hold(("127.0.0.1", port), now.call(svid=svid, target=b"/stream"), longest=8.0)
    in_time = seconds is not None and seconds < STREAM_SECONDS
    outcome = Outcome.REFUSED if in_time else Outcome.ACCEPTED
    where = "guard: cut" + (f" after {seconds:.1f} s" if seconds is not None else " never")
    return Row("ZT-HTTP-005/stream", "an endless stream past expiry", outcome, where)


def attack_ca(folder: Path, progress: Progress) -> Iterator[Row]:
    """Run the attacks on issuance against the running CA."""
    certs = folder / "certs-dev"
    authority = HeldAuthority(folder)
    there = dev.status(certs)

    def mint() -> JoinToken:
        return JoinToken.parse(dev.mint(certs, "intruder").read_text())

    issuer = issuance.Issuer(parse_address(there.bootstrap), ca_id(DOMAIN), mint)
    for number, attack in enumerate(issuance.ATTACKS, 1):
        progress(f"attacking the CA: {number} of {len(issuance.ATTACKS)}")
        answer = attack.run(issuer, material(authority, 1))
        outcome = Outcome.REFUSED if answer.status in attack.statuses else Outcome.ACCEPTED
        seen = f"HTTP {answer.status}" if answer.status else answer.detail
        yield Row(attack.key, attack.tried, outcome, f"CA: {seen}")
    yield attack_by_posing(folder, authority)


def attack_by_posing(folder: Path, authority: ForgedAuthority) -> Row:
    """Pose as the CA with a workload's genuine certificate, and wait for a join token."""
    certs = folder / "certs-dev"
    token = dev.mint(certs, "intruder")
    joined = JoinToken.parse(token.read_text())
    genuine = issuance.fetch_bundle(parse_address(joined.address))
    now = material(authority, 1)

    def enrol(address: str) -> None:
        token.write_text(replace(joined, address=address).dump())
        WorkloadIdentity.from_url(f"ca:{token}", dev=True).close()

    verdict = clients.pose_as_ca(now, genuine, joined.evidence.value, enrol)
    return Row(
        "ZT-CLI-002/posing-as-ca",
        "a workload of the domain posing as the CA",
        verdict.outcome,
        f"our client: {verdict.reason}, {verdict.seen}",
    )


def attack_clients(folder: Path, port: int, progress: Progress) -> Iterator[Row]:
    """Lure our own client to servers that are not ledger."""
    authority = HeldAuthority(folder)
    progress("attacking our own client")
    me = WorkloadIdentity.from_url(f"ca:{dev.mint(folder / 'certs-dev', 'orders')}", dev=True)

    def call(url: str) -> None:
        with Client(me, peer=str(LEDGER), follow_redirects=True, timeout=5) as client:
            client.get(url)

    with me:
        served = clients.is_served(material(authority, port), call)
        for attack in clients.ATTACKS:
            verdict = attack.lure(material(authority, port), call)
            outcome = verdict.outcome if served else Outcome.INCONCLUSIVE
            yield Row(
                attack.key, attack.tried, outcome, f"our client: {verdict.reason}, {verdict.seen}"
            )


def _common_name(certificate: Certificate) -> str:
    text = certificate.subject.rfc4514_string()
    return text.removeprefix("CN=").removesuffix(" issuing")
