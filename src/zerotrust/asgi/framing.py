"""Where one request ends and the next begins, settled before uvicorn's httptools protocol sees it.

1. A trailer is no header field: it arrives when the call is decided, and is dropped (RFC 9110
   section 6.5.1).
2. An upgrade is to a WebSocket, asked for without a body and with no response owed, or it is
   refused: httptools takes the request for ended, and its body would be the next one.
3. A head comes to its end within a bound; so many requests wait on a connection and no more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from zerotrust.asgi.limits import MAX_HEAD_BYTES, MAX_PIPELINED

if TYPE_CHECKING:
    _Base = asyncio.Protocol
else:
    _Base = object

FRAMINGS: Final = {b"content-length", b"transfer-encoding"}  # fields that announce a body


class Framing(_Base):
    """To be put before uvicorn's HttpToolsProtocol among the bases of a class."""

    __slots__ = ()

    cycle: Any
    headers: Any
    parser: Any
    pipeline: Any
    transport: asyncio.Transport
    _head_bytes: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count."""
        self._head_bytes = 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; a head that goes on and on ends the connection."""
        super().data_received(data)
        if type(self.headers) is not list:  # no head has begun, or it is complete
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin the exchange; what is raised here is answered with 400, and the connection ends."""
        upgrade = self.parser.should_upgrade()
        if upgrade and not self._may_upgrade():
            raise ValueError("an upgrade that cannot be made hides where the request ends")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        super().on_headers_complete()  # type: ignore[misc]
        # the scope has its list already; only the hand-over to a WebSocket reads this one again
        self.headers = _ClosedFields(self.headers) if upgrade else _CLOSED

    def _may_upgrade(self) -> bool:
        wanted: bool = self._should_upgrade()  # type: ignore[attr-defined]
        owed = self.cycle is not None and not self.cycle.response_complete
        return wanted and not owed and FRAMINGS.isdisjoint(name for name, _ in self.headers)


class _ClosedFields(list[tuple[bytes, bytes]]):
    """The fields of a head that is complete."""

    __slots__ = ()

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Drop a trailer."""


_CLOSED: Final = _ClosedFields()
