"""A listening socket that hands on a connection only after its TLS handshake.

1. Whoever has not finished a handshake is held to a time and to a share: when an address, or all
   together, have too many begun, the one that began first goes. Honest handshakes take
   milliseconds, so a flood meets its own connections there.
2. A handshake that fails leaves one audit line and no answer: the peer sees the connection end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final

from zerotrust.asgi.limits import Limits

Refused = Callable[[str, BaseException], None]

_ACCEPTS: Final = 4  # connections taken in one turn of the loop: more would make served calls wait
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REST_SECONDS: Final = 1.0


class Listener:
    """Accepts on one socket; has the `close` and `wait_closed` that uvicorn asks of a server.

    `live` says how many connections are served now; `refused` is told address and reason.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        *,
        limits: Limits,
        live: Callable[[], int],
        refused: Refused,
    ) -> None:
        self.sockets: Final = (sock,)
        self._sock, self._context, self._protocol = sock, context, protocol
        self._limits, self._live, self._refused = limits, live, refused
        self._loop = asyncio.get_running_loop()
        self._pending: dict[asyncio.Task[None], tuple[str, socket.socket]] = {}
        self._by_address: Counter[str] = Counter()

    def open(self, backlog: int) -> None:
        """Begin to listen and accept."""
        self._sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more; those who are still shaking hands go."""
        self._loop.remove_reader(self._sock)
        for _, conn in self._pending.values():
            _cut(conn)

    async def wait_closed(self) -> None:
        """Return when the last handshake has ended."""
        if self._pending:
            await asyncio.wait(list(self._pending))

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                conn, peername = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                self._loop.remove_reader(self._sock)  # try again when something was closed
                self._loop.call_later(_REST_SECONDS, self._resume)
                return
            if self._live() + len(self._pending) >= self._limits.connections:
                conn.close()
                continue
            conn.setblocking(False)  # noqa: FBT003 - the socket's own signature
            self._admit(conn, str(peername[0]))

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    def _admit(self, conn: socket.socket, address: str) -> None:
        if self._by_address[address] >= self._limits.handshakes_per_address:
            self._drop_oldest(address)
        elif len(self._pending) >= self._limits.handshakes:
            self._drop_oldest(None)
        task = self._loop.create_task(self._shake_hands(conn, address))
        self._pending[task] = (address, conn)
        self._by_address[address] += 1
        task.add_done_callback(self._settled)

    def _drop_oldest(self, address: str | None) -> None:
        for task, (owner, conn) in self._pending.items():
            if address is None or owner == address:
                self._forget(task)
                _cut(conn)
                return

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._forget(task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        entry = self._pending.pop(task, None)
        if entry is None:
            return
        self._by_address[entry[0]] -= 1
        if not self._by_address[entry[0]]:
            del self._by_address[entry[0]]

    async def _shake_hands(self, conn: socket.socket, address: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                conn,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_seconds,
            )
        except (OSError, EOFError) as exc:  # TLS failures are OSErrors, time-outs included
            conn.close()
            self._refused(address, exc)


def _cut(conn: socket.socket) -> None:
    """Make the event loop see the end of a connection it is still working on."""
    with contextlib.suppress(OSError):
        conn.shutdown(socket.SHUT_RDWR)
