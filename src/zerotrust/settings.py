"""Settings of a process: the only reader of the environment.

1. Variables hold names and paths. The one secret that may come as a variable, the CA's passphrase,
   leaves the environment as it is read.
2. What is not understood is refused by name: an unknown key of the file, a value of another type.
3. A variable overrules the file; an option of a command overrules both.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zerotrust.core.errors import ConfigurationError, Reason

CONFIG: Final = "ZEROTRUST_CONFIG"
IDENTITY: Final = "ZEROTRUST_IDENTITY"
DEV: Final = "ZEROTRUST_DEV"
PASSPHRASE: Final = "ZEROTRUST_PASSPHRASE"  # noqa: S105 - the name of a variable
MAX_FILE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told from outside."""

    identity: str | None = None  # identity URL, such as files:/run/identity
    dev: bool = False  # may a throw-away CA be trusted; only `zerotrust dev run` says so


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the TOML file that ZEROTRUST_CONFIG names, if any, then the variables.

    The file's one key is `identity`. Raises ConfigurationError.
    """
    given = os.environ if environment is None else environment  # noqa: TID251 - the one reader
    filed = _read_file(Path(given[CONFIG])) if given.get(CONFIG) else {}
    return Settings(
        identity=given.get(IDENTITY) or filed.get("identity"),
        dev=_flag(DEV, given.get(DEV, "")),
    )


def take_passphrase(environment: MutableMapping[str, str] | None = None) -> str | None:
    """Return ZEROTRUST_PASSPHRASE and remove it, so that no child process inherits it."""
    given = os.environ if environment is None else environment  # noqa: TID251 - the one reader
    return given.pop(PASSPHRASE, None)


def present(names: Iterable[str], environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return which of these variables are set to anything."""
    given = os.environ if environment is None else environment  # noqa: TID251 - the one reader
    return tuple(name for name in names if given.get(name))


def _read_file(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(
            f"{CONFIG}: {path} cannot be read: {exc.strerror}", Reason.FILE_ACCESS
        ) from exc
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is longer than {MAX_FILE_BYTES} bytes")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
    for key, value in table.items():
        if key != "identity":
            raise ConfigurationError(f"{path}: unknown key {key!r}; the one key is identity")
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{path}: {key} is not a string such as files:/run/identity")
    return table


def _flag(name: str, value: str) -> bool:
    if value not in {"", "0", "1"}:
        raise ConfigurationError(f"{name} is {value!r}; it is 1 or not set")
    return value == "1"
