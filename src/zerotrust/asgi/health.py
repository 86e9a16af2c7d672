"""A liveness answer for those who have no certificate: a constant, on loopback, in the clear.

1. Nothing of the request is parsed and the application is never run.
2. One connection at a time, for a moment: whoever can reach loopback learns only that we live.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

from zerotrust.core.errors import ConfigurationError, Reason

SECONDS: Final = 1.0
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n"
    b"connection: close\r\n\r\nok\n"
)


class HealthPort:
    """Answers on 127.0.0.1 until closed; port 0 picks one, `port` says which."""

    def __init__(self, port: int) -> None:
        try:
            self._sock = socket.create_server(("127.0.0.1", port), backlog=16)
        except (OSError, OverflowError) as exc:
            raise ConfigurationError(
                f"--health-port {port}: cannot listen on 127.0.0.1:{port}", Reason.ADDRESS_IN_USE
            ) from exc
        self.port: Final[int] = self._sock.getsockname()[1]
        threading.Thread(target=self._answer, name="zerotrust-health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _answer(self) -> None:
        while True:
            try:
                conn, _ = self._sock.accept()
            except OSError:
                if self._sock.fileno() < 0:
                    return
                continue
            with conn, contextlib.suppress(OSError):
                conn.settimeout(SECONDS)
                conn.recv(4096)
                conn.sendall(ANSWER)
