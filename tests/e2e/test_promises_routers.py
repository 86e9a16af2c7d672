"""Applications that none of us wrote, wrapped: what their routers reach, the guard has judged."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from support.served import Peer, Served

SECRET = "the secret of /admin"
POLICY = """
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "web-reads"
from = ["web"]
to = ["GET /", "GET /public/{name}", "GET /files/{path...}", "WS /talk"]
[[allow]]
id = "admin"
from = ["admin"]
to = ["GET /admin"]
"""
# each is what a router, a proxy or a person could take for /admin
TWISTED = [
    *(b"/admin/ //admin /./admin /x/../admin /public/../admin /public/%2e%2e/admin".split()),
    *(b"/public/%2E%2E/admin /public/..%2fadmin /public/..%2Fadmin /%61dmin /admi%6e".split()),
    *(b"/%61%64%6D%69%6E /admin%00 /admin%20 /admin; /admin;x=1 /;/admin /admin%3B".split()),
    *(b"/admin# /admin#/public/a /public/a#/../../admin /admin? /admin?/public/a".split()),
    *(b"/public%2fa/../../admin /public/..;/admin \\admin /\\admin /public\\..\\admin".split()),
    *(b"/public/..%5cadmin /%2e/admin /%2fadmin /%252fadmin /public/%252e%252e/admin".split()),
    *(b"/ADMIN /Admin /adm\xc3\xaen /adm%C0%AEin /admin%FF /admin%E2%80%8B /admin//".split()),
    *(b"https://localhost/admin http://evil.example/admin //evil.example/admin * admin".split()),
    *(b"/admin%0d%0a /admin%09 /public/a/../../admin /public/a%2f..%2f..%2fadmin".split()),
    *(b"/files/../admin /files/%2e%2e/admin /files/a/..%2f..%2fadmin /files/....//admin".split()),
]


async def _admin(request: Request) -> PlainTextResponse:
    return PlainTextResponse(SECRET)


async def _public(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"public {request.path_params}")


async def _broken(request: Request) -> PlainTextResponse:
    raise ValueError


async def _sorry(request: Request, exc: Exception) -> PlainTextResponse:
    return PlainTextResponse("handled", 500)


async def _talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def _app(folder: Path) -> Starlette:
    (folder / "a.txt").write_text("a file")
    return Starlette(
        routes=[
            Route("/", _public),
            Route("/admin", _admin, methods=["GET", "POST"]),
            Route("/public/{name}", _public),
            Route("/broken", _broken),
            Mount("/files", StaticFiles(directory=folder)),
            Mount("/sub", Starlette(routes=[Route("/admin", _admin)])),
            WebSocketRoute("/talk", _talk),
        ],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])],
        exception_handlers={404: _sorry, ValueError: _sorry},
    )


@pytest.fixture(scope="module", params=["httptools", "h11"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    app = _app(tmp_path_factory.mktemp("files"))
    with Served(app, policy=POLICY, options={"http": request.param}) as served:
        yield served


@pytest.fixture(scope="module")
def web(served: Served) -> Peer:
    return served.caller()


def taken(web: Peer, target: bytes) -> bytes:
    """Everything that comes back until the connection ends."""
    received = b""
    with web.connect() as wire, contextlib.suppress(OSError):
        wire.send(target, [*web.tokens(), ("connection", "close")])
        while chunk := wire.sock.recv(65536):
            received += chunk
    return received


def refused(answer: bytes) -> bool:
    return re.fullmatch(rb"(HTTP/1.1 (400|403|404) .*)?", answer, re.DOTALL) is not None


def test_what_the_policy_allows_is_reached(served: Served, web: Peer) -> None:
    assert web.ask("/public/a").body.startswith(b"public")
    assert web.ask("/files/a.txt").body == b"a file"
    assert served.caller("admin").ask("/admin").body.decode() == SECRET


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/admin"),
        ("POST", "/admin"),
        ("GET", "/public/a"),
        ("GET", "/files/a.txt"),
        ("GET", "/files/missing"),
        ("GET", "/sub/admin"),
        ("GET", "/sub"),
        ("GET", "/broken"),
        ("GET", "/nowhere"),
        ("GET", "/docs"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("OPTIONS", "/admin"),
        ("HEAD", "/"),
        ("GET", "/talk"),
    ],
)
def test_no_route_answers_without_a_token(web: Peer, method: str, target: str) -> None:
    preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "POST")]
    answer = web.ask(target, [*preflight, ("connection", "close")], method=method)
    assert answer.status == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("target", TWISTED, ids=repr)
def test_no_spelling_of_a_path_reaches_what_the_policy_does_not_allow(
    web: Peer, target: bytes
) -> None:
    answer = taken(web, target)
    assert SECRET.encode() not in answer
    assert refused(answer)


def test_a_mounted_application_is_judged_by_the_whole_path(web: Peer) -> None:
    assert web.ask("/sub/admin").status == 403


@pytest.mark.parametrize(
    "name",
    [b"a", b"a.b", b"...", b"a..", b"~a", b"a!$&'()*+,=:@", b"%C3%A9", b"%E2%82%AC", b"a%20b"],
)
def test_a_path_that_is_let_through_is_the_one_the_router_sees(web: Peer, name: bytes) -> None:
    answer = taken(web, b"/public/" + name)
    assert answer.decode().endswith(f"public { ({'name': unquote_to_bytes(name).decode()}) }")


# ---- Datasette ------------------------------------------------------------------------------

# It drops connections without closing them, and CPython tells from 3.13 on.
leaves_databases_open = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")


@contextlib.contextmanager
def databases_closed() -> Iterator[None]:
    """Close here what Datasette leaves open, so that no later test is told of it."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **{**kwargs, "check_same_thread": False})
        opened.append(connection)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", kept)
        yield
    for connection in opened:
        connection.close()


SHOP = """
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "one-table"
from = ["web"]
to = ["GET /shop/orders.json", "GET /shop/orders", "GET /-/static/{path...}"]
"""
ROUNDABOUT = [
    *(b"/shop/salaries.json /shop/salaries /shop.json?sql=select+*+from+salaries /shop".split()),
    *(b"/shop/%73alaries.json /shop/salaries%2ejson /shop/orders.json/../salaries.json".split()),
    *(b"/shop/orders/../salaries.json /shop/~73alaries.json /shop//salaries.json".split()),
    *(b"/shop/salaries.json; /shop;/salaries.json //shop/salaries.json /shop/./salaries".split()),
    *(b"/shop%2Fsalaries.json /shop%2fsalaries.json /shop/orders%2f..%2fsalaries.json".split()),
    *(b"/shop/orders.json#/../salaries.json /shop/salaries.json#orders /shop\\salaries".split()),
    *(b"http://localhost/shop/salaries.json /shop/salaries.csv /shop/salaries.blob".split()),
    *(b"/-/static/../../shop/salaries.json /-/static/%2e%2e/%2e%2e/shop/salaries.json".split()),
    *(b"/shop/salaries/1.json /shop/salaries.json?_shape=array /SHOP/salaries.json".split()),
]


async def _bare(app: Any, target: bytes) -> bytes:
    """What the application itself answers to a target, as uvicorn would hand it over."""
    raw, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": unquote(raw.decode("latin-1")),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"localhost")],
    }
    sent = bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))

    with contextlib.suppress(ValueError):  # it cannot print an error outside of a handler
        await app(scope, receive, send)
    return bytes(sent)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Peer]]:
    datasette = pytest.importorskip("datasette.app")
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with sqlite3.connect(path) as db:
        db.execute("create table orders (id integer primary key, item text)")
        db.execute("create table salaries (id integer primary key, who text)")
        db.execute("insert into orders values (1, 'lamp')")
        db.execute("insert into salaries values (1, ?)", [SECRET])
    db.close()
    with databases_closed():
        app = datasette.Datasette([str(path)]).app()
        with Served(app, policy=SHOP) as served:
            yield app, served.caller()


@leaves_databases_open
def test_datasette_serves_the_table_that_the_policy_names(shop: tuple[Any, Peer]) -> None:
    app, web = shop
    assert b"lamp" in taken(web, b"/shop/orders.json")
    found = [t for t in ROUNDABOUT if SECRET.encode() in asyncio.run(_bare(app, t))]
    assert len(found) >= 5  # by these the bare application does tell it


@leaves_databases_open
@pytest.mark.parametrize("target", ROUNDABOUT, ids=repr)
def test_no_spelling_of_a_path_reaches_a_table_that_the_policy_does_not_name(
    shop: tuple[Any, Peer], target: bytes
) -> None:
    _, web = shop
    answer = taken(web, target)
    assert SECRET.encode() not in answer
    assert refused(answer)
