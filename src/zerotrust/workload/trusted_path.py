"""Reading a file that decides who we are or whom we trust.

1. Whoever can write the file, or replace a folder or link on the way to it, decides in our place:
   all of them belong to root or to us and are writable by nobody else. A sticky folder may be
   shared: nobody can replace there what is ours.
2. What is judged is what is read: each step opens relative to the folder judged before it.
3. A secret is not readable by others either. Its group may read it only where root is the owner,
   which is how an orchestrator hands a key to a process without privileges.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

from zerotrust.core.errors import ConfigurationError, Reason

_MAX_LINKS: Final = 40  # as the kernel has it
_CHUNK: Final = 1 << 20


def read_trusted(path: str | os.PathLike[str], *, max_bytes: int, secret: bool = False) -> bytes:
    """Return the content of a regular file of at most `max_bytes`; raise ConfigurationError."""
    text = os.fspath(path)
    try:
        fd = _open_trusted(text, secret=secret)
        try:
            content = _read(fd, max_bytes + 1)
        finally:
            os.close(fd)
    except OSError as exc:
        problem = f"{text!a} cannot be read: {exc.strerror}"
        raise _refusal(problem) from exc
    if len(content) > max_bytes:
        raise _refusal(f"{text!a} is larger than {max_bytes} bytes")
    return content


def _open_trusted(path: str, *, secret: bool) -> int:
    """Walk down from the root, following links by hand; return the file, opened for reading."""
    names = _names(str(Path.cwd() / path))
    links = 0
    with contextlib.ExitStack() as opened:
        folders = [_opened(opened, "/", os.O_PATH)]
        while names:
            name = names.pop()
            if name == "..":
                folders = folders[:-1] or folders
                continue
            fd = _opened(opened, name, os.O_PATH, folders[-1])
            status = os.fstat(fd)
            _require_ours(status, name, path)
            if stat.S_ISDIR(status.st_mode):
                folders.append(fd)
            elif stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink("", dir_fd=fd)
                names += _names(target)
                folders = folders[:1] if target.startswith("/") else folders
            elif names:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            else:
                return _open_file(name, folders[-1], path, secret=secret)
    raise _refusal(f"{path!a} is a folder; name a file")


def _names(path: str) -> list[str]:
    """Return the steps of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _opened(opened: contextlib.ExitStack, name: str, flags: int, folder: int | None = None) -> int:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    opened.callback(os.close, fd)
    return fd


def _open_file(name: str, folder: int, path: str, *, secret: bool) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=folder)
    try:
        status = os.fstat(fd)
        _require_ours(status, name, path)
        _require_file(status, path, secret=secret)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_file(status: os.stat_result, path: str, *, secret: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(f"{path!a} is no regular file")
    readers = stat.S_IROTH if status.st_uid == 0 else stat.S_IROTH | stat.S_IRGRP
    if secret and status.st_mode & readers:
        raise _refusal(f"others can read the secret in {path!a}: chmod 600 it")


def _require_ours(status: os.stat_result, name: str, path: str) -> None:
    where = f"{name!a} on the way to {path!a}"
    if status.st_uid not in {0, os.geteuid()}:
        raise _refusal(f"{where} belongs to user {status.st_uid}; chown it to root or to us")
    link = stat.S_ISLNK(status.st_mode)  # the mode of a link means nothing
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (link or sticky):
        raise _refusal(f"others can write {where}: chmod go-w it")


def _read(fd: int, most: int) -> bytes:
    chunks = []
    while most > 0 and (chunk := os.read(fd, min(most, _CHUNK))):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


def _refusal(detail: str) -> ConfigurationError:
    return ConfigurationError(detail, Reason.FILE_ACCESS)
