"""What a machine must offer, for `doctor`: interpreter, libraries, limits, clock."""

from __future__ import annotations

import resource
import ssl
import sys
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from zerotrust import clock, plugins

MIN_OPENSSL: Final = (3, 0, 0)
MIN_FILES: Final = 1024  # descriptors: one per connection
_PATCHES: Final = {(3, 11): 5}  # CVE-2023-40217: bytes before a handshake

Finding = tuple[str, str, str]  # ok | warning | fail, what, detail


def machine() -> Iterator[Finding]:
    """Look at the machine; judge nothing that belongs to one identity."""
    major, minor, patch = sys.version_info[:3]
    least = _PATCHES.get((major, minor), 0)
    yield _grade(patch >= least, "python", f"{major}.{minor}.{patch}, at least .{least} wanted")
    yield _grade(ssl.OPENSSL_VERSION_INFO[:3] >= MIN_OPENSSL, "openssl", ssl.OPENSSL_VERSION)
    yield _grade(_has_argon2id(), "argon2id", "what seals a CA's keys", "warning")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = soft == resource.RLIM_INFINITY or soft >= MIN_FILES
    yield _grade(enough, "limits", f"{soft} open files, at least {MIN_FILES} wanted", "warning")
    alarms = plugins.package_owner_alarms()
    yield _grade(not alarms, "package", "; ".join(alarms) or "the files are zerotrust-kit's alone")
    yield _grade(not clock.is_set_back(), "clock", "it does not run backwards")


def _has_argon2id() -> bool:
    try:
        Argon2id(salt=bytes(16), length=32, iterations=1, lanes=1, memory_cost=64)
    except UnsupportedAlgorithm:
        return False
    return True


def _grade(good: bool, check: str, detail: str, otherwise: str = "fail") -> Finding:
    return ("ok" if good else otherwise), check, detail
