"""One process holds the identity, its workers read it: snapshots over a unix socket.

1. The socket lies in a folder of our own (0700), and the kernel says who connects: our user, and a
   process that descends from this one. Anybody else gets no byte.
2. A frame is a length and a JSON object, both bounded; nothing is unpickled, nothing is executed.
3. Workers only read. A worker that does not read in time is dropped and connects again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import shutil
import socket
import struct
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from zerotrust.core.errors import MalformedError, Reason, ZeroTrustError
from zerotrust.core.jose import SigningKey, parse_json_object
from zerotrust.core.spiffe.bundle import BundleSet, TrustBundle
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.core.spiffe.x509_svid import X509Svid
from zerotrust.workload.identity import Snapshot, WitCredential

MAX_FRAME_BYTES: Final = 8 << 20
SOCKET_SECONDS: Final = 5.0  # the longest a frame may take
POLL_SECONDS: Final = 0.2  # how often the snapshot is looked at

_LENGTH: Final = struct.Struct(">I")
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_MAX_DEPTH: Final = 16  # generations between a worker and us
_MEMBERS: Final = frozenset({"chain", "key", "wit", "bundles", "dev"})
_WIT_MEMBERS: Final = frozenset({"token", "key", "alg", "expires_at"})


class Holder(Protocol):
    """Who holds the identity: a WorkloadIdentity."""

    @property
    def current(self) -> Snapshot:
        """The snapshot of this moment."""


class SnapshotFeed:
    """Serves the holder's snapshot to the workers of this process, and each new one as it comes.

    `url` is the identity URL of the workers. Close it, or use it as a context manager.
    """

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._folder = Path(tempfile.mkdtemp(prefix="zerotrust-"))  # 0700
        self.path = self._folder / "feed"
        self._stop = threading.Event()
        self._workers: list[socket.socket] = []
        self._sent: Snapshot | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="zerotrust-feed", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What the workers' ZEROTRUST_IDENTITY is set to."""
        return f"worker:{self.path}"

    def close(self) -> None:
        """Stop serving; workers keep what they have until it expires."""
        self._stop.set()
        self._thread.join(SOCKET_SECONDS)
        for held in (self._listener, *self._workers):
            held.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stop.is_set():
                if selector.select(POLL_SECONDS):
                    self._accept()
                self._push()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            worker, _ = self._listener.accept()
            if not _is_descendant(worker):
                worker.close()
                return
            worker.settimeout(SOCKET_SECONDS)
            self._drop_gone()  # workers that crash and come again hold no descriptor each time
            self._workers.append(worker)
            if self._sent is not None:
                self._give(worker, encode_frame(self._sent))

    def _drop_gone(self) -> None:
        for worker in tuple(self._workers):
            poll = select.poll()
            poll.register(worker, select.POLLRDHUP)
            if poll.poll(0):
                self._workers.remove(worker)
                worker.close()

    def _push(self) -> None:
        try:
            snapshot = self._holder.current
        except ZeroTrustError:
            return  # nothing to give; what the workers have expires by itself
        if snapshot is self._sent:
            return
        self._sent = snapshot
        frame = encode_frame(snapshot)
        for worker in tuple(self._workers):
            self._give(worker, frame)

    def _give(self, worker: socket.socket, frame: bytes) -> None:
        try:
            worker.sendall(frame)
        except OSError:
            self._workers.remove(worker)
            worker.close()


def encode_frame(snapshot: Snapshot) -> bytes:
    """Return one frame: the length of the JSON in four bytes, then the JSON."""
    wit = snapshot.wit
    members: dict[str, Any] = {
        "chain": snapshot.svid.chain_pem.decode("ascii"),
        "key": snapshot.svid.key_pem.decode("ascii"),
        "wit": wit
        and {
            "token": wit.token,
            "key": wit.key.to_pem().decode("ascii"),
            "alg": wit.key.alg,
            "expires_at": wit.expires_at,
        },
        "bundles": [[b.origin.name, b.dump().decode("utf-8")] for b in snapshot.bundles],
        "dev": snapshot.dev,
    }
    body = json.dumps(members).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise MalformedError(Reason.BAD_MESSAGE, f"a snapshot of more than {MAX_FRAME_BYTES} bytes")
    return _LENGTH.pack(len(body)) + body


def decode_snapshot(body: bytes, *, dev: bool) -> Snapshot:
    """Read the JSON of one frame; raise MalformedError. `dev` accepts a throw-away CA."""
    members = parse_json_object(body, max_bytes=MAX_FRAME_BYTES)
    try:
        if members.keys() != _MEMBERS:
            raise MalformedError(Reason.BAD_MESSAGE, "not the members of a snapshot")
        bundles = [
            TrustBundle.parse(TrustDomain(name), document.encode(), allow_dev=dev)
            for name, document in members["bundles"]
        ]
        return Snapshot(
            X509Svid.parse(members["chain"].encode(), members["key"].encode()),
            _read_wit(members["wit"]),
            BundleSet(bundles),
            dev=members["dev"] is True,
        )
    except (AttributeError, TypeError, ValueError) as exc:
        if isinstance(exc, MalformedError):
            raise
        raise MalformedError(Reason.BAD_MESSAGE, "not a snapshot") from exc


def read_frame(connection: socket.socket) -> bytes:
    """Return the body of the next frame; raise EOFError at the end, OSError, MalformedError."""
    (length,) = _LENGTH.unpack(_read_exactly(connection, _LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise MalformedError(Reason.BAD_MESSAGE, f"a frame of {length} bytes")
    return _read_exactly(connection, length)


def peer_credentials(connection: socket.socket) -> tuple[int, int]:
    """Return process ID and user ID of the other end of a unix socket, as the kernel knows them."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


def _read_wit(members: dict[str, Any] | None) -> WitCredential | None:
    if members is None:
        return None
    if members.keys() != _WIT_MEMBERS:
        raise MalformedError(Reason.BAD_MESSAGE, "not the members of a WIT credential")
    key = SigningKey.from_pem(members["key"].encode(), members["alg"])
    if not isinstance(members["token"], str):
        raise MalformedError(Reason.BAD_MESSAGE, "the WIT is not a string")
    return WitCredential(members["token"], key, float(members["expires_at"]))


def _read_exactly(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 1 << 16))
        if not part:
            raise EOFError("the other end is gone")
        parts += part
    return bytes(parts)


def _is_descendant(connection: socket.socket) -> bool:
    pid, uid = peer_credentials(connection)
    if uid != os.geteuid():
        return False
    for _ in range(_MAX_DEPTH):
        if pid == os.getpid():
            return True
        pid = _parent_of(pid)
    return False


def _parent_of(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name in parentheses may hold anything; state and parent follow its last one (proc(5)).
    return int(stat.rpartition(b")")[2].split()[1])
