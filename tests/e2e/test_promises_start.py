"""What comes before the first handshake: who may listen where, and bytes that come too early."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest

from support.served import Lines, Served, echo
from zerotrust import clock
from zerotrust.asgi.server import require_servable
from zerotrust.audit import AuditLog
from zerotrust.core.errors import UnsafeSetting
from zerotrust.probe.forge import ForgedAuthority

GREETING = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_dev_identity_serves_on_loopback(host: str) -> None:
    require_servable(ForgedAuthority(now=clock.now(), dev=True).snapshot("web"), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "web.example", ""])  # noqa: S104 - refused
def test_a_dev_identity_serves_nowhere_else(host: str) -> None:
    with pytest.raises(UnsafeSetting):
        require_servable(ForgedAuthority(now=clock.now(), dev=True).snapshot("web"), host)
    require_servable(ForgedAuthority(now=clock.now()).snapshot("web"), host)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("ending", ["closed", "half closed", "reset"])
def test_bytes_before_the_handshake_reach_nobody(loop: str, ending: str) -> None:
    reached: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            reached.append(scope["path"])
        await echo(scope, receive, send)

    with Served(app, audit=AuditLog(Lines()), options={"loop": loop}) as served:
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", served.port), timeout=5) as sock:
                sock.sendall(GREETING)
                if ending == "half closed":
                    sock.shutdown(socket.SHUT_WR)
                if ending == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.1)
        assert reached == []
        assert served.caller().ask("/healthz", []).status == 200
        assert reached == ["/healthz"]
