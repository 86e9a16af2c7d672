"""Where a passphrase comes from: a file, the environment, or the terminal; never an argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from zerotrust import settings
from zerotrust.core.errors import ConfigurationError, Reason

_MAX_BYTES: Final = 4096


def read_passphrase(what: str, file: Path | None, *, variable: bool, new: bool = False) -> bytes:
    """Return the passphrase of `what`; raise ConfigurationError(PASSPHRASE).

    `variable`: ZEROTRUST_PASSPHRASE may hold it; it leaves the environment. `new`: asked twice.
    """
    if file is not None:
        return _read_file(file)
    given = settings.take_passphrase() if variable else None
    if given is None:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"no passphrase for the {what}: name a file (see --help)"
                + (f" or set {settings.PASSPHRASE}" if variable else ""),
                Reason.PASSPHRASE,
            )
        given = str(
            click.prompt(
                f"Passphrase of the {what}", hide_input=True, confirmation_prompt=new, err=True
            )
        )
    return _require(given.encode("utf-8", "surrogateescape"), what)  # the bytes as they were given


def _read_file(file: Path) -> bytes:
    try:
        with file.open("rb") as handle:
            about = os.fstat(handle.fileno())
            text = handle.read(_MAX_BYTES + 1)
    except OSError as exc:
        detail = f"{file} cannot be read: {exc.strerror}"
        raise ConfigurationError(detail, Reason.FILE_ACCESS) from exc
    if about.st_uid not in {0, os.geteuid()} or about.st_mode & 0o077:
        raise ConfigurationError(
            f"others can read {file}, or it is not yours: chmod 600 {file}", Reason.FILE_ACCESS
        )
    return _require(text.removesuffix(b"\n"), str(file))


def _require(passphrase: bytes, what: str) -> bytes:
    if not 0 < len(passphrase) <= _MAX_BYTES:
        raise ConfigurationError(
            f"the passphrase of {what} is empty or too long", Reason.PASSPHRASE
        )
    return passphrase
