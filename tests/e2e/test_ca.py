from __future__ import annotations

import json
import os
import socket
import ssl
import stat
from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.issuing import DOMAIN, Asker, make_ca
from zerotrust import clock
from zerotrust.audit import AuditEvent, AuditLog
from zerotrust.ca.admin import AdminClient
from zerotrust.ca.authority.entries import NewEntry, RegistrationEntry
from zerotrust.ca.limits import Rates
from zerotrust.ca.server import Listeners, Running
from zerotrust.ca.service import CaSettings
from zerotrust.ca.stores import AddEntry
from zerotrust.core.enrolment import Issued, Published, parse_address
from zerotrust.core.errors import ConfigurationError, NotEntitled, RequestRefused, UnsafeSetting
from zerotrust.workload.sources.ca import open_source
from zerotrust.workload.tls.context import client_context, require, unsafe_unverified_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zerotrust.ca.service import CertificateAuthority
    from zerotrust.workload.identity import Snapshot

JSON = {"Content-Type": "application/json"}


class Lines:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def write(self, event: AuditEvent) -> None:
        self.events.append(event)


class Served(NamedTuple):
    ca: CertificateAuthority
    running: Running
    admin: AdminClient
    lines: Lines
    folder: Path

    def token(self, path: str = "/ledger") -> Path:
        entry = self.admin.create_entry(NewEntry(path))
        file = self.folder / f"token-{entry.id}"
        file.write_text(self.admin.create_token(entry.id).dump())
        file.chmod(0o600)
        return file


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    lines = Lines()
    listeners = Listeners(
        "localhost:0", "localhost:0", tmp_path / "run" / "admin.sock", tmp_path / "run" / "w.sock"
    )
    audit = AuditLog(lines)
    with (
        make_ca(tmp_path / "ca", now=clock.now()) as ca,
        Running(ca, listeners, audit=audit, rates=Rates(failure_burst=5)) as running,
    ):
        yield Served(ca, running, AdminClient(tmp_path / "run" / "admin.sock"), lines, tmp_path)


def ask(
    address: str,
    method: str = "GET",
    path: str = "/v1/bundle",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, bytes]:
    """One request, written by hand; the answer's status and body."""
    fields = {"Host": address, "Connection": "close", **(headers or {})}
    if body:
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items() if v), "", ""]
    with (
        socket.create_connection(parse_address(address), timeout=10) as raw,
        (context or unsafe_unverified_context()).wrap_socket(raw) as tls,
    ):
        tls.sendall("\r\n".join(lines).encode() + body)
        answer = b""
        while chunk := tls.recv(65536):
            answer += chunk
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def mutual(served: Served, snapshot: Snapshot) -> ssl.SSLContext:
    class Fixed:
        current = snapshot

    return client_context(Fixed(), require(served.ca.id))


def member(served: Served) -> Snapshot:
    source = open_source(str(served.token()), dev=True)
    try:
        return source.fetch(None)
    finally:
        source.close()


def test_a_workload_enrols_and_renews(served: Served) -> None:
    source = open_source(str(served.token()), dev=True)
    first = source.fetch(None)
    second = source.fetch(first)
    assert str(second.svid.id) == "spiffe://example.org/ledger"
    assert first.svid.thumbprint != second.svid.thumbprint
    source.close()


def test_a_stolen_identity_freezes_its_lineage(served: Served) -> None:
    source = open_source(str(served.token()), dev=True)
    first = source.fetch(None)
    second = source.fetch(first)
    for snapshot in (first, second):
        with pytest.raises(NotEntitled):
            source.fetch(snapshot)
    source.close()
    reasons = [event.reason for event in served.lines.events if event.kind == "ca.refused"]
    assert reasons == ["issuance.lineage_frozen"] * 2


def test_a_process_of_this_machine_enrols_by_its_uid(served: Served) -> None:
    served.admin.create_entry(NewEntry("/web", selectors=(f"unix:uid:{os.geteuid()}",)))
    source = open_source(f"unix:{served.folder / 'run' / 'w.sock'}", dev=True)
    assert str(source.fetch(None).svid.id) == "spiffe://example.org/web"
    source.close()


def test_the_bundle_is_public(served: Served) -> None:
    status, body = ask(served.running.bootstrap)
    assert (status, Published.parse(body)) == (200, served.ca.published)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_is_public(served: Served, path: str) -> None:
    assert ask(served.running.bootstrap, path=path)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/renew", 404),
        ("GET", "/v1/admin/entries", 404),
        ("POST", "/v1/admin/tokens", 404),
        ("GET", "/v1/enrol", 405),
        ("PUT", "/v1/enrol", 405),
        ("POST", "/v1/bundle", 405),
        ("GET", "/", 404),
        ("GET", "/v1/bundle/", 404),
        ("GET", "/v1//bundle", 404),
        ("GET", "/v1/%62undle", 404),
        ("GET", "/v1/bundle?x=1", 404),
    ],
)
def test_the_bootstrap_listener_serves_its_table_and_nothing_else(
    served: Served, method: str, path: str, status: int
) -> None:
    body = b"{}" if method == "POST" else b""
    assert ask(served.running.bootstrap, method, path, body, JSON)[0] == status


def test_a_certificate_opens_nothing_more_on_the_bootstrap_listener(served: Served) -> None:
    snapshot = member(served)
    for method, path in (("POST", "/v1/renew"), ("GET", "/v1/admin/entries")):
        status, _ = ask(
            served.running.bootstrap, method, path, headers=JSON, context=mutual(served, snapshot)
        )
        assert status == 404


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Host": "evil.example"}, b"{}", 421),
        ({"Host": "localhost:1"}, b"{}", 421),
        ({"Host": "a b"}, b"{}", 400),
        ({"Host": ""}, b"{}", 400),
        ({"Origin": "https://localhost"}, b"{}", 403),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": ""}, b"{}", 415),
        ({"Content-Length": "10485760"}, b"{}", 413),
        ({}, b"x" * 32769, 413),
        ({}, b"{}", 400),
        ({}, b"not json", 400),
        ({}, b"[" * 20000, 400),
    ],
)
def test_a_misshapen_enrolment_is_refused(
    served: Served, headers: dict[str, str], body: bytes, status: int
) -> None:
    answered, content = ask(
        served.running.bootstrap, "POST", "/v1/enrol", body, {**JSON, **headers}
    )
    assert answered == status
    assert json.loads(content).keys() == {"type", "title", "status", "id"}


def test_a_refusal_says_no_more_than_its_kind(served: Served) -> None:
    token = served.admin.create_token(served.admin.create_entry(NewEntry("/ledger")).id)
    asker = Asker()
    bodies: list[tuple[int, bytes]] = []
    for _ in range(2):
        request = (asker if not bodies else Asker()).enrolment(served.ca, token.evidence)
        bodies.append(ask(served.running.bootstrap, "POST", "/v1/enrol", request.dump(), JSON))
    Issued.parse(bodies[0][1])
    status, content = bodies[1]
    problem = json.loads(content)
    assert status == 401
    assert problem["title"] == "The caller did not prove its identity."
    (event,) = [e for e in served.lines.events if e.id == problem["id"]]
    assert event.detail == "the join token is unknown, expired or used"


def test_guessing_is_slowed_down(served: Served) -> None:
    from zerotrust.core.enrolment import Evidence

    statuses = []
    for value in range(8):
        request = Asker().enrolment(served.ca, Evidence("join_token", f"guess {value}"))
        body = request.dump()
        statuses.append(ask(served.running.bootstrap, "POST", "/v1/enrol", body, JSON)[0])
    assert statuses[:5] == [401] * 5
    assert 503 in statuses[5:]


def test_a_member_without_a_token_renews_nothing(served: Served) -> None:
    snapshot = member(served)
    status, _ = ask(
        served.running.mtls,
        "POST",
        "/v1/renew",
        Asker().renewal(served.ca).dump(),
        JSON,
        mutual(served, snapshot),
    )
    assert status == 401


def test_a_member_administers_nothing(served: Served) -> None:
    from zerotrust.workload.token_source import TokenSource

    snapshot = member(served)
    tokens = dict(TokenSource(snapshot).bound(served.ca.id, clock.now()))
    context = mutual(served, snapshot)
    assert ask(served.running.mtls, headers=tokens, context=context)[0] == 200
    for method, path in (("GET", "/v1/admin/entries"), ("POST", "/v1/enrol"), ("GET", "/livez")):
        assert ask(served.running.mtls, method, path, headers=tokens, context=context)[0] == 403


def test_the_operator_is_told_why(served: Served) -> None:
    with pytest.raises(RequestRefused, match="CA's own"):
        served.admin.create_entry(NewEntry("/zerotrust/ca"))
    entry = served.admin.create_entry(NewEntry("/web", dns_names=("web",), wit_ttl=600))
    assert served.admin.entries() == (entry,)
    served.admin.delete_entry(entry.id)
    assert served.admin.entries() == ()
    acts = [event for event in served.lines.events if event.kind == "ca.admin"]
    assert [act.peer for act in acts] == [f"uid:{os.geteuid()}"] * 2


def test_an_operator_lists_more_entries_than_one_answer_to_a_workload_holds(
    served: Served,
) -> None:
    names = tuple(f"{'n' * 60}{number}.{'m' * 60}.{'l' * 60}" for number in range(16))
    changes = [
        AddEntry(
            RegistrationEntry(
                f"{number:032x}", DOMAIN.id(f"/web{number}"), (), names, 60.0, None, 1.0
            )
        )
        for number in range(800)
    ]
    for done in [served.ca.store.apply(change) for change in changes]:
        done.result(10)
    assert len(served.admin.entries()) == 800


def test_the_admin_socket_is_ours_alone(served: Served) -> None:
    path = served.folder / "run" / "admin.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_no_admin_socket_in_an_open_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    listeners = Listeners("localhost:0", "localhost:0", tmp_path / "run" / "admin.sock")
    with (
        make_ca(tmp_path / "ca", now=clock.now()) as ca,
        pytest.raises(ConfigurationError, match="chmod 700"),
        Running(ca, listeners),
    ):
        pass


@pytest.mark.parametrize("asked", ["0.0.0.0:0", "[::]:0", ":0", "localhost"])
def test_an_address_that_reaches_nobody_needs_a_name(asked: str, tmp_path: Path) -> None:
    with (
        make_ca(tmp_path / "ca", now=clock.now(), dev=False) as ca,
        pytest.raises(ConfigurationError, match=r"--host|no host:port"),
        Running(ca, Listeners(asked, "localhost:0")),
    ):
        pass


def test_a_name_makes_every_address_reachable(tmp_path: Path) -> None:
    settings = CaSettings(hosts=("ca.example.org",))
    with (
        make_ca(tmp_path / "ca", now=clock.now(), dev=False, settings=settings) as ca,
        Running(ca, Listeners("0.0.0.0:0", "localhost:0")) as running,
    ):
        port = running.bootstrap.rpartition(":")[2]
        assert ca.enrol_address == f"ca.example.org:{port}"


def test_a_dev_ca_stays_on_this_machine(tmp_path: Path) -> None:
    with (
        make_ca(tmp_path / "ca", now=clock.now()) as ca,
        pytest.raises(UnsafeSetting),
        Running(ca, Listeners("0.0.0.0:0", "localhost:0")),
    ):
        pass


def test_nobody_answers_where_no_ca_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no CA answers"):
        AdminClient(tmp_path / "admin.sock").entries()


def _flood(served: Served, piece: bytes, times: int) -> int | None:
    """Send pieces, then read: how many answers until the connection ended; None if it did not."""
    received = b""
    address = parse_address(served.running.bootstrap)
    with (
        socket.create_connection(address, timeout=8) as raw,
        unsafe_unverified_context().wrap_socket(raw) as sock,
    ):
        try:
            for _ in range(times):
                sock.sendall(piece)
            while chunk := sock.recv(65536):
                received += chunk
        except TimeoutError:
            return None
        except OSError:
            pass
    return received.count(b"HTTP/1.1 200")


def test_a_head_without_end_ends_a_connection_to_the_bootstrap_listener(served: Served) -> None:
    assert _flood(served, b"GET /v1/bundle HTTP/1.1\r\nx: " + b"a" * 65536, 16) == 0
    assert ask(served.running.bootstrap)[0] == 200


def test_a_pile_of_requests_ends_a_connection_to_the_bootstrap_listener(served: Served) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert _flood(served, request, 5) is not None  # served, then idle for too long
    answers = _flood(served, request * 1000, 1)
    assert answers is not None
    assert answers < 1000
    assert ask(served.running.bootstrap)[0] == 200
