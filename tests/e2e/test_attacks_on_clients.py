"""Our clients are lured to servers that are not whom they expect: nothing is given away."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest

import zerotrust.httpx
import zerotrust.httpx2
from support.identities import FixedIdentity
from zerotrust import clock
from zerotrust.core.spiffe.bundle import BundleSet
from zerotrust.probe.attacks import clients
from zerotrust.probe.attacks.clients import Call, ClientAttack
from zerotrust.probe.catalogue import Material
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.probe.verdict import Outcome


@pytest.fixture(scope="module")
def material() -> Material:
    authority = ForgedAuthority("example.org", now=clock.now())
    foreign = ForgedAuthority("partner.example", now=authority.now)
    bundles = BundleSet([authority.bundle, foreign.bundle])
    return Material(
        now=authority.now,
        authority=authority,
        foreign=foreign,
        honest=authority.snapshot("web", bundles=bundles),
        neighbour=authority.snapshot("intruder", bundles=bundles),
        target=authority.id("ledger"),
        host="localhost:1",
    )


def caller(package: ModuleType, colour: str, m: Material) -> Call:
    """Return an honest call of one of our clients that follows redirects."""
    me = FixedIdentity(m.honest)
    peer = str(m.target)

    def call(url: str) -> None:
        with package.Client(me, peer=peer, follow_redirects=True, timeout=5) as client:
            client.get(url)

    async def fetch(url: str) -> None:
        client = package.AsyncClient(me, peer=peer, follow_redirects=True, timeout=5)
        async with client:
            await client.get(url)

    return call if colour == "sync" else lambda url: asyncio.run(fetch(url))


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("package", [zerotrust.httpx, zerotrust.httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("attack", clients.ATTACKS, ids=lambda attack: attack.key)
def test_a_lured_client_gives_nothing_away(
    material: Material, package: ModuleType, colour: str, attack: ClientAttack
) -> None:
    call = caller(package, colour, material)
    assert clients.is_served(material, call)
    verdict = attack.lure(material, call)
    assert verdict.outcome is Outcome.REFUSED, verdict
