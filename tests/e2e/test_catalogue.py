"""The whole catalogue against a running service, each attack between two honest calls."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.identities import FixedIdentity
from support.served import Lines, Served
from zerotrust import clock
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.probe.catalogue import Attack, Layer, Material
from zerotrust.probe.deliver import deliver
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.probe.run import ATTACKS, run
from zerotrust.probe.verdict import Outcome, is_honest, problem_id

POLICY = """
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
federated = ["partner.example"]
[[allow]]
id = "read"
from = ["web", "spiffe://partner.example/web"]
to = ["GET /orders/{id}"]
[[allow]]
id = "strict"
from = ["web"]
to = ["GET /echo"]
token = "proof"
"""


class EveryLine(AuditLog):
    """Writes each refusal, so that each attack's reason can be read."""

    def refused(self, event: AuditEvent) -> None:
        self.record(event)


class Target:
    """A service that federates with a second domain, and what is needed to attack it."""

    def __init__(self) -> None:
        now = clock.now()
        self.authority = ForgedAuthority("example.org", now=now)
        self.foreign = ForgedAuthority("partner.example", now=now)
        self.bundles = BundleSet([self.authority.bundle, self.foreign.bundle])
        identity = FixedIdentity(
            self.authority.snapshot("orders", bundles=self.bundles, dns=["orders.test"])
        )
        self.lines = Lines()
        self.served = Served(
            ca=self.authority, policy=POLICY, identity=identity, audit=EveryLine(self.lines)
        )
        self.honest = self.authority.snapshot("web", bundles=self.bundles)
        self.neighbour = self.authority.snapshot("intruder", bundles=self.bundles)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.served.port)

    def material(self) -> Material:
        self.authority.now = clock.now()
        return Material(
            now=clock.now(),
            authority=self.authority,
            foreign=self.foreign,
            honest=self.honest,
            neighbour=self.neighbour,
            target=self.authority.id("orders"),
            host=f"localhost:{self.served.port}",
            path=b"/orders/7",
            proof_path=b"/echo",
        )

    def reasons(self) -> dict[str, str]:
        return {event.id: event.reason for event in self.lines.events}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    target = Target()
    with target.served:
        began = clock.now()
        while int(clock.now()) <= began:  # a proof of the second in which a server began is stale
            time.sleep(0.01)
        yield target


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.key)
def test_every_attack_is_refused_where_it_must_be(target: Target, attack: Attack) -> None:
    (result,) = run(target.address, target.material, attacks=[attack], reasons_by_id=target.reasons)
    assert result.verdict.outcome is Outcome.REFUSED, f"{attack.tried}: {result.verdict}"
    if attack.layer is Layer.GUARD:
        assert result.verdict.reason in attack.reasons


def test_a_federated_caller_that_the_policy_names_is_served(target: Target) -> None:
    guest = target.foreign.snapshot("web")
    material = target.material()
    guest_material = Material(**{**vars(material), "honest": guest, "authority": target.foreign})
    answer = deliver(target.address, guest_material.call())
    assert is_honest(answer), answer


def test_a_refusal_tells_the_peer_nothing_but_a_constant_text_and_an_id(target: Target) -> None:
    material = target.material()
    texts = set()
    for change in ({"header": {"typ": "JWT"}}, {"claims": {"exp": 1}}, {"aud": "x"}):
        answer = deliver(target.address, material.call(wpt=material.bound(**change)))
        assert answer.status == 401
        assert answer.header("www-authenticate") == "WPT"
        assert problem_id(answer)
        texts.add(answer.body.replace(problem_id(answer).encode(), b"ID"))
    assert len(texts) == 1


def test_the_audit_log_holds_no_token(target: Target) -> None:
    material = target.material()
    deliver(target.address, material.call(wpt=material.bound(aud="x")))
    lines = "".join(map(repr, target.lines.events))
    assert material.wit.split(".")[2] not in lines
    assert "eyJ" not in lines
