"""Transports for httpx and for libraries with the same interface; the library is an argument.

1. Only public interfaces are used: the library's transport, and below it the connection pools of
   its core (httpcore), one per generation. The library's own transport is such a wrapper too; ours
   stands in its place, so that a call is wrapped once.
2. Every decision is made by plain functions (outbound.py, peers.py, generations.py); the two
   classes below differ in colour only.
3. A response's body carries the lease: until it is closed, the connection it comes over is not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from zerotrust.clock import now
from zerotrust.core.errors import ConfigurationError
from zerotrust.core.mode import Mode
from zerotrust.core.spiffe.ids import SpiffeId
from zerotrust.workload.generations import Generation, Generations
from zerotrust.workload.outbound import (
    RawHeaders,
    asked_mode,
    credentials,
    identity_failure,
    may_ask,
    own_headers,
    parse_cover,
    parse_mode,
    require_caller,
    require_safe,
    require_same_peer,
)
from zerotrust.workload.peers import Peers
from zerotrust.workload.tls.context import SnapshotSource, SpiffeContext

LIMITS: Final = ("max_connections", "max_keepalive_connections", "keepalive_expiry")
DEFAULT_LIMITS: Final = {"max_connections": 100, "max_keepalive_connections": 20}  # as the library
POOL_OPTIONS: Final = ("http1", "http2", "limits", "local_address", "socket_options")

Request = TypeVar("Request")
Response = TypeVar("Response")


class _Outgoing(NamedTuple):
    """What is known of a call before anything is leased for it."""

    expected: SpiffeId
    url: Any  # the core's
    headers: RawHeaders
    covered: dict[str, str] | None


class _Calls:
    """What the sync and the async transport share."""

    library: ClassVar[ModuleType]
    core: ClassVar[ModuleType]  # the library's connections
    pool_class: ClassVar[str]  # the core's pool, by name

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
        """Take the arguments of the clients; `options` are the pool's: http1, http2, limits, ..."""
        require_safe(options)
        if unknown := options.keys() - set(POOL_OPTIONS):
            raise ConfigurationError(f"unknown options: {', '.join(sorted(unknown))}")
        if options.get("http2") and importlib.util.find_spec("h2") is None:
            raise ConfigurationError("http2=True needs the h2 package: pip install h2")
        self._peers = Peers(peer, peers)
        self._mode = parse_mode(mode)
        self._cover = parse_cover(cover)
        require_caller(me)
        pool = getattr(self.core, self.pool_class)
        limits = options.pop("limits", None) or self.library.Limits(**DEFAULT_LIMITS)
        options |= {name: getattr(limits, name) for name in LIMITS}

        def open_pool(context: SpiffeContext) -> Any:
            return pool(ssl_context=context, **options)

        self._generations: Generations[Any] = Generations(me, open_pool, mode=self._mode, clock=now)

    def require_target(self, url: Any) -> None:
        """Raise ConfigurationError unless a peer is expected at this URL of the library."""
        self._peers.expected_at(url.raw_scheme, url.raw_host, url.port)

    def _judge(self, request: Any) -> _Outgoing:
        """Refuse what must not be sent, before any I/O."""
        given = request.url
        url = self.core.URL(
            scheme=given.raw_scheme, host=given.raw_host, port=given.port, target=given.raw_path
        )
        expected = self._peers.expected_at(url.scheme, url.host, url.port)
        headers, covered = own_headers(request.headers.raw, self._cover)
        require_same_peer(request.extensions, expected)
        return _Outgoing(expected, url, headers, covered)

    def _signed(
        self,
        request: Any,
        outgoing: _Outgoing,
        generation: Generation[Any],
        mode: Mode,
        at: float,
    ) -> Any:
        """Return the core's request, with credentials for the peer of this generation."""
        expected, url, headers, covered = outgoing
        signed = credentials(generation.tokens, mode, expected, request, covered, at)
        sent = self.core.Request(
            request.method, url, content=request.stream, extensions=request.extensions
        )
        sent.headers = headers + signed  # bytes already; as an argument each is looked at again
        return sent

    def _response(self, answer: Any, body: Any) -> Any:
        return self.library.Response(
            answer.status, headers=answer.headers, stream=body, extensions=answer.extensions
        )

    def _may_ask(self, request: Any, response: Any) -> bool:
        return may_ask(response.status_code, response.headers) and isinstance(
            request.stream, self.library.ByteStream
        )

    def told(self, exc: BaseException) -> BaseException:
        """Return the error to raise in place of this one, or this one.

        Why the handshake was refused, if that lies below it; the library's error of the same name
        for one of the core.
        """
        refusal = identity_failure(exc)
        if refusal is not None:
            return refusal
        for kind in type(exc).__mro__:
            theirs = getattr(self.library, kind.__name__, None)
            if theirs is not None and getattr(self.core, kind.__name__, None) is kind:
                return theirs(str(exc))  # type: ignore[no-any-return]
        return exc


class Body:
    """A response's bytes, with the lease on the generation they come over."""

    def __init__(self, stream: Any, calls: Carrier[Any, Any], generation: Generation[Any]) -> None:
        self._stream, self._calls, self._generation = stream, calls, generation
        self._leased = True

    def __iter__(self) -> Iterator[bytes]:
        require_alive = self._generation.require_alive
        try:
            for part in self._stream:
                require_alive(now())
                yield part
        except Exception as exc:
            if (told := self._calls.told(exc)) is not exc:
                raise told from exc
            raise

    def close(self) -> None:
        """Give the connection back."""
        if self._leased:
            self._leased = False
            try:
                self._stream.close()
            finally:
                self._calls.release(self._generation)


class Carrier(_Calls, Generic[Request, Response]):
    """The sync transport."""

    pool_class = "ConnectionPool"
    body_class: ClassVar[type[Body]]

    def handle_request(self, request: Request) -> Response:
        """Send a request to the identity expected at its target, with credentials for it alone."""
        response = self._send(request, self._mode)
        if not self._may_ask(request, response):
            return response  # type: ignore[no-any-return]
        try:
            body = b"".join(response.stream)
        finally:
            response.stream.close()
        if (mode := asked_mode(body, self._mode)) is not None:
            return self._send(request, mode)  # type: ignore[no-any-return]
        response.stream = self.library.ByteStream(body)
        return response  # type: ignore[no-any-return]

    def release(self, generation: Generation[Any]) -> None:
        """Count a call out and close what is over."""
        for pool in self._generations.release(generation):
            pool.close()

    def close(self) -> None:
        """Close all connections; further calls raise Closed."""
        for pool in self._generations.close():
            pool.close()

    def _send(self, request: Any, mode: Mode) -> Any:
        outgoing = self._judge(request)
        at = now()
        generation, over = self._generations.lease(outgoing.expected, at)
        try:
            for pool in over:
                pool.close()
            signed = self._signed(request, outgoing, generation, mode, at)
            answer = generation.pool.handle_request(signed)
        except BaseException as exc:
            self.release(generation)
            if (told := self.told(exc)) is not exc:
                raise told from exc
            raise
        return self._response(answer, self.body_class(answer.stream, self, generation))


class AsyncBody:
    """A response's bytes, with the lease on the generation they come over."""

    def __init__(
        self, stream: Any, calls: AsyncCarrier[Any, Any], generation: Generation[Any]
    ) -> None:
        self._stream, self._calls, self._generation = stream, calls, generation
        self._leased = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        require_alive = self._generation.require_alive
        try:
            async for part in self._stream:
                require_alive(now())
                yield part
        except Exception as exc:
            if (told := self._calls.told(exc)) is not exc:
                raise told from exc
            raise

    async def aclose(self) -> None:
        """Give the connection back."""
        if self._leased:
            self._leased = False
            try:
                await self._stream.aclose()
            finally:
                await self._calls.release(self._generation)


class AsyncCarrier(_Calls, Generic[Request, Response]):
    """The async transport."""

    pool_class = "AsyncConnectionPool"
    body_class: ClassVar[type[AsyncBody]]

    async def handle_async_request(self, request: Request) -> Response:
        """Send a request to the identity expected at its target, with credentials for it alone."""
        response = await self._send(request, self._mode)
        if not self._may_ask(request, response):
            return response  # type: ignore[no-any-return]
        try:
            body = b"".join([part async for part in response.stream])
        finally:
            await response.stream.aclose()
        if (mode := asked_mode(body, self._mode)) is not None:
            return await self._send(request, mode)  # type: ignore[no-any-return]
        response.stream = self.library.ByteStream(body)
        return response  # type: ignore[no-any-return]

    async def release(self, generation: Generation[Any]) -> None:
        """Count a call out and close what is over."""
        for pool in self._generations.release(generation):
            await pool.aclose()

    async def aclose(self) -> None:
        """Close all connections; further calls raise Closed."""
        for pool in self._generations.close():
            await pool.aclose()

    async def _send(self, request: Any, mode: Mode) -> Any:
        outgoing = self._judge(request)
        at = now()
        generation, over = self._generations.lease(outgoing.expected, at)
        try:
            for pool in over:
                await pool.aclose()
            signed = self._signed(request, outgoing, generation, mode, at)
            answer = await generation.pool.handle_async_request(signed)
        except BaseException as exc:
            await self.release(generation)
            if (told := self.told(exc)) is not exc:
                raise told from exc
            raise
        return self._response(answer, self.body_class(answer.stream, self, generation))


def pool_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the connection pool's options out of a client's; refuse those that would weaken it."""
    require_safe(options)
    return {name: options.pop(name) for name in POOL_OPTIONS if name in options}
