"""The CA's listeners in one process.

    bootstrap   TLS without client certificates: enrol, bundle, livez, readyz
    mutual TLS  renew, bundle and remote admin, behind our own guard
    admin       unix socket, 0600 in a 0700 folder: the users written, by default our own
    workload    unix socket of the same kind, for development

1. Each listener has its own table of routes; none serves another's.
2. Who has not finished a request in time is cut off.
3. The root key is not needed; when it lies within reach, that is said at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import uvicorn

from zerotrust import clock
from zerotrust.asgi import protect
from zerotrust.asgi.server import require_servable
from zerotrust.audit import AuditEvent, AuditLog, JsonLinesSink
from zerotrust.ca.admin import Administration
from zerotrust.ca.app import Gate, Offices, Routes
from zerotrust.ca.identity import OwnIdentity
from zerotrust.ca.listeners import MutualServer, TlsServer, UnixServer, bound, unix_socket
from zerotrust.core.enrolment import parse_address
from zerotrust.core.errors import ConfigurationError
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.request import Authorities
from zerotrust.workload.identity import WorkloadIdentity

if TYPE_CHECKING:
    from zerotrust.ca.limits import Rates
    from zerotrust.ca.service import CertificateAuthority
    from zerotrust.core.policy.model import Policy

BOOTSTRAP: Final = "127.0.0.1:8441"
MTLS: Final = "127.0.0.1:8442"
TIDY_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where to listen. Addresses are `host:port`; port 0 takes a free one."""

    bootstrap: str = BOOTSTRAP
    mtls: str = MTLS
    admin_socket: str | os.PathLike[str] | None = None
    workload_socket: str | os.PathLike[str] | None = None
    admin_uids: Collection[int] = ()  # besides our own


def run(
    ca: CertificateAuthority,
    listeners: Listeners | None = None,
    *,
    policy: str | os.PathLike[str] | None = None,
    audit: AuditLog | None = None,
    rates: Rates | None = None,
    on_bound: Callable[[str, str], None] = lambda _bootstrap, _mtls: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Without `policy` any identity of the trust domain may renew, nobody administers. `on_bound` is
    told both addresses (`host:port`) once every listener is bound.
    """
    service = _Service(ca, listeners or Listeners(), policy, audit, rates)
    with service.opened(), asyncio.Runner(loop_factory=service.loop_factory()) as runner:
        on_bound(*service.addresses)
        runner.run(service.serve(signals=True))


class Running:
    """The same on a thread of its own, for as long as the `with` block.

    For tests and the throw-away CA.
    """

    def __init__(
        self,
        ca: CertificateAuthority,
        listeners: Listeners | None = None,
        *,
        policy: str | os.PathLike[str] | None = None,
        audit: AuditLog | None = None,
        rates: Rates | None = None,
    ) -> None:
        self._service = _Service(ca, listeners or Listeners(), policy, audit, rates)
        self._stack = contextlib.ExitStack()
        self._failure: BaseException | None = None
        self.bootstrap = self.mtls = ""  # `host:port` as bound

    def __enter__(self) -> Self:
        self._stack.enter_context(self._service.opened())
        self.bootstrap, self.mtls = self._service.addresses
        thread = threading.Thread(target=self._run, name="zerotrust-ca", daemon=True)
        thread.start()
        self._service.started.wait()
        if self._failure is not None:
            self._stack.close()
            raise self._failure
        self._thread = thread
        return self

    def __exit__(self, *_: object) -> None:
        self._service.stop()
        self._thread.join()
        self._stack.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._service.loop_factory()) as runner:
                runner.run(self._service.serve(signals=False))
        except BaseException as exc:  # noqa: BLE001 - the one who started us raises it
            self._failure = exc
        finally:
            self._service.started.set()


class _Service:
    """Sockets, identity and servers of one CA."""

    def __init__(
        self,
        ca: CertificateAuthority,
        listeners: Listeners,
        policy: str | os.PathLike[str] | None,
        audit: AuditLog | None,
        rates: Rates | None,
    ) -> None:
        self._ca, self._listeners, self._rates = ca, listeners, rates
        self._policy: str | os.PathLike[str] | Policy = policy or own_policy(ca)
        self._audit = audit or AuditLog(JsonLinesSink(sys.stderr.fileno()))
        self._servers: list[uvicorn.Server] = []
        self.started = threading.Event()
        self.addresses = ("", "")

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Bind the sockets, take our own identity and make the servers."""
        with contextlib.ExitStack() as stack:
            bootstrap = stack.enter_context(bound(self._listeners.bootstrap))
            mtls = stack.enter_context(bound(self._listeners.mtls))
            self.addresses = (
                _address(self._listeners.bootstrap, bootstrap),
                _address(self._listeners.mtls, mtls),
            )
            self._ca.enrol_address = self._reached(self.addresses[0])
            self._ca.renew_address = self._reached(self.addresses[1])
            identity = stack.enter_context(WorkloadIdentity(OwnIdentity(self._ca)))
            for address in self.addresses:
                host = parse_address(address)[0]
                require_servable(identity.current, host)
                _require_reachable(host, self._ca.settings.hosts)
            self._make(stack, identity, bootstrap, mtls)
            yield

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Return uvicorn's choice of event loop."""
        return self._servers[0].config.get_loop_factory()

    async def serve(self, *, signals: bool) -> None:
        """Serve on every listener until one is told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT) if signals else ():
            loop.add_signal_handler(number, self.stop)
        tidy = loop.create_task(self._tidy())
        try:
            await asyncio.gather(*(server.serve() for server in self._servers), self._announce())
        finally:
            self.stop()
            tidy.cancel()
            self._audit.flush(clock.now())

    def stop(self) -> None:
        """Ask every listener to end."""
        for server in self._servers:
            server.should_exit = True

    def _make(
        self,
        stack: contextlib.ExitStack,
        identity: WorkloadIdentity,
        bootstrap: socket.socket,
        mtls: socket.socket,
    ) -> None:
        offices = Offices(self._ca, self._audit, self._rates, ready=self._require_ready(identity))
        admin = Administration(self._ca, self._audit)
        gates = [
            self._gate(routes, address)
            for routes, address in (
                (offices.bootstrap(), self.addresses[0]),
                ({**offices.members(), **admin.routes()}, self.addresses[1]),
            )
        ]
        self._servers = [
            TlsServer(gates[0], bootstrap, identity, self._audit),
            MutualServer(
                gates[1],
                mtls,
                functools.partial(
                    protect,
                    identity=identity,
                    policy=self._policy,
                    audit=self._audit,
                    authorities=self._authorities(self.addresses[1]),
                ),
            ),
        ]
        own = frozenset({os.geteuid(), *self._listeners.admin_uids})
        for path, routes, uids in (
            (self._listeners.admin_socket, admin.routes(), own),
            (self._listeners.workload_socket, offices.workload(), None),
        ):
            if path is not None:
                sock = stack.enter_context(unix_socket(Path(path)))
                gate = Gate(
                    routes, Authorities(["localhost"]), self._audit, open_detail=uids is not None
                )
                self._servers.append(UnixServer(gate, sock, uids))

    def _gate(self, routes: Routes, address: str) -> Gate:
        return Gate(routes, Authorities(self._authorities(address)), self._audit)

    def _authorities(self, address: str) -> tuple[str, ...]:
        host, port = parse_address(address)
        names = list(self._ca.settings.hosts)
        if _is_loopback(host):
            names += ["localhost", "127.0.0.1", "[::1]"]
        else:
            names.append(f"[{host}]" if ":" in host else host)
        return tuple(f"{name}:{port}" for name in names)

    def _reached(self, address: str) -> str:
        """Return the address as others should write it: our first name, where we have one."""
        host, port = parse_address(address)
        if self._ca.settings.hosts:
            return f"{self._ca.settings.hosts[0]}:{port}"
        return f"localhost:{port}" if _is_loopback(host) else address

    def _require_ready(self, identity: WorkloadIdentity) -> Callable[[], object]:
        def require() -> object:
            self._ca.require_ready(clock.now())
            return identity.current

        return require

    async def _announce(self) -> None:
        while not all(  # noqa: ASYNC110 - uvicorn has a flag and no event
            server.started or server.should_exit for server in self._servers
        ):
            await asyncio.sleep(0.01)
        self.started.set()

    async def _tidy(self) -> None:
        """Forget what has ended, and say what will end."""
        while True:
            now = clock.now()
            for duty in (self._ca.prune, self._ca.forget):
                with contextlib.suppress(Exception):  # the next round tries again
                    await asyncio.to_thread(duty, now=now)
            for alarm in self._ca.alarms(now):
                self._audit.record(AuditEvent(at=now, kind="ca.alarm", detail=alarm))
            for _ in range(int(TIDY_SECONDS)):
                await asyncio.sleep(1.0)
                self._audit.flush(clock.now())


def own_policy(ca: CertificateAuthority) -> Policy:
    """Return the policy of a CA without a policy file: members renew, nobody administers."""
    return parse_policy(
        f"""schema = 1
service = "zerotrust-ca"
trust_domain = "{ca.trust_domain.name}"
mode = "enforce"

[[allow]]
id = "members"
from = ["..."]
to = ["POST /v1/renew", "GET /v1/bundle"]
token = "bound"
""".encode(),
        name="the CA's built-in policy",
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_reachable(host: str, hosts: Collection[str]) -> None:
    """Raise ConfigurationError where join tokens and answers would name an address of nobody."""
    if not hosts and host in {"0.0.0.0", "::"}:  # noqa: S104 - refused
        raise ConfigurationError(
            f"{host} is no address to send workloads to: say with --host by which name they reach "
            "this CA"
        )


def _address(asked: str, sock: socket.socket) -> str:
    host, port = asked.rpartition(":")[0], sock.getsockname()[1]
    return f"{host}:{port}"
