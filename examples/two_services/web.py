"""Writes statements for tellers. Asks `ledger` for the account; knows the holders' names."""

import contextlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from zerotrust import WorkloadIdentity
from zerotrust.asgi import protect
from zerotrust.httpx import AsyncClient

LEDGER = "https://localhost:8443"
NAMES = {"7": "Ada", "8": "Grace"}

me = WorkloadIdentity.from_env()


@contextlib.asynccontextmanager
async def clients(_: Starlette):
    async with AsyncClient(me, peer="spiffe://example.org/ledger", base_url=LEDGER) as ledger:
        yield {"ledger": ledger}


async def statement(request: Request) -> PlainTextResponse:
    answer = await request.state.ledger.get(f"/accounts/{request.path_params['number']}")
    account = answer.raise_for_status().json()
    return PlainTextResponse(f"{account['holder']} has {account['balance']}")


async def name(request: Request) -> JSONResponse:
    return JSONResponse({"name": NAMES[request.path_params["number"]]})


routes = [Route("/statements/{number}", statement), Route("/names/{number}", name)]
app = protect(Starlette(routes=routes, lifespan=clients), me, "web.toml")
