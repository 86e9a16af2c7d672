"""Whom a client expects to reach at which target.

1. There is no default: a missing or empty expectation is refused when the client is made.
2. A target is `https://host[:port]`; what is not https (or wss, its WebSocket form) is refused, and
   so is a target nobody named.
3. Whom we expect never comes from DNS, from the server or from a redirect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from zerotrust.core.errors import ConfigurationError, UnsafeSetting
from zerotrust.core.spiffe.ids import SpiffeId

HTTPS_PORT: Final = 443
_SCHEMES: Final = (b"https", b"wss")


class Peers:
    """The identities a client may talk to: one for every target, or one per named target.

    `peer` is a SPIFFE ID, `peers` maps `https://host[:port]` to one. Exactly one of them is given.
    """

    __slots__ = ("_by_target", "_everywhere", "ids")

    def __init__(
        self, peer: SpiffeId | str | None, peers: Mapping[str, SpiffeId | str] | None
    ) -> None:
        if (not peer) == (not peers):
            raise ConfigurationError(
                "say whom you expect to reach: peer='spiffe://...' for one service, or "
                "peers={'https://host:port': 'spiffe://...'} for several (not both)"
            )
        self._everywhere = _parsed(peer) if peer else None
        self._by_target = {_target(url): _parsed(id_) for url, id_ in (peers or {}).items()}
        self.ids = frozenset(self._by_target.values()) or frozenset({_parsed(peer or "")})

    def expected_at(self, scheme: bytes, host: bytes, port: int | None) -> SpiffeId:
        """Return who must answer there; raise for a target that has no expectation."""
        if scheme not in _SCHEMES:
            raise UnsafeSetting(f"{scheme.decode()}:// proves nobody's identity; use https://")
        if self._everywhere is not None:
            return self._everywhere
        expected = self._by_target.get((host, port or HTTPS_PORT))
        if expected is None:
            where = f"https://{host.decode()}:{port or HTTPS_PORT}"
            raise ConfigurationError(f"no peer is expected at {where}; add it to peers=")
        return expected


def _parsed(peer: SpiffeId | str) -> SpiffeId:
    return peer if isinstance(peer, SpiffeId) else SpiffeId.parse(peer)


def _target(url: str) -> tuple[bytes, int]:
    refusal = ConfigurationError(f"{url!r} is no target; write https://host or https://host:port")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme != "https" or not host or parts.username is not None:
            raise refusal
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise refusal
        return host.encode("ascii"), port or HTTPS_PORT
    except ValueError as exc:
        raise refusal from exc
