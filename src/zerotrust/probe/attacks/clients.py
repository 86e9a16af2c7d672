"""Attacks on a client: it is lured to a server that is not the one it expects.

`call(url)` makes the client's own, honest call to a URL; the client expects the workload
`Material.target`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.attacks.certificates import issued_by_twin
from zerotrust.probe.catalogue import Material
from zerotrust.probe.trap import Trap
from zerotrust.probe.verdict import Outcome, Verdict

Call: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class ClientAttack:
    """One role a server plays. `lure` returns what the client gave away, which must be nothing."""

    id: str
    name: str
    tried: str
    lure: Callable[[Material, Call], Verdict] = field(repr=False)

    @property
    def key(self) -> str:
        """The id and variant, unique in the catalogue."""
        return f"{self.id}/{self.name}"


def is_served(m: Material, call: Call) -> bool:
    """Return whether the expected workload, called honestly, gets the request with its tokens."""
    with Trap(m.authority.issue(m.target)) as trap:
        call(trap.url)
    return any(b"workload-identity-token" in request.lower() for request in trap.received)


def pose_as_ca(m: Material, published: bytes, secret: str, enrol: Call) -> Verdict:
    """Play the CA with a neighbour's certificate and the CA's genuine, public bundle.

    `enrol(host:port)` makes a workload enrol there with a join token whose secret is `secret`.
    """
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(published)}"
    answer = f"{head}\r\nConnection: close\r\n\r\n".encode() + published
    with Trap(m.neighbour.svid, answer=answer) as trap:
        refusal = _attempt(enrol, f"127.0.0.1:{trap.port}")
    if not trap.received:
        return Verdict(Outcome.INCONCLUSIVE, "the workload never asked")
    return _judge(refusal, [data for data in trap.received if secret.encode() in data])


def _presenting(certificate: Callable[[Material], X509Svid]) -> Callable[[Material, Call], Verdict]:
    def lure(m: Material, call: Call) -> Verdict:
        with Trap(certificate(m)) as trap:
            refusal = _attempt(call, trap.url)
        return _judge(refusal, trap.received)

    return lure


def _redirected(m: Material, call: Call) -> Verdict:
    """Have the expected workload send the client on to a neighbour."""
    with Trap(m.neighbour.svid) as elsewhere:
        redirect = (
            f"HTTP/1.1 307 Elsewhere\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n"
        )
        with Trap(m.authority.issue(m.target), answer=redirect.encode()) as trap:
            refusal = _attempt(call, trap.url) or "not followed"
    return _judge(refusal, elsewhere.received)


def _attempt(call: Call, url: str) -> str:
    """Return why the client refused, or nothing."""
    try:
        call(url)
    except Exception as error:  # noqa: BLE001 - whatever the client raises is its refusal
        return type(error).__name__
    return ""


def _judge(refusal: str, received: list[bytes]) -> Verdict:
    if any(received):
        return Verdict(Outcome.ACCEPTED, f"{sum(map(len, received))} bytes given away")
    if not refusal:
        return Verdict(Outcome.INCONCLUSIVE, "the client neither refused nor sent anything")
    return Verdict(Outcome.REFUSED, "0 bytes given away", refusal)


ATTACKS: Final = (
    ClientAttack(
        "ZT-CLI-001",
        "self-signed",
        "a server with a self-signed certificate and our callee's ID",
        _presenting(lambda m: m.authority.issue(m.target, issuer="self")),
    ),
    ClientAttack(
        "ZT-CLI-001",
        "same-name",
        "a server certified by a CA that has the name of ours",
        _presenting(lambda m: issued_by_twin(m, m.target)),
    ),
    ClientAttack(
        "ZT-CLI-001",
        "foreign",
        "a server whose ID another domain's root signed",
        _presenting(lambda m: m.foreign.issue(str(m.target))),
    ),
    ClientAttack(
        "ZT-CLI-001",
        "expired",
        "a server with an expired certificate",
        _presenting(lambda m: m.authority.issue(m.target, not_before=m.now - 600, ttl=300)),
    ),
    ClientAttack(
        "ZT-CLI-002",
        "wrong-workload",
        "a server that is another workload of the domain",
        _presenting(lambda m: m.neighbour.svid),
    ),
    ClientAttack("ZT-CLI-003", "redirect", "a redirect to another workload", _redirected),
)
