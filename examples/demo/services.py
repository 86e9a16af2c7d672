"""Three services of the demo: storefront calls orders, orders calls ledger, each proving who it is.

Each is an ordinary Starlette application; `zerotrust serve` puts the identity and the policy
around it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from zerotrust import WorkloadIdentity
from zerotrust.httpx import AsyncClient

DOMAIN = "spiffe://example.org"


def _seen(request: Request) -> dict[str, str]:
    """Say who called, and which certificate this service holds right now."""
    me = WorkloadIdentity.from_env()
    return {
        "service": me.id.path.removeprefix("/"),
        "called_by": str(request["zerotrust.caller"].id),
        "mode": request["zerotrust.caller"].mode.label,
        "certificate": me.current.svid.thumbprint,
    }


def _forwarding(callee: str, path: str) -> Starlette:
    """Return a service that passes each call on to the next one."""

    async def forward(request: Request) -> JSONResponse:
        answer = await request.app.state.next.get(path.format(**request.path_params))
        answer.raise_for_status()
        return JSONResponse([_seen(request), *answer.json()])

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        import os

        me = WorkloadIdentity.from_env()
        url = os.environ["NEXT_URL"]
        async with AsyncClient(me, peer=f"{DOMAIN}/{callee}", base_url=url) as client:
            app.state.next = client
            yield

    return Starlette(routes=[Route("/items/{id}", forward)], lifespan=lifespan)


storefront = _forwarding("orders", "/items/{id}")
orders = _forwarding("ledger", "/accounts/{id}")


async def _account(request: Request) -> JSONResponse:
    return JSONResponse([_seen(request)])


async def _stream(_request: Request) -> StreamingResponse:
    async def ticks() -> AsyncIterator[bytes]:
        while True:
            yield b"tick\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(ticks())


ledger = Starlette(
    routes=[
        Route("/accounts/{id}", _account),
        Route("/closings/{id}", _account),
        Route("/stream", _stream),
    ]
)
