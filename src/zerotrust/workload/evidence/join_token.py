"""A one-time join token, read from the file that its URL names.

1. The secret is in a file, never in an argument or a variable of the environment.
2. Only a regular file of our own (or root's), closed to everybody else, is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zerotrust.core.enrolment import MAX_JOIN_TOKEN_BYTES, JoinToken
from zerotrust.core.errors import ConfigurationError, MalformedError, Reason


def read_join_token(path: Path) -> JoinToken:
    """Return the token in `path`; raise ConfigurationError when it is missing or exposed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as exc:
        raise _refusal(f"the join token file {path} cannot be read: {exc.strerror}") from exc
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _refusal(f"{path} is no regular file")
        if about.st_uid not in {0, os.geteuid()} or about.st_mode & 0o077:
            raise _refusal(f"others can read {path}, or it is not yours: chmod 600 {path}")
        text = file.read(MAX_JOIN_TOKEN_BYTES + 2)
    try:
        return JoinToken.parse(text.decode("ascii"))
    except (MalformedError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"{path} holds no join token; make one with: zerotrust token create ID --out FILE"
        ) from exc


def _refusal(detail: str) -> ConfigurationError:
    return ConfigurationError(detail, Reason.FILE_ACCESS)
