"""Keeps accounts. Asks `web` for the name of an account's holder."""

import contextlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from zerotrust import WorkloadIdentity
from zerotrust.asgi import protect
from zerotrust.httpx import AsyncClient

WEB = "https://localhost:8444"
BALANCES = {"7": 1250, "8": 40}

me = WorkloadIdentity.from_env()


@contextlib.asynccontextmanager
async def clients(_: Starlette):
    async with AsyncClient(me, peer="spiffe://example.org/web", base_url=WEB) as web:
        yield {"web": web}


async def account(request: Request) -> JSONResponse:
    number = request.path_params["number"]
    answer = await request.state.web.get(f"/names/{number}")
    holder = answer.raise_for_status().json()["name"]
    caller = request.scope["zerotrust.caller"]
    return JSONResponse({"holder": holder, "balance": BALANCES[number], "asked_by": str(caller.id)})


app = Starlette(routes=[Route("/accounts/{number}", account)], lifespan=clients)
app = protect(app, me, "ledger.toml")
