"""What a process that holds keys does to itself before it gets them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from typing import Final

import click

_PR_SET_DUMPABLE: Final = 4  # prctl(2)
LEAKY: Final = {  # variables that make a library write or load what it should not
    "SSLKEYLOGFILE": "TLS secrets would be written to a file",
    "GRPC_TRACE": "tokens would be written to a log",
    "OPENSSL_CONF": "OpenSSL would load what that file says",
}


def harden() -> None:
    """No core dumps, no reading of our memory by others of our user; warn of leaky variables."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for name, harm in LEAKY.items():
        if os.environ.get(name):  # noqa: TID251 - no setting of ours: only told, never obeyed
            click.echo(f"warning: {name} is set: {harm}", err=True)
