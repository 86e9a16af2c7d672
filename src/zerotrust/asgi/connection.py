"""One TLS connection and what was proved over it.

1. The peer is read from the TLS object itself, here and nowhere else: a Connection without a TLS
   object of ours has no peer, so nothing a scope or a header says can make one.
2. The peer of a connection never changes; what was decided over the connection dies with it.
3. The exchange in flight is kept so that a stream can be judged again: when the chain ends, when
   the trust bundles or the policy change.
"""

from __future__ import annotations

import ipaddress
from asyncio import BaseTransport
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from cryptography import x509

from zerotrust.asgi.limits import REMEMBERED_DECISIONS
from zerotrust.core.memo import Budget, Memo
from zerotrust.workload.tls.peer import peer_of

if TYPE_CHECKING:
    from zerotrust.core.guard import Allowed, Guard
    from zerotrust.core.spiffe.x509_svid import X509Svid

PEER: Final = "zerotrust.peer"  # scope["extensions"]: the Connection
TARGET: Final = "zerotrust.target"  # scope["extensions"]: the request target as sent, bytes

_BUDGET: Final = Budget(REMEMBERED_DECISIONS)


class Judge(Protocol):
    """Who allowed an exchange, and can say whether it still does."""

    def still_allows(self, connection: Connection, exchange: Exchange, now: float) -> bool:
        """Judge a running exchange again; False ends it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One allowed call: by whom, under which guard, and what was allowed."""

    judge: Judge
    guard: Guard
    allowed: Allowed
    method: str  # as policy knows it: `WS` for a WebSocket
    path: str


class Listener(NamedTuple):
    """The local end: what decides under which authorities the service answers."""

    port: int
    loopback: bool


@final
class Connection:
    """One TLS connection: its peer, the decisions remembered over it, the exchange in flight."""

    __slots__ = (
        "address",
        "exchange",
        "failures",
        "guard",
        "guards",
        "listener",
        "memo",
        "name",
        "peer",
    )
    guard: Guard  # the last one found; in force while `guards` still is
    guards: object

    def __init__(self, transport: BaseTransport) -> None:
        self.peer: Final = peer_of(transport.get_extra_info("ssl_object"))
        self.name: Final = str(self.peer.id) if self.peer is not None else ""
        self.address: Final = _address(transport.get_extra_info("peername"))
        self.listener: Final = _listener(transport.get_extra_info("sockname"))
        self.memo: Final = Memo(_BUDGET)
        self.failures = 0
        self.guards = None
        self.exchange: Exchange | None = None

    def still_allows(self, now: float) -> bool:
        """Whether the exchange in flight may go on."""
        exchange = self.exchange
        return exchange is None or exchange.judge.still_allows(self, exchange, now)

    def close(self) -> None:
        """Forget what was decided."""
        self.exchange = None
        self.memo.forget()


def connection_of(scope: Any) -> Connection | None:
    """Return the Connection that our server put into the scope; None for anything else."""
    extensions = scope.get("extensions")
    connection = extensions.get(PEER) if isinstance(extensions, dict) else None
    return connection if type(connection) is Connection else None


def target_of(scope: Any) -> bytes:
    """Return the request target as sent, or what the server left of it."""
    target = scope.get("extensions", {}).get(TARGET)
    if isinstance(target, bytes):
        return target
    raw_path: bytes = scope.get("raw_path") or b""
    root: bytes = scope.get("root_path", "").encode("utf-8", "surrogateescape")
    query: bytes = scope.get("query_string") or b""
    path = raw_path.removeprefix(root) if root else raw_path
    return path + b"?" + query if query else path


def dns_names(svid: X509Svid) -> list[str]:
    """Return the DNS names of our own certificate."""
    names = svid.chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName)


def authorities_at(svid: X509Svid, listener: Listener) -> set[str]:
    """Return each `name:port` we answer for there: nothing is derived from a Host field."""
    names = set(dns_names(svid))
    if listener.loopback:
        names |= {"localhost", "127.0.0.1", "[::1]"}
    return {f"{name}:{listener.port}" for name in names}


def _address(peername: Any) -> str:
    return str(peername[0]) if isinstance(peername, tuple) and peername else ""


def _listener(sockname: Any) -> Listener:
    if not isinstance(sockname, tuple) or len(sockname) < 2:  # noqa: PLR2004 - (host, port, ...)
        return Listener(0, loopback=False)
    try:
        loopback = ipaddress.ip_address(str(sockname[0]).partition("%")[0]).is_loopback
    except ValueError:
        loopback = False
    return Listener(int(sockname[1]), loopback=loopback)
