from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest

from support.clients import LIBRARIES, Flavour, each_flavour
from support.identities import FixedIdentity
from support.served import POLICY, Served, until
from zerotrust import clock
from zerotrust.core.errors import (
    CertificateRejected,
    Closed,
    ConfigurationError,
    IdentityUnavailable,
    Reason,
    UnsafeSetting,
)
from zerotrust.probe.deliver import present
from zerotrust.probe.forge import ForgedAuthority

ORDERS = "spiffe://example.org/orders"
LEDGER = "spiffe://example.org/ledger"


@pytest.fixture
def ca() -> ForgedAuthority:
    return ForgedAuthority(now=clock.now())


@pytest.fixture
def me(ca: ForgedAuthority) -> FixedIdentity:
    return FixedIdentity(ca.snapshot("web"))


@pytest.fixture
def orders(ca: ForgedAuthority) -> Iterator[Served]:
    with Served(ca=ca) as served:
        yield served


def _remembers_proofs(served: Served) -> None:
    """Wait for the first whole second of its life: older proofs might have been used before it."""
    began = served.app.started_at
    until(lambda: int(clock.now()) >= began)


def _url(served: Served | Recorder) -> str:
    return f"https://localhost:{served.port}"


class Recorder:
    """A TLS server with any certificate that keeps every connection and every byte it is sent."""

    def __init__(self, svid: Any, answer: bytes = b"") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        present(self._context, svid)
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.received = b""
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            raw.settimeout(5)
            try:
                with self._context.wrap_socket(raw, server_side=True) as sock:
                    while chunk := sock.recv(65536):
                        self.received += chunk
                        sock.sendall(self._answer)
            except OSError:
                pass
            self.ended.set()


@each_flavour
def test_a_call_reaches_the_expected_peer_and_proves_who_calls(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        for _ in range(2):
            answer = client.get("/echo?a=1").json()
            assert answer["caller"] == "spiffe://example.org/web"
            assert (answer["mode"], answer["query"]) == ("bound", "a=1")


@each_flavour
def test_a_map_of_targets_names_whom_to_expect_where(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    with flavour.client(me, peers={_url(orders): ORDERS}) as client:
        assert client.get(f"{_url(orders)}/echo").status_code == 200
        with pytest.raises(ConfigurationError, match=r"no peer is expected at https://localhost:1"):
            client.get("https://localhost:1/echo")


@each_flavour
def test_no_byte_is_sent_to_a_server_that_is_the_wrong_workload(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    with Recorder(ca.issue("batch")) as wrong, flavour.client(me, peer=ORDERS) as client:
        with pytest.raises(CertificateRejected) as refused:
            client.post(f"{_url(wrong)}/orders", content=b"secret")
        assert refused.value.reason is Reason.PEER_UNEXPECTED
        assert wrong.ended.wait(5)
        assert wrong.received == b""
        assert wrong.connections == 1, "a refused identity is not tried again"


@each_flavour
def test_no_byte_is_sent_to_a_server_of_a_same_named_ca(
    flavour: Flavour, me: FixedIdentity
) -> None:
    impostor = ForgedAuthority(now=clock.now())
    with Recorder(impostor.issue("orders")) as wrong, flavour.client(me, peer=ORDERS) as client:
        with pytest.raises(CertificateRejected) as refused:
            client.get(f"{_url(wrong)}/echo")
        assert refused.value.reason is Reason.PEER_UNTRUSTED
        assert wrong.received == b""


@each_flavour
def test_a_server_whose_certificate_has_expired_is_refused(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    expired = ca.issue("orders", not_before=clock.now() - 600, ttl=300)
    with Recorder(expired) as wrong, flavour.client(me, peer=ORDERS) as client:
        with pytest.raises(CertificateRejected) as refused:
            client.get(f"{_url(wrong)}/echo")
        assert refused.value.reason is Reason.PEER_EXPIRED
        assert wrong.received == b""


@each_flavour
def test_a_refused_connection_is_not_mistaken_for_a_refused_identity(
    flavour: Flavour, me: FixedIdentity
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: nobody answers here
        with (
            flavour.client(me, peer=ORDERS) as client,
            pytest.raises(flavour.module.ConnectError),
        ):
            client.get(f"https://127.0.0.1:{unused.getsockname()[1]}/")


def _redirecting(to: Callable[[], str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                await send({"type": message["type"] + ".complete"})
            return
        status, headers = 200, [(b"content-length", b"0")]
        if scope["path"] == "/echo":
            status, headers = 307, [*headers, (b"location", to().encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})

    return app


@each_flavour
def test_a_redirect_is_not_followed_unless_asked_for(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    with (
        Served(_redirecting(lambda: "/orders/1"), ca=ca) as served,
        flavour.client(me, peer=ORDERS, base_url=_url(served)) as client,
    ):
        assert client.get("/echo").status_code == 307


@each_flavour
@pytest.mark.parametrize("mode", ["bound", "proof"])
def test_a_redirect_within_one_identity_is_followed_with_a_token_of_its_own(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, mode: str
) -> None:
    with (
        Served(_redirecting(lambda: "/orders/1"), ca=ca) as served,
        flavour.client(
            me, peer=ORDERS, mode=mode, base_url=_url(served), follow_redirects=True
        ) as client,
    ):
        _remembers_proofs(served)
        answer = client.get("/echo")
        assert (answer.status_code, answer.url.path) == (200, "/orders/1")


@each_flavour
def test_a_redirect_to_another_identity_leaks_no_token(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with (
        Recorder(ca.issue("ledger"), answer) as ledger,
        Served(_redirecting(lambda: f"{_url(ledger)}/transfer"), ca=ca) as served,
        flavour.client(
            me,
            peers={_url(served): ORDERS, _url(ledger): LEDGER},
            cover=["x-user-token"],
            follow_redirects=True,
        ) as client,
    ):
        with pytest.raises(CertificateRejected, match="redirected") as refused:
            client.get(f"{_url(served)}/echo")
        assert refused.value.reason is Reason.PEER_UNEXPECTED
        assert ledger.connections == 0
        assert client.get(f"{_url(ledger)}/transfer").status_code == 200, "asked for itself it goes"


@each_flavour
def test_a_redirect_to_an_impostor_of_the_same_name_sends_no_byte(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    impostor = ForgedAuthority(now=clock.now())
    with (
        Recorder(impostor.issue("orders")) as wrong,
        Served(_redirecting(lambda: f"{_url(wrong)}/x"), ca=ca) as served,
        flavour.client(me, peer=ORDERS, base_url=_url(served), follow_redirects=True) as client,
    ):
        with pytest.raises(CertificateRejected):
            client.get("/echo")
        assert wrong.received == b""


@each_flavour
@pytest.mark.parametrize("to", ["http://localhost:1/x", "https://elsewhere.test/x"])
def test_a_redirect_to_where_nobody_is_expected_is_refused(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, to: str
) -> None:
    with (
        Served(_redirecting(lambda: to), ca=ca) as served,
        flavour.client(me, peers={_url(served): ORDERS}, follow_redirects=True) as client,
        pytest.raises(ConfigurationError),
    ):
        client.get(f"{_url(served)}/echo")


@each_flavour
def test_an_authorization_of_the_application_is_refused_before_any_connection(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    with Recorder(ca.issue("orders")) as server, flavour.client(me, peer=ORDERS) as client:
        for parts in (
            {"headers": {"Authorization": "Bearer user"}},
            {"headers": {"aUTHORIZATION": "Bearer user"}},
            {"auth": ("user", "password")},
        ):
            with pytest.raises(UnsafeSetting, match="cover="):
                client.get(f"{_url(server)}/", **parts)
        with pytest.raises(UnsafeSetting, match="cover="):
            client.get(f"https://user:password@localhost:{server.port}/")
        assert server.connections == 0


@each_flavour
def test_plain_http_is_refused_before_any_connection(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    with Recorder(ca.issue("orders")) as server, flavour.client(me, peer=ORDERS) as client:
        with pytest.raises(UnsafeSetting, match="http://"):
            client.get(f"http://localhost:{server.port}/")
        assert server.connections == 0


@each_flavour
def test_an_identity_token_set_by_the_application_is_replaced_by_ours(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, orders: Served
) -> None:
    stolen = {"Workload-Identity-Token": ca.wit("batch")}
    with flavour.client(me, peer=ORDERS, base_url=_url(orders), headers=stolen) as client:
        assert client.get("/echo").json()["caller"] == "spiffe://example.org/web"


@each_flavour
def test_what_the_application_can_see_holds_no_token(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        answer = client.get("/echo")
    assert answer.request.headers.keys().isdisjoint({"authorization", "workload-identity-token"})


@each_flavour
def test_proxies_of_the_environment_are_ignored(
    flavour: Flavour, me: FixedIdentity, orders: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        assert client.get("/echo").status_code == 200


@each_flavour
def test_proof_mode_mints_a_new_proof_for_every_request(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    _remembers_proofs(orders)
    with flavour.client(me, peer=ORDERS, mode="proof", base_url=_url(orders)) as client:
        for _ in range(3):  # a proof used twice would be refused as a replay
            assert client.post("/pay?amount=7", content=b"x").json()["mode"] == "proof"
    assert orders.lines.reasons() == []


@each_flavour
def test_a_bound_client_proves_more_when_the_route_asks_for_it(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    _remembers_proofs(orders)
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        assert client.post("/pay", content=b"x").json()["mode"] == "proof"
        assert client.get("/echo").json()["mode"] == "bound"
    assert orders.lines.reasons() == [Reason.TOKEN_MODE]


@each_flavour
def test_a_body_that_cannot_be_sent_again_is_not(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    def sync_body() -> Iterator[bytes]:
        yield b"x"

    async def async_body() -> Any:
        yield b"x"

    body = sync_body() if flavour.colour == "sync" else async_body()
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        answer = client.post("/pay", content=body)
    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:zerotrust:problem:mode-insufficient"


class Stale:
    """An application that finds every proof stale."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                await send({"type": message["type"] + ".complete"})
            return
        self.calls += 1
        body = b'{"type":"urn:zerotrust:problem:proof-stale"}'
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@each_flavour
@pytest.mark.parametrize(("mode", "calls"), [("proof", 2), ("bound", 1)])
def test_a_stale_proof_is_renewed_once_and_never_twice(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, mode: str, calls: int
) -> None:
    app = Stale()
    with (
        Served(app, ca=ca) as served,
        flavour.client(me, peer=ORDERS, mode=mode, base_url=_url(served)) as client,
    ):
        _remembers_proofs(served)
        answer = client.get("/echo")
    assert app.calls == calls
    assert answer.status_code == 401
    assert answer.json() == {"type": "urn:zerotrust:problem:proof-stale"}


@each_flavour
def test_a_covered_header_is_hashed_into_the_proof(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity
) -> None:
    user = {"X-User-Token": "opaque"}
    with Served(ca=ca, cover=["x-user-token"]) as served:
        with flavour.client(
            me, peer=ORDERS, base_url=_url(served), cover=["X-User-Token"]
        ) as client:
            assert client.get("/echo", headers=user).status_code == 200
            assert client.get("/echo", headers={"X-User-Token": "other"}).status_code == 200
            assert client.get("/echo").status_code == 200
        with flavour.client(me, peer=ORDERS, base_url=_url(served)) as careless:
            assert careless.get("/echo", headers=user).status_code == 401


@each_flavour
@pytest.mark.parametrize("mode", ["bound", "proof"])
def test_rotation_fails_no_request(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, orders: Served, mode: str
) -> None:
    _remembers_proofs(orders)
    with flavour.client(me, peer=ORDERS, mode=mode, base_url=_url(orders)) as client:
        for turn in range(60):
            if turn % 3 == 2:  # between two requests on one connection
                me.rotate(ca.snapshot("web"))
            if turn % 10 == 9:
                orders.identity.rotate(ca.snapshot("orders"))
            assert client.get("/echo").status_code == 200
    assert orders.lines.reasons() == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_rotation_under_threads_fails_no_request(
    library: str, ca: ForgedAuthority, me: FixedIdentity, orders: Served
) -> None:
    snapshots = [ca.snapshot("web") for _ in range(8)]
    over = threading.Event()

    def rotate() -> None:
        while not over.wait(0.02):
            me.rotate(snapshots[0])
            snapshots.append(snapshots.pop(0))

    rotator = threading.Thread(target=rotate)
    patient = {"peer": ORDERS, "base_url": _url(orders), "timeout": 60}  # of a busy machine
    with Flavour(library, "sync").client(me, **patient) as client:
        rotator.start()
        try:
            with ThreadPoolExecutor(8) as pool:
                statuses = list(pool.map(lambda _: client.get("/echo").status_code, range(400)))
        finally:
            over.set()
            rotator.join()
    assert statuses == [200] * 400
    assert orders.lines.reasons() == []


@each_flavour
def test_a_streaming_response_survives_rotation(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, orders: Served
) -> None:
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        stream = client.open("GET", "/stream")
        chunks = client.chunks(stream)
        assert next(chunks)
        for _ in range(3):
            me.rotate(ca.snapshot("web"))
            assert client.get("/echo").status_code == 200
            assert next(chunks)
        assert len(orders.server.server_state.connections) == 2, "idle old connections are closed"
        client.shut(stream)
        until(lambda: len(orders.server.server_state.connections) == 1)


@each_flavour
def test_a_connection_is_retired_before_the_server_ends_it(
    flavour: Flavour, ca: ForgedAuthority
) -> None:
    me = FixedIdentity(ca.snapshot("web", ttl=3600))
    with (
        Served(ca=ca, identity=FixedIdentity(ca.snapshot("orders", ttl=4))) as served,
        flavour.client(me, peer=ORDERS, base_url=_url(served)) as client,
    ):
        assert client.get("/echo").status_code == 200
        served.identity.rotate(ca.snapshot("orders"))
        first = set(served.server.server_state.connections)
        until(lambda: clock.now() > ca.now + 3.7)
        assert client.get("/echo").status_code == 200
        assert first.isdisjoint(served.server.server_state.connections)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_transport_serves_a_client_of_ones_own_until_it_is_closed(
    library: str, me: FixedIdentity, orders: Served
) -> None:
    flavour = Flavour(library, "sync")
    transport = flavour.adapter.Transport(me, peer=ORDERS)
    with flavour.module.Client(transport=transport, trust_env=False) as client:
        assert client.get(f"{_url(orders)}/echo").status_code == 200
    with pytest.raises(Closed):
        transport.handle_request(flavour.module.Request("GET", f"{_url(orders)}/echo"))


@each_flavour
def test_a_closed_identity_sends_nothing(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        assert client.get("/echo").status_code == 200
        me.close()
        with pytest.raises(Closed):
            client.get("/echo")


@each_flavour
def test_an_identity_token_that_has_ended_sends_nothing_until_it_is_renewed(
    flavour: Flavour, ca: ForgedAuthority, me: FixedIdentity, orders: Served
) -> None:
    with flavour.client(me, peer=ORDERS, base_url=_url(orders)) as client:
        assert client.get("/echo").status_code == 200
        me.rotate(ca.snapshot("web", wit_ttl=-1))
        with pytest.raises(IdentityUnavailable) as ended:
            client.get("/echo")
        assert ended.value.reason is Reason.IDENTITY_EXPIRED
        until(lambda: not orders.server.server_state.connections)
        me.rotate(ca.snapshot("web"))
        assert client.get("/echo").status_code == 200


@each_flavour
def test_http2_speaks_to_the_expected_peer_too(
    flavour: Flavour, me: FixedIdentity, orders: Served
) -> None:
    pytest.importorskip("h2", reason="needs h2")
    with flavour.client(me, peer=ORDERS, base_url=_url(orders), http2=True) as client:
        assert client.get("/echo").status_code == 200


def test_a_websocket_is_opened_with_our_identity(me: FixedIdentity, orders: Served) -> None:
    with (
        Flavour("httpx2", "sync").client(me, peer=ORDERS) as client,
        client.client.websocket(f"wss://localhost:{orders.port}/talk") as talk,
    ):
        talk.send_text("hello")
        assert talk.receive_text() == "hello"


def test_the_policy_of_these_tests_allows_what_they_call() -> None:
    assert all(route in POLICY for route in ("GET /echo", "GET /stream", "WS /talk", "POST /pay"))
