"""The public surface as its users' type checker sees it; checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

import httpx
import httpx2

import zerotrust.httpx
import zerotrust.httpx2
from zerotrust import (
    Call,
    Caller,
    CertificateRejected,
    Guard,
    PeerError,
    Policy,
    SpiffeId,
    TrustDomain,
    WorkloadIdentity,
    X509Svid,
    ZeroTrustError,
)
from zerotrust.core.errors import Reason
from zerotrust.core.guard import Allowed, NeedsClaim, Refused
from zerotrust.core.mode import Mode


def identities(me: WorkloadIdentity) -> None:
    assert_type(WorkloadIdentity.from_env(), WorkloadIdentity)
    assert_type(me.id, SpiffeId)
    assert_type(me.id.trust_domain, TrustDomain)
    assert_type(me.current.svid, X509Svid)
    with me as entered:
        assert_type(entered, WorkloadIdentity)


def errors(error: ZeroTrustError) -> None:
    assert_type(error.reason, Reason)
    assert_type(error.code, str)
    if isinstance(error, PeerError):
        assert_type(error.public, str)
    refused: PeerError = CertificateRejected(Reason.PEER_NONE)
    assert_type(refused.detail, str)


def decisions(guard: Guard, call: Call, policy: Policy) -> None:
    assert_type(guard.decide(call, 0.0), Allowed | Refused | NeedsClaim)
    assert_type(policy.needs_proof, bool)


def callers(caller: Caller) -> None:
    assert_type(caller.id, SpiffeId)
    assert_type(caller.mode, Mode)
    assert_type(caller.rule, str)


def sync_clients(me: WorkloadIdentity) -> None:
    with zerotrust.httpx.Client(me, peer="spiffe://example.org/a", timeout=3) as one:
        assert_type(one, zerotrust.httpx.Client)
        assert_type(one.get("/"), httpx.Response)
    with zerotrust.httpx2.Client(me, peers={"https://a": "spiffe://example.org/a"}) as two:
        assert_type(two.get("/"), httpx2.Response)


async def async_clients(me: WorkloadIdentity) -> None:
    peer = SpiffeId.parse("spiffe://example.org/a")
    async with zerotrust.httpx.AsyncClient(me, peer=peer, mode=Mode.PROOF) as one:
        assert_type(await one.get("/"), httpx.Response)
    async with zerotrust.httpx2.AsyncClient(me, peer=peer, mode="proof", cover=["x"]) as two:
        assert_type(await two.get("/"), httpx2.Response)


def transports(me: WorkloadIdentity) -> None:
    sync: httpx.BaseTransport = zerotrust.httpx.Transport(me, peer="spiffe://example.org/a")
    other: httpx2.AsyncBaseTransport = zerotrust.httpx2.AsyncTransport(
        me, peer="spiffe://example.org/a", limits=httpx2.Limits(max_connections=1)
    )
    httpx.Client(transport=sync, trust_env=False)
    httpx2.AsyncClient(transport=other, trust_env=False)
