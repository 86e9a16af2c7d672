"""The policy a service runs under, read again when its file changes.

1. A policy is loaded whole and swapped by one assignment; readers compare it with `is`.
2. A file that does not load leaves the policy in force and raises an alarm; at first start it stops
   the process.
3. Whoever may write the file decides who may call: it must belong to root or to us and be writable
   by nobody else.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from zerotrust.core.errors import BadPolicy, ConfigurationError, Reason, ZeroTrustError
from zerotrust.core.policy.model import Policy
from zerotrust.core.policy.syntax import parse_policy
from zerotrust.core.spiffe.ids import TrustDomain

POLL_SECONDS: Final = 1.0
MAX_BYTES: Final = 8 * 1024 * 1024

Alarm = Callable[[str], None]


class PolicySource(Protocol):
    """Where the current policy is read from: one attribute."""

    current: Policy

    def start(self) -> None:
        """Begin to follow changes; may be called again."""

    def stop(self) -> None:
        """Stop following changes."""

    def reload(self) -> None:
        """Read again soon; safe inside a signal handler."""


class FixedPolicy:
    """A policy that never changes."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy

    def start(self) -> None:
        """Do nothing: there is no file to follow."""

    def stop(self) -> None:
        """Do nothing."""

    def reload(self) -> None:
        """Do nothing."""


class PolicyFile:
    """A policy file and, once started, the thread that follows it.

    Raises BadPolicy or ConfigurationError when the file cannot be loaded at first.
    """

    def __init__(
        self, path: str | os.PathLike[str], trust_domain: TrustDomain, alarm: Alarm | None = None
    ) -> None:
        self.path: Final = Path(path)
        self._trust_domain = trust_domain
        self.alarm = alarm
        self._seen, self.current = self._load()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """Follow the file from a background thread; may be called again."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping = False
            self._thread = threading.Thread(
                target=self._follow, name="zerotrust-policy", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()

    def reload(self) -> None:
        """Read the file again soon (SIGHUP); safe inside a signal handler."""
        self._seen = ()
        self._wake.set()

    def refresh(self) -> None:
        """Read the file again if it changed; a bad one leaves the policy in force."""
        try:
            if _fingerprint(self.path.stat()) == self._seen:
                return
            self._seen, self.current = self._load()
        except (ZeroTrustError, OSError) as error:
            self._complain(error)

    def _follow(self) -> None:
        while not self._stopping:
            self.refresh()
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _complain(self, error: Exception) -> None:
        try:
            self._seen = _fingerprint(self.path.stat())  # one alarm for each bad version
        except OSError:
            if self._seen == (0,):
                return
            self._seen = (0,)
        if self.alarm is not None:
            self.alarm(f"the policy stays as it was, its file does not load: {error}")

    def _load(self) -> tuple[tuple[int, ...], Policy]:
        text, fingerprint = _read_owned(self.path)
        policy = parse_policy(text, name=str(self.path))
        require_domain(policy, self._trust_domain, str(self.path))
        return fingerprint, policy


def require_domain(policy: Policy, trust_domain: TrustDomain, name: str) -> None:
    """Raise BadPolicy unless the policy is written for our own trust domain."""
    if policy.trust_domain != trust_domain:
        raise BadPolicy(
            f"{name}: trust_domain is {policy.trust_domain.name}, our identity belongs to "
            f"{trust_domain.name}"
        )


def _read_owned(path: Path) -> tuple[bytes, tuple[int, ...]]:
    """Open once, judge what was opened, read at most MAX_BYTES."""
    try:
        resolved = path.resolve(strict=True)
        with resolved.open("rb") as file:
            status = os.fstat(file.fileno())
            for place, mode in ((resolved, status), *((p, p.stat()) for p in resolved.parents)):
                _require_owned(place, mode)
            text = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read the policy {path}: {exc.strerror}", Reason.FILE_ACCESS
        ) from exc
    if len(text) > MAX_BYTES:
        raise BadPolicy(f"{path}: larger than {MAX_BYTES} bytes")
    return text, _fingerprint(status)


def _require_owned(place: Path, status: os.stat_result) -> None:
    """Refuse what somebody else could write; a sticky folder protects its entries."""
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_uid not in {0, os.geteuid()} or (shared and not sticky):
        raise ConfigurationError(
            f"{place} can be written by others than root and this user, so it cannot say who may "
            f"call: chmod go-w {place}",
            Reason.FILE_ACCESS,
        )


def _fingerprint(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
