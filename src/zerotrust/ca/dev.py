"""The throw-away CA of one machine: one folder, one background process, loopback only.

1. Everything it makes is in its folder (0700); `down` removes all of it, whatever state it is in.
2. Which process runs it is asked of the kernel, as the holder of a lock: a file with a number in it
   outlives its process, and the number finds another one.
3. `dev.json` is written last: a folder without it is half made, and is made anew.
4. Its certificates carry the dev marker, which nothing outside `zerotrust dev run` accepts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zerotrust import clock
from zerotrust.ca.admin import AdminClient
from zerotrust.ca.authority.entries import NewEntry
from zerotrust.ca.service import init_ca, open_ca
from zerotrust.core.errors import (
    ConfigurationError,
    MalformedError,
    NotYetIssued,
    Reason,
    UnsafeSetting,
)
from zerotrust.core.jose import parse_json_object
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload.layout import write_private

DEFAULT_TTL: Final = 300.0  # seconds: short enough that every session of work sees a rotation
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 5.0

_STATE, _READY, _LOCK, _PASSPHRASE = "dev.json", "ready.json", "lock", "passphrase"
_CA, _TOKENS, _LOG = "ca", "tokens", "ca.log"
_SOCKET, _WORKLOADS = "admin.sock", "workload.sock"
_OURS: Final = (_STATE, _READY, _LOCK, _PASSPHRASE, _CA, _TOKENS, _LOG, _SOCKET, _WORKLOADS)
_COMMITTED: Final = ("README.md", ".gitignore")
_MAX_BYTES: Final = 64 * 1024
_FLOCK: Final = "hhqqi"  # struct flock of Linux: type, whence, start, length, pid


@dataclass(frozen=True, slots=True)
class Workload:
    """One registered workload."""

    name: str  # the path of its ID, such as `web`
    id: str
    ttl: float  # seconds


@dataclass(frozen=True, slots=True)
class Status:
    """What there is. `pid` None: the CA is not running, and the workloads cannot be asked for."""

    directory: Path
    trust_domain: TrustDomain
    pid: int | None
    bootstrap: str
    mtls: str
    workloads: tuple[Workload, ...]


def up(directory: Path, trust_domain: TrustDomain, names: tuple[str, ...], ttl: float) -> Status:
    """Make the CA, or find it; start it, or find it running; register what is missing.

    Raises ConfigurationError, and RequestRefused for a workload that cannot be registered.
    """
    _own(directory)
    with _alone(directory):
        state = _load(directory)
        if state is None:
            _stop(directory)
            _clear(directory)
            _make(directory, trust_domain)
        elif state["trust_domain"] != trust_domain.name:
            raise ConfigurationError(
                f"{directory} is the dev CA of {state['trust_domain']}; remove it with: "
                "zerotrust dev down"
            )
        if _holder(directory) is None:
            _start(directory)
        _register(directory, names, ttl)
        return _status(directory)


def status(directory: Path) -> Status:
    """Look; raise NotYetIssued when there is no dev CA."""
    return _status(directory)


def down(directory: Path) -> bool:
    """Stop the CA and remove everything it made; return whether there was anything."""
    if not directory.is_dir() or directory.is_symlink():
        return False
    if not any((directory / name).exists() for name in _OURS):
        return False
    _require_own(directory)
    with _alone(directory):
        _stop(directory)
        _clear(directory)
        with contextlib.suppress(OSError):  # what somebody else put there stays
            directory.rmdir()
    return True


def mint(directory: Path, name: str) -> Path:
    """Return a file (0600) with a fresh one-time token for a workload; raise ConfigurationError."""
    now = _status(directory)
    if now.pid is None:
        raise NotYetIssued(
            "the dev CA is not running; start it again: zerotrust dev up " + now.trust_domain.name
        )
    client = _admin(directory)
    known = {entry.spiffe_id.path.removeprefix("/"): entry.id for entry in client.entries()}
    if name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(
            f"there is no workload {name!r} (there is: {there}); add it: "
            f"zerotrust dev up {now.trust_domain.name} --workload {name}"
        )
    token = client.create_token(known[name])
    path = directory.absolute() / _TOKENS / secrets.token_hex(8)
    write_private(path, token.dump().encode())
    return path


def serve(directory: Path) -> None:
    """Be the dev CA until SIGTERM; what `up` starts in the background."""
    from zerotrust.ca.server import Listeners, Running  # only this process needs a web server

    if _load(directory) is None:
        raise NotYetIssued(f"there is no dev CA in {directory} (any more)")
    lock = _hold(directory)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    before = _read(directory / _READY) or {}
    passphrase = (directory / _PASSPHRASE).read_bytes()
    with (
        open_ca(directory / _CA, passphrase, now=clock.now()) as ca,
        Running(
            ca,
            Listeners(
                bootstrap=before.get("bootstrap", "127.0.0.1:0"),
                mtls=before.get("mtls", "127.0.0.1:0"),
                admin_socket=directory / _SOCKET,
                workload_socket=directory / _WORKLOADS,
            ),
        ) as running,
    ):
        ready = {"pid": os.getpid(), "bootstrap": running.bootstrap, "mtls": running.mtls}
        write_private(directory / _READY, json.dumps(ready).encode())
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os.close(lock)


def _make(directory: Path, trust_domain: TrustDomain) -> None:
    passphrase = secrets.token_urlsafe(32).encode()
    write_private(directory / _PASSPHRASE, passphrase)
    init_ca(
        directory / _CA,
        trust_domain,
        root_passphrase=secrets.token_bytes(32),  # kept nowhere
        passphrase=passphrase,
        now=clock.now(),
        dev=True,
    )
    for root_key in (directory / _CA).glob("root-*.sealed"):
        root_key.unlink()  # it signs once
    state = {"trust_domain": trust_domain.name}
    write_private(directory / _STATE, json.dumps(state).encode())


def _start(directory: Path) -> None:
    (directory / _SOCKET).unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "zerotrust", "ca", "run", "--dev", str(directory)]
    with os.fdopen(_private(directory / _LOG), "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    until = clock.monotonic() + START_SECONDS
    while (_read(directory / _READY) or {}).get("pid") != process.pid:
        if process.poll() is not None or clock.monotonic() > until:
            process.kill()
            process.wait()
            last = (directory / _LOG).read_text("utf-8", "replace").strip().splitlines()[-2:]
            raise ConfigurationError(f"the dev CA did not start: {' | '.join(last) or 'no reason'}")
        time.sleep(0.02)
    process.returncode = 0  # it outlives us; nobody waits for it


def _register(directory: Path, names: tuple[str, ...], ttl: float) -> None:
    client = _admin(directory)
    known = {entry.spiffe_id.path.removeprefix("/"): entry for entry in client.entries()}
    for name in dict.fromkeys(names):
        if name not in known:
            client.create_entry(NewEntry(f"/{name}", ttl=ttl))
        elif known[name].ttl != ttl:
            raise ConfigurationError(
                f"{name} is registered with {known[name].ttl:.0f} s; for another lifetime begin "
                "anew: zerotrust dev down"
            )


def _status(directory: Path) -> Status:
    state = _load(directory) if directory.is_dir() else None
    if state is None:
        raise NotYetIssued(f"there is no dev CA in {directory}; make one: zerotrust dev up DOMAIN")
    ready, pid = _read(directory / _READY) or {}, _holder(directory)
    entries = _admin(directory).entries() if pid is not None else ()
    return Status(
        directory,
        TrustDomain(state["trust_domain"]),
        pid,
        str(ready.get("bootstrap", "")),
        str(ready.get("mtls", "")),
        tuple(
            Workload(e.spiffe_id.path.removeprefix("/"), str(e.spiffe_id), e.ttl) for e in entries
        ),
    )


def _admin(directory: Path) -> AdminClient:
    return AdminClient(directory / _SOCKET)


def _own(directory: Path) -> None:
    """Make the folder ours alone, or refuse it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        detail = f"{directory} cannot be made: {exc.strerror}"
        raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc
    _require_own(directory)
    if not all(path.name in _COMMITTED or _is_ours(path) for path in directory.iterdir()):
        raise ConfigurationError(
            f"{directory} holds other files; name an empty folder with --dir", Reason.FILE_ACCESS
        )
    directory.chmod(0o700)


def _require_own(directory: Path) -> None:
    if directory.is_symlink() or directory.lstat().st_uid != os.geteuid():
        raise UnsafeSetting(f"{directory} is a link, or not yours: name another one with --dir")


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one `up` or `down` work on the folder at a time."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise ConfigurationError(
            f"another zerotrust dev command is at work in {directory}; wait for it"
        ) from exc
    finally:
        os.close(descriptor)


def _hold(directory: Path) -> int:
    """Become the holder of the lock; it ends with the process, however that ends."""
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise ConfigurationError("this dev CA is running already", Reason.STORE) from exc
    return descriptor


def _holder(directory: Path) -> int | None:
    """Ask the kernel which process holds the lock."""
    try:
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _stop(directory: Path) -> None:
    pid = _holder(directory)
    if pid is None:
        return
    if pid <= 0:
        raise ConfigurationError(f"{directory} is in use outside this container: stop it there")
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # it ended meanwhile
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _holder(directory) != pid:
                return  # ended, and the number may be another's by now: the descriptor is not
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], STOP_SECONDS)[0]:
                return
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def _clear(directory: Path) -> None:
    for path in filter(_is_ours, list(directory.iterdir())):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether we made it: by its name, or as the beginning of a file of that name."""
    return path.name in _OURS or any(path.name.startswith(f".{name}.") for name in _OURS)


def _load(directory: Path) -> dict[str, Any] | None:
    return _read(directory / _STATE)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            return parse_json_object(file.read(_MAX_BYTES + 1), max_bytes=_MAX_BYTES)
    except FileNotFoundError:
        return None
    except MalformedError as exc:
        raise ConfigurationError(
            f"{path} is damaged; begin anew: zerotrust dev down", Reason.FILE_ACCESS
        ) from exc


def _private(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)
