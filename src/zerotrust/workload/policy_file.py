"""The policy a service runs under, read again when its file changes.

1. A policy is loaded whole, its inline tests run, and swapped by one assignment; readers compare it
   with `is`.
2. A file that does not load leaves the policy in force and raises one alarm for each bad version;
   at first start it stops the process.
3. A file whose meaning did not change leaves the object as it is: what rests on it stays warm.
4. Whoever may write the file decides who may call: see `trusted_path.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zerotrust.core.errors import BadPolicy, ZeroTrustError
from zerotrust.core.policy.model import Policy
from zerotrust.core.policy.syntax import MAX_BYTES, parse_policy
from zerotrust.core.policy.trial import require_tests
from zerotrust.core.request import parse_target
from zerotrust.core.spiffe.ids import TrustDomain
from zerotrust.workload.trusted_path import read_trusted

POLL_SECONDS: Final = 0.5

Alarm = Callable[[str], None]


class PolicyFile:
    """A policy file and, once started, the thread that follows it.

    Raises BadPolicy or ConfigurationError where the file cannot be loaded at first. `trust_domain`
    is that of our own identity, which the policy must be written for. `alarm` is told in one
    sentence what an operator must see.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        trust_domain: TrustDomain | None = None,
        alarm: Alarm | None = None,
    ) -> None:
        self.path: Final = Path(path)
        self.alarm = alarm
        self._trust_domain = trust_domain
        self._seen = _fingerprint(self.path)
        self._stop: threading.Event | None = None
        self._refreshing = threading.Lock()
        self.current, self._notes = self._load()

    def start(self) -> None:
        """Follow the file from a background thread; may be called again."""
        if self._stop is None:
            self._stop = threading.Event()
            follow = threading.Thread(
                target=self._follow, args=(self._stop,), name="zerotrust-policy", daemon=True
            )
            follow.start()

    def stop(self) -> None:
        """Stop following; may be called again."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def reload(self) -> None:
        """Have the file read again at the next look (SIGHUP); safe inside a signal handler."""
        self._seen = ()

    def refresh(self) -> None:
        """Read the file again if it changed; a bad one leaves the policy in force."""
        with self._refreshing:
            seen = _fingerprint(self.path)
            if seen == self._seen:
                return
            self._seen = seen  # taken before reading: a later change is seen at the next look
            try:
                policy, self._notes = self._load()
            except ZeroTrustError as error:
                self._notes = (f"the policy stays as it was, its file does not load: {error}",)
            else:
                if policy.digest != self.current.digest:
                    self.current = policy
            self._tell()

    def _follow(self, stop: threading.Event) -> None:
        self._tell()
        while not stop.wait(POLL_SECONDS):
            try:
                self.refresh()
            except Exception as error:  # noqa: BLE001 - the thread must outlive any file
                self._notes = (f"the policy file could not be followed: {type(error).__name__}",)
                self._tell()

    def _tell(self) -> None:
        notes, self._notes = self._notes, ()
        for note in notes:
            if self.alarm is not None:
                self.alarm(note)

    def _load(self) -> tuple[Policy, tuple[str, ...]]:
        policy, notes = load_policy(self.path)
        if self._trust_domain is not None:
            require_domain(policy, self._trust_domain, str(self.path))
        return policy, notes


def load_policy(path: str | os.PathLike[str]) -> tuple[Policy, tuple[str, ...]]:
    """Read a policy file and run its tests; return it with what an operator should be told.

    Raises ConfigurationError where the file cannot be trusted, BadPolicy where its text is none.
    """
    name = os.fspath(path)
    policy = parse_policy(read_trusted(path, max_bytes=MAX_BYTES), name=name)
    overruled = require_tests(policy, parse_target, name=name)
    return policy, tuple(f"{name}: a deny rule overrules {result}" for result in overruled)


def require_domain(policy: Policy, trust_domain: TrustDomain, name: str) -> None:
    """Raise BadPolicy unless the policy is written for our own trust domain."""
    if policy.trust_domain != trust_domain:
        raise BadPolicy(
            f"{name}: trust_domain is {policy.trust_domain.name}, our identity belongs to "
            f"{trust_domain.name}"
        )


def _fingerprint(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return (0,)
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
