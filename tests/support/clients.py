"""One face for the four clients: httpx and httpx2, sync and async."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest

LIBRARIES = ("httpx", "httpx2")


@dataclass(frozen=True)
class Flavour:
    """A client library in one colour."""

    library: str
    colour: str

    @property
    def module(self) -> Any:
        """The library itself."""
        return importlib.import_module(self.library)

    @property
    def adapter(self) -> Any:
        """Our adapter of it."""
        return importlib.import_module(f"zerotrust.{self.library}")

    def client(self, me: Any, **options: Any) -> Face:
        """Open a client of this flavour."""
        if self.colour == "sync":
            return Face(self.adapter.Client(me, **options))
        return AsyncFace(self.adapter.AsyncClient(me, **options))

    def __str__(self) -> str:
        return f"{self.library}-{self.colour}"


FLAVOURS = [Flavour(library, colour) for library in LIBRARIES for colour in ("sync", "async")]
each_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


class Face:
    """A sync client."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def request(self, method: str, url: str, **parts: Any) -> Any:
        return self.client.request(method, url, **parts)

    def get(self, url: str, **parts: Any) -> Any:
        return self.request("GET", url, **parts)

    def post(self, url: str, **parts: Any) -> Any:
        return self.request("POST", url, **parts)

    def open(self, method: str, url: str) -> Any:
        """Send, and leave the body unread."""
        return self.client.send(self.client.build_request(method, url), stream=True)

    def chunks(self, response: Any) -> Iterator[bytes]:
        yield from response.iter_raw()

    def shut(self, response: Any) -> None:
        response.close()

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncFace(Face):
    """An async client on an event loop of its own."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._runner = asyncio.Runner()

    def request(self, method: str, url: str, **parts: Any) -> Any:
        return self._run(self.client.request(method, url, **parts))

    def open(self, method: str, url: str) -> Any:
        return self._run(self.client.send(self.client.build_request(method, url), stream=True))

    def chunks(self, response: Any) -> Iterator[bytes]:
        source = response.aiter_raw()
        while (chunk := self._run(_next(source))) is not None:
            yield chunk

    def shut(self, response: Any) -> None:
        self._run(response.aclose())

    def close(self) -> None:
        self._run(self.client.aclose())
        self._runner.close()

    def _run(self, awaitable: Any) -> Any:
        return self._runner.run(awaitable)


async def _next(source: Any) -> Any:
    return await anext(source, None)
