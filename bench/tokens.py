"""What a one-time proof costs, held against the bare signature it carries."""

from __future__ import annotations

import secrets
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench.rig import Figure, authority, interleaved, per_call
from zerotrust.core.guard import Call, Claim, Guard, NeedsClaim, Refused
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.x509_svid import verify_x509_svid
from zerotrust.core.tokens.binding import prove_mode
from zerotrust.core.tokens.wit import verify_wit
from zerotrust.core.tokens.wpt import mint_bound, mint_proof, verify_wpt
from zerotrust.workload.replay.memory import MemoryReplayStore

URI = "https://localhost:8443/orders/7"
TARGET = b"/orders/7"
POLICY = b"""
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "read"
from = ["web"]
to = ["GET /orders/{id}"]
token = "proof"
"""


def figures(*, quick: bool) -> list[Figure]:
    """Return the rates of minting and verifying."""
    rounds, times = (10, 300) if quick else (60, 1000)
    ca = authority()
    now = time.time()
    caller = ca.snapshot("web")
    if caller.wit is None:
        raise RuntimeError("the figures need a WIT")
    bundles = ca.bundles
    wit = verify_wit(caller.wit.token, bundles, now)
    x5t = caller.svid.thumbprint
    key, token = caller.wit.key, caller.wit.token

    def mint() -> str:
        return mint_proof(
            wit=token,
            key=key,
            audience=URI,
            method="GET",
            target=TARGET,
            x5t=x5t,
            issued_at=int(now),
            expires_at=int(now) + 30,
            jti=secrets.token_urlsafe(16),
        )

    proof = mint()
    audiences = {str(ca.id("orders")), URI}
    own = str(ca.id("orders"))

    def verify() -> None:
        wpt = verify_wpt(proof, wit, audiences, now)
        prove_mode(
            wpt, own_id=own, target_uris=(URI,), method="GET", target=TARGET, peer_x5t=x5t, now=now
        )

    private = ec.generate_private_key(ec.SECP256R1())
    public, message, algorithm = private.public_key(), b"x" * 300, ec.ECDSA(hashes.SHA256())
    signature = private.sign(message, algorithm)
    verified = interleaved(
        lambda: per_call(verify, times),
        lambda: per_call(lambda: public.verify(signature, message, algorithm), times),
        rounds,
    )
    minted = interleaved(
        lambda: per_call(mint, times),
        lambda: per_call(lambda: private.sign(message, algorithm), times),
        rounds,
    )
    bound = mint_bound(
        wit=token, key=key, audience=own, x5t=x5t, expires_at=int(now) + 120, jti="j" * 22
    )

    def cold() -> None:
        verify_wpt(bound, verify_wit(token, bundles, now), audiences, now)

    twice = interleaved(
        lambda: per_call(cold, times),
        lambda: per_call(lambda: public.verify(signature, message, algorithm), times),
        rounds // 2,
    )
    return [
        _rate(
            "proof_verify_rate_vs_bare_es256", verified, ">= 0.8", "WPT verify + mode, WIT known"
        ),
        _rate("proof_mint_rate_vs_bare_es256", minted, ">= 0.7", "mint with a fresh jti"),
        _rate(
            "cold_pair_rate_vs_bare_es256", twice, "", "WIT + WPT, nothing known: two signatures"
        ),
        _guarded(ca, caller, quick=quick),
    ]


def _guarded(ca: object, caller: object, *, quick: bool) -> Figure:
    """Return the whole decision of a proof call: shape, certificate, tokens, replay, policy."""
    from zerotrust.probe.catalogue import Material
    from zerotrust.probe.forge import ForgedAuthority
    from zerotrust.workload.identity import Snapshot

    if not isinstance(ca, ForgedAuthority) or not isinstance(caller, Snapshot):
        raise TypeError("an authority and its caller")
    now = time.time()
    guard = Guard(
        own_id=ca.id("orders"),
        authorities=["localhost:8443"],
        bundles=caller.bundles,
        policy=parse_policy(POLICY),
        started_at=now - 60,
    )
    peer = verify_x509_svid(caller.svid.chain_der, caller.bundles, now)
    material = Material(
        now=now,
        authority=ca,
        foreign=ca,
        honest=caller,
        neighbour=caller,
        target=ca.id("orders"),
        host="localhost:8443",
        path=TARGET,
    )
    times = 200 if quick else 600
    store = MemoryReplayStore()

    def calls() -> list[Call]:
        requests = [material.call(wpt=material.proof()).request for _ in range(times)]
        return [
            Call("http", "GET", TARGET, [(n.lower(), v) for n, v in request.headers], peer)
            for request in requests
        ]

    def decide(call: Call) -> None:
        answer = guard.decide(call, now)
        if isinstance(answer, NeedsClaim):
            claimed = store.claim(
                answer.key,
                caller=answer.caller,
                subject=answer.subject,
                expires_at=answer.expires_at,
                now=now,
            )
            if claimed is not Claim.NEW:
                raise RuntimeError(f"a new proof was {claimed}")
            answer = guard.finish(answer, claimed, now)
        if isinstance(answer, Refused):
            raise answer.error

    costs = []
    for _ in range(4 if quick else 12):
        batch = iter(calls())
        costs.append(per_call(lambda batch=batch: decide(next(batch)), times))  # type: ignore[misc]
    return Figure("proof_decision", min(costs) * 1e6, "us/call", note="the whole decision")


def _rate(name: str, pair: tuple[float, float], target: str, note: str) -> Figure:
    ours, bare = pair
    return Figure(name, 1 / ours, "1/s", 1 / bare, bare / ours, target, note)
