"""A one-time join token, read from the file that its URL names.

1. The secret is in a file, never in an argument or a variable of the environment.
2. Whoever can write the file chooses our CA, and whoever can read it can take our place.
"""

from __future__ import annotations

from pathlib import Path

from zerotrust.core.enrolment import MAX_JOIN_TOKEN_BYTES, JoinToken
from zerotrust.core.errors import ConfigurationError, MalformedError
from zerotrust.workload.trusted_path import read_trusted


def read_join_token(path: Path) -> JoinToken:
    """Return the token in `path`; raise ConfigurationError when it is missing or exposed."""
    data = read_trusted(path, max_bytes=MAX_JOIN_TOKEN_BYTES + 1, secret=True)
    try:
        return JoinToken.parse(data.decode("ascii"))
    except (MalformedError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"{path} holds no join token; make one with: zerotrust token create ID --out FILE"
        ) from exc
