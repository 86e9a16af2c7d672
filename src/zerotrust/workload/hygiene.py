"""What a process with private keys does before it listens.

1. Its memory is written to no core file and read by no process of the same user.
2. What would hand its keys or secrets out from outside is named, not silently accepted.
"""

from __future__ import annotations

import ctypes
import resource
from typing import Final

from zerotrust import settings
from zerotrust.core.errors import ConfigurationError

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_RISKS: Final = {
    "SSLKEYLOGFILE": "TLS libraries write session secrets there (our own contexts do not)",
    "GRPC_TRACE": "gRPC logs metadata, tokens included",
    "OPENSSL_CONF": "that file can lower what TLS accepts",
}


def harden_process() -> None:
    """Allow no core dump of this process, nor reading its memory; raise ConfigurationError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise ConfigurationError(f"prctl(PR_SET_DUMPABLE) failed: error {ctypes.get_errno()}")


def environment_warnings() -> tuple[str, ...]:
    """Return one sentence for each variable that could leak secrets or weaken TLS."""
    return tuple(f"{name} is set: {_RISKS[name]}" for name in settings.present(_RISKS))
