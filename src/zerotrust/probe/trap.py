"""A server that plays a role and keeps every byte a client gave away.

1. It verifies nothing and presents whatever certificate it was given.
2. What arrives inside the TLS connection is kept; a client that refused us in time left nothing.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Final, Self

from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.probe.deliver import present

_TIMEOUT: Final = 3.0
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Trap:
    """Listens on a free loopback port for as long as the `with` block lasts."""

    def __init__(self, svid: X509Svid, *, answer: bytes = _OK) -> None:
        self.received: list[bytes] = []  # application bytes, one item per connection that had any
        self._answer = answer
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        present(self._context, svid)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """Where a client reaches it."""
        return f"https://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(_TIMEOUT)

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), raw:
                raw.settimeout(_TIMEOUT)
                self._talk(raw)

    def _talk(self, raw: socket.socket) -> None:
        with self._context.wrap_socket(raw, server_side=True) as sock:
            data = sock.recv(65536)
            if not data:
                return
            self.received.append(data)
            while b"\r\n\r\n" not in self.received[-1]:
                self.received[-1] += sock.recv(65536)
            sock.sendall(self._answer)
