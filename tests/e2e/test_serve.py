"""`zerotrust serve`, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.served import Peer, until
from zerotrust import clock
from zerotrust.probe.forge import ForgedAuthority
from zerotrust.workload.layout import write_private

POLICY = """
schema = 1
service = "orders"
trust_domain = "example.org"
mode = "enforce"
[[allow]]
id = "web"
from = ["web"]
to = ["GET /orders/{id}"]
"""
APP = """
import os, pathlib
with open("imported", "a") as file:
    file.write(f"{os.getpid()} ")
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = f"{os.getpid()} VERSION".encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"""
PROTECTED = """
from served import app as bare
from zerotrust import WorkloadIdentity
from zerotrust.asgi import protect
app = protect(bare, WorkloadIdentity.from_env(), policy="policy.toml")
"""


@dataclass
class Place:
    """A folder with an application, a policy and an identity."""

    path: Path
    ca: ForgedAuthority

    @contextlib.contextmanager
    def serve(self, *options: str, app: str = "served:app", **env: str) -> Iterator[Running]:
        log = (self.path / "log").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-m", "zerotrust", "serve", app, "--port", "0", *options],
            cwd=self.path,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("ZEROTRUST_")},
                "ZEROTRUST_IDENTITY": f"files:{self.path / 'identity'}",
                **env,
            },
            stderr=log,
            stdout=log,
        )
        try:
            yield Running(process, self.path / "log")
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            finally:
                log.close()

    def caller(self, port: int) -> Peer:
        return Peer(self.ca, port, self.ca.snapshot("web"))


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        until(lambda: "Serving on" in self.log.read_text() or self.process.poll() is not None, 20)
        found = re.search(r"Serving on https://\S+:(\d+)", self.log.read_text())
        assert found, self.log.read_text()
        return int(found[1])

    def failure(self) -> str:
        """Wait for a start that fails; return what it said."""
        assert self.process.wait(20) not in {0, -signal.SIGTERM}
        return self.log.read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    ca = ForgedAuthority(now=clock.now())
    snapshot = ca.snapshot("orders")
    for name, content in (
        ("identity/svid.pem", snapshot.svid.chain_pem),
        ("identity/svid.key", snapshot.svid.key_pem),
        ("identity/bundle.json", ca.bundle_document()),
        ("policy.toml", POLICY.encode()),
    ):
        (tmp_path / name).parent.mkdir(mode=0o700, exist_ok=True)
        write_private(tmp_path / name, content)
    (tmp_path / "served.py").write_text(APP)
    (tmp_path / "protected.py").write_text(PROTECTED)
    return Place(tmp_path, ca)


def answered(peer: Peer) -> str | None:
    """The body of an honest call, None while nobody answers."""
    try:
        answer = peer.ask("/orders/1")
    except OSError:
        return None
    return answer.body.decode() if answer.status == 200 else None


def test_a_bare_application_is_served_under_its_policy(place: Place) -> None:
    with place.serve("--policy", "policy.toml") as running:
        web = place.caller(running.port)
        until(lambda: answered(web))
        assert web.ask("/orders/1", []).status == 401
        assert web.ask("/other").status == 403
        running.process.terminate()
        assert running.process.wait(10) in {0, -signal.SIGTERM}


def test_an_application_that_protects_itself_is_served_without_a_policy(place: Place) -> None:
    with place.serve(app="protected:app") as running:
        until(lambda: answered(place.caller(running.port)))


def test_a_policy_for_an_application_that_protects_itself_is_refused(place: Place) -> None:
    with place.serve("--policy", "policy.toml", app="protected:app") as running:
        assert "leave out --policy" in running.failure()


def test_a_bare_application_without_a_policy_is_refused(place: Place) -> None:
    with place.serve() as running:
        assert "--policy is missing" in running.failure()


def test_plain_http_to_the_tls_port_is_closed_without_an_answer(place: Place) -> None:
    with place.serve("--policy", "policy.toml") as running:
        web = place.caller(running.port)
        until(lambda: answered(web))
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as sock:
            sock.sendall(b"GET /orders/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert not sock.recv(100).startswith(b"HTTP")


def test_the_health_port_answers_a_constant_and_runs_no_application(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with place.serve("--policy", "policy.toml", "--health-port", str(port)) as running:
        assert running.port
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"GET /orders/1 HTTP/1.1\r\n\r\n")
            assert sock.recv(1000).endswith(b"\r\n\r\nok\n")


def test_the_audit_log_is_written_to_its_file(place: Place) -> None:
    with place.serve("--policy", "policy.toml", "--audit", "audit.jsonl") as running:
        web = place.caller(running.port)
        until(lambda: answered(web))
        assert web.ask("/orders/1", []).status == 401
        log = place.path / "audit.jsonl"
        until(lambda: "token.missing" in log.read_text())
        assert log.stat().st_mode & 0o777 == 0o600


def test_a_policy_is_read_again_on_sighup(place: Place) -> None:
    with place.serve("--policy", "policy.toml") as running:
        web = place.caller(running.port)
        until(lambda: answered(web))
        policy = place.path / "policy.toml"
        policy.write_text(POLICY + '[[deny]]\nid = "brake"\nfrom = ["web"]\nto = ["*"]\n')
        running.process.send_signal(signal.SIGHUP)
        until(lambda: web.ask("/orders/1").status == 403)


def test_workers_share_one_identity_and_the_parent_imports_no_application(place: Place) -> None:
    with place.serve("--policy", "policy.toml", "--workers", "2") as running:
        web = place.caller(running.port)
        pids: set[str] = set()

        def both_answered() -> bool:
            pids.update((answered(web) or "").split()[:1])
            return len(pids) == 2

        until(both_answered, 30)
        imported = set((place.path / "imported").read_text().split())
        assert imported == pids
        assert str(running.process.pid) not in imported


def test_the_number_of_workers_is_taken_from_web_concurrency(place: Place) -> None:
    with place.serve("--policy", "policy.toml", WEB_CONCURRENCY="2") as running:
        assert running.port
        imported = place.path / "imported"
        until(lambda: imported.exists() and len(set(imported.read_text().split())) == 2, 20)


def test_workers_serve_an_application_that_protects_itself(place: Place) -> None:
    with place.serve("--workers", "2", app="protected:app") as running:
        until(lambda: answered(place.caller(running.port)), 20)


def test_a_killed_worker_is_replaced(place: Place) -> None:
    with place.serve("--policy", "policy.toml", "--workers", "2") as running:
        web = place.caller(running.port)
        until(lambda: answered(web), 20)
        first = (answered(web) or "").split()[0]
        before = set((place.path / "imported").read_text().split())
        os.kill(int(first), signal.SIGKILL)
        imported = place.path / "imported"
        until(lambda: set(imported.read_text().split()) - before, 20)
        until(lambda: answered(web), 20)


def test_workers_end_when_their_parent_is_killed(place: Place) -> None:
    with place.serve("--policy", "policy.toml", "--workers", "2") as running:
        web = place.caller(running.port)
        until(lambda: answered(web), 20)
        running.process.kill()
        running.process.wait(10)
        until(lambda: _is_gone(web), 20)


def _is_gone(peer: Peer) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", peer.port), timeout=2):
            return False
    except OSError:
        return True


def test_a_policy_that_asks_for_proofs_is_refused_over_several_workers(place: Place) -> None:
    (place.path / "policy.toml").write_text(POLICY + 'token = "proof"\n')
    with place.serve("--policy", "policy.toml", "--workers", "2") as running:
        assert "remember used proofs for itself" in running.failure()
    assert not (place.path / "imported").exists()


def test_a_protected_application_that_asks_for_proofs_stops_its_workers(place: Place) -> None:
    (place.path / "policy.toml").write_text(POLICY + 'token = "proof"\n')
    with place.serve("--workers", "2", app="protected:app") as running:
        assert "remember used proofs for itself" in running.failure()


def test_a_broken_application_stops_its_workers(place: Place) -> None:
    (place.path / "served.py").write_text("raise RuntimeError('broken')")
    with place.serve("--policy", "policy.toml", "--workers", "2") as running:
        running.failure()


def test_changed_code_is_served_after_a_reload(place: Place) -> None:
    with place.serve("--policy", "policy.toml", "--reload") as running:
        web = place.caller(running.port)
        until(lambda: (answered(web) or "").endswith("VERSION"), 20)
        time.sleep(1)
        (place.path / "served.py").write_text(APP.replace("VERSION", "CHANGED"))
        until(lambda: (answered(web) or "").endswith("CHANGED"), 20)
        assert str(running.process.pid) not in (place.path / "imported").read_text().split()


def test_a_port_in_use_is_one_clear_message(place: Place) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        place.serve("--policy", "policy.toml", "--port", str(taken.getsockname()[1])) as running,
    ):
        said = running.failure()
        assert "ZT1006" in said
        assert "choose another --host or --port" in said
        assert "Traceback" not in said


def test_a_bundle_without_token_keys_is_refused(place: Place) -> None:
    keys = [key for key in place.ca.bundle_keys() if key["use"] == "x509-svid"]
    (place.path / "identity/bundle.json").write_bytes(place.ca.bundle_document(keys=keys))
    with place.serve("--policy", "policy.toml") as running:
        assert "wit-svid" in running.failure()


def test_a_broken_policy_is_refused_with_file_and_line(place: Place) -> None:
    (place.path / "policy.toml").write_text(POLICY + "unknown = 1\n")
    with place.serve("--policy", "policy.toml") as running:
        assert "policy.toml:" in running.failure()
