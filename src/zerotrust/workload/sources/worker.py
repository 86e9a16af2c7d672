"""`worker:PATH`: a worker process reads the identity that its parent holds.

1. The parent renews; a worker neither enrols nor renews, and never holds a join token.
2. Who serves the socket must be our own user.
3. When the parent is gone the last snapshot stays until it expires, and every attempt says so.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from pathlib import Path

from zerotrust.core.errors import NotYetIssued, RenewalFailed
from zerotrust.workload.identity import Snapshot, Source
from zerotrust.workload.snapshot_feed import (
    SOCKET_SECONDS,
    decode_snapshot,
    peer_credentials,
    read_frame,
)


def open_source(rest: str, *, dev: bool) -> Source:
    """Open what follows `worker:` in an identity's URL: the path of the parent's socket."""
    return WorkerSource(Path(rest), dev=dev)


class WorkerSource:
    """Keeps one connection to the parent and reads what it pushes."""

    def __init__(self, path: Path, *, dev: bool) -> None:
        self._path = path
        self._dev = dev
        self._connection: socket.socket | None = None
        self._closed = threading.Event()

    def fetch(self, previous: Snapshot | None) -> Snapshot:
        """Return the newest snapshot the parent pushed, or `previous` when there is no newer."""
        try:
            if self._connection is None:
                self._connection, body = self._connect()
            else:
                body = b""
            while self._is_readable(0):
                body = read_frame(self._connection)
        except (OSError, EOFError) as exc:
            self._drop()
            detail = f"the parent process at {self._path} does not answer; start the service again"
            raise (RenewalFailed if previous else NotYetIssued)(detail) from exc
        if body:
            return decode_snapshot(body, dev=self._dev)
        if previous is None:
            raise NotYetIssued("the parent process has sent nothing yet")
        return previous

    def wait(self, seconds: float) -> None:
        """Sleep up to that long; return early when the parent pushed something, or is gone."""
        if self._connection is None:
            self._closed.wait(seconds)
        elif not self._closed.is_set():
            self._is_readable(seconds)

    def close(self) -> None:
        """End a wait and the connection."""
        self._closed.set()
        self._drop()

    def _connect(self) -> tuple[socket.socket, bytes]:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(SOCKET_SECONDS)
            connection.connect(str(self._path))
            _require_own_user(connection)
            return connection, read_frame(connection)
        except BaseException:
            connection.close()
            raise

    def _is_readable(self, seconds: float) -> bool:
        connection = self._connection
        if connection is None:
            return False
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes a poll in progress
            connection.close()


def _require_own_user(connection: socket.socket) -> None:
    _, uid = peer_credentials(connection)
    if uid != os.geteuid():
        raise ConnectionError("the socket is served by another user")
