"""The parent of several server processes, or of one that is restarted when its code changes.

1. The parent holds the identity and the listening socket and imports nothing of the application: a
   one-time join token is spent once, and application code never shares a process with the source.
2. A child is this very command again. It reads snapshots from the parent, takes the socket by its
   descriptor, and ends when the parent does, however that ends.
3. A child that dies before it served stops everything, because the next would die the same way; one
   that dies later is replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final, Self

from zerotrust.core.errors import ConfigurationError

INHERIT: Final = "--inherit"  # hidden option of `zerotrust serve`: an Inheritance
STOP_SECONDS: Final = 15.0  # after which a child that was asked to end is killed
REVIVE_SECONDS: Final = 1.0  # between two lives of one worker
_LOOK_SECONDS: Final = 0.2
_READY: Final = b"r"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a child gets from its parent; as text it is an argument and holds no secret."""

    bound: int  # descriptor of the bound socket
    lifeline: int  # descriptor of a socket pair: ready goes up, the parent's end comes down
    workers: int  # how many serve at once
    identity: str  # the identity URL

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote; raise ConfigurationError."""
        try:
            sock, lifeline, workers, identity = text.split(",", 3)
            return cls(int(sock), int(lifeline), int(workers), identity)
        except ValueError:
            raise ConfigurationError(f"{INHERIT} is for workers only") from None

    def __str__(self) -> str:
        return f"{self.bound},{self.lifeline},{self.workers},{self.identity}"

    def listener(self) -> socket.socket:
        """Return the socket the parent bound."""
        return socket.socket(fileno=self.bound)

    def report_ready(self) -> None:
        """Tell the parent that this child serves."""
        with contextlib.suppress(OSError):
            os.write(self.lifeline, _READY)

    def follow_parent(self) -> None:
        """End this process, gracefully, when the parent is gone."""

        def wait() -> None:
            with contextlib.suppress(OSError):
                os.read(self.lifeline, 1)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="zerotrust-lifeline", daemon=True).start()


class Workers:
    """Runs `count` children of `command` until a signal ends it.

    `changed` is asked again and again whether the code changed; it may wait a moment.
    """

    def __init__(
        self,
        command: Sequence[str],
        sock: socket.socket,
        identity_url: str,
        count: int,
        *,
        changed: Callable[[], bool] | None = None,
    ) -> None:
        self._command, self._sock, self._url, self._count = command, sock, identity_url, count
        self._changed = changed
        self._stop = threading.Event()
        self._children: list[_Child] = []
        self._code = 0

    def run(self) -> int:
        """Start the children and watch over them; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._reload_policies)
        try:
            self._children = [self._spawn() for _ in range(self._count)]
            while not self._stop.wait(_LOOK_SECONDS):
                self._revive()
                if self._changed is not None and self._changed():
                    self._replace_all()
        finally:
            self._end_all()
        return self._code

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _reload_policies(self, _number: int, _frame: FrameType | None) -> None:
        for child in self._children:
            child.send(signal.SIGHUP)

    def _spawn(self) -> _Child:
        return _Child(self._command, self._sock, self._url, self._count)

    def _revive(self) -> None:
        for index, child in enumerate(self._children):
            code = child.process.poll()
            if code is None:
                continue
            if not child.is_ready() and self._changed is None:
                self._code = code if code > 0 else 1
                self._stop.set()
                return
            if self._changed is None and time.monotonic() >= child.started_at + REVIVE_SECONDS:
                self._children[index] = self._spawn()

    def _replace_all(self) -> None:
        self._end_all()
        self._children = [self._spawn() for _ in range(self._count)]

    def _end_all(self) -> None:
        for child in self._children:
            child.send(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for child in self._children:
            child.join(end - time.monotonic())


class _Child:
    """One server process and the line to it."""

    def __init__(
        self, command: Sequence[str], sock: socket.socket, identity_url: str, workers: int
    ) -> None:
        self.started_at = time.monotonic()
        self._ready = False
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)  # noqa: FBT003 - the socket's own signature
        inheritance = Inheritance(sock.fileno(), theirs.fileno(), workers, identity_url)
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own command again
                [sys.executable, "-m", "zerotrust", "serve", INHERIT, str(inheritance), *command],
                pass_fds=(inheritance.bound, inheritance.lifeline),
            )

    def is_ready(self) -> bool:
        """Whether the child ever served."""
        if not self._ready:
            with contextlib.suppress(OSError):
                self._ready = self._line.recv(1) == _READY
        return self._ready

    def send(self, number: int) -> None:
        """Send a signal to the child if it lives."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def join(self, seconds: float) -> None:
        """Wait for the child; kill it when the time is up."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._line.close()
