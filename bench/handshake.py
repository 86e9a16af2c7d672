"""What our checks add to a full mutual TLS 1.3 handshake, both sides together."""

from __future__ import annotations

import ssl
from typing import Any

from bench.http_server import Standing
from bench.rig import Figure, authority, bare_context, interleaved, per_call
from zerotrust.core.spiffe.x509_svid import VerifiedSvid
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.tls.context import client_context, server_context

STRANGERS = 20


def figures(*, quick: bool) -> list[Figure]:
    """Return processor time per handshake with our contexts and with bare ones."""
    rounds, times = (10, 20) if quick else (60, 50)
    ca = authority()
    server, client = ca.snapshot("orders"), ca.snapshot("web")

    def any_peer(_peer: VerifiedSvid) -> None:
        """Expect nobody in particular: the comparison is with a client that does not either."""

    ours = (server_context(Standing(server)), client_context(Standing(client), any_peer))
    bare = (bare_context(server, server=True), bare_context(client, server=False))
    best, base = interleaved(
        lambda: per_call(lambda: _shake(*ours), times),
        lambda: per_call(lambda: _shake(*bare), times),
        rounds,
    )
    strangers = [_strangers(ca, any_peer) for _ in range(rounds)]
    first = min(_first_contacts(pairs) for pairs in strangers)
    return [
        Figure(
            "handshake_cpu_vs_bare",
            best * 1e6,
            "us",
            base * 1e6,
            best / base,
            "<= 1.15",
            "full handshake, both sides, of peers that met before under these bundles",
        ),
        Figure(
            "first_handshake_cpu_vs_bare",
            first * 1e6,
            "us",
            base * 1e6,
            first / base,
            note="the same between two sides that never met",
        ),
    ]


def _strangers(ca: ForgedAuthority, any_peer: Any) -> list[tuple[ssl.SSLContext, ssl.SSLContext]]:
    """Return pairs of contexts whose identities nobody has seen; the contexts are built already."""
    bundles = ca.bundles
    pairs = []
    for number in range(STRANGERS):
        server = ca.snapshot(f"orders-{number}", bundles=bundles)
        client = ca.snapshot(f"web-{number}", bundles=bundles)
        pair = (server_context(Standing(server)), client_context(Standing(client), any_peer))
        for context in pair:  # build the inner context now: it is made once per snapshot
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=context is pair[0])
        pairs.append(pair)
    return pairs


def _first_contacts(pairs: list[tuple[ssl.SSLContext, ssl.SSLContext]]) -> float:
    queue = iter(pairs)
    return per_call(lambda: _shake(*next(queue)), len(pairs))


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
