"""The whole catalogue against the guard, in memory: every attack is refused for its own reason."""

from __future__ import annotations

import time

import pytest

from zerotrust.core.errors import CertificateRejected, Reason
from zerotrust.core.guard import Allowed, Call, Claim, Guard, NeedsClaim, Refused
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.core.spiffe.x509_svid import VerifiedSvid, verify_x509_svid
from zerotrust.probe.catalogue import Attack, Layer, Material
from zerotrust.probe.deliver import Delivery
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.probe.run import ATTACKS

NOW = float(int(time.time()))
POLICY = b"""
schema = 1
service = "ledger"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "read"
from = ["orders"]
to = ["GET /accounts/{id}"]
[[allow]]
id = "close"
from = ["orders"]
to = ["GET /closings/{id}"]
token = "proof"
"""
WIRE_ONLY = {"plain", "tls-1.2", "resumed"}  # refused by TLS itself; tried over real sockets


class World:
    """One service under attack; used proofs are remembered as a store would."""

    def __init__(self) -> None:
        authority = ForgedAuthority("example.org", now=NOW)
        self.foreign = ForgedAuthority("partner.example", now=NOW)
        bundles = BundleSet([authority.bundle, self.foreign.bundle])
        self.target = authority.id("ledger")
        self.guard = Guard(
            own_id=self.target,
            authorities=["localhost:8443"],
            bundles=bundles,
            policy=parse_policy(POLICY),
            started_at=NOW - 3600,
        )
        self.material = Material(
            now=NOW,
            authority=authority,
            foreign=self.foreign,
            honest=authority.snapshot("orders", bundles=bundles),
            neighbour=authority.snapshot("intruder", bundles=bundles),
            target=self.target,
            host="localhost:8443",
            path=b"/accounts/7",
            proof_path=b"/closings/7",
        )
        self.used: set[bytes] = set()

    def receive(self, delivery: Delivery) -> Allowed | Reason:
        """Return what the service would do with one delivery."""
        try:
            peer = self._peer(delivery)
        except CertificateRejected as refusal:
            return refusal.reason
        headers = [(name.lower(), value) for name, value in delivery.request.headers]
        kind = "websocket" if (b"upgrade", b"websocket") in headers else "http"
        call = Call(kind, delivery.request.method, delivery.request.target, headers, peer)  # type: ignore[arg-type]
        answer = self.guard.decide(call, NOW)
        if isinstance(answer, NeedsClaim):
            claimed = Claim.USED if answer.key in self.used else Claim.NEW
            self.used.add(answer.key)
            answer = self.guard.finish(answer, claimed, NOW)
        return answer.error.reason if isinstance(answer, Refused) else answer

    def _peer(self, delivery: Delivery) -> VerifiedSvid | None:
        if delivery.svid is None:
            return None
        return verify_x509_svid(delivery.svid.chain_der, self.guard.bundles, NOW)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_the_honest_call_is_served(world: World) -> None:
    answer = world.receive(world.material.call())
    assert isinstance(answer, Allowed)
    assert answer.caller is not None
    assert answer.caller.id == world.material.honest.svid.id
    assert (answer.caller.rule, answer.route) == ("read", "GET /accounts/{id}")


def test_the_honest_proof_is_served_once(world: World) -> None:
    m = world.material
    call = m.call(wpt=m.proof(), target=m.proof_path)
    assert isinstance(world.receive(call), Allowed)
    assert world.receive(call) is Reason.TOKEN_REPLAY


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.key)
def test_every_attack_is_refused_for_its_own_reason(world: World, attack: Attack) -> None:
    if attack.name in WIRE_ONLY:
        assert attack.layer is Layer.HANDSHAKE
        return
    *before, last = attack.make(world.material)
    for delivery in before:
        assert isinstance(world.receive(delivery), Allowed)
    answer = world.receive(last)
    assert not isinstance(answer, Allowed), f"{attack.key} was let through"
    assert answer in attack.reasons, f"{attack.key} was refused for {answer}"


def test_the_catalogue_names_each_attack_once() -> None:
    assert len({attack.key for attack in ATTACKS}) == len(ATTACKS)
