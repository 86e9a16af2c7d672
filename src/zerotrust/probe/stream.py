"""Hold a response open and measure when the service ends it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from zerotrust.probe.deliver import TIMEOUT, Delivery, attacker_context


def hold(address: tuple[str, int], delivery: Delivery, *, longest: float) -> float | None:
    """Return after how many seconds the stream was ended, None if not within `longest`."""
    context = attacker_context(delivery.svid)
    with (
        socket.create_connection(address, timeout=TIMEOUT) as raw,
        context.wrap_socket(raw) as sock,
    ):
        started = time.monotonic()
        sock.sendall(delivery.request.render())
        with contextlib.suppress(OSError, ssl.SSLError):
            while time.monotonic() - started < longest:
                if not sock.recv(65536):
                    break
            else:
                return None
        return time.monotonic() - started
