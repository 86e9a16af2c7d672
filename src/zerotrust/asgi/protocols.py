"""uvicorn's protocol classes, each with the peer in the scope and a watch over the connection.

1. A connection whose TLS object proves no peer is cut before its first byte is parsed.
2. The request target reaches the guard as it was sent: httptools drops `#` and the absolute form
   while it builds the scope, and wsproto drops headers.
3. One timer for each connection looks at the peer's end, at the policy and at headers that do not
   arrive; requests set and cancel none.
4. A request that gives its length twice, as a number and as chunks, is refused (RFC 9112 section
   6.1): httptools does it, h11 has to be helped.
5. A class is built when it is asked for, so that no WebSocket library is imported that is not used.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from zerotrust import clock
from zerotrust.asgi.connection import PEER, TARGET, Connection
from zerotrust.asgi.framing import FRAMINGS, Framing
from zerotrust.asgi.limits import GRACE_SECONDS, HEADER_SECONDS, LOOK_SECONDS
from zerotrust.asgi.problem import send_problem
from zerotrust.audit import AuditEvent
from zerotrust.core.errors import Category, ConfigurationError, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable

    _Base = asyncio.Protocol
else:
    _Base = object

HTTP_CHOICES: Final = ("auto", "httptools", "h11")
WEBSOCKET_CHOICES: Final = ("auto", "none", "websockets", "websockets-sansio", "wsproto")


def http_protocol(name: str = "auto") -> type[asyncio.Protocol]:
    """Return our HTTP protocol class; `auto` is httptools where it is installed."""
    if name not in HTTP_CHOICES:
        raise ConfigurationError(f"--http {name}: use one of {', '.join(HTTP_CHOICES)}")
    if name == "h11":
        return _h11()
    try:
        return _httptools()
    except ImportError:
        if name == "auto":
            return _h11()
        raise ConfigurationError("--http httptools: the package httptools is missing") from None


def websocket_protocol(name: str = "auto") -> type[asyncio.Protocol] | None:
    """Return our WebSocket protocol class, None for `none` or when no library is installed."""
    if name not in WEBSOCKET_CHOICES:
        raise ConfigurationError(f"--ws {name}: use one of {', '.join(WEBSOCKET_CHOICES)}")
    if name == "none":
        return None
    for build in {"auto": (_websockets, _wsproto), "wsproto": (_wsproto,)}.get(
        name, (_websockets,)
    ):
        try:
            return build()
        except ImportError:
            if name != "auto":
                raise ConfigurationError(f"--ws {name}: the package is missing") from None
    return None


class _Watch(_Base):
    """What every connection of ours has: a peer that was proved, and a timer."""

    # Slots: CPython gives up the fast layout of an object with more than 30 attributes in its
    # dict, and uvicorn's own are 28.
    __slots__ = ("_timer", "_waiting", "connection")

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    connection: Connection
    _timer: asyncio.TimerHandle | None
    _waiting: tuple[object, float] | None  # for the request after this one, since when

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read the peer from the TLS object; without one the connection ends here."""
        self._timer = self._waiting = None
        self.connection = Connection(transport)
        super().connection_made(transport)
        if self.connection.peer is None:
            self.transport.abort()
        else:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer and forget what was decided over this connection."""
        self._retire()
        super().connection_lost(exc)

    def _retire(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.connection.close()

    def _look(self) -> None:
        """End the connection when it is time to; look again otherwise."""
        if self.transport.is_closing():
            return
        now, busy = clock.now(), self._is_busy()
        peer = self.connection.peer
        ends_at = peer.expires_at if peer is not None else now
        if (
            now >= ends_at + (GRACE_SECONDS if busy else 0)
            or self._is_stalled()
            or (busy and not self.connection.still_allows(now))
        ):
            self.transport.abort()
            return
        left = ends_at - now if now < ends_at else ends_at + GRACE_SECONDS - now
        self._timer = self.loop.call_later(min(LOOK_SECONDS, max(left, 0.01)), self._look)

    def _is_busy(self) -> bool:
        """Whether an exchange is in flight."""
        return True

    def _is_stalled(self) -> bool:
        """Whether the peer has begun a request and does not go on with it."""
        return False


class _HttpWatch(_Watch):
    """The watch over an HTTP/1.1 connection, and its hand-over to a WebSocket."""

    __slots__ = ()

    config: Any
    cycle: Any
    timeout_keep_alive_task: asyncio.TimerHandle | None
    ws_protocol_class: Any

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_stalled(self) -> bool:
        if self._is_busy() or self.timeout_keep_alive_task is not None:
            self._waiting = None
            return False
        now = self.loop.time()
        if self._waiting is None or self._waiting[0] is not self.cycle:
            self._waiting = (self.cycle, now)
        return now - self._waiting[1] >= HEADER_SECONDS

    def send_400_response(self, msg: str) -> None:
        """Answer as uvicorn does what could not be read, and write it down."""
        self._report_unreadable()
        super().send_400_response(msg)  # type: ignore[misc]

    def _report_unreadable(self) -> str:
        refusal_id, reason = secrets.token_hex(8), Reason.REQUEST_UNREADABLE
        protected = getattr(self.config, "protected", None)
        if protected is not None:
            protected.audit.refused(
                AuditEvent(
                    at=clock.now(),
                    kind="call.refused",
                    id=refusal_id,
                    reason=str(reason),
                    code=reason.code,
                    peer=self.connection.name,
                )
            )
        return refusal_id

    def _upgrade(self, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Give the WebSocket the request as it was sent; it watches the connection from here on."""
        self.ws_protocol_class = partial(
            self.ws_protocol_class, zt_target=target, zt_headers=headers
        )
        self._retire()


class _WebSocketWatch(_Watch):
    """The watch over a WebSocket; it is busy from its handshake on."""

    __slots__ = ()

    app: Any

    def __init__(
        self, *args: Any, zt_target: bytes, zt_headers: list[tuple[bytes, bytes]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.app = partial(_published, self.app, self, zt_target, zt_headers)


def _published(
    app: Any,
    protocol: _Watch,
    target: bytes,
    headers: list[tuple[bytes, bytes]] | None,
    scope: Any,
    receive: Any,
    send: Any,
) -> Awaitable[None]:
    """Put the peer, the target and the headers as they were sent into the scope."""
    extensions = scope.get("extensions") or {}
    scope["extensions"] = {**extensions, PEER: protocol.connection, TARGET: target}
    if headers is not None:
        scope["headers"] = headers
    return app(scope, receive, send)  # type: ignore[no-any-return]


@cache
def _httptools() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class SpiffeHttpTools(Framing, _HttpWatch, HttpToolsProtocol):
        """HTTP/1.1 by httptools."""

        __slots__ = ("_head_bytes",)

        def on_url(self, url: bytes) -> None:
            """Keep the target as sent; called again when it came in pieces."""
            self.url += url
            extensions: dict[str, Any] = {PEER: self.connection, TARGET: self.url}
            self.scope["extensions"] = extensions

        def handle_websocket_upgrade(self) -> None:
            self._upgrade(self.url, self.headers)
            super().handle_websocket_upgrade()

    return SpiffeHttpTools


@cache
def _h11() -> type[asyncio.Protocol]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class SpiffeH11(_HttpWatch, H11Protocol):
        """HTTP/1.1 by h11, which keeps the whole target in the scope."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._inner = self.app
            self.app = self._publish

        def _publish(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
            if {name for name, _ in scope["headers"]} >= FRAMINGS:
                refusal_id = self._report_unreadable()
                return send_problem(
                    scope, receive, send, Category.MALFORMED, refusal_id, close=True
                )
            raw = scope["raw_path"].removeprefix(self.root_path.encode("ascii"))
            query = scope["query_string"]
            target = raw + b"?" + query if query else raw
            return _published(self._inner, self, target, None, scope, receive, send)

        def handle_websocket_upgrade(self, event: h11.Request) -> None:
            self._upgrade(event.target, self.headers)
            super().handle_websocket_upgrade(event)

    return SpiffeH11


@cache
def _websockets() -> type[asyncio.Protocol]:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    class SpiffeWebSocket(_WebSocketWatch, WebSocketsSansIOProtocol):
        """WebSocket by websockets."""

    return SpiffeWebSocket


@cache
def _wsproto() -> type[asyncio.Protocol]:
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

    class SpiffeWsproto(_WebSocketWatch, WSProtocol):
        """WebSocket by wsproto."""

    return SpiffeWsproto
