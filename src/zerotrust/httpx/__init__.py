"""Clients and transports for httpx: every call proves who we are, to the peer we expect.

    with Client(me, peer="spiffe://example.org/ledger", base_url="https://ledger:8443") as ledger:
        ledger.get("/accounts/7")

1. Whom to reach is written, never guessed: `peer=` for one identity, `peers=` for a map of targets.
2. The peer is verified inside the handshake, before the first byte of a request; the wrong one
   raises CertificateRejected, which is not retried.
3. What would go round that (proxies, the environment, `verify=`, `Authorization`) raises
   UnsafeSetting.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, ClassVar

import httpcore
import httpx

from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.workload.httpx_family import (
    AsyncBody,
    AsyncCarrier,
    Body,
    Carrier,
    pool_options,
)
from zerotrust.workload.tls.context import SnapshotSource

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport"]


class _Body(Body, httpx.SyncByteStream):
    """The body type that httpx.Client takes."""


class _AsyncBody(AsyncBody, httpx.AsyncByteStream):
    """The body type that httpx.AsyncClient takes."""


class Transport(Carrier[httpx.Request, httpx.Response], httpx.BaseTransport):
    """For those who build their own httpx.Client; give that one `trust_env=False`."""

    library: ClassVar[ModuleType] = httpx
    core: ClassVar[ModuleType] = httpcore
    body_class = _Body


class AsyncTransport(AsyncCarrier[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """For those who build their own httpx.AsyncClient; give that one `trust_env=False`."""

    library: ClassVar[ModuleType] = httpx
    core: ClassVar[ModuleType] = httpcore
    body_class = _AsyncBody


class Client(httpx.Client):
    """An httpx.Client between workloads.

    `me` is our identity. Exactly one of `peer` (a SPIFFE ID) and `peers` (`https://host[:port]` to
    SPIFFE ID) says whom we expect. `mode` is "bound" (a token for minutes, tied to our
    certificate) or "proof" (a new one-time token per call). `cover` names headers with further
    tokens that are hashed into ours. Everything else is an option of httpx.Client.
    """

    def __init__(
        self,
        me: SnapshotSource,
        *,
        peer: SpiffeId | str | None = None,
        peers: Mapping[str, SpiffeId | str] | None = None,
        mode: str | Mode = Mode.BOUND,
        cover: Collection[str] = (),
        **options: Any,
    ) -> None:
        transport = Transport(
            me, peer=peer, peers=peers, mode=mode, cover=cover, **pool_options(options)
        )
        super().__init__(transport=transport, trust_env=False, **options)
        if self.base_url.host:
            transport.require_target(self.base_url)


class AsyncClient(httpx.AsyncClient):
    """An httpx.AsyncClient between workloads; the arguments are those of Client."""

    def __init__(
        self,
        me: SnapshotSource,
        *,
        peer: SpiffeId | str | None = None,
        peers: Mapping[str, SpiffeId | str] | None = None,
        mode: str | Mode = Mode.BOUND,
        cover: Collection[str] = (),
        **options: Any,
    ) -> None:
        transport = AsyncTransport(
            me, peer=peer, peers=peers, mode=mode, cover=cover, **pool_options(options)
        )
        super().__init__(transport=transport, trust_env=False, **options)
        if self.base_url.host:
            transport.require_target(self.base_url)
